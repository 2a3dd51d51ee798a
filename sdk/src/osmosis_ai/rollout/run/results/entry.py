"""One run in the JSON of ``osmosis test``, ``eval`` and ``trainer``: the same names in each, for one reader.

Every field is always there: a list or an object is empty, anything else ``None``, where there is nothing to tell. What
only one command knows of a run stands beside them, under names of its own.
"""

from dataclasses import dataclass, field
from typing import Any

from osmosis_ai.rollout.trainer.vocabulary import Ending


@dataclass(kw_only=True)
class RunEntry:
    """One run; the page ``docs/json.md`` says what each field means."""

    row_index: int
    repeat: int
    rollout_id: str
    success: bool
    status: str
    error: str | None
    error_kind: str | None
    where: list[str]
    hint: str | None
    reward: float | None
    reward_components: dict[str, float]
    zero_reason: str | None
    finish_reason: str | None
    turns: int
    tool_calls: int
    duration_ms: float
    token_usage: dict[str, int]
    cost_usd: float | None = None
    rewritten: str | None
    sampling_ignored: list[str]
    event_loop_blocked: list[dict[str, Any]]
    ground_truth: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The fields by name; what they hold is not copied."""
        return dict(vars(self))


def status_of(success: bool) -> str:
    """The ``status`` of a run that no trainer was told of."""
    return str((Ending.COMPLETED if success else Ending.ERROR).value)


def answered_calls(messages: list[Any]) -> int:
    """Tool calls in a conversation, where nobody has counted them."""
    return sum(isinstance(message, dict) and message.get("role") == "tool" for message in messages)
