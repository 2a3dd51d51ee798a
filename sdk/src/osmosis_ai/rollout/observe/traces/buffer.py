"""Buffered traces: events go to memory, and one thread a process writes them.

A line is in its file ``FLUSH_SECONDS`` after it was added (so a kill -9 costs at most that much), or when ``flushed``
returns, and at the end of the process. Adding never blocks on a disk and never raises; lines of one trace stay in
order; no file stays open. What a disk does not take fast enough is dropped beyond ``MAX_PENDING_BYTES``, and the trace
says so. A crash of the machine itself may cost more: nothing is synced.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from osmosis_ai.rollout.core.text import text_of
from osmosis_ai.rollout.core.trace.file import TraceFile, TraceLack
from osmosis_ai.rollout.core.trace.lines import line_of_agent, line_of_sdk
from osmosis_ai.rollout.core.trace.writer import TraceWriter, trace_path

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5
FLUSH_BYTES = 16 * 1024 * 1024
"""Pending beyond this, nothing waits for its time."""
MAX_PENDING_BYTES = 256 * 1024 * 1024
PATIENCE_SECONDS = 5.0
"""How long a rollout's result, or the end of the process, waits for a disk that hangs."""


class BufferedTrace:
    """The trace of one rollout; what ``TraceWriter`` is, but for when the lines can be read."""

    def __init__(self, directory: str, rollout_id: str, on_lack: Callable[[str], None] | None = None) -> None:
        self.directory = directory
        self.rollout_id = str(rollout_id)
        self.path = trace_path(directory, self.rollout_id)
        self._buffer = trace_buffer()
        self.pending: list[bytes] = []
        self.lost = 0
        self._file = TraceFile(self.path, on_lack)

    def __reduce__(self) -> tuple[Any, ...]:
        return TraceWriter, (self.directory, self.rollout_id)

    def write(self, event_type: str, data: dict[str, Any]) -> None:
        """Add an event of the agent's."""
        try:
            self.add(line_of_agent(event_type, self.rollout_id, data))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a trace, the rollout goes on
            logger.warning("Cannot write trace %a: %s", self.path, text_of(error))

    def add(self, line: bytes) -> None:
        """Add a line, which ends in a newline."""
        self._buffer.add(self, line)

    def hurry(self) -> None:
        """Write what was added now."""
        self._buffer.hurry(self)

    async def flushed(self) -> None:
        """Wait until all that was added is in the file, or cannot be; at most ``PATIENCE_SECONDS``."""
        await self._buffer.flushed(self)

    def close(self) -> None:
        """Nothing stays open."""

    def append(self, lines: list[bytes]) -> bool:
        """Write ``lines`` to the file, as ``TraceFile.append``; called by the buffer's thread."""
        return self._file.append(b"".join(lines))

    def dropped(self) -> None:
        """A line found no room."""
        self.lost += 1
        self._file.lacks(TraceLack.DROPPED)


