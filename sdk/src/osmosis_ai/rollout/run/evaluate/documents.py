"""The report as a file: Markdown to paste, or an HTML page (``html_report``).

Names and errors come from datasets, models and providers: here they are text, never markup.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.text import both_ends, one_line
from osmosis_ai.rollout.run.evaluate import tables
from osmosis_ai.rollout.run.evaluate.eval_results import EvalResult
from osmosis_ai.rollout.run.evaluate.html_report import html_report
from osmosis_ai.rollout.run.evaluate.model_lines import model_lines
from osmosis_ai.rollout.run.evaluate.notes import pass_notes, reading_notes, stop_note
from osmosis_ai.rollout.run.evaluate.summary import tally_of
from osmosis_ai.rollout.run.evaluate.tables import Table
from osmosis_ai.rollout.run.tally import warning_lines

MAX_CELL_CHARACTERS = 300
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|#!&~])")


def render(path: Path, result: EvalResult, config: Mapping[str, Any], rows: tables.DatasetRows) -> str:
    """The report in the format that the suffix of ``path`` names: ``.html``, ``.htm``, else Markdown.

    ``config`` says how to make it again, and its ``model`` names the model; ``rows`` is the dataset by row number.
    """
    is_html = path.suffix.lower() in (".html", ".htm")
    return html_report(result, config, rows) if is_html else markdown_report(result, config, rows)


def markdown_report(result: EvalResult, config: Mapping[str, Any], rows: tables.DatasetRows) -> str:
    """``result`` in Markdown."""
    lines = ["# Evaluation report", ""]
    lines += [f"- {name}: {_markdown(value)}" for name, value in tables.totals(result)]
    if (stopped := stop_note(result)) is not None:
        lines += ["", f"**{_markdown(stopped)}**"]
    for table in tables.of_report(result, config, rows):
        lines += ["", f"## {_markdown(table.title)}", "", *_markdown_table(table)]
    models = model_lines(result, str(config.get("model", "")))
    if warnings := [*pass_notes(models, result), *warning_lines(tally_of(result))]:
        lines += ["", "## Warnings", "", *(f"- {_markdown(text)}" for text in warnings)]
    lines += ["", "## How to read this", "", *(f"- {_markdown(note)}" for note in reading_notes(result))]
    lines += ["", "## How it was made", "", *(f"    {line}" for line in tables.config_text(config).splitlines())]
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table) -> Iterator[str]:
    yield _markdown_row(table.headers)
    yield _markdown_row(["---" if column < table.texts else "---:" for column in range(len(table.headers))], raw=True)
    yield from map(_markdown_row, table.rows)


def _markdown_row(cells: Sequence[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(_markdown, cells))} |"


def _markdown(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\1", _shown(text))


def _shown(text: str) -> str:
    return both_ends(one_line(text), MAX_CELL_CHARACTERS, "…")
