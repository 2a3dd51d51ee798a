"""A time limit that can stand still: what a rollout waits for its paused trainer is none of its agent's time."""

import asyncio
import math
import time
from collections.abc import Callable


class Clock:
    """Calls ``on_end`` once its time is up. Every method may be called in any order, on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]) -> None:
        self._loop = loop
        self._on_end = on_end
        self._timer: asyncio.TimerHandle | None = None
        self._left_seconds: float | None = None
        """Where it is started and stands still."""
        self._still = False
        self._ends_at = math.inf

    @property
    def is_over(self) -> bool:
        """Whether its time is up, also where the loop cannot call as it is blocked; for any thread."""
        # The loop's own clock stands still while it blocks, as libuv's does.
        return time.monotonic() >= self._ends_at

    def start(self, seconds: float) -> None:
        """Begin anew; the time runs unless it stands still."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._still:
            self._left_seconds = seconds
            self._ends_at = math.inf
        else:
            self._left_seconds = None
            self._timer = self._loop.call_later(seconds, self._on_end)
            self._ends_at = time.monotonic() + seconds

    def stand_still(self, give_back_seconds: float = 0.0) -> None:
        """Stop the time, and give back what has run already."""
        self._still = True
        if self._timer is not None:
            left = self._timer.when() - self._loop.time() + give_back_seconds
            self.cancel()
            self._left_seconds = left

    def go_on(self, ran_seconds: float = 0.0) -> None:
        """Let the time run again, as if it had for ``ran_seconds``."""
        self._still = False
        if self._left_seconds is not None:
            self.start(max(0.0, self._left_seconds - ran_seconds))

    def cancel(self) -> None:
        """End it without a call."""
        self._left_seconds = None
        self._ends_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
