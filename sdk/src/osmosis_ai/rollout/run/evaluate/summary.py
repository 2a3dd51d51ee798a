"""From runs to summaries.

One rule holds for every statistic: a run whose agent failed counts as 0; a run that was not made, one whose eval
function failed and one it gave no reward for count nowhere.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import pstdev

from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalRowResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.statistics import (
    DEFAULT_SEED,
    PairedDifference,
    Spread,
    mean_interval,
    paired_difference,
    pass_at_k,
    spread,
)

PASS_AT = (1, 3, 5, 10)


def summarize(
    eval_name: str, rows: Iterable[EvalRowResult], n_runs: int, pass_threshold: float, *, planned_runs: int = 0
) -> EvalEvalSummary:
    """What the function ``eval_name`` made of ``rows``.

    pass@k comes for k = 1, 3, 5, 10 up to ``n_runs``, if that is more than 1. A row with fewer than ``planned_runs``
    is taken to have failed the rest in pass@k.
    """
    rows = list(rows)
    runs = [run for row in rows for run in row.runs]
    errors = [run.eval_errors[eval_name] for run in runs if eval_name in run.eval_errors]
    summary = EvalEvalSummary(
        errors=len(errors),
        first_error=errors[0] if errors else None,
        unscored=sum(eval_name in run.unscored for run in runs),
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
    summary.mean_interval = mean_interval([row_scores for row_scores, _ in scores_of_rows])
    for k in PASS_AT if n_runs > 1 else ():
        chances = [
            [pass_at_k(len(row_scores) + missing, sum(score >= pass_threshold for score in row_scores), k)]
            for row_scores, missing in scores_of_rows
            if k <= min(n_runs, len(row_scores) + missing)
        ]
        if chances:
            summary.pass_at_k[k] = math.fsum(chance for [chance] in chances) / len(chances)
            interval = mean_interval(chances)
            if interval is not None:
                summary.pass_at_k_intervals[k] = interval
    return summary


def scores_of(runs: Iterable[EvalRunResult], eval_name: str) -> list[float]:
    """The scores that count."""
    return [
        run.scores.get(eval_name, 0.0)
        for run in runs
        if eval_name not in run.eval_errors and eval_name not in run.unscored
    ]


def runs_with_tag(rows: Iterable[EvalRowResult], tag: str | None) -> list[EvalRowResult]:
    """The runs of one model, in rows of their own; rows without any are dropped."""
    tagged = (EvalRowResult(row.row_index, [run for run in row.runs if run.model_tag == tag]) for row in rows)
    return [row for row in tagged if row.runs]


def compare(
    eval_name: str, primary: Sequence[EvalRowResult], baseline: Sequence[EvalRowResult], seed: int = DEFAULT_SEED
) -> PairedDifference | None:
    """Primary minus baseline, over the means of the rows that both have scores for; ``None`` if there is no such."""
    means, baseline_means = _row_means(eval_name, primary), _row_means(eval_name, baseline)
    shared = sorted(means.keys() & baseline_means.keys())
    if not shared:
        return None
    return paired_difference([means[row] for row in shared], [baseline_means[row] for row in shared], seed)


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
    first_error: str | None


def performance(rows: Iterable[EvalRowResult]) -> Performance:
    """What the runs of ``rows`` took."""
    runs = [run for row in rows for run in row.runs]
    failed = [run for run in runs if not run.success]
    return Performance(
        runs=len(runs),
        failed_runs=len(failed),
        latency_ms=spread([run.duration_ms for run in runs]),
        tokens=spread([run.tokens for run in runs]),
        first_error=next((run.error for run in failed if run.error), None),
    )
