"""An evaluation as JSON: its runs, as they stream and as they are read back, and what they come to."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.summary import performance, runs_with_tag, tally_of
from osmosis_ai.rollout.run.results.entry import RunEntry, shared_part, status_of
from osmosis_ai.rollout.run.tally import Tally

_READ_BACK = [field.name for field in fields(EvalRunResult) if field.name != "final_messages"]
_ALWAYS_TOLD = ("run_index", "success", "scores", "duration_ms", "tokens", "answer")


def record_of(run: EvalRunResult, row: Mapping[str, Any]) -> dict[str, Any]:
    """One run of ``row``, with its conversation."""
    entry = RunEntry(
        row_index=run.row_index or 0,
        repeat=run.run_index,
        rollout_id=run.rollout_id,
        success=run.success,
        status=status_of(run.success),
        error=run.error,
        reward=run.reward if run.success else None,
        reward_components=run.reward_components,
        finish_reason=run.finish_reason,
        tool_calls=run.tool_calls,
        messages=run.final_messages or [],
        **shared_part(run, row),
    ).as_json()
    own = {name: value for name, value in sample_of(run).items() if name not in entry}
    return {**entry, **own}


def sample_of(run: EvalRunResult) -> dict[str, Any]:
    """What is known of one run but its conversation; what does not apply to it is left out."""
    told = {name: vars(run)[name] for name in (*_ALWAYS_TOLD, *_READ_BACK)}
    known = {name: value for name, value in told.items() if name in _ALWAYS_TOLD or value not in (None, [], {})}
    return {**known, "outcome": run.outcome}


def samples(result: EvalResult) -> list[dict[str, Any]]:
    """Every row with its runs, without their conversations."""
    return [{"row_index": row.row_index, "runs": [sample_of(run) for run in row.runs]} for row in result.rows]


def run_of(record: Mapping[str, Any]) -> EvalRunResult:
    """The run that ``record_of`` has made a record of, without its conversation."""
    return EvalRunResult(**{name: record[name] for name in _READ_BACK if name in record})


def overview(result: EvalResult, progress: Tally | None = None) -> dict[str, Any]:
    """All of ``result`` but its rows; ``progress`` knows what was planned and what was there already."""
    tally = tally_of(result)
    if progress is not None:
        tally.planned, tally.resumed, tally.interrupted = progress.planned, progress.resumed, progress.interrupted
    summary: dict[str, Any] = {
        "total_rows": result.total_rows,
        "total_runs": result.total_runs,
        "eval_fns": _summaries_as_json(result.eval_summaries),
        "failed_runs": sum(not run.success for row in result.rows for run in row.runs),
        **tally.totals(),
    }
    if not result.model_summaries:
        return {"summary": summary | _performance_as_json(result, None)}
    models = [
        {
            "model": model.model,
            "model_tag": model.model_tag,
            "total_runs": model.total_runs,
            "total_tokens": model.total_tokens,
            "total_duration_ms": model.total_duration_ms,
            "eval_fns": _summaries_as_json(model.eval_summaries),
            **_performance_as_json(result, model.model_tag),
        }
        for model in result.model_summaries
    ]
    comparisons = {eval_name: asdict(paired) for eval_name, paired in result.comparisons.items()}
    return {"summary": summary, "model_summaries": models, "comparison": comparisons}


def _performance_as_json(result: EvalResult, tag: str | None) -> dict[str, Any]:
    took = performance(runs_with_tag(result.rows, tag))
    return {
        "failed_runs": took.failed_runs,
        "failures": took.failures,
        "latency_ms": asdict(took.latency_ms),
        "tokens_per_run": asdict(took.tokens),
        **({} if took.cost_usd is None else {"cost_usd": took.cost_usd, "priced_runs": took.priced_runs}),
    }


def _summaries_as_json(summaries: Mapping[str, EvalEvalSummary]) -> dict[str, Any]:
    return {eval_name: _summary_as_json(summary) for eval_name, summary in summaries.items()}


def _summary_as_json(summary: EvalEvalSummary) -> dict[str, Any]:
    scores = {"mean": summary.mean, "std": summary.std, "min": summary.min, "max": summary.max}
    return {
        **(dict.fromkeys(scores) if summary.is_empty else scores),
        **{f"pass_at_{k}": share for k, share in summary.pass_at_k.items()},
        **{f"pass_hat_{k}": share for k, share in summary.pass_hat_k.items()},
        **({} if summary.majority is None else {"majority": summary.majority}),
        "standard_error": summary.standard_error,
        "mean_interval": asdict(summary.mean_interval) if summary.mean_interval else None,
        **{f"pass_at_{k}_interval": asdict(bounds) for k, bounds in summary.pass_at_k_intervals.items()},
        "scored_runs": summary.scored_runs,
        "scored_rows": summary.scored_rows,
        "unscored_runs": summary.unscored,
        "failed_runs": summary.failed,
        "errors": summary.errors,
        "first_error": summary.first_error,
        "components": summary.components.as_json(),
    }
