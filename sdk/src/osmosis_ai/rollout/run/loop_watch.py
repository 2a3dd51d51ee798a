"""The server's watchdog over runs in this process: an agent that blocks is told of, and ended at its time limit."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.loop_blocks import LoopBlock, RunInterrupted, note_block
from osmosis_ai.rollout.core.results import StopReason, time_limit
from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.core.watch import Observer


class LocalRun:
    """One run, as the watchdog sees it (``WatchedRun``)."""

    def __init__(self, ctx: RolloutContext, limit_seconds: float | None) -> None:
        self._ctx = ctx
        self._limit_seconds = limit_seconds
        self._began_at = time.monotonic()
        self._task = asyncio.current_task()
        self.interruption: StopReason | None = None

    def overdue(self) -> StopReason | None:
        """The time limit, once it is over."""
        limit_seconds = self._limit_seconds
        if limit_seconds is None or time.monotonic() - self._began_at < limit_seconds:
            return None
        return time_limit(limit_seconds)

    def interrupt(self, reason: StopReason, place: str) -> RunInterrupted:
        """As for a rollout of a server."""
        message = f"{reason.message}; it blocked the event loop at {place}: use asyncio.to_thread"
        self.interruption = replace(reason, message=message)
        return RunInterrupted(message)

    def note_block(self, place: str, seconds: float) -> LoopBlock:
        """Into trace and result."""
        self._ctx.log_event(TraceEvent.LOOP_BLOCKED, place=place, seconds=round(seconds, 3))
        return note_block(self._ctx, place, seconds)


@contextmanager
def loop_watched() -> Iterator[None]:
    """Watch the running event loop; each place is logged once, as the report has them all."""
    from osmosis_ai.rollout.observe.looplag import LoopLag
    from osmosis_ai.rollout.server.signals import Heard
    from osmosis_ai.rollout.server.watchdog import Watchdog

    class NoSignals:
        """The commands handle their signals themselves."""

        heard_outside = Heard()
        forced = False
        numbers: set[int] = set()  # noqa: RUF012 - never changed
        first_at: float | None = None
        second_at: float | None = None

    class LocalWatchdog(Watchdog):
        told: set[str]

        def _log(self, place: str, seconds: float) -> None:
            if place not in self.told:
                self.told.add(place)
                super()._log(place, seconds)

    lag = LoopLag(lambda seconds: None)
    watchdog = LocalWatchdog(lag, NoSignals(), RolloutServerSettings.model_construct(), Observer())
    watchdog.told = set()
    try:
        yield
    finally:
        watchdog.stop()
        lag.stop()
