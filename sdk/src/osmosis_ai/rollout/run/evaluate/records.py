"""An evaluation as JSON: its runs, as they stream and as they are read back, and what they come to."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from itertools import groupby
from typing import Any

from osmosis_ai.rollout.run.data.dataset import extra_columns
from osmosis_ai.rollout.run.driver import RunPlan
from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.summary import performance, runs_with_tag, slips_of, zero_reasons

_READ_BACK = [field.name for field in fields(EvalRunResult) if field.name != "final_messages"]
_ALWAYS_TOLD = ("run_index", "success", "scores", "duration_ms", "tokens")


def record_of(run: EvalRunResult, row: Mapping[str, Any]) -> dict[str, Any]:
    """One run of ``row``, with its conversation; what does not apply to it is left out."""
    return {
        "row_index": run.row_index,
        "ground_truth": row.get("ground_truth"),
        "metadata": extra_columns(row),
        **sample_of(run),
    }


def sample_of(run: EvalRunResult) -> dict[str, Any]:
    """What is known of one run; what does not apply to it is left out."""
    told = {name: value for name, value in vars(run).items() if name in _ALWAYS_TOLD or value not in (None, [], {})}
    return {**told, "outcome": run.outcome}


def samples(result: EvalResult) -> list[dict[str, Any]]:
    """Every row with its runs, without their conversations."""
    return [{"row_index": row.row_index, "runs": [sample_of(run) for run in row.runs]} for row in result.rows]


def run_of(record: Mapping[str, Any]) -> EvalRunResult:
    """The run that ``record_of`` has made a record of, without its conversation."""
    return EvalRunResult(**{name: record[name] for name in _READ_BACK if name in record})


def by_row(plan: RunPlan, records: Iterable[tuple[int, str]]) -> Iterator[str]:
    """The entries of the document: an object a row, with its runs."""
    for row_index, runs in groupby(records, key=lambda record: plan.row_of(record[0])):
        texts = ",\n      ".join(text for _, text in runs)
        yield f'{{"row_index": {row_index}, "runs": [\n      {texts}]}}'


def overview(result: EvalResult) -> dict[str, Any]:
    """All of ``result`` but its rows."""
    summary: dict[str, Any] = {
        "total_rows": result.total_rows,
        "total_runs": result.total_runs,
        "stopped_early": result.stopped_early,
        "eval_fns": _summaries_as_json(result.eval_summaries),
        "total_tokens": result.total_tokens,
        "total_duration_ms": result.total_duration_ms,
        "failed_runs": sum(not run.success for row in result.rows for run in row.runs),
    }
    summary |= slips_of(result).slips_as_json()
    if reasons := zero_reasons(result.rows):
        summary["zero_reasons"] = reasons
    if result.stop_reason is not None:
        summary["stop_reason"] = result.stop_reason
    if (cost_usd := performance(result.rows).cost_usd) is not None:
        summary["cost_usd"] = cost_usd
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
