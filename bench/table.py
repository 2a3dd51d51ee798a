"""Tables as text."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left_columns: int = 1) -> str:
    """A table in Markdown, padded so that it can be read as it is; all but the first columns are set to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * width if number < left_columns else "-" * (width - 1) + ":" for number, width in enumerate(widths)]
    lines = [_padded(row, widths, left_columns) for row in [header, *rows]]
    return "".join([lines[0], _line(rule), *lines[1:]])


def _padded(row: Sequence[str], widths: Sequence[int], left_columns: int) -> str:
    cells = zip(row, widths, strict=True)
    return _line([text.ljust(w) if number < left_columns else text.rjust(w) for number, (text, w) in enumerate(cells)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
