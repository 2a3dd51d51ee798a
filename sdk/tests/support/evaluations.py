"""Evaluations as they end, made by hand."""

from osmosis_ai.rollout.run.evaluate import EvalModelSummary, EvalResult, EvalRowResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.summary import compare, runs_with_tag, summarize

HOSTILE = "</td><script>alert(1)</script> [/x] `|` \x1b]0;title\x07 \x1b[31m"


def evaluation(*scores: list[float], baseline: list[list[float]] | None = None, error: str | None = None) -> EvalResult:
    """The scores of ``fn``, a list a row; ``error`` is what one more run failed with, of the agent and of ``crash``."""
    tagged: dict[str | None, list[list[float]]] = {"primary" if baseline else None: list(scores)}
    if baseline:
        tagged["baseline"] = baseline
    rows = [EvalRowResult(number) for number in range(len(scores))]
    for tag, scores_of_rows in tagged.items():
        for row, row_scores in zip(rows, scores_of_rows, strict=True):
            row.runs += [
                EvalRunResult(
                    number, True, {"fn": score}, 10.0 * (number + 1), 100, model_tag=tag, row_index=row.row_index
                )
                for number, score in enumerate(row_scores)
            ]
    names = ["fn"]
    if error is not None:
        names.append("crash")
        failed = EvalRunResult(8, False, duration_ms=5.0, error=error, model_tag=next(iter(tagged)), row_index=0)
        crashed = EvalRunResult(9, True, {"fn": 1.0, "crash": 0.0}, eval_errors={"crash": error}, row_index=0)
        crashed.model_tag = failed.model_tag
        for row in rows:
            for run in row.runs:
                run.unscored = ["crash"]
        rows[0].runs += [failed, crashed]
    n_runs = max(map(len, scores))
    summaries = {
        tag: {name: summarize(name, runs_with_tag(rows, tag), n_runs, 1.0) for name in names} for tag in tagged
    }
    runs = [run for row in rows for run in row.runs]
    result = EvalResult(
        rows, next(iter(summaries.values())), len(rows), len(runs), 100 * len(runs), 1234.0, n_runs, 1.0
    )
    if baseline:
        result.model_summaries = [
            EvalModelSummary("same/model", tag or "", summaries[tag], len(runs) // 2, 0, 0.0) for tag in tagged
        ]
        paired = compare("fn", runs_with_tag(rows, "primary"), runs_with_tag(rows, "baseline"))
        result.comparisons = {"fn": paired} if paired else {}
    return result
