"""What connections have received, worked off a portion at a time, so that no peer's bytes hold up the others.

Bytes cost by what is in them, not by their number: 256 kB, which come in one read, are one piece of a body, or 40,000
chunks of it. So all that is read takes ``TURN_SECONDS`` in a round of the event loop; what is left then waits, first
come first served, and its connection is not read from meanwhile.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

FIRST_BYTES = 2048
"""Of the first portion; each is twice as large as the one before, as long as there is time. Less needs no portions."""
MAX_BYTES = 16_384
TURN_SECONDS = 0.002
"""Of all connections of an event loop together, in one round of it."""


class Portions:
    """What one connection has received and has not worked off.

    Args:
        take: is given a portion, and whether more has come; says whether the next one is wanted.
        may_read: whether anybody else wants the connection to be read from.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[bytes, bool], bool],
        may_read: Callable[[], bool] = lambda: True,
    ) -> None:
        self.waiting = b""
        self._transport = transport
        self._turns = _turns_of(loop)
        self._take = take
        self._may_read = may_read

    def add(self, data: bytes) -> None:
        """``data`` has come, behind what waits."""
        if self.waiting:
            self.waiting += data
            self._transport.pause_reading()
            return
        self.waiting = data
        if self._turns.has_time():
            self.work_off(self._turns.end_at)
        else:
            self._wait()

    def go_on(self, until: float) -> None:
        """It is its turn."""
        if self._transport.is_closing():
            return
        self.work_off(until)
        if not self.waiting and not self._transport.is_closing() and self._may_read():
            self._transport.resume_reading()

    def work_off(self, until: float) -> None:
        """Take what waits, until that time; the rest waits on."""
        data, self.waiting = self.waiting, b""
        at, size = 0, FIRST_BYTES
        while at < len(data):
            portion = data[at : at + size]
            at += size
            if not self._take(portion, at < len(data)):
                return
            if time.monotonic() > until:
                break
            size = min(2 * size, MAX_BYTES)
        self.waiting = data[at:]
        if self.waiting and not self._transport.is_closing():
            self._wait()

    def _wait(self) -> None:
        self._transport.pause_reading()
        self._turns.queue.append(self)


class _Turns:
    """Of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue: deque[Portions] = deque()
        self.end_at = 0.0
        """When this round has had its time; above 0 exactly if ``_next_round`` is due."""
        self._loop = loop

    def has_time(self) -> bool:
        if not self.end_at:
            self._begin_round()
        return not self.queue and time.monotonic() < self.end_at

    def _begin_round(self) -> None:
        self.end_at = time.monotonic() + TURN_SECONDS
        self._loop.call_soon(self._next_round)

    def _next_round(self) -> None:
        self.end_at = 0.0
        if not self.queue:
            return
        self._begin_round()
        while self.queue and time.monotonic() < self.end_at:
            self.queue.popleft().go_on(self.end_at)


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _turns_of(loop: asyncio.AbstractEventLoop) -> _Turns:
    found = _of_loop.get(loop)
    if found is None:
        found = _of_loop[loop] = _Turns(loop)
    return found
