"""A bound on the bytes that many tasks have in memory at once: who wants more than is left waits in line.

Invariant: what is held together is at most ``max_bytes``, or is one share alone that is larger than that, so that
nothing waits for ever because of its size. Shares are given in the order in which they were asked for.
"""

import asyncio
from collections import deque
from types import TracebackType


class ByteBudget:
    """Of one event loop. ``async with budget.share(n):`` holds ``n`` bytes of it."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def share(self, size_bytes: int) -> "_Share":
        """To be entered as a context, once."""
        return _Share(self, size_bytes)

    def take_now(self, size_bytes: int) -> bool:
        """Take a share unless one would have to wait for it; to be given back with ``give``."""
        held = self.held_bytes
        if self._waiting or (held and held + size_bytes > self.max_bytes):
            return False
        self.held_bytes += size_bytes
        return True

    async def take(self, size_bytes: int) -> None:
        """Wait for a share, to be given back with ``give``."""
        if self.take_now(size_bytes):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size_bytes, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(entry)
                self._serve()  # it may have stood in front of smaller ones
            else:  # its turn came in the same moment
                self.give(size_bytes)
            raise

    def give(self, size_bytes: int) -> None:
        """Give a share back."""
        self.held_bytes -= size_bytes
        if self._waiting:
            self._serve()

    def _has(self, size_bytes: int) -> bool:
        return self.held_bytes == 0 or self.held_bytes + size_bytes <= self.max_bytes

    def _serve(self) -> None:
        while self._waiting and self._has(self._waiting[0][0]):
            size_bytes, turn = self._waiting[0]
            if turn.done():
                return  # cancelled: it leaves the line by itself, and goes on from here
            self._waiting.popleft()
            self.held_bytes += size_bytes
            turn.set_result(None)


class _Share:
    __slots__ = ("_budget", "_size_bytes")

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    async def __aenter__(self) -> None:
        await self._budget.take(self._size_bytes)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._budget.give(self._size_bytes)
