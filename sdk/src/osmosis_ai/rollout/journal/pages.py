"""The rows that the pages of an SQLite file hold, whatever leads to them: https://www.sqlite.org/fileformat.html.

Pages come from the main file and, over them, from the frames of its ``-wal``. Frames whose checksums hold count up to
the last commit, as for SQLite. Those after a damaged one count too, but what they replace is read as well. Pages on the
list of free ones are left out, where that list can be read: they hold old copies.
"""

import errno
import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from osmosis_ai.rollout.journal.file import PAGE_BYTES

FILE_HEADER = b"SQLite format 3\0"
FILE_HEADER_BYTES = 100
LEAF_OF_TABLE = 0x0D
LEAF_HEADER_BYTES = 8
WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
BIG_ENDIAN_WAL = 0x377F0683
MAX_LOCAL_BYTES = PAGE_BYTES - 35
MIN_LOCAL_BYTES = (PAGE_BYTES - 12) * 32 // 255 - 23
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class _Lost:
    def __repr__(self) -> str:
        return "LOST"


LOST: Final = _Lost()
"""In place of a value whose bytes cannot be read."""

MAX_ROW_BYTES = 1_000_000_000
"""As SQLite's; a larger one is damage."""

_Place = tuple[int, int]
"""A descriptor, and where in its file a page begins."""
RowPlace = tuple[_Place, int]
"""A page, and where in it a row begins."""


