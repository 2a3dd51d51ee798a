"""The numbers behind a report: pass@k, confidence intervals, percentiles, paired comparisons.

Nothing here knows of runs or models. The unit of sampling is the dataset's row: runs of one row are not independent of
each other, so every interval and every test is taken over rows, however many runs each has.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from random import Random
from statistics import NormalDist, quantiles

CONFIDENCE = 0.95
_UPPER = (1 + CONFIDENCE) / 2
DEFAULT_SEED = 0
PERMUTATIONS = 10_000
MIN_PERMUTATIONS = 1_000
MAX_SUMMANDS = 10_000_000
MAX_ENUMERATED_ROWS = 12
MAX_EXACT_DEGREES = 100
PERCENTILES = (50, 90, 95, 99)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that at least one of ``k`` runs passes, when ``c`` of ``n`` did.

    Unbiased: ``1 - C(n-c, k) / C(n, k)`` (Chen et al. 2021, arXiv 2107.03374, equation 1). With ``n <= k`` runs it is
    1.0 if any passed.
    """
    if c == 0:
        return 0.0
    if n <= k or c >= n or n - c < k:
        return 1.0
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def pass_hat_k(n: int, c: int, k: int) -> float:
    """The chance that all of ``k`` runs pass, when ``c`` of ``n`` did: ``C(c, k) / C(n, k)`` for ``k`` up to ``n``.

    Unbiased (Yao et al. 2024, arXiv 2406.12045, section 4).
    """
    return float(Fraction(math.comb(c, k), math.comb(n, k)))


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """From end to end."""
        return self.high - self.low

    def holds(self, value: float) -> bool:
        """Whether ``value`` lies in it."""
        return self.low <= value <= self.high


UNIT = Interval(0.0, 1.0)
"""What scores are taken to lie in, unless one does not or other bounds are stated."""


def mean_interval(rows: Sequence[Sequence[float]], bounds: Interval | None = None) -> Interval | None:
    """The interval of the mean over all values; each of ``rows`` holds the values of one row, at least one.

    The variance is that of a mean over clusters. Values known to be within ``bounds``, by default 0 and 1 where all of
    them are, get Wilson's interval at the effective sample size that this variance implies (Korn and Graubard
    1998, with Student's t for the few rows), at least the number of rows; for one pass or fail a row this is the Wilson
    interval itself. It does not collapse when every row passes, and does not leave the bounds. Other values get
    Student's t interval over rows: ``None`` for one row, or when no row differs.
    """
    if not rows:
        return None
    size = sum(map(len, rows))
    estimate = math.fsum(map(math.fsum, rows)) / size
    variance = _clustered_variance(rows, estimate, size)
    if bounds := _bounds_of((value for row in rows for value in row), bounds):
        low, width = bounds.low, bounds.width
        unit = _wilson((estimate - low) / width, variance / width**2, len(rows))
        return Interval(low + unit.low * width, low + unit.high * width)
    return _student(estimate, variance, len(rows))


def _bounds_of(values: Iterable[float], bounds: Interval | None) -> Interval | None:
    """The bounds that ``values`` keep: the stated ones, else 0 and 1; ``None`` if one is beyond."""
    bounds = bounds or UNIT
    return bounds if all(map(bounds.holds, values)) else None


def standard_error(rows: Sequence[Sequence[float]]) -> float | None:
    """The standard error of the mean over all values, clustered by row; ``None`` for fewer than two rows.

    Runs of one row are not independent: rows are what was sampled (Miller 2024, arXiv 2411.00640, section 2.2).
    """
    if len(rows) < 2:
        return None
    size = sum(map(len, rows))
    return math.sqrt(_clustered_variance(rows, math.fsum(map(math.fsum, rows)) / size, size))


def _student(estimate: float, variance: float, rows: int) -> Interval | None:
    if variance == 0.0:
        return None
    margin = student_t(_UPPER, rows - 1) * math.sqrt(variance)
    return Interval(estimate - margin, estimate + margin)


def _clustered_variance(rows: Sequence[Sequence[float]], estimate: float, size: int) -> float:
    if len(rows) < 2:
        return 0.0
    residuals = math.fsum((math.fsum(row) - estimate * len(row)) ** 2 for row in rows)
    variance = len(rows) / (len(rows) - 1) * residuals / size**2
    return variance if variance > 1e-24 else 0.0


def _wilson(estimate: float, variance: float, rows: int) -> Interval:
    z = NormalDist().inv_cdf(_UPPER)
    effective = float(rows)
    if variance > 0.0:
        shrinkage = (z / student_t(_UPPER, rows - 1)) ** 2
        effective = max(effective, estimate * (1 - estimate) / variance * shrinkage)
    centre = (estimate + z**2 / (2 * effective)) / (1 + z**2 / effective)
    spread = estimate * (1 - estimate) / effective + z**2 / (4 * effective**2)
    margin = z * math.sqrt(max(spread, 0.0)) / (1 + z**2 / effective)
    return Interval(min(max(0.0, centre - margin), estimate), max(min(1.0, centre + margin), estimate))


