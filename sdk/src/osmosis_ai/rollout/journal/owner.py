"""Who still lives: each opened journal is an owner, a random token, with two proofs of life.

1. A locked byte of the journal's own file (``anchor``), which cannot be removed without the journal.
2. A locked file (``flock``) of that name beside the journal. A living owner puts it back when a cleaner of old files
   has removed it; it alone counts for an SDK, and on a system, that does not know the other.

The kernel drops both when the process ends, however it ends, and an owner is dead only if it has neither. Programs that
the process starts do not inherit the descriptors and a forked child closes its copies, so neither keeps a dead owner
alive. Not for network file systems, where such locks may be local or missing.
"""

import os
import re
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path

if sys.platform != "win32":
    import fcntl

FRESHENED_SECONDS = 3600.0
"""How often a living owner's file gets a new date, as cleaners go by that."""
_TOKEN_BYTES = 16
_DRAFT = ".new"
_TOKEN = re.compile(rf"[0-9a-f]{{{2 * _TOKEN_BYTES}}}")
_OURS = re.compile(rf"{_TOKEN.pattern}({re.escape(_DRAFT)})?")
_held_descriptors: set[int] = set()


def _close_in_child() -> None:
    for descriptor in _held_descriptors:
        # A `flock` belongs to the open file, which both processes share: the copy would keep a dead parent alive.
        os.close(descriptor)
    _held_descriptors.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_close_in_child)


def new_token() -> str:
    """A name for an owner that nobody else has."""
    return secrets.token_hex(_TOKEN_BYTES)


class Owner:
    """A living owner, until ``release`` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        """Become an owner: makes and locks a file in ``directory``. Raises ``OSError``."""
        self.token = new_token()
        self._path = directory / self.token
        self._descriptor = self._put_file()

    def reassert(self) -> None:
        """Put the file back if somebody has removed it or its directory. Raises ``OSError``."""
        mine = os.fstat(self._descriptor)
        try:
            if os.path.samestat(self._path.lstat(), mine):
                if time.time() - mine.st_mtime > FRESHENED_SECONDS:
                    os.utime(self._descriptor)
                return
        except FileNotFoundError:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
        removed, self._descriptor = self._descriptor, self._put_file()
        _held_descriptors.discard(removed)
        os.close(removed)

    def release(self) -> None:
        """Stop being an owner. No-op in a forked child, which never was one."""
        if self._descriptor in _held_descriptors:
            _held_descriptors.discard(self._descriptor)
            try:
                self._path.unlink(missing_ok=True)
            finally:
                os.close(self._descriptor)  # whatever becomes of the name: it is dead now

    def _put_file(self) -> int:
        """Locked before it has its name, so that nobody sees it without its lock."""
        draft = self._path.with_name(self.token + _DRAFT)
        while True:
            descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if lock(descriptor, exclusive=True):
                    draft.replace(self._path)
                    _held_descriptors.add(descriptor)
                    return descriptor
            except FileNotFoundError:
                pass  # Somebody who sweeps saw the draft before its lock.
            except OSError:
                os.close(descriptor)
                draft.unlink(missing_ok=True)
                raise
            os.close(descriptor)


def is_token(text: str) -> bool:
    """Whether ``text`` can name an owner at all."""
    return _TOKEN.fullmatch(text) is not None


def is_locked(directory: Path, token: str) -> bool | None:
    """Whether the file of the owner ``token`` in ``directory`` is locked, in doubt it is; ``None`` without a file."""
    return _is_locked(directory / token) if is_token(token) else None


def is_alive(directory: Path, token: str) -> bool:
    """Whether the owner ``token`` has a file in ``directory`` that is locked."""
    return bool(is_locked(directory, token))


def sweep(directory: Path) -> None:
    """Remove the files of dead owners; of a living one, never a file that it has put back meanwhile."""
    for path in _files(directory):
        if _OURS.fullmatch(path.name):
            _is_locked(path, if_not=path.unlink)


def living(directory: Path) -> list[str]:
    """The tokens of the owners in ``directory`` whose files are locked."""
    return [path.name for path in _files(directory) if is_alive(directory, path.name)]


def _files(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:  # a cleaner's work; whoever lives puts it back
        return []


def _is_locked(path: Path, if_not: Callable[[], None] | None = None) -> bool | None:
    """Whether the file of that name is locked; where it is not, ``if_not`` is called before anybody can lock it.

    What was opened may have been removed, and its owner have put another in its place and let go of this one: only a
    lock on the file that still has the name tells of its owner. Who has got that lock knows that no owner is about.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError:
            # Out of descriptors, say. Presumed dead, its running rollouts would be reported as interrupted.
            return True
        try:
            # Shared, so that two who ask at once do not take each other for the owner.
            if not lock(descriptor, exclusive=False):
                return True
            if os.path.samestat(path.lstat(), os.fstat(descriptor)):
                if if_not is not None:
                    if_not()
                return False
        except FileNotFoundError:
            return None
        finally:
            os.close(descriptor)


def lock(descriptor: int, *, exclusive: bool) -> bool:
    """Try to lock a file without waiting; the lock lasts until the descriptor is closed."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
