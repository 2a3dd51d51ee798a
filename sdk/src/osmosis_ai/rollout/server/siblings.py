"""How much each worker of a server has to do, so that one that has more than another lets connections go.

Workers accept from one socket, and a trainer keeps its connections: whoever accepted most of them would have most of
the work for as long as they last. A worker that is ahead asks for its connection to be closed after a 202; the next one
goes to whoever has time to accept it. The numbers are in memory that supervisor and workers share.
"""

import mmap
import os
import struct
import time

# Without a lock: a number read half-written decides about one connection, no more.
_NUMBER = struct.Struct("=q")
ABSENT = -1
"""In place of the number of a worker that does not serve yet, or no more."""

GIVE_WAY_SECONDS = 0.005
# Less than both together is no lead: connections would go to and fro, each at the price of a new one.
TOLERATED_SHARE = 0.05
TOLERATED_ROLLOUTS = 2


class Siblings:
    """The numbers of ``count`` workers, in the file ``descriptor``; ``index`` is this worker's own."""

    def __init__(self, descriptor: int, count: int, index: int | None = None) -> None:
        self._memory = mmap.mmap(descriptor, _NUMBER.size * count)
        self._count = count
        self._index = index
        self._next_at = 0.0

    def note(self, unfinished: int, index: int | None = None) -> None:
        """Publish how many rollouts this worker (or the one at ``index``) has accepted and not finished."""
        place = self._index if index is None else index
        if place is not None:
            _NUMBER.pack_into(self._memory, place * _NUMBER.size, unfinished)

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
        numbers: list[int] = [number for (number,) in _NUMBER.iter_unpack(self._memory[: _NUMBER.size * self._count])]
        if self._index is None:
            return False
        own = numbers.pop(self._index)
        least = min((number for number in numbers if number != ABSENT), default=own)
        return own > least * (1 + TOLERATED_SHARE) + TOLERATED_ROLLOUTS


def shared_memory(count: int) -> int:
    """The descriptor of memory for ``count`` workers, all of them absent; the caller closes it."""
    import tempfile

    # A file without a name: gone with the last process that has it, however that ends.
    with tempfile.TemporaryFile() as file:
        file.write(_NUMBER.pack(ABSENT) * count)
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
