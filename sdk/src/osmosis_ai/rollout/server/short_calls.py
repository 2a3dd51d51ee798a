"""Many short calls of foreign synchronous code, off the event loop, at the price of few thread switches.

They have threads of their own (``offload``), so that they and the tools of running rollouts do not wait for each
other; what has been done is handed back in one go.
"""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

from osmosis_ai.rollout.core.offload import DaemonThreads, contained
from osmosis_ai.rollout.core.turnstile import turnstile_of

T = TypeVar("T")

MAX_THREADS = 8
WATCH_SECONDS = 0.05
"""How often calls are held to their limit."""


@cache
def _threads() -> DaemonThreads:
    return DaemonThreads(MAX_THREADS)


@dataclass(eq=False, slots=True)
class _Call:
    function: Callable[[], Any]
    limit_seconds: float
    future: "asyncio.Future[Any]"
    started_at: float = 0.0
    value: Any = None
    error: BaseException | None = None


class ShortCalls:
    """The calls of one event loop; made and used in it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turnstile = turnstile_of(self._loop)
        self._running: set[_Call] = set()
        self._done: deque[_Call] = deque()
        self._unfinished = 0
        self._watch: asyncio.TimerHandle | None = None
        self._wakes = False

    async def call(self, function: Callable[..., T], *arguments: Any, limit_seconds: float) -> T:
        """``function(*arguments)`` with the caller's context variables.

        Whatever the function raises is raised here, ``SystemExit`` and its like as ``RuntimeError``. A caller who stops
        waiting leaves the function running.

        Raises:
            TimeoutError: it ran for ``limit_seconds``, the wait for its turn not counted.
        """
        inner = partial(contextvars.copy_context().run, function, *arguments)
        call = _Call(inner, limit_seconds, self._loop.create_future())
        self._unfinished += 1
        _threads().put(partial(self._carry_out, call))
        if self._watch is None:
            self._watch = self._loop.call_later(WATCH_SECONDS, self._look)
        result: T = await call.future
        return result

    def _look(self) -> None:
        self._watch = None
        now = time.monotonic()
        # A list first: threads add and remove calls meanwhile.
        for call in list(self._running):
            if now - call.started_at >= call.limit_seconds and not call.future.done():
                call.future.set_exception(TimeoutError())
        if self._unfinished > 0:
            self._watch = self._loop.call_later(WATCH_SECONDS, self._look)

    def _carry_out(self, call: _Call) -> None:
        """Runs in a thread."""
        call.started_at = time.monotonic()
        self._running.add(call)
        try:
            call.value = contained(call.function)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            call.error = error
        self._running.discard(call)
        self._done.append(call)
        if not self._wakes:
            self._wakes = True
            try:
                self._loop.call_soon_threadsafe(self._hand_back)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                self._done.clear()

    def _hand_back(self) -> None:
        self._wakes = False  # first, so that whatever is added from now on comes with a wake-up of its own
        while self._done:
            call = self._done.popleft()
            self._unfinished -= 1
            if call.future.done():
                continue
            if call.error is not None:
                call.future.set_exception(call.error)
            else:
                self._turnstile.resolve(call.future, call.value)
