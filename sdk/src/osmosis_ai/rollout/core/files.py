"""The files that the SDK writes of rollouts: private, there whole or not at all, never waited for.

They hold prompts, replies and ground truths, so a file we make is its owner's alone (0600), and so is a folder (0700);
what exists keeps its mode, so a wider one is the user's choice. What lies under a name may be anything, planted or by
mistake: `open_regular` opens a FIFO or a device without waiting and gives it back unread.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from osmosis_ai.rollout.core.user_errors import CLIError

FILE_MODE = 0o600
FOLDER_MODE = 0o700

# A FIFO that nobody reads would let the opener wait for ever; a terminal must not become this process's own.
_CAREFUL = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)
_NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
# Of a link that is not followed (Linux and macOS, FreeBSD), of a FIFO without a reader or a socket, of a folder.
_NOT_REGULAR = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR}


class NotRegularError(OSError):
    """Under a name lies something else than a regular file."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file", os.fspath(path))


def open_regular(path: str | Path, flags: int, *, follow: bool = False) -> int:
    """``os.open`` for regular files alone, which never waits; a file that it makes is private.

    ``follow`` also takes a symbolic link in the last place: for names that a user gave.

    Raises:
        NotRegularError: something else lies there, a symbolic link included.
        OSError: as of ``os.open``.
    """
    try:
        descriptor = os.open(path, flags | _CAREFUL | (0 if follow else _NO_FOLLOW), FILE_MODE)
    except OSError as error:
        if error.errno in _NOT_REGULAR:
            raise NotRegularError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(path)
    return descriptor


def make_folder(path: str | Path) -> None:
    """Make a folder and those above it, private where they are new; one that exists is left as it is.

    Raises:
        OSError: it cannot be made, or something else lies there.
    """
    path = Path(path)
    try:
        path.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        # `parents=True` would make these with the default mode.
        make_folder(path.parent)
        path.mkdir(FOLDER_MODE, exist_ok=True)
    except OSError:
        if not path.is_dir():
            raise


def write_whole(path: Path, pieces: Iterable[str | bytes]) -> None:
    """Write ``pieces`` to ``path``, and its folder if that is missing; text is UTF-8, lone surrogates are escaped.

    The file has its name only once it is on disk; whatever goes wrong, what was there before stays. A file that was
    there hands on its mode.

    Raises:
        CLIError: the disk does not take it, or something else than a file lies there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        make_folder(path.parent)
        mode = _mode_of(path)
        with suppress(FileNotFoundError):
            part.unlink()  # of an earlier process with this number
        descriptor = open_regular(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece if isinstance(piece, bytes) else piece.encode("utf-8", "backslashreplace"))
            file.flush()
            if mode is not None:
                part.chmod(mode)
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CLIError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _mode_of(path: Path) -> int | None:
    """The permissions of the file that is to be replaced; ``None`` without one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(path)
    return stat.S_IMODE(status.st_mode)
