"""The report as one HTML page with plots, which needs no script and no other file.

It is as wide as the window, fits a phone, and is dark where the reader's system is. Foreign text is text, never markup,
and never cut but in the middle of a long one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from osmosis_ai.rollout.core.reward_parts import readable_components
from osmosis_ai.rollout.core.text import both_ends, counted, encodable, strip_control
from osmosis_ai.rollout.run.evaluate import plots, tables
from osmosis_ai.rollout.run.evaluate.eval_results import EvalEvalSummary, EvalResult, EvalRowResult, EvalRunResult
from osmosis_ai.rollout.run.evaluate.model_lines import ModelLine, ks_of, model_lines
from osmosis_ai.rollout.run.evaluate.notes import pass_notes, reading_notes, stop_note
from osmosis_ai.rollout.run.evaluate.plots import COLOURS, Estimate, Series
from osmosis_ai.rollout.run.evaluate.summary import scores_of, tally_of
from osmosis_ai.rollout.run.evaluate.tables import Table
from osmosis_ai.rollout.run.formats import format_number
from osmosis_ai.rollout.run.tally import warning_lines

MAX_TEXT_CHARACTERS = 4_000
MAX_CELL_CHARACTERS = 200
MAX_WORD_CHARACTERS = 16
"""No word in a table is broken that is not longer."""
_JOINT = re.compile(r"(?<=[^\W\d][/:@_.-])(?=\w)")
"""A name of many parts is broken behind a sign that joins two."""

_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --page: #fff; --quiet: #5a5a5a; --line: #d5d5d5; --box: #f4f4f4;
  --warn: #fff3cd; --link: #0b57a4; --first: #2f6fab; --second: #b3611b; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --page: #16181b; --quiet: #a8a8a8; --line: #3d4147;
  --box: #212429; --warn: #4a3b0b; --link: #7db8f0; --first: #6aa9e0; --second: #e09a5c; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; color: var(--text); background: var(--page); }
header, main, footer { padding: 0 clamp(0.8rem, 2vw, 2rem); }
h1 { overflow-wrap: anywhere; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 0 1.2rem; padding: 0; list-style: none; }
nav a { display: inline-block; padding: 0.25rem 0; }
.totals { display: flex; flex-wrap: wrap; gap: 0.5rem 2rem; margin: 0; }
.totals dt { color: var(--quiet); }
.totals dd { margin: 0; font-size: 1.2rem; }
.stopped { background: var(--warn); padding: 0.5rem 1rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; min-width: 0; }
figcaption, caption { font-weight: bold; text-align: left; overflow-wrap: anywhere; }
figure svg { display: block; width: 100%; }
figure ul { list-style: none; padding: 0; margin: 0.3rem 0; }
figure dl { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr; gap: 0.2rem 1rem; margin: 0.5rem 0; }
figure dt { overflow-wrap: anywhere; }
figure dd { margin: 0; display: flex; flex-wrap: wrap; align-items: center; gap: 0 0.8rem; }
figure dd svg { flex: 1 1 8rem; min-width: 0; width: 8rem; }
figure dd span { font-variant-numeric: tabular-nums; white-space: nowrap; }
.axis { margin: 0; color: var(--quiet); font-size: 0.85rem; }
.ends { display: flex; justify-content: space-between; border-top: 1px solid var(--line); }
.key { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; }
.first { fill: var(--first); stroke: var(--first); background: var(--first); }
.second { fill: var(--second); stroke: var(--second); background: var(--second); }
rect { stroke-width: 0; }
line { stroke-width: 4; }
.rail { stroke: var(--line); stroke-width: 2; }
.table { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.4rem; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; min-width: 7.5rem; }
td.whole { overflow-wrap: normal; }
.number { text-align: right; font-variant-numeric: tabular-nums; min-width: 0; }
td.number { overflow-wrap: normal; }
article dt { color: var(--quiet); }
article { min-width: 0; border-top: 1px solid var(--line); }
article dd { margin: 0 0 0.5rem; white-space: pre-wrap; overflow-wrap: anywhere; }
pre { background: var(--box); padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.key { print-color-adjust: exact; }
@media screen and (max-width: 640px) {
  .table :is(table, caption, tbody) { display: block; }
  .table thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .table tr { display: block; padding: 0.5rem 0; border-bottom: 1px solid var(--line); }
  .table td { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr); gap: 0 0.7rem; padding: 0.1rem 0; }
  .table td { border: 0; text-align: left; white-space: normal; }
  .table td::before { content: attr(data-head); color: var(--quiet); }
  .table td:empty { display: none; }
}
@media print {
  nav { display: none; } .table { overflow: visible; font-size: 10px; } figure, tr, dt { break-inside: avoid; }
  h2, h3, caption, article dt { break-after: avoid; } #rows + .grid { display: block; }
  th, td { padding: 0.2rem 0.15rem; min-width: 0; }
}
"""


