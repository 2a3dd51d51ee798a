"""Reading traces: the events of a file from an offset on, as far as whole lines go.

Everything read is foreign. What is no JSON object with an ``event`` is counted and passed over; a last line without its
end is left for the next time. Only regular files are opened, no symbolic link is followed, and a file larger than
``MAX_READ_BYTES`` is no trace.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydantic_core import from_json

from osmosis_ai.rollout.core.files import open_regular
from osmosis_ai.rollout.core.trace.file import MAX_FILE_BYTES
from osmosis_ai.rollout.core.trace.format import TRACE_SUFFIX

MAX_LINE_BYTES = 128 * 1024 * 1024
MAX_READ_BYTES = 2 * MAX_FILE_BYTES
"""Twice what a writer makes, as two may write to one file at once."""


class Line(NamedTuple):
    """One whole line of a file."""

    start: int
    """Offset of its first byte."""
    end: int
    """Offset of the byte after its newline: where reading goes on."""
    content: bytes

    def event(self) -> dict[str, Any] | None:
        """The event on it; ``None`` if it is none."""
        try:
            event = from_json(self.content)
        except (ValueError, RecursionError):
            return None
        return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def lines_of(path: str | Path, start: int = 0, end: int | None = None) -> Iterator[Line]:
    """The whole lines of a file between two offsets.

    Raises:
        OSError: the file cannot be read, is no regular file, or is too large.
    """
    with _open(path) as file:
        file.seek(start)
        while end is None or start < end:
            content = file.readline(MAX_LINE_BYTES)
            if not content.endswith(b"\n"):
                if len(content) < MAX_LINE_BYTES:
                    return
                start += len(content)
                continue
            yield Line(start, start + len(content), content)
            start += len(content)


def events_of(path: str | Path, start: int = 0, end: int | None = None) -> Iterator[dict[str, Any]]:
    """The events of a file between two offsets; lines that hold none are passed over.

    Raises:
        OSError: the file cannot be read, is no regular file, or is too large.
    """
    for line in lines_of(path, start, end):
        if (event := line.event()) is not None:
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


@contextmanager
def _open(path: str | Path) -> Iterator[IO[bytes]]:
    descriptor = open_regular(path, os.O_RDONLY)
    size = os.fstat(descriptor).st_size
    # A buffer as large as a large one needs would cost more than reading the small.
    with open(descriptor, "rb", buffering=min(max(size + 1, 4096), 256 * 1024)) as file:  # noqa: PTH123 - a descriptor
        if size > MAX_READ_BYTES:
            raise OSError(errno.EFBIG, "it is larger than a trace can be", os.fspath(path))
        yield file
