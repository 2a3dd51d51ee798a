"""One run in the JSON of ``osmosis test``, ``eval`` and ``trainer``: the same names in each, for one reader.

Every field is always there: a list or an object is empty, anything else ``None``, where there is nothing to tell. What
only one command knows of a run stands beside them, under names of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from osmosis_ai.rollout.run.data.dataset import extra_columns
from osmosis_ai.rollout.trainer.vocabulary import Ending


@dataclass(kw_only=True)
class RunNotes:
    """What is told of a run in this process beside its end, whichever command made it."""

    error_kind: str | None = None
    """What failed, in a word or two, for counting; ``failed_part`` says whose failure it is."""
    where: list[str] = field(default_factory=list)
    """Where in the agent's own code it failed, the innermost frame first."""
    hint: str | None = None
    """What to do, where that is known."""
    cost_usd: float | None = None
    zero_reason: str | None = None
    """What else than a wrong answer would explain a reward of 0; see ``zero_reasons``."""
    rewritten: str | None = None
    """The first message that the agent changed or dropped, and how."""
    sampling_ignored: list[str] = field(default_factory=list)
    """The request's sampling settings that a chat call left out or replaced."""
    event_loop_blocked: list[dict[str, Any]] = field(default_factory=list)
    """``place`` and ``seconds`` of each time that the agent blocked the event loop, as far as that is watched."""

    def notes(self) -> dict[str, Any]:
        """These fields by name, for a ``RunEntry`` or another result of the run; what they hold is not copied."""
        return {note.name: getattr(self, note.name) for note in fields(RunNotes)}


class NotedRun(Protocol):
    """A result with ``RunNotes``, and what it took."""

    duration_ms: float
    token_usage: dict[str, int]

    def notes(self) -> dict[str, Any]:
        """Its ``RunNotes`` by name."""


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


def shared_part(run: NotedRun, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the entries of ``test`` and ``eval`` have alike, of a ``run`` of ``row``."""
    return {
        **run.notes(),
        "turns": run.token_usage.get("num_llm_calls", 0),
        "duration_ms": run.duration_ms,
        "token_usage": run.token_usage,
        "ground_truth": row.get("ground_truth"),
        "metadata": extra_columns(row),
    }


def status_of(success: bool) -> str:
    """The ``status`` of a run that no trainer was told of."""
    return str((Ending.COMPLETED if success else Ending.ERROR).value)


def answered_calls(messages: list[Any]) -> int:
    """Tool calls in a conversation, where nobody has counted them."""
    return sum(isinstance(message, dict) and message.get("role") == "tool" for message in messages)
