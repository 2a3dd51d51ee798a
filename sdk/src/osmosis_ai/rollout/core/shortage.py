"""What this machine is short of: open files, memory, threads. It passes, and is nobody else's failure."""

import errno
import os
import socket
from collections.abc import Iterator

ASSUMED_DESCRIPTORS = 1024
"""Where the system does not say how many there may be."""

_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_RESOLVER_ERRNOS = frozenset({socket.EAI_MEMORY, socket.EAI_SYSTEM})


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


def _is_short(error: BaseException) -> bool:
    if not isinstance(error, OSError):
        return False
    # The resolver opens files and sockets. Where it could not it says that a name is unknown, or, with multicast DNS
    # (libnss-mdns), that something is busy, which is no gaierror.
    if isinstance(error, socket.gaierror) or error.errno == errno.EBUSY:
        return error.errno in _RESOLVER_ERRNOS or not can_open_a_file()
    return error.errno in _ERRNOS


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
