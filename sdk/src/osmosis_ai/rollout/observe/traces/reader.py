"""Reading traces: the events of a file from an offset on, as far as whole lines go.

Everything read is foreign. What is no JSON object with an ``event`` is counted and passed over; a last line without its
end is left for the next time. Only regular files are opened, no symbolic link is followed, and a file larger than
``MAX_READ_BYTES`` is no trace, nor is a line of millions of tiny values an event.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from osmosis_ai.rollout.core.files import open_regular
from osmosis_ai.rollout.core.trace.file import MAX_FILE_BYTES
from osmosis_ai.rollout.core.trace.format import TRACE_SUFFIX

READ_BYTES = 256 * 1024
MAX_LINE_BYTES = 128 * 1024 * 1024
LARGE_LINE_BYTES = 4 * 1024 * 1024
MAX_OBJECTS, MAX_VALUES = 2_000_000, 10_000_000
"""Of a large line: each takes up to thirty times as much when it is decoded, and a gigabyte is enough for all."""
MAX_READ_BYTES = 2 * MAX_FILE_BYTES
"""Twice what a writer makes, as two may write to one file at once."""


def event_on(line: bytes) -> dict[str, Any] | None:
    """The event on a line; ``None`` if it is none."""
    if len(line) > LARGE_LINE_BYTES and (
        line.count(b"{") + line.count(b"[") > MAX_OBJECTS or line.count(b",") > MAX_VALUES
    ):
        return None
    try:
        event = from_json(line, cache_strings="keys")  # values are seldom alike
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def lines_of(path: str | Path, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int]]:
    """The whole lines of a file between two offsets, and after each where the next one begins.

    Raises:
        OSError: the file cannot be read, is no regular file, or is too large.
    """
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        yield from lines_in(descriptor, start, end)
    finally:
        os.close(descriptor)


def lines_in(descriptor: int, start: int, end: int | None = None) -> Iterator[tuple[bytes, int]]:
    """As ``lines_of``, of a file that is open.

    Raises:
        OSError: it cannot be read, or is too large.
    """
    size = os.fstat(descriptor).st_size
    if size > MAX_READ_BYTES:
        raise OSError(errno.EFBIG, "it is larger than a trace can be")
    at, stop = start, size if end is None else min(end, size)
    begun: list[bytes] = []
    while at < stop and (read := os.pread(descriptor, min(stop - at, READ_BYTES), at)):
        at += len(read)
        *whole, rest = read.split(b"\n")
        if whole and begun:
            whole[0] = b"".join((*begun, whole[0]))
            begun.clear()
        for line in whole:
            start += len(line) + 1
            yield line, start
        begun.append(rest)
        if at - start >= MAX_LINE_BYTES:
            start = at
            begun.clear()


def events_of(path: str | Path, start: int = 0, end: int | None = None) -> Iterator[dict[str, Any]]:
    """The events of a file between two offsets; lines that hold none are passed over.

    Raises:
        OSError: the file cannot be read, is no regular file, or is too large.
    """
    for line, _ in lines_of(path, start, end):
        if (event := event_on(line)) is not None:
            yield event


def trace_files(root: str | Path, listed: list[str] | None = None) -> Iterator["os.DirEntry[str]"]:
    """The files in a folder and its subfolders whose name ends in ``.jsonl``; what cannot be listed is passed over.

    The folders, empty ones included, are added to ``listed``.
    """
    folders = [os.fspath(root)]
    while folders:
        folder = folders.pop()
        if listed is not None:
            listed.append(folder)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name.endswith(TRACE_SUFFIX) and entry.is_file(follow_symlinks=False):
                        yield entry
        except OSError:
            continue
