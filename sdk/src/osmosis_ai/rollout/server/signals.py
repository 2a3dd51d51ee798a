"""Draining on SIGTERM and Ctrl-C under any ASGI server.

uvicorn answers the first signal by closing its listeners, which would refuse the very inits a draining server is to
answer with 503. So while the app runs, the first signal starts the drain and the server's own handler is called when
the drain is over; a second signal goes straight to it.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

EXIT_SECONDS = 10.0
"""How long the server may take to end after the drain; what an agent left running could hold it up for ever."""

SAME_SIGNAL_SECONDS = 1.0
"""A signal to a whole process group comes twice under a parent that forwards its own, Ctrl-C then as SIGTERM."""

DRAIN_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class DrainOnSignal:
    """Puts ``drain`` in front of the handlers that are installed now, until ``restore``.

    Does nothing outside the main thread, or where no handler of a server is installed.
    """

    def __init__(self, drain: Callable[[], Awaitable[None]]) -> None:
        self.forced = False
        """Whether a second signal came."""
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._previous: dict[int, Any] = {}
        self._first_number, self._first_at = 0, 0.0
        if threading.current_thread() is not threading.main_thread():
            return
        for number in DRAIN_SIGNALS:
            previous = signal.getsignal(number)
            # Python's own handler is no server's: there is nobody to whom a drain could hand the signal on.
            if callable(previous) and previous is not signal.default_int_handler:
                self._previous[number] = previous
                signal.signal(number, self._on_signal)

    def restore(self) -> None:
        """Give the signals back to the server's handlers."""
        for number, previous in self._previous.items():
            # Somebody may have put a handler of their own in front since.
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, previous)
        self._previous.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Nothing more here: a handler interrupts any line, even one that holds the lock of a logger.
        self._loop.call_soon_threadsafe(self._begin, number, frame)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        now = self._loop.time()
        forwarded = number in (self._first_number, signal.SIGTERM)
        if self._task is not None and forwarded and now - self._first_at < SAME_SIGNAL_SECONDS:
            return
        if self._task is not None:
            logger.warning("Second signal: ending at once; what is not delivered stays in the journal.")
            self.forced = True
            self._task.cancel()
            self._pass_on(number, frame)
            return
        self._first_number, self._first_at = number, now
        self._task = asyncio.create_task(self._drain_and_pass_on(number, frame))

    async def _drain_and_pass_on(self, number: int, frame: FrameType | None) -> None:
        logger.info("Shutting down: no new rollouts are accepted.")
        try:
            await self._drain()
        except Exception:
            logger.exception("The drain failed; what is not delivered stays in the journal.")
        finally:
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous.get(number)
        server: Any = getattr(previous, "__self__", None)
        if getattr(server, "should_exit", None) is False:
            # What uvicorn's handler does, without noting the signal: it would be raised again and spoil the exit code.
            server.should_exit = True
            _exit_later()
        elif previous is not None:
            previous(number, frame)


def _exit_later() -> None:
    def end() -> None:
        logger.error("Something does not end; the process exits all the same. Everything is settled.")
        logging.shutdown()
        os._exit(0)

    watchdog = threading.Timer(EXIT_SECONDS, end)
    watchdog.daemon = True
    watchdog.start()
