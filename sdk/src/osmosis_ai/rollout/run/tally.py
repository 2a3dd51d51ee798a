"""What a run over a dataset comes to, as far as all commands count the same: rewards, and failures grouped.

It grows by one run at a time, and its size does not grow with the number of rows.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from osmosis_ai.rollout.core.alike import alike
from osmosis_ai.rollout.core.text import printable
from osmosis_ai.rollout.run.moments import ComponentMoments, Moments

MAX_PROBLEMS = 1_000
MAX_ROWS_NAMED = 5
MAX_PROBLEMS_SHOWN = 10
OTHER_PROBLEMS = "other problems"


@dataclass(slots=True)
class Problem:
    """Runs that failed in the same way."""

    kind: str
    text: str
    count: int = 0
    rows: list[int] = field(default_factory=list)
    """The first few of them."""
    where: list[str] = field(default_factory=list)
    """Where in the agent's code the first of them arose, the innermost frame first."""
    hint: str | None = None
    """What to do about it, where that is known."""

    @property
    def named_rows(self) -> str:
        """``3, 7, ...``."""
        return ", ".join(map(str, self.rows)) + (", ..." if self.count > len(self.rows) else "")

    @property
    def told(self) -> list[str]:
        """Lines below the failure itself: where it arose, and what to do."""
        return [*(f"at {place}" for place in self.where), *([f"hint: {self.hint}"] if self.hint else [])]


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
        self._problems: dict[tuple[str, str], Problem] = {}

    def count_reward(self, reward: float | None, components: Mapping[str, float] | None = None) -> None:
        """Count the reward of one run, where it has one, and its parts."""
        if reward is not None:
            self.reward.add(reward)
        self.components.add(components)

    @property
    def rewarded(self) -> int:
        """How many runs ``mean_reward`` is taken over."""
        return self.reward.count

    def count_problem(
        self, kind: str, text: str, row_index: int, where: Sequence[str] = (), hint: str | None = None
    ) -> None:
        """Count one failure with those ``alike``; what is beyond ``MAX_PROBLEMS`` goes together."""
        key = (kind, alike(text))
        if key not in self._problems and len(self._problems) >= MAX_PROBLEMS:
            key, text, where, hint = (kind, OTHER_PROBLEMS), OTHER_PROBLEMS, (), None
        problem = self._problems.setdefault(key, Problem(kind, text, where=list(where), hint=hint))
        problem.count += 1
        if row_index not in problem.rows and len(problem.rows) < MAX_ROWS_NAMED:
            bisect.insort(problem.rows, row_index)

    @property
    def mean_reward(self) -> float | None:
        """Over the runs that have a reward."""
        return self.reward.mean if self.rewarded else None

    def rewards_as_json(self) -> dict[str, Any]:
        """Mean, spread and parts of the rewards; null where no run has one."""
        return {
            "mean_reward": self.mean_reward,
            "reward_std": self.reward.std if self.rewarded else None,
            "rewarded": self.rewarded,
            "reward_components": self.components.as_json(),
        }

    @property
    def problems(self) -> list[Problem]:
        """Failures by kind, the most frequent first."""
        return sorted(self._problems.values(), key=lambda problem: -problem.count)


def problem_lines(problems: Sequence[Problem]) -> Iterator[str]:
    """Failures by kind, each with where it arose and what to do, for a terminal."""
    if problems:
        yield "  Errors by kind:"
    for problem in problems[:MAX_PROBLEMS_SHOWN]:
        yield f"    {problem.count} x {printable(problem.kind)}: {problem.text} (row {problem.named_rows})"
        yield from (f"      {printable(line)}" for line in problem.told)
    if len(problems) > MAX_PROBLEMS_SHOWN:
        yield f"    and {len(problems) - MAX_PROBLEMS_SHOWN} more kinds"
