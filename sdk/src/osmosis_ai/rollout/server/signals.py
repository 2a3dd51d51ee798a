"""Draining on SIGTERM, Ctrl-C and SIGHUP (a terminal that closes) under any ASGI server.

uvicorn answers the first signal by closing its listeners, which would refuse the very inits a draining server is to
answer with 503. So while the app runs, the first signal starts the drain and the server's own handler is called when
the drain is over; a second signal goes straight to it. What happens while the event loop blocks is the watchdog's
(``watchdog``): what is heard here it hears too.
"""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

from osmosis_ai.rollout.server.process import end_process

logger = logging.getLogger(__name__)

EXIT_SECONDS = 10.0
"""How long the server may take to end after the drain; what an agent left running could hold it up for ever."""

SAME_SIGNAL_SECONDS = 1.0
"""A signal to a whole process group comes twice under a parent that forwards its own, Ctrl-C then as SIGTERM."""

HANGUP: int | None = getattr(signal, "SIGHUP", None)
DRAIN_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Heard:
    """The signals that came, as one source tells of them. Times are those of ``time.monotonic``."""

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.second_at: float | None = None
        self._first = 0

    def note(self, number: int) -> None:
        """A signal has come; one that is only passed on is the first one again."""
        now = time.monotonic()
        if self.first_at is None:
            self._first, self.first_at = number, now
        elif now - self.first_at >= SAME_SIGNAL_SECONDS or number not in (self._first, signal.SIGTERM):
            self.second_at = self.second_at or now


class DrainOnSignal:
    """Puts ``drain`` in front of the handlers that are installed now, until ``restore``.

    Does nothing outside the main thread, or where no handler of a server is installed. SIGHUP, for which servers have
    none, is handled as SIGTERM is, unless it is ignored (``nohup``) or the application's own.
    """

    def __init__(self, drain: Callable[[], Awaitable[None]]) -> None:
        self.forced = False
        """Whether a second signal came, and the event loop has heeded it."""
        self.heard_outside = Heard()
        """What the watchdog hears, also while the interpreter runs no handlers."""
        self._heard = Heard()
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in DRAIN_SIGNALS:
            previous = signal.getsignal(number)
            # Python's own handler is no server's: there is nobody to whom a drain could hand the signal on.
            if callable(previous) and previous is not signal.default_int_handler:
                self._take(number, previous)
        if HANGUP is not None and signal.SIGTERM in self._previous and signal.getsignal(HANGUP) is signal.SIG_DFL:
            self._take(HANGUP, signal.SIG_DFL)

    @property
    def numbers(self) -> set[int]:
        """The signals that start a drain."""
        return set(self._previous)

    @property
    def first_at(self) -> float | None:
        """When the drain was asked for (``time.monotonic``)."""
        return min((heard.first_at for heard in self._both if heard.first_at is not None), default=None)

    @property
    def second_at(self) -> float | None:
        """When it was asked not to wait for the drain."""
        return min((heard.second_at for heard in self._both if heard.second_at is not None), default=None)

    @property
    def _both(self) -> tuple[Heard, Heard]:
        return self._heard, self.heard_outside

    def restore(self) -> None:
        """Give the signals back to the server's handlers."""
        for number, previous in self._previous.items():
            # Somebody may have put a handler of their own in front since.
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, previous)
        self._previous.clear()

    def _take(self, number: int, previous: Any) -> None:
        self._previous[number] = previous
        signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Nothing more here: a handler interrupts any line, even one that holds the lock of a logger.
        self._heard.note(number)
        self._loop.call_soon_threadsafe(self._begin, number, frame)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._drain_and_pass_on(number, frame))
        elif self.second_at is not None:
            logger.warning("Second signal: ending at once; what is not delivered stays in the journal.")
            self.forced = True
            self._task.cancel()
            self._pass_on(number, frame)

    async def _drain_and_pass_on(self, number: int, frame: FrameType | None) -> None:
        logger.info("Shutting down: no new rollouts are accepted.")
        try:
            await self._drain()
        except Exception:
            logger.exception("The drain failed; what is not delivered stays in the journal.")
        finally:
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            number = signal.SIGTERM
        previous = self._previous.get(number)
        server: Any = getattr(previous, "__self__", None)
        if getattr(server, "should_exit", None) is False:
            # What uvicorn's handler does, without noting the signal: it would be raised again and spoil the exit code.
            server.should_exit = True
            _exit_later()
        elif previous is not None:
            previous(number, frame)


def _exit_later() -> None:
    message = "Something does not end; the process exits all the same. Everything is settled."
    watchdog = threading.Timer(EXIT_SECONDS, end_process, (0, message))
    watchdog.daemon = True
    watchdog.start()
