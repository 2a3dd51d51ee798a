"""The rollouts in a folder of traces, kept up to date: each refresh reads only what was added since.

Used by one thread at a time. Summaries are kept in memory, events are not. With ``keep`` the summaries are also kept
beside the traces (``store.Store``), and what is known of a file that has not changed is not read again.
"""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.observe.traces.reader import event_on, events_of, lines_of, trace_files
from osmosis_ai.rollout.observe.traces.store import Kept, Store, kept_of
from osmosis_ai.rollout.observe.traces.summary import CONCERNING, Summary

LISTING_SECONDS = 20.0
"""How often a folder that looks unchanged is listed all the same."""
SAME_TICK_NS = 20_000_000
"""Two changes of a folder may bear the same time if they are this close."""
RECENT_SECONDS = 60.0
"""How long after its last event a file is watched for more."""
_COMPACT_START = b'{"event":"'
"""How the server's own events begin; the agent's, from ``ctx.log_event``, have a space after the colon."""
_NAME_AT = len(_COMPACT_START)
_START = TraceEvent.TRACE_START.value
_CHAT_START = TraceEvent.CHAT_START.value.encode()
_CONCERNING = {name.encode() for name in CONCERNING}


@dataclass(slots=True)
class _File:
    path: str
    size: int = 0
    offset: int = 0
    inode: int = 0
    seen_at: float = 0.0
    changed_at: int = 0
    """In nanoseconds."""
    lost: int = 0
    """How many of its lines hold no event."""
    is_unreadable: bool = False
    run: str = ""
    kept: Kept | None = None
    """What an earlier index knew of it, until it is looked at."""
    rollouts: list[Summary] = field(default_factory=list)


class TraceIndex:
    """All rollouts under ``root``, a folder or one file.

    Attributes:
        rollouts: by position, which stays what it is.
        unreadable_lines: how many lines hold no event.
    """

    def __init__(self, root: str | Path, *, keep: bool = False) -> None:
        self.root = Path(root)
        self.store = Store(self.root) if keep and self.root.is_dir() else None
        place = self.root.absolute() if self.root.name not in ("", "..") else self.root.resolve()
        self._own_name = place.name if self.root.is_dir() else place.parent.name
        self._root_length = len(os.fspath(self.root))
        self.rollouts: list[Summary] = []
        self.version = 0
        self.unreadable_lines = 0
        self._files: dict[str, _File] = {}
        self._folders: dict[str, int] = {}
        self._listed_at = -math.inf
        self._is_first_listing = True
        self._to_read: list[_File] = []
        self._to_keep: dict[str, _File] = {}
        self._gone: list[str] = []

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
        self._to_read = self._to_read or self._files_to_look_at()
        # However long the listing took, there is then something to show.
        deadline = time.monotonic() + limit_seconds
        while self._to_read and time.monotonic() < deadline:
            changed |= self._read(self._to_read.pop())
        if not changed:
            self.version -= 1
        self._keep()
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
        # What is kept is of use once, at the first listing.
        known = self.store.load() if self.store is not None and self._is_first_listing else {}
        self._is_first_listing = False
        for entry in trace_files(self.root, folders):
            self._note(entry.path, known)
        self._gone += known
        # A folder changed so recently may change again within the same tick of its clock.
        self._folders = {folder: at if (at := _changed_at(folder)) < before - SAME_TICK_NS else 0 for folder in folders}

    def _folders_changed(self) -> bool:
        return any(_changed_at(folder) != at for folder, at in self._folders.items())

    def _note(self, path: str, known: dict[str, Kept] | None = None) -> None:
        if path not in self._files:
            name = self._name_of(path)
            # Its folder as seen from the root; of those in the root itself, the root's name.
            run = name.rpartition("/")[0] or self._own_name
            file = self._files[path] = _File(path, seen_at=time.monotonic(), run=run)
            file.kept = known.pop(name, None) if known else None

    def _name_of(self, path: str) -> str:
        return path[self._root_length :].lstrip("/")

    def _keep(self) -> None:
        """Keep what has been read since the last time."""
        if self.store is None or not (self._to_keep or self._gone):
            return
        self.store.save(
            [
                (name, kept_of(file.size, file.changed_at, file.offset, file.lost, file.rollouts))
                for name, file in self._to_keep.items()
            ],
            self._gone,
        )
        self._to_keep.clear()
        self._gone.clear()

    def _restore(self, file: _File, status: os.stat_result) -> bool:
        """Take in what is kept of a file, if it is still that file; whether that is all there is to know."""
        kept, file.kept = file.kept, None
        if kept is None or kept.size > status.st_size:
            return False
        is_same = (kept.size, kept.changed) == (status.st_size, status.st_mtime_ns)
        # A trace is only ever appended to; what has changed and has no more to it is another file.
        if not is_same and kept.size == status.st_size:
            return False
        summaries = kept.summaries(file.path)
        if not summaries:
            return False
        for one in summaries:
            one.run, one.version = file.run, self.version
        file.rollouts.extend(summaries)
        self.rollouts.extend(summaries)
        file.offset, file.lost = kept.read, kept.lost
        self.unreadable_lines += kept.lost
        if is_same:
            file.size, file.inode, file.changed_at = status.st_size, status.st_ino, status.st_mtime_ns
            file.seen_at = _seen_at(status)
        return is_same

    def _read(self, file: _File) -> bool:
        try:
            status = os.stat(file.path, follow_symlinks=False)  # noqa: PTH116 - a Path each would cost more than the call
            if file.kept is not None and self._restore(file, status):
                return True
            # A trace is only ever appended to.
            if status.st_size == file.size and status.st_ino == file.inode:
                return False
            if (file.inode and status.st_ino != file.inode) or status.st_size < file.offset:
                self._forget(file)  # another file of the same name
            file.size, file.inode, file.changed_at = status.st_size, status.st_ino, status.st_mtime_ns
            file.seen_at = _seen_at(status)
            before = file.offset
            file.is_unreadable = False
            for line, end in lines_of(file.path, file.offset):
                self._take_in(file, line, end)
                file.offset = end
        except OSError:
            file.is_unreadable = True
            return False
        if self.store is not None and file.rollouts:
            self._to_keep[self._name_of(file.path)] = file
        return file.offset > before

    def _forget(self, file: _File) -> None:
        file.offset = file.lost = 0
        # `self.rollouts` keeps them: pages refer to their positions.
        file.rollouts.clear()

    def _take_in(self, file: _File, line: bytes, end: int) -> None:
        rollout = file.rollouts[-1] if file.rollouts else None
        if rollout is not None and _is_of_no_concern(line, rollout):
            rollout.end = end
            return
        event = event_on(line)
        if event is None:
            self.unreadable_lines += 1
            file.lost += 1
            return
        if rollout is None or event["event"] == _START:
            rollout = Summary(file.path, file.offset, end, run=file.run)
            file.rollouts.append(rollout)
            self.rollouts.append(rollout)
        rollout.add(event, end)
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
    name = line[_NAME_AT : line.find(b'"', _NAME_AT)]
    # The first call sends what the init asked: there is nothing new in it.
    return name not in _CONCERNING or (name == _CHAT_START and rollout.knows_calls and b'"at":0,' in line[:300])


def _seen_at(status: os.stat_result) -> float:
    """When a file changed: as long ago as it says, on a clock that nobody sets."""
    return time.monotonic() - max(0.0, time.time() - status.st_mtime)


def _changed_at(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0
