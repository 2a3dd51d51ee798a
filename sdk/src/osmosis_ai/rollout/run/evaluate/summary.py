"""From runs to summaries.

One rule holds for every statistic of scores: a run that failed, whoever's failure it was, one that was not made, one
whose eval function failed and one it gave no reward for count nowhere. How many there are is told beside the numbers.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import pstdev

from osmosis_ai.rollout.core.reward_parts import reaches
from osmosis_ai.rollout.core.text import shortened
from osmosis_ai.rollout.run.errors import FailedPart, failed_part
from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalResult, EvalRowResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.statistics import (
    DEFAULT_SEED,
    Interval,
    PairedDifference,
    Spread,
    mean_interval,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    spread,
    standard_error,
)
from osmosis_ai.rollout.run.tally import Problem, Tally

EVERY_K_UP_TO = 5


def summarize(
    eval_name: str,
    rows: Iterable[EvalRowResult],
    n_runs: int,
    pass_threshold: float,
    bounds: Interval | None = None,
    *,
    planned_runs: int = 0,
) -> EvalEvalSummary:
    """What the function ``eval_name`` made of ``rows``.

    pass@k and pass^k come for the k of ``ks_up_to`` if ``n_runs`` is more than 1. A row with fewer than
    ``planned_runs`` is taken to have failed the rest in both. ``bounds``: what every score is known to lie in.
    """
    rows = list(rows)
    runs = [run for row in rows for run in row.runs]
    errors = [run.eval_errors[eval_name] for run in runs if eval_name in run.eval_errors]
    summary = EvalEvalSummary(
        errors=len(errors),
        first_error=errors[0] if errors else None,
        unscored=sum(eval_name in run.unscored for run in runs),
        failed=sum(not run.success for run in runs),
    )
    for run in runs:
        summary.components.add(run.components.get(eval_name))
    scores_of_rows = [
        (scores, max(0, planned_runs - len(row.runs))) for row in rows if (scores := scores_of(row.runs, eval_name))
    ]
    scores = [score for row_scores, _ in scores_of_rows for score in row_scores]
    if not scores:
        return summary
    summary.scored_runs, summary.scored_rows = len(scores), len(scores_of_rows)
    summary.mean, summary.std = math.fsum(scores) / len(scores), pstdev(scores)
    summary.min, summary.max = min(scores), max(scores)
    summary.mean_interval = mean_interval([row_scores for row_scores, _ in scores_of_rows], bounds)
    summary.standard_error = standard_error([row_scores for row_scores, _ in scores_of_rows])
    if n_runs > 1:
        passed = [
            (len(row_scores) + missing, sum(reaches(score, pass_threshold) for score in row_scores))
            for row_scores, missing in scores_of_rows
        ]
        _add_passes(summary, passed, n_runs)
    return summary


def _add_passes(summary: EvalEvalSummary, passed: Sequence[tuple[int, int]], n_runs: int) -> None:
    """``passed`` holds, by row, how many runs there are and how many of them passed."""
    summary.majority = sum(2 * c > n for n, c in passed) / len(passed)
    for k in ks_up_to(n_runs):
        enough = [(n, c) for n, c in passed if k <= n]
        if not enough:
            continue
        chances = [[pass_at_k(n, c, k)] for n, c in enough]
        summary.pass_rows[k] = len(enough)
        summary.pass_at_k[k] = math.fsum(chance for [chance] in chances) / len(chances)
        summary.pass_hat_k[k] = math.fsum(pass_hat_k(n, c, k) for n, c in enough) / len(enough)
        if (interval := mean_interval(chances)) is not None:
            summary.pass_at_k_intervals[k] = interval


def ks_up_to(n_runs: int) -> list[int]:
    """The k of pass@k and pass^k: 1 to 5, 10, 20, 50, 100, ..., as far as there are runs, and all of them."""
    ks = set(range(1, min(n_runs, EVERY_K_UP_TO) + 1))
    ks |= {digit * 10**power for power in range(1, len(str(n_runs))) for digit in (1, 2, 5)}
    return sorted({k for k in ks if k < n_runs} | {n_runs})


def scores_of(runs: Iterable[EvalRunResult], eval_name: str) -> list[float]:
    """The scores that count."""
    return [
        run.scores.get(eval_name, 0.0)
        for run in runs
        if run.success and eval_name not in run.eval_errors and eval_name not in run.unscored
    ]


def runs_with_tag(rows: Iterable[EvalRowResult], tag: str | None) -> list[EvalRowResult]:
    """The runs of one model, in rows of their own; rows without any are dropped."""
    tagged = (EvalRowResult(row.row_index, [run for run in row.runs if run.model_tag == tag]) for row in rows)
    return [row for row in tagged if row.runs]


def compare(
    eval_name: str,
    primary: Sequence[EvalRowResult],
    baseline: Sequence[EvalRowResult],
    seed: int = DEFAULT_SEED,
    bounds: Interval | None = None,
) -> PairedDifference | None:
    """Primary minus baseline, over the means of the rows that both have scores for; ``None`` if there is no such."""
    means, baseline_means = _row_means(eval_name, primary), _row_means(eval_name, baseline)
    shared = sorted(means.keys() & baseline_means.keys())
    if not shared:
        return None
    paired = paired_difference([means[row] for row in shared], [baseline_means[row] for row in shared], seed, bounds)
    every = {row.row_index for row in (*primary, *baseline)}
    return replace(paired, left_out=len(every) - len(shared))


def _row_means(eval_name: str, rows: Iterable[EvalRowResult]) -> dict[int, float]:
    scores_by_row = {row.row_index: scores_of(row.runs, eval_name) for row in rows}
    return {row: math.fsum(scores) / len(scores) for row, scores in scores_by_row.items() if scores}


@dataclass(frozen=True, slots=True)
class Performance:
    """What the runs of one model took, failed ones included."""

    runs: int
    failed_runs: int
    latency_ms: Spread
    """Of one run."""
    tokens: Spread
    """Of one run, prompts and replies."""
    failures: dict[str, int]
    """Failed runs by whose failure it was; every part is there."""
    cost_usd: float | None = None
    """Of all runs whose price is known; ``None`` where none is."""
    priced_runs: int = 0


def performance(rows: Iterable[EvalRowResult]) -> Performance:
    """What the runs of ``rows`` took."""
    runs = [run for row in rows for run in row.runs]
    failed = [run for run in runs if not run.success]
    costs = [run.cost_usd for run in runs if run.cost_usd is not None]
    return Performance(
        runs=len(runs),
        failed_runs=len(failed),
        latency_ms=spread([run.duration_ms for run in runs]),
        tokens=spread([run.tokens for run in runs]),
        failures={part.value: sum(failed_part(run.error_kind) is part for run in failed) for part in FailedPart},
        cost_usd=math.fsum(costs) if costs else None,
        priced_runs=len(costs),
    )


def tally_of(result: EvalResult) -> Tally:
    """What all commands count of their runs; rewards are the agent's own."""
    tally = Tally(result.total_runs)
    tally.duration_ms, tally.stop_reason = result.total_duration_ms, result.stop_reason
    for run in (run for row in result.rows for run in row.runs):
        tally.ended += 1
        tally.total_tokens += run.tokens
        tally.count_cost(run.cost_usd)
        if run.success:
            tally.count_reward(run.reward, run.reward_components)
        else:
            _count_failure(tally, run)
        tally.count_slips(vars(run), run.row_index or 0, run.rollout_id)
    tally.zero_reasons.update(zero_reasons(result.rows))
    return tally


