"""A time limit that is set for each request or turn, and is hardly ever reached: to move it costs no timer.

The event loop's own timer stays where it is when the limit moves on; where it goes off too early, it is set again.
Invariant: a limit that is set has a timer at or before it.
"""

import asyncio
import math
from collections.abc import Callable

RESOLUTION_SECONDS = 0.001
"""Of the loop's clock, in which libuv counts; a timer may be early by as much."""


class Alarm:
    """Calls ``ring`` once when the limit is reached; belongs to ``loop``."""

    __slots__ = ("_loop", "_ring", "_timer", "_timer_at", "at")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self.at = math.inf
        """The limit, by the loop's clock; infinite where none is set."""
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def set(self, at: float) -> None:
        """Let the limit be ``at``, whatever it was."""
        self.at = at
        if at < self._timer_at:
            self._set_timer()

    def unset(self) -> None:
        """Let there be none for now."""
        self.at = math.inf

    def close(self) -> None:
        """Let go of the timer, and of what ``ring`` belongs to."""
        self.at = self._timer_at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self.at
        self._timer = self._loop.call_at(self.at, self._look)

    def _look(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        if self._loop.time() + RESOLUTION_SECONDS >= self.at:
            self.at = math.inf
            self._ring()
        elif self.at < math.inf:
            self._set_timer()
