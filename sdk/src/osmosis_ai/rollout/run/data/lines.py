"""The lines of a text file, compressed or not, one at a time."""

import codecs
import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from osmosis_ai.rollout.run.errors import DatasetParseError

logger = logging.getLogger(__name__)

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_PACKED = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

Located = tuple[str, object | DatasetParseError]
"""Where a record is in its file (``line 7``), and the record, or what is wrong with it."""


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of ``path`` with their numbers, from 1; the first without a UTF-8 byte order mark.

    Raises:
        DatasetParseError: it is compressed and cannot be unpacked, or is UTF-16 or UTF-32.
        OSError: it cannot be read.
    """
    compression = COMPRESSIONS.get(path.suffix.lower())
    try:
        with _opened(path, compression) as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    _refuse_other_encodings(path, line)
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetParseError(f"{path} is not a whole {compression} file: {error}.") from error
    except OSError as error:
        if compression != "zstd" or error.errno is not None:
            raise
        raise DatasetParseError(f"{path} is not a whole {compression} file.") from error


def decoded(path: Path, line_number: int, line: bytes) -> str:
    """``line`` as text.

    Raises:
        DatasetParseError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DatasetParseError(f"Line {line_number} of {path} is not UTF-8: {error.reason}.") from None


def whole_lines(path: Path) -> Iterator[str]:
    """The lines as text; what is not UTF-8 in them is there as lone surrogates, for its record to be refused."""
    return (line.decode("utf-8", "surrogateescape") for _, line in numbered_lines(path))


def count_what_is_readable(records: Iterator[object], path: Path) -> int:
    """How many ``records`` there are; after an ``OSError`` those counted so far, with a warning."""
    count = 0
    try:
        for _ in records:
            count += 1
    except OSError as error:
        logger.warning("Cannot read all of %s: %s", path, error)
    return count


def _opened(path: Path, compression: str | None) -> IO[bytes]:
    file: Any
    if compression == "gzip":
        file = gzip.GzipFile(path)
    elif compression == "zstd":
        path.stat()
        try:
            arrow = import_module("pyarrow")
        except ImportError:
            raise DatasetParseError(
                f"Reading {path} needs the package pyarrow: install 'osmosis-ai[parquet]', or unpack it first."
            ) from None
        file = io.BufferedReader(arrow.input_stream(str(path), compression="zstd"))
    else:
        file = path.open("rb")
    opened: IO[bytes] = file
    return opened


def _refuse_other_encodings(path: Path, line: bytes) -> None:
    for mark, suffix in _PACKED.items():
        if line.startswith(mark):
            raise DatasetParseError(f"{path} is compressed: let its name end in {suffix}.")
    for mark, name in _OTHER_MARKS.items():
        if line.startswith(mark):
            raise DatasetParseError(f"{path} is {name}: save it as UTF-8.")
    if b"\0" in line[:4]:
        raise DatasetParseError(f"{path} is no UTF-8 text, perhaps UTF-16: save it as UTF-8.")
