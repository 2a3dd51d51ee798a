"""One thread that owns the open file: operations come from any event loop, commits are shared.

The thread takes all operations that wait, runs those that write in one transaction, commits, and only then wakes their
callers, each loop once. Those that only read follow outside a transaction, so nobody sees what may yet be rolled back.

Invariants: operations run in the order in which they were submitted, except that reads come after the writes of their
batch; one that fails does not harm its neighbours; whether the caller still waits makes no difference to its operation.
What was committed is in a file that can be found, or else in the main file, before its caller wakes (see ``file``).

Every ``WATCH_SECONDS`` the thread also looks after the file: is it where it belongs, can it be read, has somebody
removed the owner's lock?
"""

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from osmosis_ai.rollout.core.turnstile import turnstile_of
from osmosis_ai.rollout.journal import schema
from osmosis_ai.rollout.journal.clock import Clock, Timeline
from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.explain import journal_error
from osmosis_ai.rollout.journal.file import FileOptions, OpenFile, open_file

logger = logging.getLogger(__name__)

BATCH_LIMIT = 256
CROWD = 4
"""From this many operations in a batch on, more are likely on their way."""
GATHER_SECONDS = 0.001
"""How long the next batch waits for them: a commit costs as much as several operations."""
WATCH_SECONDS = 1.0
_process_id = os.getpid()
"""A call of the system would be three more a rollout."""
T = TypeVar("T")
_Work = Callable[[OpenFile], T]


def _note_process_id() -> None:
    global _process_id
    _process_id = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_process_id)


@dataclass(slots=True)
class _Operation:
    work: _Work[Any]
    writes: bool
    loop: asyncio.AbstractEventLoop | None
    future: asyncio.Future[Any] | None
    value: Any = None
    error: JournalError | None = None


