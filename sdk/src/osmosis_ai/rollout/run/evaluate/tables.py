"""The tables of a report, as text in cells, for a terminal, Markdown and HTML alike. Cells may hold foreign text."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from osmosis_ai.rollout.core.text import printable
from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalResult, EvalRowResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.model_lines import ModelLine, each_summary, ks_of, model_lines
from osmosis_ai.rollout.run.evaluate.statistics import Interval
from osmosis_ai.rollout.run.evaluate.summary import performance, problems_of, scores_of
from osmosis_ai.rollout.run.formats import format_duration, format_number

DatasetRows = Mapping[int, Mapping[str, Any]]
"""The rows of the dataset by their numbers."""

NOT_AVAILABLE = "N/A"
MAX_LISTED_ROWS = 20
MAX_LISTED_SAMPLES = 20
MAX_LISTED_FAILURES = 20


@dataclass(frozen=True)
class Table:
    """Headers and as many cells in every row; the first ``texts`` columns are words, the others numbers."""

    title: str
    headers: list[str]
    rows: list[list[str]]
    texts: int = 1


def of_report(result: EvalResult, config: Mapping[str, Any], rows: DatasetRows) -> Iterator[Table]:
    """The tables of a report in a file, in their order."""
    models, eval_names = model_lines(result, str(config.get("model", ""))), list(result.eval_summaries)
    ks = ks_of(result)
    yield scores_table(models, eval_names, ks)
    optional = [parts_table(models, eval_names), passes_table(models, eval_names, ks)]
    optional += [comparison_table(result), failures_table(models)]
    yield from (table for table in optional if table is not None)
    yield from latency_and_token_tables(models)
    by_row = [lowest_rows_table(lowest_rows(models, eval_names), eval_names, rows), samples_table(models, eval_names)]
    yield from (table for table in by_row if table is not None)


def config_text(config: Mapping[str, Any]) -> str:
    """How to make a report again, as indented JSON in ASCII."""
    return json.dumps(config, indent=2, ensure_ascii=True, default=str)


def totals(result: EvalResult) -> list[tuple[str, str]]:
    """What was run."""
    took = performance(result.rows)
    part = f" ({took.priced_runs} of {result.total_runs} runs)" if took.priced_runs < result.total_runs else ""
    return [
        ("Rows", str(result.total_rows)),
        ("Runs per row", str(result.n_runs)),
        ("Total runs", str(result.total_runs)),
        ("Duration", format_duration(result.total_duration_ms)),
        ("Total tokens", f"{result.total_tokens:,}"),
        *([] if took.cost_usd is None else [("Cost", f"{cost(took.cost_usd)}{part}")]),
    ]


def scores_table(models: Sequence[ModelLine], eval_names: Sequence[str], ks: Sequence[int]) -> Table:
    """Scores with their intervals."""
    rows = [
        [
            eval_name,
            model.name,
            score(summary, summary.mean),
            interval(summary.mean_interval),
            number(summary.standard_error),
            *(score(summary, value) for value in (summary.std, summary.min, summary.max)),
            *([percent(summary.majority)] if ks else []),
            *map(str, (summary.scored_runs, summary.failed, summary.unscored, summary.errors)),
        ]
        for eval_name, model, summary in each_summary(models, eval_names)
    ]
    passes = ["Majority"] if ks else []
    counts = ["Scored runs", "Failed", "No reward", "Errors"]
    headers = ["Eval function", "Model", "Mean", "95 % interval", "Std error", "Std", "Min", "Max", *passes, *counts]
    return Table("Scores", headers, rows, texts=2)


def parts_table(models: Sequence[ModelLine], eval_names: Sequence[str]) -> Table | None:
    """What the scores are made of; ``None`` where they have no parts."""
    rows = [
        [
            eval_name,
            model.name,
            printable(part),
            *(format_number(value, 3) for value in (moments.mean, moments.std, moments.min, moments.max)),
            str(moments.count),
        ]
        for eval_name, model, summary in each_summary(models, eval_names)
        for part, moments in summary.components.items()
    ]
    headers = ["Eval function", "Model", "Part", "Mean", "Std", "Min", "Max", "Runs"]
    return Table("Parts of the scores", headers, rows, texts=3) if rows else None


def passes_table(models: Sequence[ModelLine], eval_names: Sequence[str], ks: Sequence[int]) -> Table | None:
    """pass@k and pass^k, a line a k, with the rows that they are taken over; ``None`` with one run a row."""
    rows = [
        [
            eval_name,
            model.name,
            str(k),
            str(summary.pass_rows.get(k, 0)),
            percent(summary.pass_at_k.get(k)),
            percent_interval(summary.pass_at_k_intervals.get(k)),
            percent(summary.pass_hat_k.get(k)),
        ]
        for eval_name, model, summary in each_summary(models, eval_names)
        for k in ks
    ]
    headers = ["Eval function", "Model", "k", "Rows", "pass@k", "95 % interval", "pass^k"]
    return Table("pass@k and pass^k", headers, rows, texts=2) if rows else None


def latency_and_token_tables(models: Sequence[ModelLine]) -> Iterator[Table]:
    """Percentiles over single runs."""
    headers = ["Model", "Runs", "Failed", "Mean", "p50", "p90", "p95", "p99", "Max"]
    for title, unit in (("Latency of a run", format_duration), ("Tokens of a run", lambda value: f"{value:,.0f}")):
        rows = []
        for model in models:
            took = model.performance
            spread = took.latency_ms if unit is format_duration else took.tokens
            values = (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99, spread.max)
            rows.append([model.name, str(took.runs), str(took.failed_runs), *map(unit, values)])
        yield Table(title, headers, rows)


def comparison_table(result: EvalResult) -> Table | None:
    """Primary minus baseline, row by row; ``None`` without a baseline."""
    if not result.comparisons:
        return None
    rows = [
        [
            eval_name,
            str(paired.rows),
            str(paired.left_out),
            format_number(paired.difference, 3, "+"),
            interval(paired.interval, signed=True),
            f"{paired.p_value:.4f}",
            f"{paired.higher} / {paired.equal} / {paired.lower}",
        ]
        for eval_name, paired in result.comparisons.items()
    ]
    headers = ["Eval function", "Rows", "Left out", "Difference", "95 % interval", "p", "Better / equal / worse"]
    return Table("Primary minus baseline, paired by row", headers, rows)


def failures_table(models: Sequence[ModelLine]) -> Table | None:
    """What went wrong, a line a cause, the most frequent first; ``None`` if nothing did."""
    rows = [
        [problem.kind, model.name, problem.text, problem.named_rows, str(problem.count)]
        for model in models
        for problem in problems_of(model.runs)
    ]
    shown = sorted(rows, key=lambda row: -int(row[-1]))[:MAX_LISTED_FAILURES]
    title = (
        "Failures" if len(shown) == len(rows) else f"Failures: the {len(shown)} most frequent of {len(rows):,} kinds"
    )
    return Table(title, ["What failed", "Model", "First error", "Rows", "Runs"], shown, texts=4) if rows else None


def samples_table(models: Sequence[ModelLine], eval_names: Sequence[str]) -> Table | None:
    """A line a run, in the order of the dataset: of many the ``MAX_LISTED_SAMPLES`` that failed or scored lowest."""
    runs = [(model.name, row.row_index, run) for model in models for row in model.rows for run in row.runs]
    if not runs:
        return None
    shown = sorted(runs, key=lambda line: _badness(line[2]))[:MAX_LISTED_SAMPLES]
    shown.sort(key=lambda line: (line[1], line[2].run_index))
    has_repeats, has_models = any(run.run_index for *_, run in runs), len(models) > 1
    is_priced = any(run.cost_usd is not None for *_, run in runs)
    rows = [
        [
            str(row_index),
            *([str(run.run_index)] if has_repeats else []),
            *([name] if has_models else []),
            run.outcome,
            run.finish_reason or "-",
            *(sample_score(run, eval_name) for eval_name in eval_names),
            f"{run.tokens:,}",
            *([cost(run.cost_usd)] if is_priced else []),
        ]
        for name, row_index, run in shown
    ]
    optional = (["Run"] if has_repeats else []) + (["Model"] if has_models else [])
    headers = ["Row", *optional, "Outcome", "Finish reason", *eval_names, "Tokens", *(["Cost"] if is_priced else [])]
    title = "Samples" if len(shown) == len(runs) else f"Samples: the {len(shown)} lowest of {len(runs):,}"
    return Table(title, headers, rows, texts=3 + len(optional))


def _badness(run: EvalRunResult) -> tuple[bool, float]:
    return run.success, min(run.scores.values(), default=0.0)


def sample_score(run: EvalRunResult, eval_name: str) -> str:
    """With three decimals, ``error`` where the function failed, a dash where there is none."""
    if eval_name in run.eval_errors:
        return "error"
    return format_number(run.scores[eval_name], 3) if run.success and eval_name in run.scores else "-"


@dataclass(frozen=True)
class LowRow:
    """A row as one model fared on it."""

    model: str
    row: EvalRowResult
    means: list[float | None]
    """By eval function, ``None`` where no run has a score."""

    @property
    def lowest(self) -> EvalRunResult:
        """The run that scored lowest of those that answered; of all where none did."""
        return min(self.row.runs, key=lambda run: (not run.answer, not run.success, _badness(run)))

    @property
    def failures(self) -> str:
        """The first error, behind how many of several runs failed."""
        failed = sum(not run.success for run in self.row.runs)
        errors = (error for run in self.row.runs for error in (run.error, *run.eval_errors.values()))
        told = f"{failed} of {len(self.row.runs)} runs failed" if failed and len(self.row.runs) > 1 else ""
        return ": ".join(part for part in (told, next(filter(None, errors), "")) if part)


def lowest_rows(models: Sequence[ModelLine], eval_names: Sequence[str]) -> list[LowRow]:
    """The rows that have no score as they failed, then those with the lowest mean over all functions.

    Of the latter none if every row is as good as any other; where they are, half of the places are theirs.
    """
    failed: list[LowRow] = []
    scored: list[tuple[float, LowRow]] = []
    for model in models:
        for row in model.rows:
            means = [fmean(scores) if (scores := scores_of(row.runs, name)) else None for name in eval_names]
            low = LowRow(model.name, row, means)
            if known := [mean for mean in means if mean is not None]:
                scored.append((fmean(known), low))
            elif any(not run.success or run.eval_errors for run in row.runs):
                failed.append(low)
    if len({mean for mean, _ in scored}) < 2:
        scored = []
    scored.sort(key=lambda line: (line[0], line[1].row.row_index))
    failed.sort(key=lambda low: low.row.row_index)
    room_for_failed = MAX_LISTED_ROWS - min(len(scored), MAX_LISTED_ROWS // 2)
    return [*failed[:room_for_failed], *(low for _, low in scored)][:MAX_LISTED_ROWS]


def lowest_rows_table(lowest: Sequence[LowRow], eval_names: Sequence[str], rows: DatasetRows) -> Table | None:
    """The prompt, the truth and the model's answer of each; ``None`` without any."""
    cells = [
        [
            str(low.row.row_index),
            low.model,
            str(rows.get(low.row.row_index, {}).get("user_prompt", "")),
            truth_of(rows.get(low.row.row_index, {})),
            low.lowest.answer or "",
            low.failures,
            *("-" if mean is None else format_number(mean, 3) for mean in low.means),
        ]
        for low in lowest
    ]
    headers = ["Row", "Model", "Prompt", "Ground truth", "Answer", "First error", *eval_names]
    return Table("Lowest rows", headers, cells, texts=6) if cells else None