class Pages:
    """The pages of the file at ``path`` and its log, either of which may be absent. A context manager."""

    def __init__(self, path: Path) -> None:
        self.unreadable_rows = 0
        self.unreadable_pages = 0
        self._path = path
        self._descriptors: list[int] = []
        self._main: tuple[int, int] = (-1, 0)
        """The main file, and how many pages it has."""
        self._current: dict[int, _Place] = {}
        """Those of the log, which are over the main file's."""
        self._replaced: list[tuple[int, _Place]] = []

    def __enter__(self) -> Self:
        try:
            for suffix, lay in (("", self._lay_main), ("-wal", self._lay_log)):
                try:
                    descriptor = os.open(self._path.with_name(self._path.name + suffix), os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                self._descriptors.append(descriptor)
                lay(descriptor, os.fstat(descriptor).st_size)
            if not self._descriptors:
                raise FileNotFoundError(2, "No such file or directory", str(self._path))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def rows(self) -> Iterator[tuple[int, list[Any], RowPlace]]:
        """Row ids, values and places of all tables' rows; a value that cannot be read is ``LOST``, or wrong.

        One row is in memory at a time; ``values_at`` gives it once more.
        """
        free = self._free_pages()
        _, main_pages = self._main
        numbers = itertools.chain(range(1, main_pages + 1), sorted(page for page in self._current if page > main_pages))
        in_place = ((page, place) for page in numbers if (place := self._place(page)) is not None)
        for page, place in itertools.chain(in_place, self._replaced):
            if page not in free and (content := self._read(place)):
                yield from self._rows_of(page, place, content)

    def values_at(self, where: RowPlace) -> list[Any]:
        """The values of a row that ``rows`` has given. Raises ``OSError`` if they cannot be read any more."""
        place, at = where
        try:
            _, values = self._row(self._read(place), at)
        except (IndexError, ValueError, struct.error):
            raise OSError(errno.EIO, "what could be read can be read no more") from None
        return values

    def _lay_main(self, descriptor: int, size_bytes: int) -> None:
        self._main = (descriptor, -(-size_bytes // PAGE_BYTES))

    def _place(self, page: int) -> _Place | None:
        descriptor, main_pages = self._main
        of_main = (descriptor, (page - 1) * PAGE_BYTES) if 0 < page <= main_pages else None
        return self._current.get(page, of_main)

    def _lay_log(self, descriptor: int, size_bytes: int) -> None:
        header = os.pread(descriptor, WAL_HEADER_BYTES, 0)
        if len(header) < WAL_HEADER_BYTES:
            return
        order = ">" if int.from_bytes(header[:4]) == BIG_ENDIAN_WAL else "<"
        sums, salts = _checksum(order, (0, 0), header[:24]), header[16:24]
        is_whole = sums == struct.unpack(">2I", header[24:])
        uncommitted: dict[int, _Place] = {}
        for start in range(WAL_HEADER_BYTES, size_bytes, FRAME_HEADER_BYTES + PAGE_BYTES):
            frame = self._read((descriptor, start), FRAME_HEADER_BYTES + PAGE_BYTES)
            if len(frame) < FRAME_HEADER_BYTES + PAGE_BYTES:
                break
            page, pages_after_commit = struct.unpack(">2I", frame[:8])
            place = (descriptor, start + FRAME_HEADER_BYTES)
            if is_whole:
                if frame[8:16] != salts:
                    break  # of an earlier generation, long since in the main file
                sums = _checksum(order, _checksum(order, sums, frame[:8]), frame[FRAME_HEADER_BYTES:])
                is_whole = sums == struct.unpack(">2I", frame[16:24])
            if is_whole:
                uncommitted[page] = place
                if pages_after_commit:
                    self._current |= uncommitted
                    uncommitted.clear()
            elif page:
                if (replaced := self._place(page)) is not None:
                    self._replaced.append((page, replaced))
                self._current[page] = place

    def _free_pages(self) -> set[int]:
        """The pages that hold nothing any more; none if that cannot be told."""
        free: set[int] = set()
        header = self._page(1)
        if not header.startswith(FILE_HEADER):
            return free
        trunk = int.from_bytes(header[32:36])
        while trunk and trunk not in free and len(content := self._page(trunk)) == PAGE_BYTES:
            free.add(trunk)
            trunk, count = struct.unpack(">2I", content[:8])
            if count > PAGE_BYTES // 4 - 2:
                break
            free.update(struct.unpack(f">{count}I", content[8 : 8 + 4 * count]))
        return free - {1}

    def _page(self, page: int) -> bytes:
        place = self._place(page)
        return b"" if place is None else self._read(place)

    def _read(self, place: _Place, size_bytes: int = PAGE_BYTES) -> bytes:
        try:
            return os.pread(place[0], size_bytes, place[1])
        except OSError:
            self.unreadable_pages += 1
            return b""

    def _rows_of(self, page: int, place: _Place, content: bytes) -> Iterator[tuple[int, list[Any], RowPlace]]:
        start = FILE_HEADER_BYTES if page == 1 else 0
        if len(content) <= start or content[start] != LEAF_OF_TABLE:
            return
        pointers = content[start + LEAF_HEADER_BYTES :]
        count = min(int.from_bytes(content[start + 3 : start + 5]), len(pointers) // 2)
        for (pointer,) in struct.iter_unpack(">H", pointers[: 2 * count]):
            try:
                row_id, values = self._row(content, pointer)
            except (IndexError, ValueError, struct.error):
                self.unreadable_rows += 1
            else:
                yield row_id, values, (place, pointer)

    def _row(self, content: bytes, at: int) -> tuple[int, list[Any]]:
        size_bytes, at = _varint(content, at)
        row_id, at = _varint(content, at)
        if size_bytes > MAX_ROW_BYTES:
            raise ValueError("larger than a row can be")
        local_bytes = size_bytes
        if size_bytes > MAX_LOCAL_BYTES:
            local_bytes = MIN_LOCAL_BYTES + (size_bytes - MIN_LOCAL_BYTES) % (PAGE_BYTES - 4)
            if local_bytes > MAX_LOCAL_BYTES:
                local_bytes = MIN_LOCAL_BYTES
        payload = content[at : at + local_bytes]
        if size_bytes > local_bytes:
            payload += self._overflow(int.from_bytes(content[at + local_bytes : at + local_bytes + 4]), size_bytes)
            payload = payload[:size_bytes]
        return row_id, _values(payload)

    def _overflow(self, page: int, at_most_bytes: int) -> bytes:
        """As much as the chain of pages from ``page`` on gives; one that has more pages than there are leads round."""
        parts: list[bytes] = []
        pages_left = self._main[1] + len(self._current)
        while at_most_bytes > 0 and len(parts) <= pages_left and len(content := self._page(page)) == PAGE_BYTES:
            page = int.from_bytes(content[:4])
            parts.append(content[4:])
            at_most_bytes -= PAGE_BYTES - 4
        return b"".join(parts)


def _values(payload: bytes) -> list[Any]:
    """The values of a record. Raises ``IndexError`` or ``ValueError`` if it is none."""
    header_bytes, at = _varint(payload, 0)
    body = header_bytes
    values: list[Any] = []
    while at < header_bytes:
        kind, at = _varint(payload, at)
        value, size_bytes = _value(kind, payload, body)
        values.append(value)
        body += size_bytes
    return values


def _value(kind: int, payload: bytes, at: int) -> tuple[Any, int]:
    if kind in (0, 8, 9):
        return (None if kind == 0 else kind - 8), 0
    size_bytes = _INTEGER_BYTES.get(kind, 8 if kind == 7 else (kind - 12) // 2)
    if size_bytes < 0:
        raise ValueError("no kind of value")
    content = payload[at : at + size_bytes]
    if len(content) < size_bytes:
        return LOST, size_bytes
    if kind in _INTEGER_BYTES:
        return int.from_bytes(content, signed=True), size_bytes
    if kind == 7:
        return struct.unpack(">d", content)[0], size_bytes
    if kind % 2:
        try:
            return content.decode(), size_bytes
        except UnicodeDecodeError:
            return LOST, size_bytes
    return content, size_bytes


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends. Raises ``IndexError``."""
    value = 0
    for index in range(8):
        byte = content[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | content[at + 8], at + 9


def _checksum(order: str, sums: tuple[int, int], content: bytes) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
