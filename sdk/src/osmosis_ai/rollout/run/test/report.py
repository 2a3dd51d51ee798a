"""What a batch came to: totals and the failures grouped. Its size does not grow with the number of rows."""

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from osmosis_ai.rollout.core.text import shortened
from osmosis_ai.rollout.run.results.results_file import Record

SOLVED_REWARD = 1.0
MAX_PROBLEMS = 200
MAX_ROWS_NAMED = 5
OTHER_PROBLEMS = "other errors"


class Verdict(Enum):
    """How a run is shown."""

    PASSED = "OK"
    """It ran, and its reward, where there is one, is above 0."""
    SCORED_ZERO = "ZERO"
    """It ran, and got a reward of 0 or less."""
    FAILED = "FAILED"
    """It did not run to its end."""


def verdict_of(record: Record) -> Verdict:
    """The verdict on one run."""
    if not record["success"]:
        return Verdict.FAILED
    reward = record["reward"]
    return Verdict.PASSED if reward is None or reward > 0 else Verdict.SCORED_ZERO


@dataclass(slots=True)
class Problem:
    """Runs that failed in the same way."""

    kind: str
    text: str
    count: int = 0
    rows: list[int] = field(default_factory=list)
    """The first few of them."""


class BatchReport:
    """Grows by one run at a time."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.counts = dict.fromkeys(Verdict, 0)
        self.solved = 0
        self.rewarded = 0
        self.resumed = 0
        """Runs whose results an earlier run had left."""
        self.total_tokens = 0
        self.cost_usd: float | None = None
        self.duration_ms = 0.0
        self.stop_reason: str | None = None
        self.interrupted = False
        self.rate_limit_waits = 0
        self._reward_sum = 0.0
        self._problems: dict[tuple[str, str], Problem] = {}

    def add(self, record: Record) -> None:
        """Count one run."""
        self.counts[verdict_of(record)] += 1
        self.total_tokens += record["token_usage"].get("total_tokens", 0)
        if record["cost_usd"] is not None:
            self.cost_usd = (self.cost_usd or 0.0) + record["cost_usd"]
        if (reward := record["reward"]) is not None:
            self.rewarded += 1
            self.solved += reward >= SOLVED_REWARD
            self._reward_sum += reward
        if not record["success"]:
            self._count_problem(record)

    def _count_problem(self, record: Record) -> None:
        kind = record["error_kind"] or "agent"
        text = shortened(record["error"] or "no reason was given")
        key = (kind, text)
        if key not in self._problems and len(self._problems) >= MAX_PROBLEMS:
            key = (kind, OTHER_PROBLEMS)
        problem = self._problems.setdefault(key, Problem(*key))
        problem.count += 1
        if record["row_index"] not in problem.rows and len(problem.rows) < MAX_ROWS_NAMED:
            problem.rows.append(record["row_index"])

    @property
    def ended(self) -> int:
        """Runs that came to an end."""
        return sum(self.counts.values())

    @property
    def mean_reward(self) -> float | None:
        """Over the runs that have a reward; a failure is no reward of 0."""
        return self._reward_sum / self.rewarded if self.rewarded else None

    @property
    def problems(self) -> list[Problem]:
        """Failures by kind, the most frequent first."""
        return sorted(self._problems.values(), key=lambda problem: -problem.count)

    def summary(self) -> dict[str, Any]:
        """The totals as JSON."""
        return {
            "total": self.ended,
            "passed": self.counts[Verdict.PASSED],
            "failed": self.counts[Verdict.FAILED],
            "scored_zero": self.counts[Verdict.SCORED_ZERO],
            "solved": self.solved,
            "mean_reward": self.mean_reward,
            "rewarded": self.rewarded,
            "total_duration_ms": self.duration_ms,
            "total_tokens": self.total_tokens,
            "cost_usd": self.cost_usd,
            "planned": self.planned,
            "resumed": self.resumed,
            "stopped_early": self.stop_reason is not None,
            "stop_reason": self.stop_reason,
            "interrupted": self.interrupted,
            "rate_limit_waits": self.rate_limit_waits,
            "errors": [asdict(problem) for problem in self.problems],
        }
