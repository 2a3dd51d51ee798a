"""Who still lives: each opened journal is an owner, a random token with a locked file of that name.

The kernel drops the lock (``flock``) when the process ends, however it ends, so a file that is missing or can be
locked means a dead owner. Programs that the process starts do not inherit the descriptor and a forked child closes its
copy, so neither keeps a dead owner alive. Not for network file systems, where such locks may be local or missing.
"""

import os
import re
import secrets
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_TOKEN_BYTES = 16
_TOKEN = re.compile(rf"[0-9a-f]{{{2 * _TOKEN_BYTES}}}")
_held_descriptors: set[int] = set()


def _close_in_child() -> None:
    for descriptor in _held_descriptors:
        # A `flock` belongs to the open file, which both processes share: the copy would keep a dead parent alive.
        os.close(descriptor)
    _held_descriptors.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_close_in_child)


class Owner:
    """A living owner, until ``release`` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        """Become an owner: makes and locks a file in ``directory``. Raises ``OSError``."""
        self._directory = directory
        while True:
            self.token = secrets.token_hex(_TOKEN_BYTES)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            # Somebody who sweeps may see the file before the lock and remove it; then another token is tried.
            if self._is_locked_in_place(descriptor):
                break
            os.close(descriptor)
        self._descriptor = descriptor
        _held_descriptors.add(descriptor)

    def release(self) -> None:
        """Stop being an owner. No-op in a forked child, which never was one."""
        if self._descriptor in _held_descriptors:
            _held_descriptors.discard(self._descriptor)
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)

    @property
    def _path(self) -> Path:
        return self._directory / self.token

    def _is_locked_in_place(self, descriptor: int) -> bool:
        try:
            return lock(descriptor, exclusive=True) and os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False
        except OSError:
            os.close(descriptor)
            self._path.unlink(missing_ok=True)
            raise


def is_alive(directory: Path, token: str) -> bool:
    """Whether the owner ``token`` of the journal with this owner ``directory`` still lives; in doubt it does."""
    if not _TOKEN.fullmatch(token):
        return False
    try:
        descriptor = os.open(directory / token, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        # Out of descriptors, say. Presumed dead, its running rollouts would be reported as interrupted.
        return True
    try:
        # Shared, so that two who ask at once do not take each other for the owner.
        return not lock(descriptor, exclusive=False)
    finally:
        os.close(descriptor)


def sweep(directory: Path) -> None:
    """Remove the files of dead owners."""
    for path in directory.iterdir():
        if _TOKEN.fullmatch(path.name) and not is_alive(directory, path.name):
            path.unlink(missing_ok=True)


def lock(descriptor: int, *, exclusive: bool) -> bool:
    """Try to lock a file without waiting; the lock lasts until the descriptor is closed."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
