"""What a run over a dataset comes to, as far as all commands count the same: rewards, and failures grouped.

It grows by one run at a time, and its size does not grow with the number of rows.
"""

import bisect
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from osmosis_ai.rollout.core.alike import alike
from osmosis_ai.rollout.core.loop_blocks import LOOP_BLOCKS, known_blocks
from osmosis_ai.rollout.core.result_summary import SAMPLING_IGNORED
from osmosis_ai.rollout.core.text import printable
from osmosis_ai.rollout.run.moments import ComponentMoments, Moments

MAX_PROBLEMS = 1_000
MAX_ROWS_NAMED = 5
MAX_PROBLEMS_SHOWN = 10
MAX_REWRITES_SHOWN = 5
MAX_PLACES_COUNTED = 100
OTHER_PROBLEMS = "other problems"


@dataclass(slots=True)
class Problem:
    """Runs that failed in the same way."""

    kind: str
    text: str
    count: int = 0
    rows: list[int] = field(default_factory=list)
    """The first few in the order of the dataset, whichever ended first; what is told else is the first one's."""
    where: list[str] = field(default_factory=list)
    """Where in the agent's code it arose, the innermost frame first."""
    hint: str | None = None
    """What to do about it, where that is known."""

    @property
    def named_rows(self) -> str:
        """``3, 7, ...``."""
        return _named(self.rows, self.count)

    @property
    def sentence(self) -> str:
        """What failed, and how; not twice where the text says it too."""
        kind = printable(self.kind)
        return self.text if self.text.startswith(f"{kind}:") else f"{kind}: {self.text}"

    @property
    def told(self) -> list[str]:
        """Lines below the failure itself: where it arose, and what to do."""
        return [*(f"at {place}" for place in self.where), *([f"hint: {self.hint}"] if self.hint else [])]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A run whose agent changed or dropped what was said before."""

    row_index: int
    rollout_id: str
    text: str


@dataclass(slots=True)
class Blocks:
    """Times that the event loop was blocked at one place of the agent's code."""

    place: str
    count: int = 0
    longest_seconds: float = 0.0
    rows: list[int] = field(default_factory=list)
    """The first few in the order of the dataset."""


@dataclass(slots=True)
class Ignored:
    """Runs whose chat calls ignored the same sampling settings of their request."""

    names: tuple[str, ...]
    count: int = 0
    rows: list[int] = field(default_factory=list)
    """The first few in the order of the dataset."""


