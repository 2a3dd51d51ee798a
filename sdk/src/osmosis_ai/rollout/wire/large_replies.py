"""Replies of more than a megabyte: how many of them may grow at once.

Each may be as large as a result; eight at once would take half a gigabyte. So beyond ``ROOM_BYTES`` of all that have
not come whole, one goes on and the others wait, unread, first come first served. One that takes its time holds nobody
up: every ``PATIENCE_SECONDS`` another goes on beside it, and what comes slowly fills no memory.
"""

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

LARGE_BYTES = 1024 * 1024
"""Below, a reply is not counted."""
ROOM_BYTES = 32 * 1024 * 1024
PATIENCE_SECONDS = 2.0


class LargeReply:
    """One that has not come whole; ``hold`` stops reading it and ``let_go`` goes on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hold: Callable[[], None], let_go: Callable[[], None]) -> None:
        self.size_bytes = 0
        self.hold = hold
        self.let_go = let_go
        self._others = _of_loop.setdefault(loop, _LargeReplies(loop))

    def grown(self, size_bytes: int) -> None:
        """So much of it has come by now."""
        self._others.grown(self, size_bytes)

    def ended(self) -> None:
        """It has come whole, or nobody wants it any more."""
        self._others.ended(self)


class _LargeReplies:
    """Of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._total_bytes = 0
        self._going_on: set[LargeReply] = set()
        """Those that may grow though there is no room."""
        self._held: dict[LargeReply, None] = {}
        self._patience: asyncio.TimerHandle | None = None

    def grown(self, reply: LargeReply, size_bytes: int) -> None:
        self._total_bytes += size_bytes - reply.size_bytes
        reply.size_bytes = size_bytes
        if self._total_bytes <= ROOM_BYTES or reply in self._going_on or reply in self._held:
            return
        if not self._going_on:
            self._going_on.add(reply)
            return
        self._held[reply] = None
        reply.hold()
        if self._patience is None:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self._lose_patience)

    def ended(self, reply: LargeReply) -> None:
        self._total_bytes -= reply.size_bytes
        reply.size_bytes = 0
        self._going_on.discard(reply)
        self._held.pop(reply, None)
        while self._held and (self._total_bytes <= ROOM_BYTES or not self._going_on):
            self._let_one_go_on()

    def _let_one_go_on(self) -> None:
        reply = next(iter(self._held))
        del self._held[reply]
        if self._total_bytes > ROOM_BYTES:
            self._going_on.add(reply)
        reply.let_go()

    def _lose_patience(self) -> None:
        self._patience = None
        if self._held:
            self._let_one_go_on()
        if self._held:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self._lose_patience)


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _LargeReplies] = WeakKeyDictionary()