class Writer:
    """Runs operations on the file at ``path``, opened and closed in the thread."""

    def __init__(
        self, path: Path, options: FileOptions, clock: Clock, on_problem: Callable[[str | None], None]
    ) -> None:
        self.owner = ""
        """The token of the owner, once it is open."""
        self.problem: JournalError | None = None
        """Why nothing new can be promised, as of the last look."""
        self._path = path
        self._options = options
        self._clock = clock
        self._on_problem = on_problem
        self._next_watch = time.monotonic() + WATCH_SECONDS
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._accepts = False
        self._is_crowded = False
        self._process_id = _process_id
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="osmosis-journal", daemon=True)

    async def start(self) -> Timeline:
        """Start the thread and wait until it has opened the file; the journal's time."""
        self._accepts = True
        opened = self._submit(lambda file: file.timeline, writes=False)
        self._thread.start()
        return await opened

    def request_stop(self) -> None:
        """Refuse new operations; the thread runs those submitted, closes the file and ends. No-op in a forked child."""
        if _process_id != self._process_id:
            return
        # Under the lock, or something could be submitted behind the end, where nobody runs it.
        with self._lock:
            if self._accepts:
                self._accepts = False
                self._queue.put(None)

    async def stop(self) -> None:
        """``request_stop``, and wait for the thread."""
        self.request_stop()
        if _process_id == self._process_id:
            await asyncio.wrap_future(self._ended)

    def write(self, work: _Work[T]) -> asyncio.Future[T]:
        """Run ``work`` in a transaction; done when it is committed. Raises ``JournalError``: it was not."""
        return self._submit(work, writes=True)

    def read(self, work: _Work[T]) -> asyncio.Future[T]:
        """Run ``work``, which does not write or cares for its own transaction."""
        return self._submit(work, writes=False)

    def write_later(self, work: _Work[None]) -> None:
        """Run ``work`` in a transaction; nobody waits, and a failure is only logged."""
        self._put(_Operation(work, True, None, None))

    def _submit(self, work: _Work[T], *, writes: bool) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(_Operation(work, writes, loop, future))
        return future

    def _put(self, operation: _Operation) -> None:
        if _process_id != self._process_id:
            # The thread stayed in the parent: what a child submits would wait for ever.
            raise JournalError("The journal was opened before this process was forked: open another one here.")
        with self._lock:
            if not self._accepts:
                raise JournalError("The journal is closed: open it first.")
            self._queue.put(operation)

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._ended.set_result(None)

    def _serve(self) -> None:
        try:
            file = open_file(self._path, self._options, self._clock)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller of open gets it
            self.request_stop()
            while operations := self._take():
                _wake(_failed(operations, self._explain(error)))
            return
        self.owner = file.owner.token
        while operations := self._take(file):
            self._run_batch(file, operations)
        try:
            try:
                if self._options.create:
                    schema.note_sign(file.connection, file.timeline.sign())
            finally:
                file.close()
        except (OSError, sqlite3.Error) as error:
            logger.warning("The journal did not close well: %s", self._explain(error))

    def _take(self, file: OpenFile | None = None) -> list[_Operation]:
        """Wait for an operation and take all that follow; an empty list at the end.

        Meanwhile ``file`` is watched.
        """
        operations: list[_Operation] = []
        while True:
            try:
                operation = self._queue.get(timeout=max(self._next_watch - time.monotonic(), 0.0))
                break
            except queue.Empty:
                if file is not None:
                    self._watch(file)
        if self._is_crowded:
            time.sleep(GATHER_SECONDS)
        while operation is not None:
            operations.append(operation)
            if len(operations) == BATCH_LIMIT:
                break
            try:
                operation = self._queue.get_nowait()
            except queue.Empty:
                break
        else:
            if operations:
                # The end came with work in hand: that is done first, and the end met again.
                self._queue.put(None)
        self._is_crowded = len(operations) >= CROWD
        return operations

    def _run_batch(self, file: OpenFile, operations: list[_Operation]) -> None:
        writes = [operation for operation in operations if operation.writes]
        if writes:
            self._see(file.look())
            self._commit(file, writes)
            _wake(writes)
        # Reads come last: they may take long, and those who wait for a commit go on meanwhile.
        for operation in operations:
            if not operation.writes:
                self._attempt(file, operation)
                _wake([operation])
        if time.monotonic() >= self._next_watch:
            self._watch(file)

    def _watch(self, file: OpenFile) -> None:
        """Look after the file; whatever is wrong shows in ``problem`` and in the log."""
        self._next_watch = time.monotonic() + WATCH_SECONDS
        try:
            file.owner.reassert()
            file.unreachable = None
            if file.look() is None:
                file.probe()
            else:
                file.secure()  # what was committed before this was noticed
        except Exception as error:  # noqa: BLE001 - the thread must live on
            file.unreachable = file.note_error(error)
            self._see(file.look())
        else:
            self._see(file.problem)

    def _see(self, problem: JournalError | None) -> None:
        changed = str(problem) != str(self.problem)
        self.problem = problem
        if changed:
            if problem is not None:
                logger.error("%s Until then no rollout is accepted; results are recorded and delivered.", problem)
            else:
                logger.warning("The journal %s is in order again.", self._path)
            self._on_problem(None if problem is None else str(problem))

    def _commit(self, file: OpenFile, operations: list[_Operation]) -> bool:
        """Run ``operations`` in one transaction, or each in its own if that fails; false if none could be begun."""
        try:
            # The write lock at once: a transaction that begins with a read may fail at its first write, half-way.
            file.connection.execute("BEGIN IMMEDIATE")
        except Exception as error:  # noqa: BLE001 - the thread must live on
            _failed(operations, file.note_error(error))
            return False
        try:
            for operation in operations:
                _carry_out(file, operation)
            file.connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the thread must live on
            _roll_back(file.connection)
            if len(operations) == 1:
                _failed(operations, file.note_error(error))
            else:
                # One that cannot be written (too large for the disk, say) has undone its neighbours too.
                self._commit_one_by_one(file, operations)
        else:
            if file.problem is not None:
                self._secure(file, operations)
        return True

    def _secure(self, file: OpenFile, operations: list[_Operation]) -> None:
        """What was committed to a log that nobody finds is not on record until the main file has it."""
        try:
            file.secure()
        except Exception as error:  # noqa: BLE001 - the thread must live on
            _failed(operations, file.note_error(error))

    def _commit_one_by_one(self, file: OpenFile, operations: list[_Operation]) -> None:
        for index, operation in enumerate(operations):
            if not self._commit(file, [operation]):
                if operation.error is not None:
                    _failed(operations[index:], operation.error)
                return

    def _explain(self, error: Exception) -> JournalError:
        return journal_error(self._path, error)

    def _attempt(self, file: OpenFile, operation: _Operation) -> None:
        try:
            _carry_out(file, operation)
        except Exception as error:  # noqa: BLE001 - the thread must live on
            _roll_back(file.connection)
            _failed([operation], file.note_error(error))


def _carry_out(file: OpenFile, operation: _Operation) -> None:
    # It may be the second time, after a shared transaction that failed.
    operation.value = operation.error = None
    try:
        operation.value = operation.work(file)
    except JournalError as refusal:
        # A refusal has changed nothing (see `table`), so the others' transaction stands.
        operation.error = refusal


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            logger.warning("The journal could not roll back: %s", error)


def _failed(operations: list[_Operation], error: JournalError) -> list[_Operation]:
    for operation in operations:
        # A copy each: one exception raised in many tasks would gather all their tracebacks.
        operation.error = type(error)(*error.args)
    return operations


def _wake(operations: list[_Operation]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Operation]] = {}
    for operation in operations:
        if operation.loop is not None:
            by_loop.setdefault(operation.loop, []).append(operation)
        elif operation.error is not None:
            logger.warning("A note for the journal was lost: %s", operation.error)
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, waiting)
        except RuntimeError:
            logger.debug("The event loop of %d journal operations is closed", len(waiting))


def _resolve(operations: list[_Operation]) -> None:
    turnstile = turnstile_of(asyncio.get_running_loop())
    for operation in operations:
        if operation.future is None or operation.future.done():
            continue
        if operation.error is not None:
            operation.future.set_exception(operation.error)
        else:
            turnstile.resolve(operation.future, operation.value)
