"""What a run over a dataset comes to, as far as all commands count the same: rewards, and failures grouped.

It grows by one run at a time, and its size does not grow with the number of rows.
"""

from dataclasses import dataclass, field

MAX_PROBLEMS = 1_000
MAX_ROWS_NAMED = 5
OTHER_PROBLEMS = "other problems"


@dataclass(slots=True)
class Problem:
    """Runs that failed in the same way."""

    kind: str
    text: str
    count: int = 0
    rows: list[int] = field(default_factory=list)
    """The first few of them."""

    @property
    def named_rows(self) -> str:
        """``3, 7, ...``."""
        return ", ".join(map(str, self.rows)) + (", ..." if self.count > len(self.rows) else "")


class Tally:
    """``planned`` runs, of which some have ended."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.ended = 0
        self.total_tokens = 0
        self.resumed = 0
        """Runs whose results an earlier run had left."""
        self.rewarded = 0
        """How many runs ``mean_reward`` is taken over."""
        self.stop_reason: str | None = None
        self.interrupted = False
        self._reward_sum = 0.0
        self._problems: dict[tuple[str, str], Problem] = {}

    def count_reward(self, reward: float) -> None:
        """Count the reward of one run."""
        self.rewarded += 1
        self._reward_sum += reward

    def count_problem(self, kind: str, text: str, row_index: int) -> None:
        """Count one failure; kinds and texts beyond ``MAX_PROBLEMS`` go together."""
        if (kind, text) not in self._problems and len(self._problems) >= MAX_PROBLEMS:
            text = OTHER_PROBLEMS
        problem = self._problems.setdefault((kind, text), Problem(kind, text))
        problem.count += 1
        if row_index not in problem.rows and len(problem.rows) < MAX_ROWS_NAMED:
            problem.rows.append(row_index)

    @property
    def mean_reward(self) -> float | None:
        """Over the runs that have a reward; a failure is no reward of 0."""
        return self._reward_sum / self.rewarded if self.rewarded else None

    @property
    def problems(self) -> list[Problem]:
        """Failures by kind, the most frequent first."""
        return sorted(self._problems.values(), key=lambda problem: -problem.count)
