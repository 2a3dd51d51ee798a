"""The rollouts in a folder of traces, kept up to date: each refresh reads only what was added since.

Used by one thread at a time. Summaries are kept in memory, events are not. With ``keep`` the summaries are also kept
beside the traces (``store.Store``), what is known of a file that has not changed is not read again, and a large folder
is read the first time with the help of other processes (``helpers.Helpers``). Nobody waits for what is kept: a refresh
with a limit keeps what the one before it has read, and ``keep`` the rest.
"""

import math
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.text import encodable
from osmosis_ai.rollout.observe.traces.followed import FollowedFile
from osmosis_ai.rollout.observe.traces.helpers import Helpers
from osmosis_ai.rollout.observe.traces.reader import events_of, trace_files
from osmosis_ai.rollout.observe.traces.store import Kept, Store, checked
from osmosis_ai.rollout.observe.traces.summary import Summary

MAX_ROLLOUTS = 500_000
"""Of all files: what is known of one takes a kilobyte at least. A file that is found beyond them is not read."""
MANY_FILES = 2000
"""So many that have not been read before are read with the help of other processes, where the index is kept."""
OWN_FILES = 10
"""How many the index then reads itself before it looks whether a helper has answered."""
CHECKED_AT_ONCE = 500
"""Files that are known, as each call of the validator costs as much as half of what it checks of one."""
LISTING_SECONDS = 20.0
"""How often a folder that looks unchanged is listed all the same."""
KEPT_AT_ONCE = 5000
"""Files of a refresh, which takes a tenth of a second."""
SAME_TICK_NS = 20_000_000
"""Two changes of a folder may bear the same time if they are this close."""


