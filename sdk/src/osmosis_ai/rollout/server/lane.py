"""Many short calls of foreign synchronous code, off the event loop, at the price of few thread switches.

One thread does the calls one after the other and hands back what has piled up in one go. A call that turns out not to
be short gets out of the others' way: whatever waits behind it moves to a further thread, up to ``MAX_THREADS``.
"""

import asyncio
import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from osmosis_ai.rollout.server.offload import contained, daemon_threads
from osmosis_ai.rollout.turnstile import turnstile_of

T = TypeVar("T")

MAX_THREADS = 8
SHORT_SECONDS = 0.005
"""What a call may take before those behind it stop waiting for its thread."""
WATCH_SECONDS = 0.05
"""How often a call that nobody waits behind is held to its limit."""
IDLE_SECONDS = 1.0
"""How long a thread waits for the next call before it goes back to the others."""


@dataclass(eq=False, slots=True)
class _Call:
    function: Callable[[], Any]
    limit_seconds: float
    future: "asyncio.Future[Any]"
    started_at: float = 0.0
    value: Any = None
    error: BaseException | None = None


class CallLane:
    """The calls of one event loop; made and used in it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turnstile = turnstile_of(self._loop)
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._running: set[_Call] = set()
        self._done: deque[_Call] = deque()
        self._threads = 0
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
        self._waiting.put(call)
        self._see_to_threads()
        if self._watch is None:
            self._watch = self._loop.call_later(SHORT_SECONDS, self._look)
        result: T = await call.future
        return result

    def _see_to_threads(self) -> None:
        """Start a thread if there is none for what waits, or if each is busy with a call that takes long."""
        with self._lock:
            if self._threads == 0 or (self._threads < MAX_THREADS and self._are_all_slow()):
                self._threads += 1
                daemon_threads().submit(self._work)

    def _are_all_slow(self) -> bool:
        running, now = list(self._running), time.monotonic()
        return len(running) >= self._threads and all(now - call.started_at >= SHORT_SECONDS for call in running)

    def _look(self) -> None:
        """See to calls that take long, for as long as there are calls."""
        self._watch = None
        now = time.monotonic()
        for call in list(self._running):
            if now - call.started_at >= call.limit_seconds and not call.future.done():
                call.future.set_exception(TimeoutError())
        waits = not self._waiting.empty()
        if waits:
            self._see_to_threads()
        if self._unfinished > 0:
            self._watch = self._loop.call_later(SHORT_SECONDS if waits else WATCH_SECONDS, self._look)

    def _work(self) -> None:
        while True:
            try:
                call = self._waiting.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._threads -= 1
                        return
                continue
            call.started_at = time.monotonic()
            self._running.add(call)
            try:
                call.value = contained(call.function)
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                call.error = error
            self._running.discard(call)
            self._done.append(call)
            del call
            if not self._wakes:
                self._wakes = True
                try:
                    self._loop.call_soon_threadsafe(self._hand_back)
                except RuntimeError:  # the loop is closed, and nobody waits any more
                    return

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