class TraceBuffer:
    """What waits to be written, and the thread that writes it; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._dirty: dict[BufferedTrace, None] = {}
        self._due_at = 0.0
        self._pending_bytes = 0
        self._wanted: dict[BufferedTrace, None] = {}
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._everything: list[threading.Event] = []
        self._writing: set[BufferedTrace] = set()
        self._thread: threading.Thread | None = None

    def add(self, trace: BufferedTrace, line: bytes) -> None:
        """Add a line to ``trace``."""
        with self._lock:  # the condition's own, without its two calls in Python a line
            pending_bytes = self._pending_bytes + len(line)
            if pending_bytes > MAX_PENDING_BYTES:
                trace.dropped()
                return
            if trace.lost:
                lost, trace.lost = trace.lost, 0
                trace.pending.append(line_of_sdk("events_lost", trace.rollout_id, {"count": lost}))
            trace.pending.append(line)
            self._pending_bytes = pending_bytes
            if not self._dirty:
                # Only the first line wakes the thread; what follows waits with it.
                self._due_at = time.monotonic() + FLUSH_SECONDS
                self._wake()
            elif pending_bytes > FLUSH_BYTES or self._thread is None:
                self._wake()
            self._dirty[trace] = None

    def hurry(self, trace: BufferedTrace) -> None:
        """Let ``trace`` be written as soon as the thread gets to it."""
        with self._changed:
            if trace in self._dirty:
                self._wanted[trace] = None
                self._wake()

    async def flushed(self, trace: BufferedTrace) -> None:
        """Wait until the lines of ``trace`` are written."""
        loop = asyncio.get_running_loop()
        with self._changed:
            if trace not in self._dirty and trace not in self._writing:
                return
            future: asyncio.Future[None] = loop.create_future()
            self._wanted[trace] = None
            self._waiting.append((loop, future))
            self._wake()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await future
        except TimeoutError:
            logger.warning("Trace %a is not on disk after %g s; the rollout goes on.", trace.path, PATIENCE_SECONDS)

    def flush(self) -> None:
        """Wait until everything is written."""
        done = threading.Event()
        with self._changed:
            if not self._dirty and not self._writing:
                return
            self._everything.append(done)
            self._wake()
        done.wait(PATIENCE_SECONDS)

    def _wake(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="osmosis-traces", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system allows no more; the next line tries again
                return
            self._thread = thread
        self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._is_due():
                    self._changed.wait(self._due_at - time.monotonic() if self._dirty else None)
                batch, waiting, everything = self._take()
            held = [(trace, lines) for trace, lines in batch if not trace.append(lines)]
            with self._changed:
                # Counted until now: with a disk that hangs, what is being written takes memory too.
                self._writing.clear()
                self._pending_bytes -= sum([sum(map(len, lines)) for _, lines in batch])
                self._hold(held)
            _tell(waiting)
            for done in everything:
                done.set()
            # Or all these lines would stay in memory while the thread sleeps.
            del batch, held

    def _hold(self, held: list[tuple[BufferedTrace, list[bytes]]]) -> None:
        """Take back what there was no descriptor for; it is written with what comes next."""
        for trace, lines in held:
            trace.pending[:0] = lines
            self._pending_bytes += sum(map(len, lines))
            self._dirty[trace] = None
        if held:
            self._due_at = time.monotonic() + FLUSH_SECONDS

    def _is_due(self) -> bool:
        if self._wanted or self._everything:
            return True
        late = time.monotonic() >= self._due_at or self._pending_bytes > FLUSH_BYTES
        return bool(self._dirty) and late

    def _take(self) -> tuple[list[tuple[BufferedTrace, list[bytes]]], list[Any], list[threading.Event]]:
        """What is to be written now: what somebody waits for, or, when it is time, all."""
        only_wanted = not self._everything and time.monotonic() < self._due_at and self._pending_bytes <= FLUSH_BYTES
        traces = [trace for trace in (self._wanted if only_wanted else self._dirty) if trace.pending]
        for trace in traces:
            del self._dirty[trace]
        batch = [(trace, trace.pending) for trace in traces]
        for trace in traces:
            trace.pending = []
        if self._dirty and not only_wanted:  # pragma: no cover - all was taken
            self._due_at = time.monotonic() + FLUSH_SECONDS
        self._writing.update(traces)
        waiting, self._waiting = self._waiting, []
        everything, self._everything = self._everything, []
        self._wanted = {}
        return batch, waiting, everything


def _tell(waiting: list[tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]]) -> None:
    """Wake those who wait, each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for loop, future in waiting:
        by_loop.setdefault(loop, []).append(future)
    for loop, futures in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, futures)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            continue


def _resolve(futures: list["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


@cache
def trace_buffer() -> TraceBuffer:
    """The buffer of this process."""
    buffer = TraceBuffer()
    atexit.register(buffer.flush)
    if hasattr(os, "register_at_fork"):
        # A child has no thread of its parent's, and what is pending is the parent's to write.
        os.register_at_fork(after_in_child=trace_buffer.cache_clear)
    return buffer
