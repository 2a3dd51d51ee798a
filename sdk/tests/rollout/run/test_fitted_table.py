import io

import pytest
from rich import box
from rich.console import Console
from rich.text import Text

from osmosis_ai.rollout.run.fitted_table import MAX_WORD_COLUMNS, Column, fitted_table

NAMES = ["reward", "provider/a-model-with-a-long-name", "1.000", "0.125", "100.0%", "100.0%"]
HEADERS = ["Eval Function", "Model", "Mean", "Std", "pass@1", "pass@4"]
COLUMNS = [Column(header, [Text(name)]) for header, name in zip(HEADERS, NAMES, strict=True)]


def shown(width: int) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    console.print(fitted_table(console, COLUMNS, box=box.ROUNDED))
    return stream.getvalue()


@pytest.mark.parametrize("width", range(50, 110, 3))
def test_a_column_is_whole_or_named_below(width: int) -> None:
    table, _, left_out = shown(width).partition("A wider terminal shows more: ")
    assert max(map(len, table.splitlines())) <= width
    for header, cell in list(zip(HEADERS, NAMES, strict=True))[2:]:
        assert (header in table and cell in table.split()) != (header in left_out)


def test_a_long_name_goes_on_in_the_next_line_and_costs_no_column() -> None:
    assert "pass@4" in shown(72)
    assert NAMES[1][:MAX_WORD_COLUMNS] in shown(72)
    assert NAMES[1] not in shown(72)
    assert NAMES[1] in shown(120)
