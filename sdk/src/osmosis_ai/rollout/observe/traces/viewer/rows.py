"""Rollouts as rows of the page's table: lists in the order of ``COLUMNS``, as 50,000 objects would be mostly keys."""

from operator import attrgetter
from typing import Any

from osmosis_ai.rollout.observe.traces.summary import Summary

_FIELDS = {
    "id": "rollout_id",
    "agent": "agent",
    "started": "started_at",
    "last": "last_at",
    "status": "status",
    "outcome": "outcome",
    "reward": "reward",
    "components": "components",
    "turns": "turns",
    "tools": "tool_calls",
    "toolErrors": "tool_errors",
    "promptTokens": "prompt_tokens",
    "responseTokens": "response_tokens",
    "finish": "finish_reason",
    "duration": "duration_ms",
    "queue": "queue_ms",
    "llm": "llm_ms",
    "tool": "tool_ms",
    "error": "error",
    "kind": "kind",
    "where": "where",
    "delivery": "delivery",
    "prompt": "prompt",
    "answer": "answer",
    "run": "run",
    "metadata": "metadata",
    "digest": "digest",
    "question": "question",
    "weights": "weights",
}
"""The columns between the key and the warning, and what fills them: fields of ``Summary``."""
COLUMNS = ("key", *_FIELDS, "warning")

_values = attrgetter(*_FIELDS.values())
_MILLISECONDS = range(1 + list(_FIELDS).index("duration"), 2 + list(_FIELDS).index("tool"))


def row_of(key: int, rollout: Summary) -> list[Any]:
    """The row of a rollout; times in unix seconds, durations in milliseconds, what is not known ``None``."""
    row = [key, *_values(rollout), "\n".join(rollout.warnings) or None]
    for place in _MILLISECONDS:
        row[place] = None if row[place] is None else round(row[place], 1)
    return row
