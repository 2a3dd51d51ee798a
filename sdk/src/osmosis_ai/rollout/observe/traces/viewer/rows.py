"""Rollouts as rows of the page's table: lists in the order of ``COLUMNS``, as 50,000 objects would be mostly keys."""

from typing import Any

from osmosis_ai.rollout.observe.traces.summary import Summary

COLUMNS = (
    "key",
    "id",
    "agent",
    "started",
    "last",
    "status",
    "outcome",
    "reward",
    "turns",
    "tools",
    "toolErrors",
    "promptTokens",
    "responseTokens",
    "finish",
    "duration",
    "queue",
    "llm",
    "tool",
    "error",
    "delivery",
    "prompt",
    "warning",
)


def row_of(key: int, rollout: Summary) -> list[Any]:
    """The row of a rollout; times in unix seconds, durations in milliseconds, what is not known ``None``."""
    return [
        key,
        rollout.rollout_id,
        rollout.agent,
        rollout.started_at,
        rollout.last_at,
        rollout.status,
        rollout.outcome,
        rollout.reward,
        rollout.turns,
        rollout.tool_calls,
        rollout.tool_errors,
        rollout.prompt_tokens,
        rollout.response_tokens,
        rollout.finish_reason,
        _ms(rollout.duration_ms),
        _ms(rollout.queue_ms),
        _ms(rollout.llm_ms),
        _ms(rollout.tool_ms),
        rollout.error,
        rollout.delivery,
        rollout.prompt,
        rollout.warnings[0] if rollout.warnings else None,
    ]


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
