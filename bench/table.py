"""Tables as text."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, padded so that it can be read as it is; all columns but the first are set to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    aligned = [_line([name.ljust(width) for name, width in zip(header, widths, strict=True)])]
    aligned.append(
        _line(["-" * width if not number else "-" * (width - 1) + ":" for number, width in enumerate(widths)])
    )
    for row in rows:
        first, *others = row
        cells = [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]
        aligned.append(_line(cells))
    return "".join(aligned)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"
