"""Mean and spread of numbers as they come, and of the parts of rewards by name; nothing else of them is kept."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.core.reward_parts import MAX_COMPONENTS
from osmosis_ai.rollout.core.text import printable


@dataclass(slots=True)
class Moments:
    """Of at least one number, once it has any."""

    count: int = 0
    mean: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    _squares: float = 0.0
    """Sum of the squared distances from the mean (Welford's, which subtracts no large sums)."""

    def add(self, value: float) -> None:
        """Take in one number."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self._squares += distance * (value - self.mean)
        self.min, self.max = min(self.min, value), max(self.max, value)

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(max(0.0, self._squares) / self.count) if self.count else 0.0

    def as_json(self) -> dict[str, Any]:
        """Mean, spread and how many numbers they are of."""
        return {"mean": self.mean, "std": self.std, "min": self.min, "max": self.max, "count": self.count}

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f} ({self.min:.2f} to {self.max:.2f})"


class ComponentMoments(dict[str, Moments]):
    """Of each part of a reward, over the runs that have it; the first ``MAX_COMPONENTS`` names."""

    def add(self, components: Mapping[str, float] | None) -> None:
        """Take in the parts of one reward."""
        for name, value in (components or {}).items():
            if name in self or len(self) < MAX_COMPONENTS:
                self.setdefault(name, Moments()).add(value)

    def as_json(self) -> dict[str, Any]:
        """By name."""
        return {name: moments.as_json() for name, moments in self.items()}

    def lines(self) -> Iterator[str]:
        """One for each part, for a terminal."""
        for name, moments in self.items():
            yield f"{printable(name)}: {moments} over {moments.count:,}"
