"""Tables as text, the way spreadsheets write them (RFC 4180 and what is done in its name).

The separator is a comma, semicolon or tab, whichever the header has most of, or what Excel's ``sep=`` line says.
"""

import csv
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from osmosis_ai.rollout.run.data.lines import Located, count_what_is_readable, decoded, numbered_lines
from osmosis_ai.rollout.run.errors import DatasetParseError

MAX_CELL_CHARACTERS = 64 * 1024 * 1024
SEPARATORS = ",;\t"
STATEMENT = "sep="


class CsvFile:
    """A header row and records of text, UTF-8 with or without a byte order mark; records without text are ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self, skip: int) -> Iterator[Located]:
        """Pair the cells of the records after the first ``skip`` with the header; missing cells are ``None``."""
        rows = self._rows()
        header = [cell.strip() for cell in next(rows, [])]
        while header and not header[-1]:
            header.pop()
        repeated = next((name for name in header if header.count(name) > 1), None)
        if repeated is not None:
            raise DatasetParseError(f"The header of {self.path} names the column '{repeated}' more than once.")
        for record_number, cells in islice(enumerate(rows, start=1), skip, None):
            record: object = dict.fromkeys(header) | dict(zip(header, cells, strict=False))
            if any(cells[len(header) :]):
                record = DatasetParseError(
                    f"Record {record_number} of {self.path} has {len(cells)} cells, but the header has {len(header)}."
                )
            yield f"record {record_number}", record

    def count(self) -> int:
        """Records after the header; after an ``OSError`` those counted so far."""
        return max(0, count_what_is_readable(self._rows(), self.path) - 1)

    def _rows(self) -> Iterator[list[str]]:
        # The limit is the process's: it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARACTERS))
        lines = (decoded(self.path, number, line) for number, line in numbered_lines(self.path))
        first = next(lines, "")
        stated = first.rstrip("\r\n")[len(STATEMENT) :] if first.startswith(STATEMENT) else ""
        if len(stated) == 1:
            first = next(lines, "")
        separator = stated if len(stated) == 1 else max(SEPARATORS, key=_unquoted(first).count)
        spaced = f"{separator} " in first
        reader = csv.reader(chain([first], lines), delimiter=separator, skipinitialspace=spaced, strict=True)
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield cells
        except csv.Error as error:
            unclosed = "limit" in str(error) or "end of data" in str(error)
            remedy = "; is a quote before it not closed?" if unclosed else "."
            line = reader.line_num + (len(stated) == 1)
            raise DatasetParseError(f"Line {line} of {self.path} is not CSV: {error}{remedy}") from None


def _unquoted(line: str) -> str:
    """``line`` without what stands in quotes."""
    return "".join(line.split('"')[::2])
