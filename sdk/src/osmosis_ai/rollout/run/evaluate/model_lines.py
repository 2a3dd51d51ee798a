"""The models of a report, each a line of its tables, and which numbers there are of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalResult, EvalRowResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.summary import Performance, performance, runs_with_tag


@dataclass(frozen=True)
class ModelLine:
    """One model of a report."""

    name: str
    summaries: dict[str, EvalEvalSummary]
    performance: Performance
    rows: list[EvalRowResult]

    @property
    def runs(self) -> list[EvalRunResult]:
        """Of all rows."""
        return [run for row in self.rows for run in row.runs]


def model_lines(result: EvalResult, model: str) -> list[ModelLine]:
    """The models of ``result``; ``model`` names the only one. In a comparison each name carries its tag."""
    if not result.model_summaries:
        return [ModelLine(model, result.eval_summaries, performance(result.rows), result.rows)]
    lines = []
    for summary in result.model_summaries:
        rows = runs_with_tag(result.rows, summary.model_tag)
        name = f"{summary.model} ({summary.model_tag})"
        lines.append(ModelLine(name, summary.eval_summaries, performance(rows), rows))
    return lines


def ks_of(result: EvalResult) -> list[int]:
    """The k of every pass@k that some model has; none with one run a row."""
    if result.n_runs <= 1:
        return []
    summaries = list(result.eval_summaries.values())
    for model in result.model_summaries or []:
        summaries += model.eval_summaries.values()
    return sorted({k for summary in summaries for k in summary.pass_at_k})


def each_summary(
    models: Sequence[ModelLine], eval_names: Sequence[str]
) -> Iterator[tuple[str, ModelLine, EvalEvalSummary]]:
    """What each eval function made of each model; an empty one where it was not asked."""
    for eval_name in eval_names:
        for model in models:
            yield eval_name, model, model.summaries.get(eval_name, EvalEvalSummary())
