"""The three file formats of datasets, each as a stream of undecoded records that are decoded one at a time.

Every class offers ``records(skip)``, which decodes nothing of what it skips, and ``count()``. A record comes with its
place in the file; one that cannot be decoded is a ``DatasetParseError`` in its place, and the stream goes on if the
format allows. What makes the whole file unreadable is raised.
"""

import json
import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

from osmosis_ai.rollout.run.data.csv_file import CsvFile
from osmosis_ai.rollout.run.data.lines import COMPRESSIONS, Located, count_what_is_readable, decoded, numbered_lines
from osmosis_ai.rollout.run.data.parquet_file import ParquetFile
from osmosis_ai.rollout.run.errors import DatasetParseError


class JsonlFile:
    """One JSON value a line, UTF-8 with or without a byte order mark; blank lines are ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
        return count_what_is_readable(self._lines(), self.path)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        return (numbered for numbered in numbered_lines(self.path) if numbered[1].strip())

    def _decoded(self, line_number: int, line: bytes) -> object:
        text = decoded(self.path, line_number, line)
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


FORMATS: dict[str, type[JsonlFile] | type[CsvFile] | type[ParquetFile]] = {
    ".jsonl": JsonlFile,
    ".csv": CsvFile,
    ".tsv": CsvFile,
    ".parquet": ParquetFile,
}


def file_at(path: Path) -> JsonlFile | CsvFile | ParquetFile:
    """The file in the format that its suffix promises, before one of ``COMPRESSIONS``; any case.

    Raises:
        DatasetParseError: the suffix promises none.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]] or [""]
    packed = len(suffixes) > 1 and suffixes[-1] in COMPRESSIONS
    suffix = suffixes[-2] if packed else suffixes[-1]
    if suffix not in FORMATS or (packed and FORMATS[suffix] is ParquetFile):
        supported = ", ".join(sorted(FORMATS))
        raise DatasetParseError(
            f"Unsupported file format '{''.join(suffixes) if packed else suffix}' of {path}: use one of {supported}"
            f" (the text formats also with {' or '.join(COMPRESSIONS)} behind)."
        )
    return FORMATS[suffix](path)


MAX_NESTING = 100
"""Levels of lists and objects in a value: with more, not every JSON reader on its way goes on."""


def plain_value(value: object, levels: int = MAX_NESTING) -> object:
    """``value`` as JSON can carry it: dates in ISO 8601, decimals and UUIDs as text, durations in seconds.

    NaN is null: it is what tables have where nothing is.

    Raises:
        ValueError: for what JSON cannot carry: bytes, half surrogate pairs, infinities, anything else; and for more
            than ``levels`` of lists and objects.
    """
    if levels < 0:
        raise ValueError(f"is nested more than {MAX_NESTING} levels deep")
    match value:
        case str():
            return whole_text(value)
        case None | bool() | int():
            return value
        case float():
            if math.isnan(value):
                return None
            if math.isinf(value):
                raise ValueError(f"is {value}, which JSON cannot carry")
            return value
        case dict():
            return {whole_text(str(key)): plain_value(item, levels - 1) for key, item in value.items()}
        case list() | tuple():
            return [plain_value(item, levels - 1) for item in value]
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case bytes() | bytearray() | memoryview():
            raise ValueError(
                "holds bytes, which JSON cannot carry: leave the column out, or write an image as a part of the"
                ' prompt\'s content, as in {"type": "image_url", "image_url": {"url":'
                ' "data:image/png;base64,..."}}'
            )
        case _:
            raise ValueError(f"is of type {type(value).__name__}, which JSON cannot carry")


def whole_text(text: str) -> str:
    """``text`` itself.

    Raises:
        ValueError: it has half of a surrogate pair, which UTF-8 cannot carry (RFC 3629, section 3).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise ValueError(f"has half of a surrogate pair (\\u{code:04x}), which UTF-8 cannot carry") from None
    return text
