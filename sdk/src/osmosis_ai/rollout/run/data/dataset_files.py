"""The three file formats of datasets, each as a stream of undecoded records that are decoded one at a time.

Every class offers ``records(skip)``, which decodes nothing of what it skips, and ``count()``. A record comes with its
place in the file; one that cannot be decoded is a ``DatasetParseError`` in its place, and the stream goes on if the
format allows. What makes the whole file unreadable is raised.
"""

import codecs
import csv
import json
import logging
import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from osmosis_ai.rollout.run.errors import DatasetParseError

logger = logging.getLogger(__name__)

PARQUET_BATCH_ROWS = 1024

Located = tuple[str, object | DatasetParseError]
"""Where a record is in its file (``line 7``), and the record, or what is wrong with it."""


class _File:
    def __init__(self, path: Path) -> None:
        self.path = path

    def _text(self, line_number: int, line: bytes) -> str:
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DatasetParseError(f"Line {line_number} of {self.path} is not UTF-8: {error.reason}.") from None


class JsonlFile(_File):
    """One JSON value a line, UTF-8 with or without a byte order mark; blank lines are ignored."""

    def records(self, skip: int) -> Iterator[Located]:
        """Decode the lines after the first ``skip`` non-blank ones."""
        for line_number, line in islice(self._lines(), skip, None):
            try:
                record = self._decoded(line_number, line)
            except DatasetParseError as error:
                record = error
            yield f"line {line_number}", record

    def count(self) -> int:
        """Non-blank lines; after an ``OSError`` those counted so far."""
        return _count_what_is_readable(self._lines(), self.path)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as file:
            for line_number, line in enumerate(file, start=1):
                text = line.removeprefix(codecs.BOM_UTF8) if line_number == 1 else line
                if text.strip():
                    yield line_number, text

    def _decoded(self, line_number: int, line: bytes) -> object:
        text = self._text(line_number, line)
        try:
            return json.loads(text, object_pairs_hook=_without_repeated_keys, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise DatasetParseError(f"Invalid JSON at line {line_number} of {self.path}: {error}") from None


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{repeated}' appears more than once")
    return decoded


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


class CsvFile(_File):
    """A header row and records of text, UTF-8 with or without a byte order mark; blank lines are ignored."""

    def records(self, skip: int) -> Iterator[Located]:
        """Pair the cells of the records after the first ``skip`` with the header; missing cells are ``None``."""
        rows = self._rows()
        header = next(rows, [])
        repeated = next((name for name in header if header.count(name) > 1), None)
        if repeated is not None:
            raise DatasetParseError(f"The header of {self.path} names the column '{repeated}' more than once.")
        for record_number, cells in islice(enumerate(rows, start=1), skip, None):
            record: object = dict.fromkeys(header) | dict(zip(header, cells, strict=False))
            if len(cells) > len(header):
                record = DatasetParseError(
                    f"Record {record_number} of {self.path} has {len(cells)} cells, but the header has {len(header)}."
                )
            yield f"record {record_number}", record

    def count(self) -> int:
        """Records after the header; after an ``OSError`` those counted so far."""
        rows = self._rows()
        return max(0, _count_what_is_readable(rows, self.path) - 1)

    def _rows(self) -> Iterator[list[str]]:
        with self.path.open("rb") as file:
            reader = csv.reader(self._text_lines(file), strict=True)
            try:
                yield from filter(None, reader)
            except csv.Error as error:
                raise DatasetParseError(f"Line {reader.line_num} of {self.path} is not CSV: {error}.") from None

    def _text_lines(self, file: Iterator[bytes]) -> Iterator[str]:
        for line_number, line in enumerate(file, start=1):
            text = self._text(line_number, line)
            yield text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}") if line_number == 1 else text


def _count_what_is_readable(records: Iterator[object], path: Path) -> int:
    count = 0
    try:
        for _ in records:
            count += 1
    except OSError as error:
        logger.warning("Cannot read all of %s: %s", path, error)
    return count


class ParquetFile(_File):
    """An Apache Parquet file, read batch by batch; needs ``pyarrow``."""

    def records(self, skip: int) -> Iterator[Located]:
        """The rows after the first ``skip``; row groups that are skipped whole are not read."""
        file = self._open()
        row_number = skip
        row_groups = list(range(file.metadata.num_row_groups))
        while row_groups and file.metadata.row_group(row_groups[0]).num_rows <= skip:
            skip -= file.metadata.row_group(row_groups.pop(0)).num_rows
        if not row_groups:
            return
        batches = file.iter_batches(batch_size=PARQUET_BATCH_ROWS, row_groups=row_groups)
        while (batch := self._next_batch(batches)) is not None:
            for record in batch.slice(skip).to_pylist():
                yield f"row {row_number}", record
                row_number += 1
            skip = max(0, skip - batch.num_rows)

    def count(self) -> int:
        """Rows, from the file's metadata."""
        return int(self._open().metadata.num_rows)

    def _open(self) -> Any:
        try:
            parquet = import_module("pyarrow.parquet")
        except ImportError:
            raise DatasetParseError(
                f"Reading {self.path} needs the package pyarrow: install 'osmosis-ai[parquet]', or convert the"
                " file to JSONL."
            ) from None
        try:
            return parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise DatasetParseError(f"{self.path} is not a readable Parquet file: {error}") from error

    def _next_batch(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except (OSError, ValueError) as error:
            raise DatasetParseError(f"{self.path} is not a readable Parquet file: {error}") from error


FORMATS: dict[str, type[JsonlFile] | type[CsvFile] | type[ParquetFile]] = {
    ".jsonl": JsonlFile,
    ".csv": CsvFile,
    ".parquet": ParquetFile,
}


def plain_value(value: object) -> object:
    """``value`` as JSON can carry it: dates in ISO 8601, decimals and UUIDs as text, durations in seconds.

    Raises:
        ValueError: for what JSON cannot carry: bytes, non-finite numbers, anything else.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"is {value}, which JSON cannot carry")
            return value
        case dict():
            return {str(key): plain_value(item) for key, item in value.items()}
        case list() | tuple():
            return [plain_value(item) for item in value]
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case _:
            raise ValueError(f"is of type {type(value).__name__}, which JSON cannot carry")