def html_report(result: EvalResult, config: Mapping[str, Any], rows: tables.DatasetRows) -> str:
    """``result`` as a page; ``config`` says how to make it again; ``rows`` is the dataset by row number."""
    title = _html(f"Evaluation of {config.get('model', '')}")
    totals = "".join(
        f"<div><dt>{_html(name)}</dt><dd>{_html(value)}</dd></div>" for name, value in tables.totals(result)
    )
    stopped = stop_note(result)
    models = model_lines(result, str(config.get("model", "")))
    eval_names = list(result.eval_summaries)
    lowest = tables.lowest_rows(models, eval_names)
    linked = list(dict.fromkeys(low.row.row_index for low in lowest))
    sections = [
        ("scores", "Scores and costs", _grid(_plots(result, models))),
        ("tables", "Tables", "".join(_table(table, linked) for table in tables.of_report(result, config, rows))),
        ("rows", "Lowest rows, whole", _grid(_articles(linked, result, rows, eval_names))),
        ("warnings", "Warnings", _list([*pass_notes(models, result), *warning_lines(tally_of(result))])),
        ("reading", "How to read this", _list(reading_notes(result))),
        ("making", "How it was made", f"<pre>{_html(tables.config_text(config))}</pre>"),
    ]
    shown = [(name, heading, content) for name, heading, content in sections if content]
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f'<header><h1>{title}</h1><dl class="totals">{totals}</dl>',
        f'<p class="stopped">{_html(stopped)}</p>' if stopped is not None else "",
        '<nav aria-label="Sections"><ul>',
        *(f'<li><a href="#{name}">{_html(heading)}</a></li>' for name, heading, _ in shown),
        "</ul></nav></header><main>",
        *(
            f'<section aria-labelledby="{name}"><h2 id="{name}">{_html(heading)}</h2>{content}</section>'
            for name, heading, content in shown
        ),
        "</main></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _plots(result: EvalResult, models: Sequence[ModelLine]) -> Iterator[str]:
    ks = ks_of(result)
    for eval_name in result.eval_summaries:
        estimates = [
            Estimate(
                f"pass@{k}"
                + (f" {model.name}" if len(models) > 1 else "")
                + (f", {counted(summary.pass_rows[k], 'row')}" if summary.pass_rows[k] < summary.scored_rows else ""),
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


def _table(table: Table, linked: Sequence[int]) -> str:
    """A region of its own, so that a keyboard can move a table that is wider than the window.

    On a phone each line is a card, as its numbers were out of sight; what is no longer laid out as a table is one to a
    screen reader by its roles alone.
    """
    head = "".join(
        f'<th scope="col" role="columnheader"{_class(column, table)}>{_html(header)}</th>'
        for column, header in enumerate(table.headers)
    )
    places = {str(number): f'<a href="#row-{number}">{number}</a>' for number in linked}
    body = ""
    for row in table.rows:
        texts = [both_ends(cell, MAX_CELL_CHARACTERS, "…") for cell in row]
        cells = [_jointed(text) for text in texts]
        if table.headers[0] == "Row":
            cells[0] = places.get(row[0], cells[0])
        body += '<tr role="row">'
        for at, (header, text, cell) in enumerate(zip(table.headers, texts, cells, strict=True)):
            body += f'<td role="cell"{_class(at, table, text)} data-head="{_html(header)}">{cell}</td>'
        body += "</tr>"
    title = _html(table.title)
    return (
        f'<div class="table" role="region" aria-label="{title}" tabindex="0"><table role="table">'
        f'<caption>{title}</caption><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _grid(parts: Iterator[str]) -> str:
    content = "".join(parts)
    return f'<div class="grid">{content}</div>' if content else ""


def _class(column: int, table: Table, text: str | None = None) -> str:
    if column >= table.texts:
        return ' class="number"'
    words = text.split() if text is not None else ()
    is_whole = all(len(part) <= MAX_WORD_CHARACTERS for word in words for part in _JOINT.split(word))
    return ' class="whole"' if words and is_whole else ""


def _jointed(text: str) -> str:
    return "<wbr>".join(_html(part) for part in _JOINT.split(text))


def _articles(
    linked: Sequence[int], result: EvalResult, rows: tables.DatasetRows, eval_names: Sequence[str]
) -> Iterator[str]:
    """Each of the lowest rows with its prompt, its truth and how each run answered."""
    by_number: dict[int, EvalRowResult] = {row.row_index: row for row in result.rows}
    for number in linked:
        row = rows.get(number, {})
        items = [("Prompt", str(row.get("user_prompt", ""))), ("Ground truth", tables.truth_of(row))]
        items += [
            (_run_title(run, eval_names), "\n\n".join(filter(None, (run.answer, run.error))))
            for run in by_number[number].runs
        ]
        listed = "".join(f"<dt>{_html(name)}</dt><dd>{_long(text) or '-'}</dd>" for name, text in items)
        yield f'<article id="row-{number}"><h3><a href="#row-{number}">Row {number}</a></h3><dl>{listed}</dl></article>'


def _run_title(run: EvalRunResult, eval_names: Sequence[str]) -> str:
    scores = [f"{name} {tables.sample_score(run, name)}{_parts(run.components.get(name))}" for name in eval_names]
    who = f" of {run.model_tag}" if run.model_tag else ""
    return f"Run {run.run_index}{who}: {', '.join([run.outcome, *scores])}"


def _parts(components: Mapping[str, float] | None) -> str:
    listed = ", ".join(f"{name} {format_number(value, 3)}" for name, value in readable_components(components).items())
    return f" ({listed})" if listed else ""


def _list(texts: Iterator[str] | Sequence[str]) -> str:
    items = "".join(f"<li>{_html(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def _long(text: str) -> str:
    if (over := len(text) - MAX_TEXT_CHARACTERS) > 0:
        half = MAX_TEXT_CHARACTERS // 2
        text = f"{text[:half]}\n[{counted(over, 'character')} left out]\n{text[-half:]}"
    return _html(text)


def _html(text: str) -> str:
    return escape(encodable(strip_control(text)), quote=True)
