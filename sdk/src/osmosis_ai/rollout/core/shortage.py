"""What this machine is short of: open files, memory, threads. It passes, and is nobody else's failure."""

import errno
import os
import socket
from collections.abc import Iterator

ASSUMED_DESCRIPTORS = 1024
"""Where the system does not say how many there may be."""

_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


def descriptor_limit() -> int:
    """How many files this process may have open at once."""
    try:
        import resource
    except ImportError:
        return ASSUMED_DESCRIPTORS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def is_local_shortage(error: BaseException) -> bool:
    """Whether ``error`` came about because this machine has no more of what a connection or a file needs."""
    return any(_is_short(cause) for cause in _causes(error))


def hindered_connecting(error: BaseException) -> bool:
    """Whether ``error``, of an attempt to connect that has just failed, came about because of a local shortage.

    The resolver opens files and sockets. Where it could not, it says whatever came last: that a name is unknown, that
    something is busy, that an argument is invalid. So what it says counts only where a file can be opened.
    """
    return is_local_shortage(error) or not can_open_a_file()


def _is_short(error: BaseException) -> bool:
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_MEMORY
    return isinstance(error, OSError) and error.errno in _ERRNOS


def can_open_a_file() -> bool:
    """Whether this process may open one more."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _causes(inner)
        error = error.__cause__ or error.__context__
