"""Tables as text, the way spreadsheets write them (RFC 4180 and what is done in its name).

The separator is a comma, semicolon or tab, whichever the header has most of, or what Excel's ``sep=`` line says.
"""

import csv
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from osmosis_ai.rollout.run.data.lines import Located, count_what_is_readable, whole_lines
from osmosis_ai.rollout.run.errors import DatasetParseError

MAX_CELL_CHARACTERS = 64 * 1024 * 1024
SEPARATORS = ",;\t"
STATEMENT = "sep="


class CsvFile:
    """A header row and records of text, UTF-8 with or without a byte order mark; records without text are ignored.

    A record that is no CSV, or not UTF-8, is refused alone; only a quote that is never closed ends the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, skip: int) -> Iterator[Located]:
        """Pair the cells of the records after the first ``skip`` with the header; missing cells are ``None``."""
        rows = self._rows()
        _, first = next(rows, (0, []))
        if isinstance(first, DatasetParseError):
            raise first
        header = [cell.strip() for cell in first]
        while header and not header[-1]:
            header.pop()
        repeated = next((name for name in header if header.count(name) > 1), None)
        if repeated is not None:
            raise DatasetParseError(f"The header of {self.path} names the column '{repeated}' more than once.")
        for line_number, cells in islice(rows, skip, None):
            record: object = cells
            if not isinstance(cells, DatasetParseError):
                record = dict.fromkeys(header) | dict(zip(header, cells, strict=False))
                if any(cells[len(header) :]):
                    record = DatasetParseError(
                        f"Line {line_number} of {self.path} has {len(cells)} cells, but the header has {len(header)}."
                    )
            yield f"line {line_number}", record

    def count(self) -> int:
        """Records after the header; after an ``OSError`` those counted so far."""
        return max(0, count_what_is_readable(self._rows(), self.path) - 1)

    def _rows(self) -> Iterator[tuple[int, list[str] | DatasetParseError]]:
        """The records with the lines that they begin in."""
        # The limit is the process's: it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARACTERS))
        lines, above = whole_lines(self.path), 0
        first = next(lines, "")
        statement = first.rstrip("\r\n").strip('"')
        stated = statement[len(STATEMENT) :] if statement.startswith(STATEMENT) else ""
        while (len(stated) == 1 and not above) or first.isspace():
            first, above = next(lines, ""), above + 1
        separator = stated if len(stated) == 1 else max(SEPARATORS, key=_unquoted(first).count)
        spaced = f"{separator} " in first
        reader = csv.reader(chain([first], lines), delimiter=separator, skipinitialspace=spaced, strict=True)
        while True:
            line_number = above + reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                wrong = f"Line {above + reader.line_num} of {self.path} is not CSV: {error}"
                if "new-line" in str(error):
                    wrong = f"Line {line_number} of {self.path} holds a carriage return without a line feed behind it"
                if "limit" in str(error) or "end of data" in str(error):
                    raise DatasetParseError(f"{wrong}; is a quote before it not closed?") from None
                yield line_number, DatasetParseError(f"{wrong}.")
                continue
            if cells is None:
                return
            if not _is_utf8(cells):
                yield (
                    line_number,
                    DatasetParseError(f"Line {line_number} of {self.path} is not UTF-8: save it as UTF-8."),
                )
            elif any(cell.strip() for cell in cells):
                yield line_number, cells


def _is_utf8(cells: list[str]) -> bool:
    text = "".join(cells)
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _unquoted(line: str) -> str:
    """``line`` without what stands in quotes."""
    return "".join(line.split('"')[::2])
