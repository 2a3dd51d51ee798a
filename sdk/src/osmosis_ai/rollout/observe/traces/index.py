"""The rollouts in a folder of traces, kept up to date: each refresh reads only what was added since.

Used by one thread at a time. Summaries are kept in memory, events are not.
"""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.observe.traces.reader import Line, events_of, lines_of, trace_files
from osmosis_ai.rollout.observe.traces.summary import CONCERNING, Summary

LISTING_SECONDS = 20.0
"""How often a folder that looks unchanged is listed all the same."""
SAME_TICK_NS = 20_000_000
"""Two changes of a folder may bear the same time if they are this close."""
RECENT_SECONDS = 60.0
"""How long after its last event a file is watched for more."""
_COMPACT_START = b'{"event":"'
"""How the server's own events begin; the agent's, from ``ctx.log_event``, have a space after the colon."""
_START = TraceEvent.TRACE_START.value


@dataclass(slots=True)
class _File:
    path: str
    size: int = 0
    offset: int = 0
    inode: int = 0
    seen_at: float = 0.0
    is_unreadable: bool = False
    rollouts: list[Summary] = field(default_factory=list)


class TraceIndex:
    """All rollouts under ``root``, a folder or one file.

    Attributes:
        rollouts: by position, which stays what it is.
        unreadable_lines: how many lines hold no event.
        foreign_files: how many files hold no rollout.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.rollouts: list[Summary] = []
        self.version = 0
        self.unreadable_lines = 0
        self._files: dict[str, _File] = {}
        self._folders: dict[str, int] = {}
        self._listed_at = -math.inf
        self._to_read: list[_File] = []

    @property
    def foreign_files(self) -> int:
        """How many files hold no rollout."""
        return sum(not file.rollouts and file.offset > 0 for file in self._files.values())

    @property
    def unreadable_files(self) -> int:
        """How many files were passed over: not readable, or larger than a trace can be."""
        return sum(file.is_unreadable for file in self._files.values())

    @property
    def is_behind(self) -> bool:
        """Whether the last refresh ran out of time; the next one goes on from there."""
        return bool(self._to_read)

    def refresh(self, limit_seconds: float = math.inf) -> int:
        """Read what was added; the version after that, which is the old one if nothing was."""
        self.version += 1
        changed = False
        deadline = time.monotonic() + limit_seconds
        self._to_read = self._to_read or self._files_to_look_at()
        while self._to_read and time.monotonic() < deadline:
            changed |= self._read(self._to_read.pop())
        if not changed:
            self.version -= 1
        return self.version

    def since(self, version: int) -> Iterator[tuple[int, Summary]]:
        """Position and summary of the rollouts that changed after ``version``."""
        return ((position, one) for position, one in enumerate(self.rollouts) if one.version > version)

    def events(self, position: int) -> Iterator[dict[str, Any]]:
        """All events of the rollout at ``position``, the agent's included.

        Raises:
            OSError: its file is gone.
        """
        summary = self.rollouts[position]
        return events_of(summary.file, summary.start, summary.end)

    def _files_to_look_at(self) -> list[_File]:
        now = time.monotonic()
        if self.root.is_file():
            # What the user names may be a link; no other link is followed.
            self._note(os.path.realpath(self.root))
        elif now - self._listed_at >= LISTING_SECONDS or self._folders_changed():
            self._listed_at = now
            self._list()
            return list(reversed(self._files.values()))
        recently = now - RECENT_SECONDS
        return [
            file
            for file in self._files.values()
            if file.seen_at > recently or not (file.rollouts and file.rollouts[-1].is_settled)
        ]

    def _list(self) -> None:
        folders: list[str] = []
        before = time.time_ns()
        for entry in trace_files(self.root, folders):
            self._note(entry.path)
        # A folder changed so recently may change again within the same tick of its clock.
        self._folders = {folder: at if (at := _changed_at(folder)) < before - SAME_TICK_NS else 0 for folder in folders}

    def _folders_changed(self) -> bool:
        return any(_changed_at(folder) != at for folder, at in self._folders.items())

    def _note(self, path: str) -> None:
        if path not in self._files:
            self._files[path] = _File(path, seen_at=time.monotonic())

    def _read(self, file: _File) -> bool:
        try:
            status = os.stat(file.path, follow_symlinks=False)  # noqa: PTH116 - a Path each would cost more than the call
            # A trace is only ever appended to.
            if status.st_size == file.size and status.st_ino == file.inode:
                return False
            if (file.inode and status.st_ino != file.inode) or status.st_size < file.offset:
                self._forget(file)  # another file of the same name
            file.size, file.inode = status.st_size, status.st_ino
            # As old as the file says, on a clock that nobody sets.
            file.seen_at = time.monotonic() - max(0.0, time.time() - status.st_mtime)
            before = file.offset
            file.is_unreadable = False
            for line in lines_of(file.path, file.offset):
                self._take_in(file, line)
                file.offset = line.end
        except OSError:
            file.is_unreadable = True
            return False
        return file.offset > before

    def _forget(self, file: _File) -> None:
        file.offset = 0
        # `self.rollouts` keeps them: pages refer to their positions.
        file.rollouts.clear()

    def _take_in(self, file: _File, line: Line) -> None:
        rollout = file.rollouts[-1] if file.rollouts else None
        if rollout is not None and _is_of_no_concern(line.content, rollout):
            rollout.end = line.end
            return
        event = line.event()
        if event is None:
            self.unreadable_lines += 1
            return
        if rollout is None or event["event"] == _START:
            rollout = Summary(file.path, line.start, line.end)
            file.rollouts.append(rollout)
            self.rollouts.append(rollout)
        rollout.add(event, line.end)
        rollout.version = self.version


# Written by the context, in the spelling of an agent's own events.
_OF_THE_CONTEXT = tuple(
    f'{{"event": "{event}"'.encode()
    for event in (TraceEvent.ROLLOUT_ERROR, TraceEvent.MESSAGES_REWRITTEN, TraceEvent.LOOP_BLOCKED)
)


def _is_of_no_concern(line: bytes, rollout: Summary) -> bool:
    """Whether a line can be passed over unread: of a server's trace, the agent's own events."""
    if rollout.agent is None:
        return False
    if not line.startswith(_COMPACT_START):
        return not line.startswith(_OF_THE_CONTEXT)
    name_end = line.find(b'"', len(_COMPACT_START))
    return line[len(_COMPACT_START) : name_end].decode("ascii", "replace") not in CONCERNING


def _changed_at(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0