class Tally:
    """``planned`` runs, of which some have ended."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.ended = 0
        self.total_tokens = 0
        self.resumed = 0
        """Runs whose results an earlier run had left."""
        self.stop_reason: str | None = None
        self.interrupted = False
        self.reward = Moments()
        """Over the runs that have a reward; a failure is no reward of 0."""
        self.components = ComponentMoments()
        """What the rewards are made of."""
        self.failures: Counter[str] = Counter()
        """Failed runs by kind."""
        self.zeros = 0
        """Runs with a reward of 0 or less."""
        self.zero_reasons: Counter[str] = Counter()
        """What else than a wrong answer explains the zeros, where something does."""
        self.started_seconds = time.monotonic()
        """When the first run could begin, on the steady clock: a server's start is no part of the rate."""
        self.duration_ms = 0.0
        """Wall time, of the runs that were made now."""
        self.cost_usd: float | None = None
        self._problems: dict[tuple[str, str], Problem] = {}
        self.rewritten = 0
        """Runs whose agent changed or dropped what was said before."""
        self.rewrites: list[Rewrite] = []
        """The first few in the order of the dataset."""
        self._blocks: dict[str, Blocks] = {}
        self._ignored: dict[tuple[str, ...], Ignored] = {}

    def count_reward(
        self, reward: float | None, components: Mapping[str, float] | None = None, zero_reason: str | None = None
    ) -> None:
        """Count the reward of one run, where it has one, its parts, and what else would explain a 0."""
        if reward is not None:
            self.reward.add(reward)
            self.zeros += reward <= 0
        if zero_reason:
            self.zero_reasons[zero_reason] += 1
        self.components.add(components)

    def count_cost(self, cost_usd: float | None) -> None:
        """Count what one run cost, where that is known."""
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd

    @property
    def failed(self) -> int:
        """Runs that did not come to their end."""
        return self.failures.total()

    @property
    def rewarded(self) -> int:
        """How many runs ``mean_reward`` is taken over."""
        return self.reward.count

    def count_problem(
        self, kind: str, text: str, row_index: int, where: Sequence[str] = (), hint: str | None = None
    ) -> None:
        """Count one failure with those ``alike``; what is beyond ``MAX_PROBLEMS`` goes together."""
        self.failures[kind] += 1
        key = (kind, alike(text))
        if key not in self._problems and len(self._problems) >= MAX_PROBLEMS:
            key, text, where, hint = (kind, OTHER_PROBLEMS), OTHER_PROBLEMS, (), None
        problem = self._problems.setdefault(key, Problem(kind, text, where=list(where), hint=hint))
        problem.count += 1
        if problem.rows and row_index < problem.rows[0]:
            problem.text, problem.where, problem.hint = text, list(where), hint
        _note_row(problem.rows, row_index)

    def count_slips(self, record: Mapping[str, Any], row_index: int, rollout_id: str) -> None:
        """Count what the agent of a run did that it should not, and yet ended: see ``warning_lines``."""
        if isinstance(text := record.get("rewritten"), str):
            self.rewritten += 1
            bisect.insort(self.rewrites, Rewrite(row_index, rollout_id, text), key=lambda rewrite: rewrite.row_index)
            del self.rewrites[MAX_REWRITES_SHOWN:]
        names = record.get(SAMPLING_IGNORED)
        if isinstance(names, list) and names and len(self._ignored) < MAX_PLACES_COUNTED:
            key = tuple(map(str, names))
            ignored = self._ignored.setdefault(key, Ignored(key))
            ignored.count += 1
            _note_row(ignored.rows, row_index)
        for block in known_blocks(record):
            place = block["place"]
            if place in self._blocks or len(self._blocks) < MAX_PLACES_COUNTED:
                blocks = self._blocks.setdefault(place, Blocks(place))
                blocks.count += 1
                blocks.longest_seconds = max(blocks.longest_seconds, block["seconds"])
                _note_row(blocks.rows, row_index)

    @property
    def blocks(self) -> list[Blocks]:
        """Places that blocked the event loop, the longest time first."""
        return sorted(self._blocks.values(), key=lambda blocks: -blocks.longest_seconds)

    @property
    def ignored(self) -> list[Ignored]:
        """Sampling settings that chat calls ignored, the most frequent first, then by their first row."""
        return sorted(self._ignored.values(), key=lambda ignored: (-ignored.count, ignored.rows))

    @property
    def mean_reward(self) -> float | None:
        """Over the runs that have a reward."""
        return self.reward.mean if self.rewarded else None

    def totals(self) -> dict[str, Any]:
        """What the ``summary`` of every command holds; null where no run has a reward, or a price."""
        return {
            "planned": self.planned,
            "ended": self.ended,
            "resumed": self.resumed,
            "completed": self.ended - self.failed,
            "failed": self.failed,
            "mean_reward": self.mean_reward,
            "reward_std": self.reward.std if self.rewarded else None,
            "rewarded": self.rewarded,
            "reward_components": self.components.as_json(),
            "scored_zero": self.zeros,
            "zero_reasons": dict(self.zero_reasons),
            "total_tokens": self.total_tokens,
            "total_duration_ms": self.duration_ms,
            "cost_usd": self.cost_usd,
            "stopped_early": self.stop_reason is not None,
            "stop_reason": self.stop_reason,
            "interrupted": self.interrupted,
            "rewrote_messages": self.rewritten,
            SAMPLING_IGNORED: [asdict(ignored) for ignored in self.ignored],
            LOOP_BLOCKS: [asdict(blocks) for blocks in self.blocks],
            "errors": [asdict(problem) for problem in self.problems],
        }

    @property
    def problems(self) -> list[Problem]:
        """Failures by kind, the most frequent first, then by their first row."""
        return sorted(self._problems.values(), key=lambda problem: (-problem.count, problem.rows))


def _note_row(rows: list[int], row_index: int) -> None:
    if row_index not in rows:
        bisect.insort(rows, row_index)
        del rows[MAX_ROWS_NAMED:]


def _named(rows: Sequence[int], count: int) -> str:
    return ", ".join(map(str, rows)) + (", ..." if count > len(rows) >= MAX_ROWS_NAMED else "")


def _in_rows(rows: Sequence[int], count: int) -> str:
    return f"({'rows' if len(rows) > 1 else 'row'} {_named(rows, count)})"


def warning_lines(tally: Tally) -> Iterator[str]:
    """What agents did that they should not, and yet ended, for a terminal."""
    if tally.rewritten:
        yield f"Warning: {tally.rewritten} x an agent changed or dropped what was said before:"
    for rewrite in tally.rewrites:
        yield f"Row {rewrite.row_index}, rollout {rewrite.rollout_id}: {rewrite.text}"
    for ignored in tally.ignored[:MAX_PROBLEMS_SHOWN]:
        yield (
            f"Warning: {ignored.count} x a chat call ignored the request's {', '.join(ignored.names)}: pass"
            f" **ctx.request.completion_params. {_in_rows(ignored.rows, ignored.count)}"
        )
    for blocks in tally.blocks[:MAX_PROBLEMS_SHOWN]:
        yield (
            f"Warning: {blocks.count} x the event loop was blocked at {blocks.place}, for up to"
            f" {blocks.longest_seconds:.1f} s, and every rollout with it; use asyncio.to_thread."
            f" {_in_rows(blocks.rows, blocks.count)}"
        )


def problem_lines(problems: Sequence[Problem]) -> Iterator[str]:
    """Failures by kind, each with where it arose and what to do, for a terminal."""
    if problems:
        yield "  Errors by kind:"
    for problem in problems[:MAX_PROBLEMS_SHOWN]:
        yield f"    {problem.count} x {printable(problem.sentence)} {_in_rows(problem.rows, problem.count)}"
        yield from (f"      {printable(line)}" for line in problem.told)
    if len(problems) > MAX_PROBLEMS_SHOWN:
        yield f"    and {len(problems) - MAX_PROBLEMS_SHOWN} more kinds"
