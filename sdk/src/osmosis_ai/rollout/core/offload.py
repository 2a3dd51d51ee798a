"""Foreign synchronous code in threads, which neither block the event loop nor keep the process from ending.

The threads are daemons, made on demand and reused. A thread of the standard pools would be joined when the event loop
is closed and once more when the interpreter ends, for as long as the slowest tool sleeps.

Calls run one after the other in one thread for as long as they are short: a thousand tools that add two numbers gain
nothing from a hundred threads that fight the event loop for the interpreter. As soon as a call has waited for
``SHORT_SECONDS``, further threads take part, twice as many each time.
"""

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_THREADS = 256
RETRY_SECONDS = 0.1
"""Where the system allows no more threads."""
IDLE_SECONDS = 30.0
SHORT_SECONDS = 0.005
_WATCH_ROUNDS = 100
"""Without a waiting call, after which the watch ends."""


async def call_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)``, in a daemon thread, with the caller's context variables.

    Whatever the function raises is raised here, ``SystemExit`` and its like as ``RuntimeError``. A caller who stops
    waiting leaves the function running.
    """
    call = partial(contextvars.copy_context().run, function, *arguments)
    return await asyncio.wrap_future(daemon_threads().submit(contained, call))


@cache
def daemon_threads() -> "DaemonThreads":
    """The threads of this process."""
    return DaemonThreads(MAX_THREADS)


class DaemonThreads(ThreadPoolExecutor):
    """An executor that nobody waits for; beyond ``max_threads`` calls wait their turn.

    It is a ``ThreadPoolExecutor`` in name only, as event loops accept no other for their default.
    """

    def __init__(self, max_threads: int) -> None:
        super().__init__(max_workers=1)  # starts no thread
        self._limit = max_threads
        self._lock = threading.Lock()
        self._calls: deque[tuple[Callable[[], None], float]] = deque()
        """What waits for a thread, and since when."""
        self._active = 0
        """Threads that run calls; the others are parked, each before a gate that is closed."""
        self._gates: list[threading.Lock] = []
        self._watched = False
        self._retries = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Run ``fn(*args, **kwargs)`` in a thread."""
        future: Future[T] = Future()
        self.put(partial(_run, future, fn, args, kwargs))
        return future

    def put(self, call: Callable[[], None]) -> None:
        """Run ``call``, which raises nothing, in a thread."""
        with self._lock:
            self._calls.append((call, time.monotonic()))
            self._see_to_calls()

    def _see_to_calls(self) -> None:
        is_short = False
        if self._active == 0:
            is_short = not self._activate()
        elif not self._watched:
            self._watched = _starts(self._watch, "osmosis-offload-watch")
            is_short = not self._watched
        if is_short:
            self._try_again_later()

    def _try_again_later(self) -> None:
        """The system allows no more threads: calls wait, as that passes."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if self._active == 0:
                self._calls.pop()
                raise RuntimeError("The system allows no more threads.") from None
            return
        if not self._retries:
            self._retries = True
            logger.error("The system allows no more threads: calls of synchronous code wait for one.")
            loop.call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        with self._lock:
            self._retries = False
            if self._calls:
                self._see_to_calls()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for nothing: what runs may go on until the process ends."""

    def _activate(self) -> bool:
        if self._gates:
            # The one parked last: the others stay idle, and end.
            self._gates.pop().release()
        elif not _starts(self._work, "osmosis-offload"):
            return False
        self._active += 1  # the thread waits for the lock until then
        return True

    def _work(self) -> None:
        gate = threading.Lock()
        gate.acquire()
        while True:
            with self._lock:
                call = self._calls.popleft()[0] if self._calls else None
                if call is None:
                    self._active -= 1
                    self._gates.append(gate)
            if call is not None:
                call()
            elif not gate.acquire(timeout=IDLE_SECONDS):
                with self._lock:
                    if gate in self._gates:
                        self._gates.remove(gate)
                        return
                gate.acquire()  # opened a moment ago

    def _watch(self) -> None:
        quiet_rounds = 0
        while True:
            time.sleep(SHORT_SECONDS)
            with self._lock:
                if self._calls:
                    quiet_rounds = 0
                    if time.monotonic() - self._calls[0][1] >= SHORT_SECONDS:
                        for _ in range(min(len(self._calls), max(self._active, 1), self._limit - self._active)):
                            self._activate()
                    continue
                quiet_rounds += 1
                if quiet_rounds >= _WATCH_ROUNDS:
                    self._watched = False
                    return


def _starts(target: Callable[[], None], name: str) -> bool:
    """Whether a thread could be started: where the system allows no more, Python raises ``RuntimeError``."""
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except (RuntimeError, MemoryError):
        return False
    return True


def _run(future: "Future[T]", fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits
        future.set_exception(error)
    else:
        future.set_result(result)


def contained(call: Callable[[], T]) -> T:
    """``call()``, with nothing raised that would harm an event loop: what is no ``Exception`` is a ``RuntimeError``."""
    try:
        return call()
    except StopIteration as stop:  # a coroutine cannot raise it
        raise RuntimeError(f"StopIteration: {stop}") from stop
    except Exception:
        raise
    except BaseException as error:  # as itself it would end the event loop
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