def problems_of(runs: Iterable[EvalRunResult]) -> list[Problem]:
    """Failures that are alike, the most frequent first: of runs by whose they were, of eval functions by name."""
    tally = Tally(0)
    for run in runs:
        row, where = run.row_index or 0, run.where
        if not run.success:
            tally.count_problem(failed_part(run.error_kind), _told(run.error), row, where, run.hint)
        for eval_name, error in run.eval_errors.items():
            tally.count_problem(eval_name, _told(error), row)
    return tally.problems


def _told(error: str | None) -> str:
    return shortened(error or "no reason was given")


def count_run(tally: Tally, run: EvalRunResult) -> None:
    """Count ``run`` for a display: with its first score, as there is one mean."""
    tally.ended += 1
    tally.total_tokens += run.tokens
    if run.success:
        tally.count_reward(next((run.scores[name] for name in run.scores if name not in run.eval_errors), None))
    else:
        _count_failure(tally, run)


def _count_failure(tally: Tally, run: EvalRunResult) -> None:
    tally.count_problem(run.error_kind or run.outcome, run.error or "", run.row_index or 0, run.where, run.hint)


def zero_runs(rows: Iterable[EvalRowResult]) -> list[EvalRunResult]:
    """The runs that have scores, none of them above 0."""
    return [run for row in rows for run in row.runs if run.success and run.scores and max(run.scores.values()) <= 0]


def zero_reasons(rows: Iterable[EvalRowResult]) -> dict[str, int]:
    """What else than a wrong answer explains those, with their number; the most frequent first."""
    return dict(Counter(run.zero_reason for run in zero_runs(rows) if run.zero_reason).most_common())
