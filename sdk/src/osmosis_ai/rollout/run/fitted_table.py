"""A table on a terminal of any width: where not all columns fit, the last are left out and named, and none is cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

MAX_WORD_COLUMNS = 20
"""A longer word, such as the name of a model, may go on in the next line."""
MIN_COLUMNS = 3
_ANY_WIDTH = 10_000


@dataclass(frozen=True)
class Column:
    """A heading, and what stands below it."""

    name: str
    cells: Sequence[Text]
    is_number: bool = False

    @property
    def min_width(self) -> int:
        """No number and no word is in pieces; what is narrow has more lines."""
        words = [word for text in (self.name, *(cell.plain for cell in self.cells)) for word in text.split()]
        longest = max(map(cell_len, words), default=1)
        return longest if self.is_number else min(longest, MAX_WORD_COLUMNS)

    @property
    def max_width(self) -> int:
        """Of all of it in one line."""
        return max(map(cell_len, (self.name, *(cell.plain for cell in self.cells))))


def fitted_table(console: Console, columns: Sequence[Column], **style: Any) -> Table:
    """As many of ``columns`` as ``console`` is wide enough for, ``MIN_COLUMNS`` at least; ``style`` is of ``Table``."""
    shown = list(columns)
    while (room := console.width - _least_width(console, shown, style)) < 0 and len(shown) > MIN_COLUMNS:
        shown.pop()
    left_out = ", ".join(column.name for column in columns[len(shown) :])
    caption = f"A wider terminal shows more: {left_out}." if left_out else None
    table = Table(caption=caption, caption_justify="left", **style)
    for column in shown:
        # Each its width, as Rich takes from the widest first, also what it cannot spare.
        more = max(0, min(room, column.max_width - column.min_width))
        room -= more
        justify: JustifyMethod = "right" if column.is_number else "left"
        table.add_column(Text(column.name), justify=justify, width=column.min_width + more, overflow="fold")
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*cells)
    return table


def _least_width(console: Console, columns: Sequence[Column], style: dict[str, Any]) -> int:
    table = Table(*("x" * column.min_width for column in columns), **style)
    return Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table).minimum
