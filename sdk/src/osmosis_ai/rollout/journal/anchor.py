"""What this process holds of a journal's main file beside SQLite: one descriptor, on which owners lock a byte each.

Such a lock cannot be deleted as a lock file can: it goes with the journal, wherever that is moved, and the kernel drops
it when the process ends, however it ends. It is an open file description lock (fcntl(2), Linux), so that it and
SQLite's own locks do not know of each other; the bytes lie far beyond what the file holds.

Invariant: the descriptor is opened before the process's first connection to that file and closed after its last one.
Closing any descriptor of a file drops the POSIX locks of all connections that the process has to it (SQLite, "How To
Corrupt An SQLite Database File", section 2.2), so it is shared and counted. A forked child closes it: it has no
connections, and would keep the locks of a dead parent.
"""

import os
import struct
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from osmosis_ai.rollout.journal.owner import is_token

if sys.platform == "linux":
    import fcntl

_FIRST_BYTE = 1 << 61
_TOKEN_DIGITS = 15
"""Of the token, in hexadecimal: 60 bits, so that two owners do not meet."""
_BYTES = 16**_TOKEN_DIGITS
_FLOCK = "@hhqqi4x"
"""``struct flock`` with 64-bit offsets: type, whence, start, length, process."""


@dataclass(eq=False, slots=True)
class Anchor:
    """One for each main file that this process has open."""

    descriptor: int
    identity: tuple[int, int]
    uses: int = 1
    tokens: set[str] = field(default_factory=set)
    """Of the owners of this process: a descriptor's own locks do not stand in its own way."""

    def hold(self, token: str) -> None:
        """Prove from now on that the owner ``token`` lives; without effect where the system has no such locks."""
        self.tokens.add(token)
        self._lock("F_OFD_SETLK", "F_WRLCK", token)

    def let_go(self, token: str) -> None:
        """``token`` is no owner any more."""
        self.tokens.discard(token)
        self._lock("F_OFD_SETLK", "F_UNLCK", token)

    def is_held(self, token: str) -> bool | None:
        """Whether the owner ``token`` lives; ``None`` where the system has no such locks."""
        if token in self.tokens:
            return True
        if not is_token(token):
            return False
        found = self._lock("F_OFD_GETLK", "F_WRLCK", token)
        return None if found is None else found != fcntl.F_UNLCK

    def is_held_by_another(self, but: str) -> bool:
        """Whether any owner lives but ``but``, known by name or not; false where the system has no such locks."""
        if self.tokens - {but}:
            return True
        found = self._lock("F_OFD_GETLK", "F_WRLCK")
        return found is not None and found != fcntl.F_UNLCK

    def _lock(self, command: str, kind: str, token: str | None = None) -> int | None:
        """Of the byte of ``token``, or of all that there are."""
        if sys.platform != "linux":
            return None
        first, count = (0, _BYTES) if token is None else (int(token[:_TOKEN_DIGITS], 16), 1)
        asked = struct.pack(_FLOCK, getattr(fcntl, kind), os.SEEK_SET, _FIRST_BYTE + first, count, 0)
        try:
            answer = fcntl.fcntl(self.descriptor, getattr(fcntl, command), asked)
        except OSError:  # a file system, or a kernel, without such locks
            return None
        return int(struct.unpack(_FLOCK, answer)[0])


_anchors: dict[tuple[int, int], Anchor] = {}
_guard = threading.Lock()


def take_anchor(path: Path) -> Anchor:
    """The anchor of the file at ``path``, to be given to ``drop_anchor`` in the end. Raises ``OSError``."""
    with _guard:
        status = path.stat()
        anchor = _anchors.get((status.st_dev, status.st_ino))
        if anchor is not None:
            anchor.uses += 1
            return anchor
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        status = os.fstat(descriptor)
        anchor = Anchor(descriptor, (status.st_dev, status.st_ino))
        return _anchors.setdefault(anchor.identity, anchor)


def drop_anchor(anchor: Anchor) -> None:
    """Give up an anchor whose connection is closed. No-op in a forked child."""
    with _guard:
        anchor.uses -= 1
        if anchor.uses == 0 and _anchors.get(anchor.identity) is anchor:
            del _anchors[anchor.identity]
            os.close(anchor.descriptor)


def _close_in_child() -> None:
    global _guard
    _guard = threading.Lock()
    for anchor in _anchors.values():
        os.close(anchor.descriptor)
    _anchors.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_close_in_child)
