import math
import statistics
from fractions import Fraction
from itertools import combinations, product
from operator import mul
from random import Random

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.run.evaluate import pass_at_k as exported_pass_at_k
from osmosis_ai.rollout.run.evaluate.statistics import (
    Interval,
    Spread,
    mean_interval,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    spread,
    student_t,
)

Z = statistics.NormalDist().inv_cdf(0.975)


class TestPassAtK:
    @given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
    def test_it_is_the_share_of_all_choices_of_k_runs_that_hold_a_pass(self, case: tuple[int, int, int]) -> None:
        n, c, k = case
        runs = [True] * c + [False] * (n - c)
        choices = list(combinations(runs, k))
        assert pass_at_k(n, c, k) == pytest.approx(float(Fraction(sum(map(any, choices)), len(choices))))

    @pytest.mark.parametrize(
        ("n", "c", "k", "expected"),
        [(5, 0, 1, 0.0), (0, 0, 1, 0.0), (2, 1, 5, 1.0), (5, 5, 1, 1.0), (5, 3, 3, 1.0), (3, 1, 3, 1.0)],
    )
    def test_its_edges_are_exact(self, n: int, c: int, k: int, expected: float) -> None:
        assert pass_at_k(n, c, k) == expected

    def test_many_runs_do_not_overflow(self) -> None:
        assert 0.0 < pass_at_k(20_000, 1, 10) == pytest.approx(10 / 20_000)

    def test_it_is_offered_by_the_package(self) -> None:
        assert exported_pass_at_k is pass_at_k


def wilson(passed: int, total: int) -> tuple[float, float]:
    """The textbook formula (Wilson 1927)."""
    share = passed / total
    middle = (share + Z * Z / (2 * total)) / (1 + Z * Z / total)
    margin = Z / (1 + Z * Z / total) * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    return max(0.0, middle - margin), min(1.0, middle + margin)


class TestAgainstSciPy:
    """Numbers that SciPy 1.17 gives, by the function named."""

    @pytest.mark.parametrize(
        ("probability", "degrees", "expected"),
        [
            (0.975, 1, 12.706204736),
            (0.975, 2, 4.30265273),
            (0.975, 9, 2.262157163),
            (0.975, 100, 1.983971519),
            (0.975, 101, 1.983731003),
            (0.975, 1000, 1.962339081),
            (0.995, 3, 5.84090931),
            (0.995, 40, 2.704459267),
            (0.995, 200, 2.600634436),
        ],
    )
    def test_stats_t_ppf(self, probability: float, degrees: int, expected: float) -> None:
        assert student_t(probability, degrees) == pytest.approx(expected, rel=1e-7)

    @pytest.mark.parametrize(
        ("passed", "rows", "low", "high"),
        [
            (0, 5, 0.0, 0.434482465),
            (3, 7, 0.158219855, 0.749541635),
            (10, 10, 0.7224672, 1.0),
            (45, 60, 0.627679299, 0.842234775),
            (1, 200, 0.000883169, 0.027773704),
        ],
    )
    def test_stats_binomtest_proportion_ci(self, passed: int, rows: int, low: float, high: float) -> None:
        interval = mean_interval([[1.0]] * passed + [[0.0]] * (rows - passed))
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-8)

    def test_stats_t_interval(self) -> None:
        interval = mean_interval([[value] for value in (3.5, -1.0, 2.25, 7.0, 0.5, 4.0)])
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx((-0.243252988, 5.659919655), abs=1e-8)

    def test_stats_permutation_test_and_ttest_rel(self) -> None:
        paired = paired_difference([1, 0.5, 0, 1, 0.75, 0.25, 1], [0.5, 0.5, 0.25, 0, 0.5, 0, 0.5])
        assert (paired.p_value, paired.difference) == pytest.approx((0.125, 0.321428571))
        assert paired.interval is not None
        assert (paired.interval.low, paired.interval.high) == pytest.approx((-0.049334563, 0.692191706), abs=1e-8)

    @pytest.mark.parametrize(
        ("n", "c", "k", "any_passes", "all_pass"),
        [(8, 5, 3, 0.982142857, 0.178571429), (10, 7, 4, 1.0, 0.166666667), (20, 15, 10, 1.0, 0.01625387)],
    )
    def test_stats_hypergeom_pmf(self, n: int, c: int, k: int, any_passes: float, all_pass: float) -> None:
        assert (pass_at_k(n, c, k), pass_hat_k(n, c, k)) == pytest.approx((any_passes, all_pass), abs=1e-8)


