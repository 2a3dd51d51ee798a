"""What a run came to: one small line a rollout, totals, and the failures grouped. Holds no conversations."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from osmosis_ai.rollout.core.base import MAX_IGNORED_NAMED
from osmosis_ai.rollout.core.loop_blocks import known_blocks
from osmosis_ai.rollout.core.result_summary import SAMPLING_IGNORED
from osmosis_ai.rollout.core.reward_parts import readable_components
from osmosis_ai.rollout.core.slips import MAX_HINT_CHARACTERS
from osmosis_ai.rollout.core.text import shortened
from osmosis_ai.rollout.core.where import MAX_PLACES
from osmosis_ai.rollout.run.results.entry import RunEntry
from osmosis_ai.rollout.run.tally import Tally
from osmosis_ai.rollout.trainer.vocabulary import Ending, RolloutOutcome

_NEVER_NULL = ("where", "reward_components", "sampling_ignored", "event_loop_blocked")
"""Of a line: empty in the file, where there is nothing to tell."""


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One rollout of the table. ``duration_ms`` runs from the first init attempt to the end."""

    row_index: int
    repeat: int
    rollout_id: str
    status: str
    reward: float | None
    turns: int
    tool_calls: int
    duration_ms: float
    finish_reason: str | None
    error: str | None
    error_kind: str | None = None
    where: list[str] | None = None
    hint: str | None = None
    rewritten: str | None = None
    """The first message that the agent changed or dropped, and how."""
    reward_components: dict[str, float] | None = None
    """What the reward is made of, by name."""
    sampling_ignored: list[str] | None = None
    """The request's sampling settings that a chat call left out or replaced."""
    event_loop_blocked: list[dict[str, Any]] | None = None
    """``place`` and ``seconds`` of each time that the agent blocked the server's event loop."""
    zero_reason: str | None = None
    """What else than a wrong answer would explain a reward of 0; see ``zero_reasons``."""