def truth_of(row: Mapping[str, Any]) -> str:
    """The ground truth of a row of the dataset as a text."""
    truth = row.get("ground_truth", "")
    return truth if isinstance(truth, str) else json.dumps(truth, ensure_ascii=False, default=str)


def interval(bounds: Interval | None, *, signed: bool = False) -> str:
    """``[low, high]``."""
    if bounds is None:
        return NOT_AVAILABLE
    sign = "+" if signed else ""
    return f"[{format_number(bounds.low, 3, sign)}, {format_number(bounds.high, 3, sign)}]"


def percent_interval(bounds: Interval | None) -> str:
    """``[low, high]`` in percent."""
    return NOT_AVAILABLE if bounds is None else f"[{bounds.low * 100:.1f}, {bounds.high * 100:.1f}]"


def score(summary: EvalEvalSummary, value: float) -> str:
    """With three decimals; what never was is no zero."""
    return NOT_AVAILABLE if summary.is_empty else format_number(value, 3)


def number(value: float | None) -> str:
    """With three decimals."""
    return NOT_AVAILABLE if value is None else format_number(value, 3)


def cost(usd: float | None) -> str:
    """In US dollars, to a hundredth of a cent; what is not known is no zero."""
    return "-" if usd is None else f"${usd:,.4f}"


def percent(share: float | None) -> str:
    """With one decimal."""
    return NOT_AVAILABLE if share is None else f"{share * 100:.1f}%"
