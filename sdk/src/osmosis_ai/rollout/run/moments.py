"""Mean and spread of numbers as they come, and of the parts of rewards by name; nothing else of them is kept."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.core.reward_parts import MAX_COMPONENTS
from osmosis_ai.rollout.core.text import printable
from osmosis_ai.rollout.run.formats import format_number

_LARGEST = sys.float_info.max


@dataclass(slots=True)
class Moments:
    """Of at least one number, once it has any."""

    count: int = 0
    mean: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    _squares: float = 0.0
    """Sum of the squared distances from the mean (Welford's, which subtracts no large sums)."""
    _root: float = 0.0
    """The root of the same, for numbers whose squares are none."""

    def add(self, value: float) -> None:
        """Take in one number."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count if math.isfinite(distance) else value / self.count - self.mean / self.count
        rest = value - self.mean
        self._squares += distance * rest
        self._root = math.hypot(self._root, math.sqrt(abs(distance)) * math.sqrt(abs(rest)))
        self.min, self.max = min(self.min, value), max(self.max, value)

    @property
    def std(self) -> float:
        """Population standard deviation."""
        if math.isinf(self._squares):
            return min(_LARGEST, self._root / math.sqrt(self.count))
        return math.sqrt(max(0.0, self._squares) / self.count) if self.count else 0.0

    def as_json(self) -> dict[str, Any]:
        """Mean, spread and how many numbers they are of."""
        return {"mean": self.mean, "std": self.std, "min": self.min, "max": self.max, "count": self.count}

    def __str__(self) -> str:
        mean, std, low, high = map(format_number, (self.mean, self.std, self.min, self.max))
        return f"{mean} ± {std} sd ({low} to {high})"


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
