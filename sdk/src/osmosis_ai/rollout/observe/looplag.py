"""Event loop lag: how much later than asked the loop calls back. What holds it up holds up every rollout."""

import asyncio
import time
from collections.abc import Callable

INTERVAL_SECONDS = 0.25


class LoopLag:
    """Measures the lag of the running loop every ``INTERVAL_SECONDS``, until ``stop``."""

    def __init__(self, report: Callable[[float], None], interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._report = report
        self._interval_seconds = interval_seconds
        self._loop = asyncio.get_running_loop()
        self._schedule(self._loop.time())

    @property
    def overdue_seconds(self) -> float:
        """How long the loop has been due to call back; 0 while it is on time. For any thread, also while it blocks."""
        # The loop's own clock stands still while it blocks, as libuv's does.
        return max(0.0, time.monotonic() - self._expected_at)

    def stop(self) -> None:
        """Measure no more."""
        self._timer.cancel()

    def _schedule(self, now: float) -> None:
        self._due = now + self._interval_seconds
        self._expected_at = time.monotonic() + self._interval_seconds
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        # libuv's clock has millisecond steps and may be early by one of them.
        self._report(max(0.0, now - self._due))
        # From now, not from when it was due: one long stall is one long lag, not a burst of them.
        self._schedule(now)
