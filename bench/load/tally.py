"""What a run of the load has seen."""

from array import array
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts and times; arrays hold one number for each rollout, or for each turn."""

    rollout_seconds: "array[float]" = field(default_factory=lambda: array("d"))
    """From the init sent to the result received."""
    turn_seconds: "array[float]" = field(default_factory=lambda: array("d"))
    """Added latency: from a reply of the trainer sent to the rollout's next request received."""
    errors: Counter[str] = field(default_factory=Counter)
    started: int = 0
    repeats: int = 0
    """Inits that were sent a second time on purpose."""

    @property
    def completed(self) -> int:
        """Rollouts with a right result."""
        return len(self.rollout_seconds)

    @property
    def num_errors(self) -> int:
        return self.errors.total()


def quantile(values: "array[float]", share: float) -> float:
    """The smallest of ``values`` that ``share`` of them do not exceed; NaN if there are none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
