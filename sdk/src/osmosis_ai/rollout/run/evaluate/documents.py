"""The report as a file: Markdown to paste, or one HTML page with plots that needs nothing but itself.

Names and errors come from datasets, models and providers: here they are text, never markup.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.text import fitted, one_line, strip_control
from osmosis_ai.rollout.run.evaluate import plots, tables
from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalResult
from osmosis_ai.rollout.run.evaluate.plots import COLOURS, Estimate, Series
from osmosis_ai.rollout.run.evaluate.summary import scores_of, slips_of
from osmosis_ai.rollout.run.evaluate.tables import ModelLine, Table
from osmosis_ai.rollout.run.tally import warning_lines

MAX_CELL_CHARACTERS = 300
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|#!&~])")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3rem 0.7rem; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.stopped { background: #fff3cd; padding: 0.5rem 1rem; }
figure { margin: 1rem 0; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; }
"""


def render(path: Path, result: EvalResult, config: Mapping[str, Any]) -> str:
    """The report in the format that the suffix of ``path`` names: ``.html``, ``.htm``, else Markdown."""
    is_html = path.suffix.lower() in (".html", ".htm")
    return html_report(result, config) if is_html else markdown_report(result, config)


def markdown_report(result: EvalResult, config: Mapping[str, Any]) -> str:
    """``result`` in Markdown; ``config`` says how to make it again, and its ``model`` names the model."""
    lines = ["# Evaluation report", ""]
    lines += [f"- {name}: {_markdown(value)}" for name, value in tables.totals(result)]
    if (stopped := tables.stop_note(result)) is not None:
        lines += ["", f"**{_markdown(stopped)}**"]
    for table in _tables(result, config):
        lines += ["", f"## {_markdown(table.title)}", "", *_markdown_table(table)]
    if warnings := list(warning_lines(slips_of(result))):
        lines += ["", "## Warnings", "", *(f"- {_markdown(text)}" for text in warnings)]
    lines += ["", "## How to read this", "", *(f"- {_markdown(note)}" for note in tables.notes(result))]
    lines += ["", "## How it was made", "", *(f"    {line}" for line in _config_text(config).splitlines())]
    return "\n".join(lines) + "\n"


def html_report(result: EvalResult, config: Mapping[str, Any]) -> str:
    """``result`` as one HTML page."""
    title = f"Evaluation of {config.get('model', '')}"
    items = "".join(f"<li>{escape(name)}: {_html(value)}</li>" for name, value in tables.totals(result))
    stopped = tables.stop_note(result)
    warnings = "".join(f"<li>{_html(text)}</li>" for text in warning_lines(slips_of(result)))
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{_html(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_html(title)}</h1><ul>{items}</ul>",
        f'<p class="stopped">{_html(stopped)}</p>' if stopped is not None else "",
        *(f"<figure>{plot}</figure>" for plot in _plots(result, config) if plot),
        *map(_html_table, _tables(result, config)),
        f"<h2>Warnings</h2><ul>{warnings}</ul>" if warnings else "",
        "<h2>How to read this</h2><ul>",
        *(f"<li>{_html(note)}</li>" for note in tables.notes(result)),
        f"</ul><h2>How it was made</h2><pre>{_html(_config_text(config))}</pre></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _models(result: EvalResult, config: Mapping[str, Any]) -> list[ModelLine]:
    return tables.model_lines(result, str(config.get("model", "")))


def _tables(result: EvalResult, config: Mapping[str, Any]) -> Iterator[Table]:
    models, eval_names = _models(result, config), list(result.eval_summaries)
    yield tables.scores_table(models, eval_names, tables.ks_of(result))
    optional = [tables.comparison_table(result), tables.failures_table(models, eval_names)]
    yield from (table for table in optional if table is not None)
    yield from tables.latency_and_token_tables(models)
    by_row = [tables.worst_rows_table(models, eval_names), tables.samples_table(models, eval_names)]
    yield from (table for table in by_row if table is not None)


def _plots(result: EvalResult, config: Mapping[str, Any]) -> Iterator[str]:
    models, ks = _models(result, config), tables.ks_of(result)
    for eval_name in result.eval_summaries:
        estimates = [
            Estimate(
                f"pass@{k}" + (f" {model.name}" if len(models) > 1 else ""),
                summary.pass_at_k[k],
                summary.pass_at_k_intervals.get(k),
                COLOURS[position % len(COLOURS)],
            )
            for k in ks
            for position, model in enumerate(models)
            if k in (summary := model.summaries.get(eval_name, EvalEvalSummary())).pass_at_k
        ]
        yield plots.intervals(f"pass@k, {eval_name}", estimates)
        scores = [Series(model.name, scores_of(model.runs, eval_name)) for model in models]
        yield plots.histogram(f"Scores, {eval_name}", scores)
    for title, unit, field in (("Latency of a run", " ms", "duration_ms"), ("Tokens of a run", "", "tokens")):
        spent = [Series(model.name, [getattr(run, field) for run in model.runs]) for model in models]
        yield plots.histogram(title, spent, unit)


def _config_text(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2, ensure_ascii=True, default=str)


def _markdown_table(table: Table) -> Iterator[str]:
    yield _markdown_row(table.headers)
    yield _markdown_row(["---" if column < table.texts else "---:" for column in range(len(table.headers))], raw=True)
    yield from map(_markdown_row, table.rows)


def _markdown_row(cells: Sequence[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(_markdown, cells))} |"


def _markdown(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\1", _shown(text))


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{_html(header)}</th>" for header in table.headers)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{_html(cell)}</td>" if column < table.texts else f'<td class="number">{_html(cell)}</td>'
            for column, cell in enumerate(row)
        )
        + "</tr>"
        for row in table.rows
    )
    return f"<h2>{_html(table.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html(text: str) -> str:
    return escape(strip_control(text), quote=True)


def _shown(text: str) -> str:
    return fitted(one_line(text), MAX_CELL_CHARACTERS, "…")
