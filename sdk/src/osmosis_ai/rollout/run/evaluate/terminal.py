"""The report on a terminal or in a pipe."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.text import counted, one_line, strip_control
from osmosis_ai.rollout.run.evaluate import tables
from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalResult
from osmosis_ai.rollout.run.evaluate.model_lines import ModelLine, each_summary, ks_of, model_lines
from osmosis_ai.rollout.run.evaluate.notes import pass_notes, stop_note
from osmosis_ai.rollout.run.evaluate.statistics import PairedDifference
from osmosis_ai.rollout.run.evaluate.summary import problems_of, tally_of, zero_reasons, zero_runs
from osmosis_ai.rollout.run.evaluate.tables import Table
from osmosis_ai.rollout.run.formats import format_duration, format_number
from osmosis_ai.rollout.run.loading import Say, speaker
from osmosis_ai.rollout.run.tally import Problem, problem_lines, warning_lines
from osmosis_ai.rollout.run.zero_reasons import zero_lines

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from osmosis_ai.rollout.core.console import Console

__all__ = ["format_eval_report"]

GOOD_SHARE = 0.8
FAIR_SHARE = 0.5


def format_eval_report(result: EvalResult, console: "Console", model: str = "") -> None:
    """Print ``result``; ``model`` names the model when there is only one."""
    say = speaker(console, is_silent=False)
    say()
    say("Evaluation Results:", "bold")
    for name, value in tables.totals(result):
        say(f"  {name}: {value}")
    stopped = stop_note(result)
    if stopped is not None:
        say(f"  {stopped}", "yellow")
    models = model_lines(result, model)
    eval_names = list(result.eval_summaries)
    _print_failures(models, eval_names, say)
    for line in problem_lines(_problems(models)):
        say(line)
    for line in warning_lines(tally_of(result)):
        say(f"  {one_line(line)}", "yellow")
    if zeros := zero_runs(result.rows):
        say(f"  Scored 0 or less: {counted(len(zeros), 'run')}", "yellow")
        for line in zero_lines(zero_reasons(result.rows), len(zeros)):
            say(f"    {line}", "yellow")
    if not eval_names:
        say("  No results: no eval function scored anything.")
        return
    ks = ks_of(result)
    say()
    optional = tables.samples_table(models, eval_names)
    shown = [
        performance_table(models, result),
        results_table(eval_names, models, ks),
        *([optional] if optional else []),
    ]
    if not console.run_rich(lambda rich: _format_tables_rich(shown, rich)):
        for position, table in enumerate(shown):
            if position:
                say()
            if table is optional:
                say(f"  {table.title}:")
            _print_plain(table, say)
    _print_intervals(models, eval_names, ks, say)
    for text in pass_notes(models, result):
        say(f"  {one_line(text)}", "yellow")
    _print_comparison(result, say)
    say("\n")


def performance_table(models: Sequence[ModelLine], result: EvalResult) -> Table:
    """What an average run takes; the totals of ``result`` serve where its runs are not at hand."""
    rows = []
    for model in models:
        latency_ms, tokens = model.performance.latency_ms.mean, model.performance.tokens.mean
        if not model.performance.runs and result.total_runs:
            latency_ms = result.total_duration_ms / result.total_runs
            tokens = result.total_tokens / result.total_runs
        rows.append([model.name, format_duration(latency_ms), f"{tokens:,.0f}"])
    return Table("Performance", ["Model", "Avg Latency", "Avg Tokens"], rows)


def results_table(eval_names: Sequence[str], models: Sequence[ModelLine], ks: Sequence[int]) -> Table:
    """One line an eval function and model."""
    rows = []
    for eval_name, model, summary in each_summary(models, eval_names):
        scores = (tables.score(summary, each) for each in (summary.mean, summary.min, summary.max, summary.std))
        passes = (tables.percent(summary.pass_at_k.get(k)) for k in ks)
        rows.append([eval_name, model.name, *scores, *passes])
    headers = ["Eval Function", "Model", "Mean", "Min", "Max", "Std", *(f"pass@{k}" for k in ks)]
    return Table("Results", headers, rows, texts=2)


def _format_tables_rich(shown: Sequence[Table], rich_console: "RichConsole") -> None:
    from rich import box
    from rich.text import Text

    from osmosis_ai.rollout.run.fitted_table import Column, fitted_table

    for table in shown:
        rows = [
            [*row[: table.texts], *(cell.removesuffix(".000") for cell in row[table.texts :])] for row in table.rows
        ]
        columns = [
            Column(header, [Text(text := strip_control(row[place]), _style(header, text)) for row in rows])
            for place, header in enumerate(table.headers)
        ]
        rich_console.print(fitted_table(rich_console, columns, title=table.title, box=box.ROUNDED))


def _style(header: str, cell: str) -> str:
    """The colour of a mean or of a pass@k."""
    if cell == tables.NOT_AVAILABLE or not (header == "Mean" or header.startswith("pass@")):
        return ""
    share = float(cell.removesuffix("%")) / (100 if cell.endswith("%") else 1)
    if share >= GOOD_SHARE:
        return "green"
    return "yellow" if share >= FAIR_SHARE else "red"


def _print_plain(table: Table, say: Say) -> None:
    cells = [[one_line(cell) for cell in row] for row in (table.headers, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for position, row in enumerate(cells):
        aligned = [
            cell.ljust(width) if column < table.texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  " + " | ".join(aligned))
        if position == 0:
            say("  " + "-+-".join("-" * width for width in widths))


def _print_failures(models: Sequence[ModelLine], eval_names: Sequence[str], say: Say) -> None:
    for model in models:
        owner = f" with {model.name}" if len(models) > 1 else ""
        for part, count in model.performance.failures.items():
            if count:
                say(f"  Failed runs ({part}){owner}: {count}.", "red")
        for eval_name in eval_names:
            if errors := model.summaries.get(eval_name, EvalEvalSummary()).errors:
                say(f"  Runs on which {eval_name} failed{owner}: {errors}.", "red")


def _problems(models: Sequence[ModelLine]) -> list[Problem]:
    """What failed, of all ``models``, by kind."""
    problems = [
        replace(problem, kind=f"{problem.kind} with {model.name}") if len(models) > 1 else problem
        for model in models
        for problem in problems_of(model.runs)
    ]
    return sorted(problems, key=lambda problem: (-problem.count, problem.rows))


def _print_intervals(models: Sequence[ModelLine], eval_names: Sequence[str], ks: Sequence[int], say: Say) -> None:
    say()
    say("  95% intervals, over rows:")
    for eval_name, model, summary in each_summary(models, eval_names):
        owner = f" {model.name}" if len(models) > 1 else ""
        parts = [f"mean {tables.interval(summary.mean_interval)}"]
        if summary.standard_error is not None:
            parts[0] += f" (standard error {tables.number(summary.standard_error)})"
        parts += [f"pass@{k} {_pass_at(summary, k)}" for k in ks]
        parts += [f"pass^{k} {tables.percent(summary.pass_hat_k.get(k))}" for k in ks if k > 1]
        parts += [f"majority {tables.percent(summary.majority)}"] if ks else []
        unscored = f"; no reward for {counted(summary.unscored, 'run')}" if summary.unscored else ""
        failed = f"; without {counted(summary.failed, 'run')} that failed" if summary.failed else ""
        say(f"    {eval_name}{owner}: {', '.join(parts)}{unscored}{failed}")
        for text in summary.components.lines():
            say(f"      {text}")


def comparison_sentence(eval_name: str, paired: PairedDifference, what: str) -> str:
    """``fn: primary minus baseline +0.500, 95% interval [...], p = ...``; ``what`` is subtracted from what."""
    sentence = (
        f"{eval_name}: {what} {format_number(paired.difference, 3, '+')}, 95% interval"
        f" {tables.interval(paired.interval, signed=True)}, p = {paired.p_value:.4f}"
        f" over {counted(paired.rows, 'row')} ({paired.higher} better, {paired.equal} equal, {paired.lower} worse)"
    )
    if paired.left_out:
        sentence += f"; {counted(paired.left_out, 'row')} left out, for want of a score"
    return sentence


def _pass_at(summary: EvalEvalSummary, k: int) -> str:
    share, bounds = tables.percent(summary.pass_at_k.get(k)), summary.pass_at_k_intervals.get(k)
    return share if bounds is None else f"{share} {tables.percent_interval(bounds)}"


def _print_comparison(result: EvalResult, say: Say) -> None:
    for eval_name, paired in result.comparisons.items():
        say("  " + comparison_sentence(eval_name, paired, "primary minus baseline"))
