"""How much each worker of a server has to do, so that one that has more than another lets connections go.

Workers accept from one socket, and a trainer keeps its connections: whoever accepted most of them would have most of
the work for as long as they last. A worker that is ahead asks for its connection to be closed after a 202; the next one
goes to whoever has time to accept it. The numbers are in memory that supervisor and workers share, and beside each
stands when the event loop of that worker last came round: one that is stopped, or that an agent blocks, takes no
connections, however little it has to do.
"""

import mmap
import os
import struct
import time

# Without a lock: what is read half-written decides about one connection, no more.
_ENTRY = struct.Struct("=qd")
_BEAT_AT = struct.calcsize("=q")
_BEAT = struct.Struct("=d")
_NUMBER = struct.Struct("=q")
ABSENT = -1
"""In place of the number of a worker that does not serve yet, or no more."""

SILENT_SECONDS = 5.0
"""After which a worker is taken for one that accepts nothing; its event loop says four times a second that it runs."""

GIVE_WAY_SECONDS = 0.005
# Less than both together is no lead: connections would go to and fro, each at the price of a new one.
TOLERATED_SHARE = 0.05
TOLERATED_ROLLOUTS = 2


class Siblings:
    """The numbers of ``count`` workers, in the file ``descriptor``; ``index`` is this worker's own."""

    def __init__(self, descriptor: int, count: int, index: int | None = None) -> None:
        self._memory = mmap.mmap(descriptor, _ENTRY.size * count)
        self._count = count
        self._index = index
        self._next_at = 0.0

    def note(self, unfinished: int) -> None:
        """Publish how many rollouts this worker has accepted and not finished."""
        if self._index is not None:
            _NUMBER.pack_into(self._memory, self._index * _ENTRY.size, unfinished)

    def beat(self) -> None:
        """This worker serves, and its event loop has just come round."""
        if self._index is not None:
            _BEAT.pack_into(self._memory, self._index * _ENTRY.size + _BEAT_AT, time.monotonic())

    def beat_at(self, index: int) -> float:
        """When the event loop of the worker at ``index`` last came round (``time.monotonic``); 0 before it serves."""
        (at,) = _BEAT.unpack_from(self._memory, index * _ENTRY.size + _BEAT_AT)
        return float(at)

    def clear(self, index: int) -> None:
        """There is no worker at ``index``."""
        _ENTRY.pack_into(self._memory, index * _ENTRY.size, ABSENT, 0.0)

    @property
    def total(self) -> int:
        """How many rollouts all workers together have accepted and not finished."""
        entries: list[tuple[int, float]] = list(_ENTRY.iter_unpack(self._memory[: _ENTRY.size * self._count]))
        return sum(max(number, 0) for number, _ in entries)

    def gives_way(self) -> bool:
        """Whether a connection should be let go now; at most one in ``GIVE_WAY_SECONDS``."""
        now = time.monotonic()
        if now < self._next_at or not self.is_ahead:
            return False
        self._next_at = now + GIVE_WAY_SECONDS
        return True

    @property
    def is_ahead(self) -> bool:
        """Whether this worker has clearly more to do than another that serves."""
        if self._index is None:
            return False
        entries: list[tuple[int, float]] = list(_ENTRY.iter_unpack(self._memory[: _ENTRY.size * self._count]))
        own, _ = entries.pop(self._index)
        # Of one that takes none, no connection would come back.
        recently = time.monotonic() - SILENT_SECONDS
        least = min((number for number, beat_at in entries if number != ABSENT and beat_at >= recently), default=own)
        return own > least * (1 + TOLERATED_SHARE) + TOLERATED_ROLLOUTS


def shared_memory(count: int) -> int:
    """The descriptor of memory for ``count`` workers, all of them absent; the caller closes it."""
    import tempfile

    # A file without a name: gone with the last process that has it, however that ends.
    with tempfile.TemporaryFile() as file:
        file.write(_ENTRY.pack(ABSENT, 0.0) * count)
        file.flush()
        return os.dup(file.fileno())


_current: Siblings | None = None


def join(siblings: Siblings) -> None:
    """Make this process one of ``siblings``."""
    global _current
    _current = siblings


def current() -> Siblings | None:
    """The siblings of this process; ``None`` where it serves alone."""
    return _current