class RolloutReport(Tally):
    """Grows by one rollout at a time."""

    def __init__(self, planned: int) -> None:
        super().__init__(planned)
        self.lines: list[ReportLine] = []
        self.counts: Counter[Ending] = Counter()
        self.contradictions = 0
        self.late_results = 0

    def add(
        self,
        row_index: int,
        repeat: int,
        outcome: RolloutOutcome,
        zero_reason: str | None = None,
        error_kind: str | None = None,
    ) -> ReportLine:
        """Count one rollout; ``error_kind`` is for a failure that is known better than the server knows it."""
        line = ReportLine(
            row_index=row_index,
            repeat=repeat,
            rollout_id=outcome.request.rollout_id,
            status=outcome.outcome.value,
            reward=outcome.reward,
            turns=outcome.turns,
            tool_calls=outcome.tool_calls,
            duration_ms=round(outcome.latency_seconds * 1000, 3),
            finish_reason=None if outcome.finish_reason is None else shortened(outcome.finish_reason, limit=40),
            error=None if outcome.problem is None else shortened(outcome.problem),
            error_kind=None if outcome.problem is None else error_kind or _kind(outcome),
            **_told(outcome),
            rewritten=shortened(outcome.rewrites[0]) if outcome.rewrites else None,
            reward_components=outcome.reward_components or None,
            sampling_ignored=_ignored(outcome) or None,
            event_loop_blocked=(known_blocks(outcome.result.extra_fields) if outcome.result else None) or None,
            zero_reason=zero_reason,
        )
        self._count(line, _token_usage(outcome))
        return line

    def take_earlier(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Count what an earlier run left."""
        for record in records:
            values: dict[str, Any] = {field.name: record.get(field.name) for field in fields(ReportLine)}
            values["reward_components"] = readable_components(values["reward_components"]) or None
            self._count(ReportLine(**values), record.get("token_usage") or {})
            self.resumed += 1

    def _count(self, line: ReportLine, token_usage: Mapping[str, int]) -> None:
        self.ended += 1
        self.total_tokens += token_usage.get("total_tokens", 0)
        self.lines.append(line)
        self.counts[Ending(line.status)] += 1
        self.count_slips(asdict(line), line.row_index, line.rollout_id)
        self.count_reward(line.reward, line.reward_components, line.zero_reason)
        if line.error is not None:
            text = line.error.replace(line.rollout_id, "<rollout id>")
            self.count_problem(
                line.error_kind or line.status.lower(), text, line.row_index, line.where or (), line.hint
            )

    def flat_groups(self) -> tuple[int, list[int]]:
        """How many rows have several rewards, and the rows whose rewards are all the same: they teach nothing."""
        rewards: dict[int, list[float]] = {}
        for line in self.lines:
            if line.reward is not None:
                rewards.setdefault(line.row_index, []).append(line.reward)
        groups = {row: values for row, values in rewards.items() if len(values) > 1}
        return len(groups), sorted(row for row, values in groups.items() if min(values) == max(values))

    @property
    def completed(self) -> int:
        """Rollouts with a terminal COMPLETED callback."""
        return self.counts[Ending.COMPLETED]

    @property
    def failed(self) -> int:
        """Rollouts that ended in any other way."""
        return self.ended - self.completed

    @property
    def rollouts_per_second(self) -> float:
        """Rollouts that ended now over the time of the run, start of the server not included."""
        return (self.ended - self.resumed) / self.duration_ms * 1000 if self.duration_ms else 0.0

    @property
    def is_success(self) -> bool:
        """Whether every planned rollout reached a terminal COMPLETED callback that nothing contradicted."""
        return self.completed == self.planned and not self.contradictions

    def summary(self) -> dict[str, Any]:
        """The totals as JSON; ``mean_reward`` is null where no rollout has a reward."""
        groups, flat = self.flat_groups()
        return {
            **{outcome.value.lower(): self.counts[outcome] for outcome in Ending},
            "groups": groups,
            "groups_without_signal": len(flat),
            "rollouts_per_second": round(self.rollouts_per_second, 3),
            "contradicting_results": self.contradictions,
            "late_results": self.late_results,
            **self.totals(),
        }


def _told(outcome: RolloutOutcome) -> dict[str, Any]:
    """Where the agent failed and what to do, as the result says; it comes from the wire."""
    extra = outcome.result.extra_fields if outcome.result and outcome.problem is not None else {}
    where, hint = extra.get("where"), extra.get("hint")
    places = (
        [shortened(place) for place in where[:MAX_PLACES] if isinstance(place, str)] if isinstance(where, list) else []
    )
    return {
        "where": places or None,
        "hint": shortened(hint, limit=MAX_HINT_CHARACTERS) if isinstance(hint, str) else None,
    }


def _ignored(outcome: RolloutOutcome) -> list[str]:
    given = outcome.result.extra_fields.get(SAMPLING_IGNORED) if outcome.result else None
    names = given[:MAX_IGNORED_NAMED] if isinstance(given, list) else []
    return [shortened(name, limit=40) for name in names if isinstance(name, str)]


def record_of(line: ReportLine, outcome: RolloutOutcome) -> dict[str, Any]:
    """One rollout as the results file has it."""
    result, metadata = outcome.result, dict(outcome.request.metadata)
    metadata.pop("row_index", None)
    return RunEntry(
        **{name: value for name, value in asdict(line).items() if name not in _NEVER_NULL},
        success=outcome.outcome is Ending.COMPLETED,
        where=line.where or [],
        reward_components=line.reward_components or {},
        sampling_ignored=line.sampling_ignored or [],
        event_loop_blocked=line.event_loop_blocked or [],
        token_usage=_token_usage(outcome),
        ground_truth=metadata.pop("ground_truth", None),
        metadata=metadata,
        messages=result.final_messages if result else [],
    ).as_json() | {
        "metrics": result.metrics.model_dump() if result and result.metrics else None,
        "extra_fields": result.extra_fields if result else {},
    }


def _kind(outcome: RolloutOutcome) -> str:
    """What the server says that an ERROR was, else how the rollout ended."""
    said = outcome.result.extra_fields.get("outcome") if outcome.result else None
    return shortened(said, limit=40) if isinstance(said, str) else outcome.outcome.value.lower()


def _token_usage(outcome: RolloutOutcome) -> dict[str, int]:
    """As ``metrics`` of the result has it; empty where there are none."""
    metrics = outcome.result.metrics if outcome.result else None
    if metrics is None:
        return {}
    return {
        "prompt_tokens": metrics.prompt_tokens,
        "completion_tokens": metrics.response_tokens,
        "total_tokens": metrics.prompt_tokens + metrics.response_tokens,
        "num_llm_calls": metrics.num_llm_calls,
    }
