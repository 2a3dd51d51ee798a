"""Foreign synchronous code in threads, which neither block the event loop nor keep the process from ending.

The threads are daemons, made on demand and reused. A thread of the standard pools would be joined when the event loop
is closed and once more when the interpreter ends, for as long as the slowest tool sleeps.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

T = TypeVar("T")

MAX_THREADS = 256
IDLE_SECONDS = 30.0


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
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._all_threads = 0
        # Counted, not named: how many threads wait for a call that is not on its way to them, and how many calls
        # wait for a thread. One of the two is 0.
        self._idle_threads = 0
        self._waiting_calls = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Run ``fn(*args, **kwargs)`` in a thread."""
        future: Future[T] = Future()
        with self._lock:
            self._calls.put(partial(_run, future, fn, args, kwargs))
            if self._idle_threads > 0:
                self._idle_threads -= 1
            elif self._all_threads < self._limit:
                self._all_threads += 1
                threading.Thread(target=self._work, name="osmosis-offload", daemon=True).start()
            else:
                self._waiting_calls += 1
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for nothing: what runs may go on until the process ends."""

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._idle_threads > 0:
                        self._idle_threads -= 1
                        self._all_threads -= 1
                        return
                continue
            call()
            del call
            with self._lock:
                if self._waiting_calls > 0:
                    self._waiting_calls -= 1
                else:
                    self._idle_threads += 1


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
