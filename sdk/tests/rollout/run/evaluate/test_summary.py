import math
from random import Random
from statistics import fmean, pstdev

import pytest

from osmosis_ai.rollout.run.evaluate import EvalEvalSummary, EvalRowResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.summary import compare, performance, summarize


def row(index: int, *scores: float | None, tag: str | None = None) -> EvalRowResult:
    """A row of runs; ``None`` stands for a run whose agent failed."""
    return EvalRowResult(
        index,
        [
            EvalRunResult(run_index, score is not None, {} if score is None else {"fn": score}, model_tag=tag)
            for run_index, score in enumerate(scores)
        ],
    )


def errored(run_index: int, error: str = "ValueError: no") -> EvalRunResult:
    return EvalRunResult(run_index, True, {"fn": 0.0}, eval_errors={"fn": error})


def test_a_failed_run_leaves_the_mean_and_is_told() -> None:
    summary = summarize("fn", [row(0, 1.0), row(1, None)], 1, 1.0)
    assert (summary.mean, summary.std, summary.min, summary.max) == (1.0, 0.0, 1.0, 1.0)
    assert (summary.scored_runs, summary.scored_rows, summary.failed, summary.pass_at_k) == (1, 1, 1, {})
    assert summarize("fn", [row(0, None)], 1, 1.0).is_empty


def test_a_failed_run_is_no_run_of_pass_at_k() -> None:
    assert summarize("fn", [row(0, 1.0, 0.0, None)], 2, 1.0).pass_at_k == {1: 0.5, 2: 1.0}


def test_a_score_that_misses_the_threshold_by_rounding_passes() -> None:
    assert summarize("fn", [row(0, 0.7 + 0.2 + 0.1, 0.0)], 2, 1.0).pass_at_k == {1: 0.5, 2: 1.0}


def test_failures_are_told_apart() -> None:
    kinds = ["provider's server", "connection", "time limit", "policy", "KeyError", None]
    runs = [EvalRunResult(number, False, error_kind=kind) for number, kind in enumerate(kinds)]
    assert performance([EvalRowResult(0, runs)]).failures == {"provider": 2, "time limit": 1, "policy": 1, "agent": 2}


def test_a_run_whose_eval_function_failed_counts_nowhere_and_is_told() -> None:
    rows = [
        EvalRowResult(0, [EvalRunResult(0, True, {"fn": 1.0}), errored(1)]),
        EvalRowResult(1, [errored(0), errored(1)]),
    ]
    summary = summarize("fn", rows, 2, 1.0)
    assert (summary.mean, summary.min, summary.scored_runs, summary.scored_rows) == (1.0, 1.0, 1, 1)
    assert (summary.errors, summary.first_error) == (3, "ValueError: no")
    assert summary.pass_at_k == {1: 1.0}
    assert not summary.is_empty


def test_a_run_without_reward_counts_nowhere_either() -> None:
    rows = [row(0, 0.5), EvalRowResult(1, [EvalRunResult(0, True, unscored=["fn"])])]
    summary = summarize("fn", rows, 1, 1.0)
    assert (summary.mean, summary.scored_runs, summary.unscored, summary.errors) == (0.5, 1, 1, 0)


def test_a_function_that_never_scored_is_empty_and_one_that_was_never_asked_is_zero() -> None:
    assert summarize("fn", [EvalRowResult(0, [errored(0)])], 1, 1.0).is_empty
    assert summarize("fn", [], 3, 1.0) == EvalEvalSummary()