class TraceIndex:
    """All rollouts under ``root``, a folder or one file.

    Attributes:
        rollouts: by position, which stays what it is.
        place: ``root`` as text that can be sent and shown, whatever bytes it is named by.
    """

    def __init__(self, root: str | Path, *, keep: bool = False) -> None:
        self.root = Path(root)
        self.place = encodable(str(self.root))
        self.store = Store(self.root) if keep and self.root.is_dir() else None
        place = self.root.absolute() if self.root.name not in ("", "..") else self.root.resolve()
        self._own_name = place.name if self.root.is_dir() else place.parent.name
        self._root_length = len(os.fspath(self.root))
        self.rollouts: list[Summary] = []
        self.version = 0
        self._files: dict[str, FollowedFile] = {}
        self._known: dict[str, bytes] = {}
        self._checked: dict[str, Kept | None] = {}
        self._folders: dict[str, int] = {}
        self._listed_at = -math.inf
        self._is_first_listing = True
        self._to_read: list[FollowedFile] = []
        self._helpers: Helpers | None = None
        self._to_keep: dict[str, FollowedFile] = {}
        self._gone: list[str] = []

    @property
    def unreadable_lines(self) -> int:
        """How many lines hold no event."""
        return sum(file.lost for file in self._files.values())

    @property
    def unreadable_files(self) -> int:
        """How many files were passed over: not readable, or larger than a trace can be."""
        return sum(file.is_unreadable for file in self._files.values())

    @property
    def is_behind(self) -> bool:
        """Whether the last refresh ran out of time; the next one goes on from there."""
        return bool(self._to_read) or (self._helpers is not None and self._helpers.are_busy)

    def refresh(self, limit_seconds: float = math.inf) -> int:
        """Read what was added; the version after that, which is the old one if nothing was."""
        self.version += 1
        changed = False
        if not self.is_behind:
            self._keep()
            self._to_read = self._files_to_look_at()
        # However long the listing took, there is then something to show.
        deadline = time.monotonic() + limit_seconds
        while self.is_behind and (left := deadline - time.monotonic()) > 0:
            changed |= self._read_next(left)
        if self._helpers is not None and not self.is_behind:
            self._helpers.close()
            self._helpers = None
        if not changed:
            self.version -= 1
        if limit_seconds == math.inf:
            self.keep()
        return self.version

    def keep(self) -> None:
        """Keep all that has been read, beside the traces."""
        while self._to_keep or self._gone:
            self._keep()

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

    def _files_to_look_at(self) -> list[FollowedFile]:
        now = time.monotonic()
        if os.path.isfile(self.root):  # noqa: PTH113 - `Path.is_file` raises where a folder above cannot be entered
            # What the user names may be a link; no other link is followed.
            self._note(os.path.realpath(self.root))
        elif now - self._listed_at >= LISTING_SECONDS or self._folders_changed():
            self._listed_at = now
            self._list()
            # The last is read first: what is known already, then what was listed first.
            files = [*reversed(self._files.values())]
            files.sort(key=lambda file: file.path in self._known)
            return files
        return [file for file in self._files.values() if file.may_grow(now)]

    def _list(self) -> None:
        folders: list[str] = []
        before = time.time_ns()
        # What is kept is of use once, at the first listing.
        is_kept = self.store is not None and self._is_first_listing
        known = self.store.load() if self.store is not None and is_kept else {}
        self._is_first_listing = False
        for entry in trace_files(self.root, folders):
            self._note(entry.path, known)
        # Of pipes, Windows cannot tell which one has something to say.
        if is_kept and os.name == "posix" and len(self._files) - len(self._known) >= MANY_FILES:
            self._helpers = Helpers()
        self._gone += known
        # A folder changed so recently may change again within the same tick of its clock.
        self._folders = {folder: at if (at := _changed_at(folder)) < before - SAME_TICK_NS else 0 for folder in folders}

    def _folders_changed(self) -> bool:
        return any(_changed_at(folder) != at for folder, at in self._folders.items())

    def _note(self, path: str, known: dict[str, bytes] | None = None) -> None:
        if path not in self._files:
            name = self._name_of(path)
            # Its folder as seen from the root; of those in the root itself, the root's name.
            self._files[path] = FollowedFile(path, encodable(name.rpartition("/")[0] or self._own_name))
            if known and (kept := known.pop(name, None)) is not None:
                self._known[path] = kept

    def _name_of(self, path: str) -> str:
        return path[self._root_length :].lstrip("/")

    def _read_next(self, left_seconds: float) -> bool:
        if self._helpers is not None:
            self._helpers.ask(self._to_read)
            wait_seconds = 0 if self._to_read else None if left_seconds == math.inf else left_seconds
            answered = list(self._helpers.answered(wait_seconds))
            self._helpers.ask(self._to_read)  # they go on while what they told is taken in
            changed = [self._read(file, told) for file, told in answered]
            if not answered:
                changed = [self._read(file) for file in self._to_read[-OWN_FILES:]]
                del self._to_read[-OWN_FILES:]
            return any(changed)
        return self._read(self._to_read.pop())

    def _read(self, file: FollowedFile, told: tuple[Any, ...] | None = None) -> bool:
        if len(self.rollouts) >= MAX_ROLLOUTS and not file.rollouts:
            file.is_unreadable = True
            return False
        if told is None and file.path in self._known:
            self._check_some(file)
        known = self._checked.pop(file.path, None)
        self._known.pop(file.path, None)
        changed = file.read(known) if told is None else file.take_over(told)
        for one in changed:
            if not one.version and len(self.rollouts) < MAX_ROLLOUTS:
                self.rollouts.append(one)
            one.version = self.version
        if changed and self.store is not None and not file.is_kept:
            self._to_keep[self._name_of(file.path)] = file
        return bool(changed)

    def _check_some(self, first: FollowedFile) -> None:
        """Check what is known of ``first`` and of those that are read next; a reader would wait for all of them."""
        paths = {file.path for file in (first, *self._to_read[1 - CHECKED_AT_ONCE :])} & self._known.keys()
        self._checked |= zip(paths, checked([self._known.pop(path) for path in paths]), strict=True)

    def _keep(self) -> None:
        """Keep some of what has been read."""
        names = [*islice(self._to_keep, KEPT_AT_ONCE)]
        if self.store is not None and (names or self._gone):
            self.store.save([(name, self._to_keep.pop(name).kept()) for name in names], self._gone)
            self._gone.clear()


def _changed_at(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return 0