def student_t(probability: float, degrees: int) -> float:
    """The quantile of Student's t for ``probability`` of at least 0.5 and ``degrees`` of freedom, at least 1."""
    if degrees > MAX_EXACT_DEGREES:
        return _student_t_series(NormalDist().inv_cdf(probability), degrees)
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        if _student_t_distribution(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _student_t_distribution(angle: float, degrees: int) -> float:
    """P(T < tan(angle) * sqrt(degrees)). Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    cosine, odd = math.cos(angle), degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for position in range(1, degrees // 2 + 1):
        total += term
        term *= cosine**2 * (2 * position / (2 * position + 1) if odd else (2 * position - 1) / (2 * position))
    area = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return (1 + area) / 2


def _student_t_series(z: float, degrees: int) -> float:
    """Abramowitz and Stegun, 26.7.5."""
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Two sets of values for the same rows, first minus second."""

    rows: int
    difference: float
    """Mean over rows."""
    interval: Interval | None
    """Student's t over the rows' differences, within what bounded values can differ by; ``None`` for one row, or when
    every row differs by the same."""
    p_value: float
    """Two-sided, of a sign-flip permutation test: is the difference more than chance?"""
    permutations: int
    """How many sign patterns were tried; all there are, where that is few."""
    higher: int
    """Rows whose first value is above the second."""
    lower: int
    equal: int
    left_out: int = 0
    """Rows for which one of the two has no value."""


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    seed: int = DEFAULT_SEED,
    bounds: Interval | None = None,
) -> PairedDifference:
    """Compare ``first`` with ``second``, row by row; both are as long, and not empty; ``bounds`` as for the mean."""
    differences = [round(one - other, 12) for one, other in zip(first, second, strict=True)]  # without rounding noise
    p_value, permutations = _sign_flip_test(differences, seed)
    rows, difference = len(differences), math.fsum(differences) / len(differences)
    variance = _clustered_variance([[value] for value in differences], difference, rows)
    interval, known = _student(difference, variance, rows), _bounds_of((*first, *second), bounds)
    if interval and known:
        interval = Interval(max(interval.low, -known.width), min(interval.high, known.width))
    return PairedDifference(
        rows=rows,
        difference=difference,
        interval=interval,
        p_value=p_value,
        permutations=permutations,
        higher=sum(difference > 0 for difference in differences),
        lower=sum(difference < 0 for difference in differences),
        equal=sum(difference == 0 for difference in differences),
    )


def _sign_flip_test(differences: Sequence[float], seed: int) -> tuple[float, int]:
    sizes = Counter(abs(difference) for difference in differences if difference)
    observed = abs(math.fsum(differences)) - 1e-9
    rows = sizes.total()
    if rows <= MAX_ENUMERATED_ROWS:
        patterns = list(product((1, -1), repeat=rows))
        values = list(sizes.elements())
        extreme = sum(
            abs(math.fsum(sign * value for sign, value in zip(signs, values, strict=True))) >= observed
            for signs in patterns
        )
        return extreme / len(patterns), len(patterns)
    random = Random(seed)  # noqa: S311 - a statistic, no secret
    permutations = min(PERMUTATIONS, max(MIN_PERMUTATIONS, MAX_SUMMANDS // len(sizes)))
    extreme = sum(abs(_sum_with_random_signs(sizes, random)) >= observed for _ in range(permutations))
    return (extreme + 1) / (permutations + 1), permutations


def _sum_with_random_signs(sizes: "Counter[float]", random: Random) -> float:
    """Rows that differ by the same are drawn together: how many of them are positive is a count of random bits."""
    return sum(value * (2 * random.getrandbits(count).bit_count() - count) for value, count in sizes.items())


@dataclass(frozen=True, slots=True)
class Spread:
    """How a quantity is distributed over runs; all zero without runs."""

    mean: float = 0.0
    min: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


def spread(values: Sequence[float]) -> Spread:
    """Mean and percentiles of ``values``; percentiles interpolate between the two nearest."""
    if not values:
        return Spread()
    # Two points at the least, as quantiles() wants; a second copy of the only value changes none.
    percentiles = quantiles([*values, *values] if len(values) == 1 else values, n=100, method="inclusive")
    p50, p90, p95, p99 = (percentiles[percent - 1] for percent in PERCENTILES)
    return Spread(math.fsum(values) / len(values), min(values), p50, p90, p95, p99, max(values))