def test_it_agrees_with_an_independent_computation_on_random_data() -> None:
    random = Random(5)  # noqa: S311 - test data
    for _ in range(20):
        n, threshold = 10, random.random()
        scores = [[random.random() for _ in range(n)] for _ in range(random.randint(1, 30))]
        summary = summarize("fn", [row(index, *values) for index, values in enumerate(scores)], n, threshold)
        flat = [score for values in scores for score in values]
        assert [summary.mean, summary.std] == pytest.approx([fmean(flat), pstdev(flat)])
        assert set(summary.pass_at_k) == set(summary.pass_at_k_intervals) == {1, 2, 3, 4, 5, 10}
        for k, share in summary.pass_at_k.items():
            shares = []
            for values in scores:
                # The estimator in its product form (Chen et al. 2021, figure 3).
                failed = sum(score < threshold for score in values)
                missed = math.prod(1 - k / i for i in range(failed + 1, n + 1)) if failed >= k else 0.0
                shares.append(1 - missed if failed < n else 0.0)
            assert share == pytest.approx(fmean(shares), abs=1e-9)
            interval = summary.pass_at_k_intervals[k]
            assert interval.low <= share <= interval.high


def test_all_of_k_runs_and_most_of_a_row() -> None:
    summary = summarize("fn", [row(0, 1.0, 1.0, 0.0), row(1, 1.0, 1.0, 1.0), row(2, 1.0, 0.0, 0.0)], 3, 1.0)
    assert summary.pass_at_k == {1: pytest.approx(2 / 3), 2: pytest.approx(8 / 9), 3: 1.0}
    assert summary.pass_hat_k == {1: pytest.approx(2 / 3), 2: pytest.approx(4 / 9), 3: pytest.approx(1 / 3)}
    assert summary.majority == pytest.approx(2 / 3)
    # Row means 2/3, 1, 1/3: their deviation is 1/3, over the root of three rows.
    assert summary.standard_error == pytest.approx(1 / 3 / math.sqrt(3))


@pytest.mark.parametrize(
    ("n_runs", "ks"),
    [(1, []), (2, [1, 2]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4, 5, 9]), (64, [1, 2, 3, 4, 5, 10, 20, 50, 64])],
)
def test_k_goes_up_to_the_number_of_runs(n_runs: int, ks: list[int]) -> None:
    assert list(summarize("fn", [row(0, *[1.0] * n_runs)], n_runs, 1.0).pass_at_k) == ks


def test_runs_that_were_not_made_count_nowhere() -> None:
    cut_short = [row(0, 1.0, 0.0, 0.0), row(1, 1.0)]
    summary = summarize("fn", cut_short, 3, 1.0)
    assert summary.pass_at_k == {1: pytest.approx((1 / 3 + 1) / 2), 2: pytest.approx(2 / 3), 3: 1.0}
    assert summary.mean == 0.5


def test_they_count_as_failed_where_that_is_asked_for() -> None:
    assert summarize("fn", [row(0, 1.0)], 5, 1.0, planned_runs=5).pass_at_k[1] == pytest.approx(0.2)


def test_a_comparison_is_over_the_rows_that_both_models_have() -> None:
    primary = [row(0, 1.0, 0.0), row(1, 1.0), row(2, 1.0)]
    baseline = [row(0, 0.0, 0.0), row(1, 1.0), EvalRowResult(2, [errored(0)])]
    paired = compare("fn", primary, baseline)
    assert paired is not None
    assert (paired.rows, paired.difference, paired.higher, paired.equal, paired.left_out) == (2, 0.25, 1, 1, 1)
    assert compare("fn", primary, []) is None


def test_a_failed_run_makes_neither_model_worse_in_a_comparison() -> None:
    paired = compare("fn", [row(0, 1.0, None), row(1, None), row(2, 0.0)], [row(0, 1.0), row(1, 1.0), row(2, None)])
    assert paired is not None
    assert (paired.rows, paired.difference, paired.equal, paired.left_out) == (1, 0.0, 1, 2)


def test_latency_and_tokens_are_those_of_single_runs() -> None:
    runs = [EvalRunResult(number, True, duration_ms=10.0 * number, tokens=number) for number in range(10)]
    runs.append(EvalRunResult(10, False, duration_ms=1000.0, tokens=0, error="gone"))
    took = performance([EvalRowResult(0, runs)])
    assert (took.runs, took.failed_runs) == (11, 1)
    assert [took.latency_ms.p50, took.latency_ms.max, took.tokens.mean] == pytest.approx([50.0, 1000.0, 45 / 11])