class TestTheIntervalOfAMean:
    @given(st.lists(st.booleans(), min_size=1, max_size=60))
    def test_with_one_pass_or_fail_a_row_it_is_wilsons(self, passes: list[bool]) -> None:
        interval = mean_interval([[float(passed)] for passed in passes])
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx(wilson(sum(passes), len(passes)), abs=1e-12)

    @given(st.lists(st.floats(-100, 100).map(lambda value: round(value, 3)), min_size=3, max_size=40))
    def test_for_other_scores_it_is_students_t_over_rows(self, values: list[float]) -> None:
        values = [*values, -1.0, 2.0]
        interval = mean_interval([[value] for value in values])
        margin = student_t(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        assert interval is not None
        assert interval.high - interval.low == pytest.approx(2 * margin, rel=1e-6)
        assert (interval.high + interval.low) / 2 == pytest.approx(statistics.fmean(values), abs=1e-9)

    def test_runs_of_a_row_that_agree_are_no_more_evidence_than_one(self) -> None:
        once = mean_interval([[1.0], [0.0], [1.0], [1.0]])
        often = mean_interval([[1.0] * 50, [0.0] * 50, [1.0] * 50, [1.0] * 50])
        assert once is not None
        assert often is not None
        assert (often.low, often.high) == pytest.approx((once.low, once.high))

    def test_runs_of_a_row_that_differ_narrow_it(self) -> None:
        once = mean_interval([[1.0], [0.0]] * 5)
        often = mean_interval([[1.0, 0.0]] * 9 + [[1.0, 1.0]])
        assert once is not None
        assert often is not None
        assert often.high - often.low < once.high - once.low

    def test_it_does_not_collapse_when_every_row_passes(self) -> None:
        interval = mean_interval([[1.0]] * 10)
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx(wilson(10, 10))

    @given(
        bounds=st.sampled_from([Interval(-1, 1), Interval(0, 10), Interval(-3, 0.5)]),
        shares=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=1, max_size=8),
    )
    def test_it_stays_in_stated_bounds_and_is_that_of_the_same_scores_from_0_to_1(
        self, bounds: Interval, shares: list[list[float]]
    ) -> None:
        rows = [[min(bounds.low + share * bounds.width, bounds.high) for share in row] for row in shares]
        interval, unit = mean_interval(rows, bounds), mean_interval(shares)
        assert interval is not None
        assert unit is not None
        assert bounds.low - 1e-12 <= interval.low <= interval.high <= bounds.high + 1e-12
        same = [bounds.low + end * bounds.width for end in (unit.low, unit.high)]
        assert [interval.low, interval.high] == pytest.approx(same, abs=1e-6)

    def test_bounds_that_nobody_states_are_not_claimed(self) -> None:
        interval = mean_interval([[-1.0], [1.0], [1.0]])
        assert interval is not None
        assert interval.high > 1.0
        stated = mean_interval([[-1.0], [1.0], [1.0]], Interval(-1.0, 1.0))
        assert stated is not None
        assert -1.0 < stated.low < stated.high <= 1.0

    def test_what_cannot_be_estimated_is_none(self) -> None:
        assert mean_interval([]) is None
        assert mean_interval([[5.0]]) is None
        assert mean_interval([[5.0], [5.0]]) is None

    @pytest.mark.parametrize("k", [1, 3])
    def test_it_covers_the_true_pass_at_k_as_often_as_it_says(self, k: int) -> None:
        random = Random(k)  # noqa: S311 - test data
        runs, experiments, covered = 5, 800, 0
        # A row's chance of passing is drawn from Beta(1, 1): the true pass@k is 1 - E[(1 - p)^k] = k / (k + 1).
        for _ in range(experiments):
            rows = []
            for _ in range(40):
                chance = random.random()
                rows.append([pass_at_k(runs, sum(random.random() < chance for _ in range(runs)), k)])
            interval = mean_interval(rows)
            assert interval is not None
            covered += interval.low <= k / (k + 1) <= interval.high
        assert 0.92 <= covered / experiments <= 0.98


