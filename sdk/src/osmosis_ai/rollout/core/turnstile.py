"""Many rollouts that could go on at once go on a few at a time, so that the event loop stays answerable.

A thousand replies that arrive together would wake a thousand agents in one round of the loop, and whoever asks for
``/health`` meanwhile waits for all of them. What passes the turnstile is let through a few a round, first come first
served, fewer where agents take long; between rounds the loop sees to everything else.
"""

import asyncio
import time
from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

MAX_PER_ROUND = 64
MIN_PER_ROUND = 8
LONG_ROUND_SECONDS = 0.015
"""A round that lasts longer lets fewer through in the next, a shorter one more."""


class Turnstile:
    """Belongs to one event loop; use ``turnstile_of``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._passed = 0
        """In this round; above 0 exactly if ``_next_round`` is due."""
        self._per_round = MAX_PER_ROUND
        self._round_began_at = 0.0

    def resolve(self, future: "asyncio.Future[Any]", result: Any) -> None:
        """``future.set_result(result)``, now or in one of the next rounds; nothing if it is done by then."""
        if self._waiting or self._passed >= self._per_round:
            # Also where there is room: whoever waits goes first.
            self._waiting.append((future, result))
            return
        if self._passed == 0:
            self._begin_round()
        self._passed += 1
        if not future.done():
            future.set_result(result)

    async def enter(self) -> None:
        """Wait for a turn, if there is a queue."""
        if self._waiting or self._passed >= self._per_round:
            turn: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append((turn, None))
            await turn
            return
        if self._passed == 0:
            self._begin_round()
        self._passed += 1

    def _begin_round(self) -> None:
        self._round_began_at = time.monotonic()
        # One iteration of the loop later, which is what a round measures: all it woke, and everything else.
        self._loop.call_soon(self._next_round)

    def _next_round(self) -> None:
        lasted_seconds = time.monotonic() - self._round_began_at
        # Down by half, up by one: a late loop recovers at once. A fixed small number costs up to a quarter of the CPU.
        if lasted_seconds > LONG_ROUND_SECONDS:
            self._per_round = max(self._per_round // 2, MIN_PER_ROUND)
        elif self._per_round < MAX_PER_ROUND:
            self._per_round += 1
        self._passed = 0
        while self._waiting and self._passed < self._per_round:
            future, result = self._waiting.popleft()
            if not future.done():
                if self._passed == 0:
                    self._begin_round()
                self._passed += 1
                future.set_result(result)


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = WeakKeyDictionary()


def turnstile_of(loop: asyncio.AbstractEventLoop) -> Turnstile:
    """The turnstile of ``loop``."""
    found = _of_loop.get(loop)
    if found is None:
        found = _of_loop[loop] = Turnstile(loop)
    return found
