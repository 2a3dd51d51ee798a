"""A thread with an event loop of its own, where the connections live: a lease is renewed though an agent blocks the
server's loop.

Whoever waits does so in its own loop, any loop; whether it still waits makes no difference to what it has asked for.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from osmosis_ai.rollout.core.turnstile import turnstile_of
from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.postgres.batches import NOTES, Write

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Home:
    """The thread, from ``start`` to ``stop``.

    ``put`` is called in it with each write.
    """

    def __init__(self, put: Callable[[Write], None]) -> None:
        self._put = put
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._submitted: list[Write] = []
        self._answered: list[Write] = []
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        """Start the thread; its loop is of the kind of the running one, as uvloop costs less."""
        loop = self._loop = type(asyncio.get_running_loop())()
        threading.Thread(target=self._run, args=(loop,), name="osmosis-journal", daemon=True).start()

    def stop(self) -> None:
        """End the thread; what was asked for and is not done is not done."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``work`` gives, called and awaited in the thread."""
        asker = asyncio.get_running_loop()
        future: asyncio.Future[T] = asker.create_future()

        def begin() -> None:
            task = asyncio.ensure_future(work())
            self._tasks.add(task)
            task.add_done_callback(ended)

        def ended(task: "asyncio.Future[T]") -> None:
            self._tasks.discard(task)
            _call(asker, partial(_pass_on, task, future))

        self._in_loop(begin)
        return await future

    async def write(self, write: Write) -> Any:
        """What comes of ``write``."""
        write.loop = asyncio.get_running_loop()
        write.future = write.loop.create_future()
        self.write_later(write)
        return await write.future

    def write_later(self, write: Write) -> None:
        """The same for what nobody waits for."""
        with self._lock:
            if self._loop is None:
                raise JournalError("The journal is closed: open it first.")
            self._submitted.append(write)
            if len(self._submitted) == 1:
                self._loop.call_soon_threadsafe(self._take_in)

    def answer(self, write: Write) -> None:
        """It is known what came of ``write``; to be called in the thread."""
        self._answered.append(write)
        if len(self._answered) == 1:
            # All of a statement together: waking a loop costs a system call.
            asyncio.get_running_loop().call_soon(self._flush)

    def _in_loop(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is None:
                raise JournalError("The journal is closed: open it first.")
            self._loop.call_soon_threadsafe(work)

    def _take_in(self) -> None:
        with self._lock:
            submitted, self._submitted = self._submitted, []
        for write in submitted:
            self._put(write)

    def _flush(self) -> None:
        answered, self._answered = self._answered, []
        by_loop: dict[asyncio.AbstractEventLoop, list[Write]] = {}
        for write in answered:
            if write.loop is not None:
                by_loop.setdefault(write.loop, []).append(write)
            elif write.error is not None and write.kind in NOTES:
                logger.warning("A note for the journal was lost: %s", write.error)
        for loop, writes in by_loop.items():
            _call(loop, partial(_resolve, writes))

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()


def _call(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(work)
    except RuntimeError:
        logger.debug("The event loop that waited for the journal is closed.")


def _pass_on(task: "asyncio.Future[T]", future: "asyncio.Future[T]") -> None:
    if future.done():
        if not task.cancelled():
            task.exception()
    elif task.cancelled():
        future.set_exception(JournalError("The journal is closed: open it first."))
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


def _resolve(writes: list[Write]) -> None:
    turnstile = turnstile_of(asyncio.get_running_loop())
    for write in writes:
        if write.future is None or write.future.done():
            continue
        if write.error is not None:
            write.future.set_exception(write.error)
        else:
            turnstile.resolve(write.future, write.value)


async def quietly(work: Awaitable[Any], seconds: float) -> None:
    """Await ``work``, for at most ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        logger.warning("The journal did not end what it was asked to within %g s.", seconds)