@pytest.mark.parametrize(
    ("degrees", "expected"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
    [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (7, 2.365),
        (30, 2.042),
        (100, 1.984),
        (101, 1.984),
        (1e6, 1.960),
    ],
)
def test_students_t_agrees_with_the_tables(degrees: float, expected: float) -> None:
    assert student_t(0.975, int(degrees)) == pytest.approx(expected, abs=6e-4)


class TestAPairedComparison:
    @given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=9))
    def test_few_rows_are_tested_exactly(self, differences: list[float]) -> None:
        paired = paired_difference(differences, [0.0] * len(differences))
        exact = [Fraction(difference) for difference in differences]
        sums = [sum(map(mul, signs, exact)) for signs in product((1, -1), repeat=len(exact))]
        extreme = sum(abs(total) >= abs(sum(exact)) for total in sums)
        assert paired.p_value == pytest.approx(extreme / len(sums))
        assert paired.difference == pytest.approx(statistics.fmean(differences))
        assert (paired.higher, paired.lower, paired.equal) == (
            sum(difference > 0 for difference in differences),
            sum(difference < 0 for difference in differences),
            differences.count(0.0),
        )

    def test_many_rows_are_sampled_close_to_the_binomial_sign_test(self) -> None:
        first = [1.0] * 30 + [0.0] * 14 + [1.0] * 20
        second = [0.0] * 30 + [1.0] * 14 + [1.0] * 20
        paired = paired_difference(first, second, seed=7)
        two_sided: float = 2 * sum(math.comb(44, heads) for heads in range(30, 45)) / 2**44
        assert paired.permutations == 10_000
        assert paired.p_value == pytest.approx(two_sided, abs=0.006)
        assert paired.interval is not None
        assert 0 < paired.interval.low < 0.25 < paired.interval.high

    def test_the_same_seed_gives_the_same_p_value(self) -> None:
        random = Random(1)  # noqa: S311 - test data
        first, second = ([random.random() for _ in range(60)] for _ in range(2))
        assert paired_difference(first, second, seed=3) == paired_difference(first, second, seed=3)
        assert paired_difference(first, second, seed=3).p_value != paired_difference(first, second, seed=4).p_value

    def test_its_interval_stays_within_what_bounded_scores_can_differ_by(self) -> None:
        intervals = [
            paired_difference(first, second, bounds=bounds).interval
            for first, second, bounds in (
                ([1.0, 1.0], [0.0, 1.0], None),
                ([3.0, 1.0], [0.0, 1.0], Interval(0.0, 4.0)),
                ([3.0, 1.0], [0.0, 1.0], None),
            )
        ]
        assert intervals[:2] == [Interval(-1.0, 1.0), Interval(-4.0, 4.0)]
        assert intervals[2] is not None
        assert intervals[2].high > 4.0

    def test_equal_models_do_not_differ(self) -> None:
        paired = paired_difference([0.5, 1.0], [0.5, 1.0])
        assert (paired.difference, paired.p_value, paired.interval, paired.equal) == (0.0, 1.0, None, 2)

    def test_rounding_is_no_difference(self) -> None:
        assert paired_difference([0.1 + 0.2], [0.3]).equal == 1


class TestASpread:
    @given(st.lists(st.integers(0, 1000).map(float), min_size=2, max_size=80))
    def test_percentiles_are_those_of_the_standard_library(self, values: list[float]) -> None:
        found = spread(values)
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        assert (found.p50, found.p90, found.p95, found.p99) == pytest.approx((cuts[49], cuts[89], cuts[94], cuts[98]))
        assert [found.min, found.max, found.mean] == pytest.approx([min(values), max(values), statistics.fmean(values)])

    def test_of_nothing_is_zero_and_of_one_is_that_one(self) -> None:
        assert spread([]) == Spread()
        assert spread([4.0]) == Spread(4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0)
