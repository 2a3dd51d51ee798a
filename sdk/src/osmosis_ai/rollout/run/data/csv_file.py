"""Tables as text, the way spreadsheets write them (RFC 4180 and what is done in its name).

The separator is a comma, semicolon, tab or bar, whichever the header has most of, or what Excel's ``sep=`` line says.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from osmosis_ai.rollout.run.data.lines import Located, count_what_is_readable, whole_lines
from osmosis_ai.rollout.run.errors import DatasetParseError

MAX_CELL_CHARACTERS = 64 * 1024 * 1024
SEPARATORS = ",;\t|"
STATEMENT = "sep="


class CsvFile:
    """A header row and records of text, UTF-8 with or without a byte order mark; records without text are ignored.

    A record that is no CSV, or not UTF-8, is refused alone; what a quote that is not closed has swallowed is read
    again.
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
        source = _Lines(chain([first], lines), above)
        reader = csv.reader(source, delimiter=separator, skipinitialspace=spaced, strict=True)
        while True:
            line_number = source.begin_record()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield line_number, self._what_is_wrong(error, source, separator, spaced)
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

    def _what_is_wrong(self, error: csv.Error, source: "_Lines", separator: str, spaced: bool) -> DatasetParseError:
        line_number = source.number_of_first
        if "new-line" in str(error):
            return DatasetParseError(
                f"Line {line_number} of {self.path} holds a carriage return without a line feed behind it."
            )
        opened = _bad_quote("".join(source.record), separator, spaced)
        if opened is None:
            return DatasetParseError(f"Line {line_number} of {self.path} is not CSV: {error}.")
        before = "".join(source.record)[:opened]
        line_number += before.count("\n")
        source.go_back_behind(line_number)
        column = opened - (before.rfind("\n") + 1) + 1
        return DatasetParseError(
            f"The quote that opens at line {line_number}, column {column} of {self.path} is not closed, or one within"
            " it is not doubled."
        )


class _Lines:
    """Lines of a file, those of the record that is read kept, so that what a quote has swallowed can be read again."""

    def __init__(self, lines: Iterator[str], above: int) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._taken = above
        self.record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken += 1
        self.record.append(line)
        return line

    def begin_record(self) -> int:
        """The number of the line that the next record begins in."""
        self.record.clear()
        return self._taken + 1

    @property
    def number_of_first(self) -> int:
        """The number of the line that the record began in."""
        return self._taken - len(self.record) + 1

    def go_back_behind(self, line_number: int) -> None:
        """Read what follows that line of the record once more."""
        kept = line_number - self.number_of_first + 1
        self._again.extendleft(reversed(self.record[kept:]))
        self._taken = line_number


def _bad_quote(text: str, separator: str, spaced: bool) -> int | None:
    """Where the quote of ``text`` is that is not closed before the end of its cell."""
    quoted = re.compile(rf'{" *+" if spaced else ""}(")(?:[^"]++|"")*+("?+)')
    ends = re.compile(rf"[{re.escape(separator)}\r\n]|\Z")
    position = 0
    while position < len(text):
        cell = quoted.match(text, position)
        if cell is not None and (not cell[2] or text[cell.end() : cell.end() + 1] not in ("", separator, "\r", "\n")):
            return cell.start(1)
        end = ends.search(text, cell.end() if cell else position)
        position = end.end() if end and end[0] else len(text)
    return None


def _is_utf8(cells: list[str]) -> bool:
    text = "".join(cells)
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _unquoted(line: str) -> str:
    """``line`` without what stands in quotes."""
    return "".join(line.split('"')[::2])
