"""The journal in an SQLite file: it outlives the process, and several processes may share it.

Promise: once ``accept``, ``finish``, ``settle`` or ``reopen`` has returned, what it recorded survives the end of the
process, however it ends (kill -9 included); with ``Synchronous.FULL`` also a power loss. Not for network file systems.

What happens to the file while it is open is noticed before the next commit, or within a second where there is none (see
``file``): then only what was promised before is carried on, and ``problem`` says why.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from osmosis_ai.rollout.core.settings import Synchronous
from osmosis_ai.rollout.journal import abandoned, schema, table
from osmosis_ai.rollout.journal.base import CLAIM_LIMIT, RECORDS_LIMIT, Journal
from osmosis_ai.rollout.journal.clock import Clock, Sign
from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.file import FileOptions, OpenFile
from osmosis_ai.rollout.journal.retention import Retention
from osmosis_ai.rollout.journal.types import SETTLED, Acceptance, JournalRecord, Payload, RolloutState
from osmosis_ai.rollout.journal.writer import Writer

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_SECONDS = 10.0
RESERVE_BYTES = 16 * 1024 * 1024
KEPT_FREE_BYTES = 16 * 1024 * 1024
SHRUNK_AT_MOST_BYTES = 64 * 1024 * 1024
"""Of content: rewriting that takes a moment, during which commits wait."""


class SqliteJournal(Journal):
    """A journal in the file ``path``, made when first opened (mode 0600), with ``<path>.owners/`` beside it (0700).

    ``synchronous``: when commits wait for the disk. ``busy_timeout_seconds``: how long to wait for another process that
    holds the file. ``max_bytes``: a bound for the file, beyond which it refuses; default none. ``create``: whether to
    make an absent file; if not, ``open`` raises ``JournalError``, and it leaves no sign of life: an operator looks.

    ``accept`` refuses while the disk, or ``max_bytes``, has less than ``reserve_bytes`` left (or a quarter, if
    ``max_bytes`` is small), so that rollouts already promised still find room for their results.

    May be used from several threads and event loops, but not in a forked child.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = Synchronous.NORMAL,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        max_bytes: int | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        create: bool = True,
        retention: Retention | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(retention)
        self.path = Path(path)
        self._options = FileOptions(synchronous, busy_timeout_seconds, max_bytes, reserve_bytes, create)
        self._clock = clock or Clock()
        self._writer: Writer | None = None

    async def open(self) -> None:
        if self._writer is not None:
            raise JournalError(f"The journal {self.path} is open already: close it first.")
        writer = self._writer = Writer(self.path, self._options, self._clock, self.on_problem)
        try:
            self._timeline = await writer.start()
            self._secret = await writer.write(lambda file: schema.secret_of(file.connection))
        except BaseException:
            # A cancelled open too, or the thread would hold file and owner until the process ends.
            writer.request_stop()
            self._writer = None
            raise

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.stop()

    @property
    def owner(self) -> str:
        """The token of this opened journal. Raises ``JournalError`` if it is not open."""
        return self._opened.owner

    @property
    def problem(self) -> str | None:
        return None if self._writer is None or self._writer.problem is None else str(self._writer.problem)

    async def accept(self, acceptance: Acceptance) -> JournalRecord | None:
        writer, now = self._opened, self.now()
        return await writer.write(lambda file: _accept(file, acceptance, now, self._cutoffs))

    async def finish(self, key: str, result: bytes) -> bool:
        writer, now = self._opened, self.now()
        return await writer.write(lambda file: table.finish(file.connection, key, result, file.owner.token, now))

    async def settle(self, key: str, state: RolloutState, *, attempts: int, error: str | None = None) -> bool:
        writer, now = self._opened, self.now()
        return await writer.write(lambda file: table.settle(file.connection, key, state, attempts, error, now))

    async def note_attempt(self, key: str, *, attempts: int, error: str) -> None:
        # Nobody waits: a delivery is not held up by the disk, and what can be lost is a count and a sentence.
        self._opened.write_later(lambda file: table.note_attempt(file.connection, key, attempts, error))

    async def note_poll(self, key: str) -> None:
        now = self.now()
        self._opened.write_later(lambda file: table.note_poll(file.connection, key, now))

    async def leave_out_messages(self, key: str) -> bool:
        writer, now = self._opened, self.now()
        return await writer.write(lambda file: table.leave_out_messages(file.connection, key, now))

    async def reopen(self, key: str) -> JournalRecord | None:
        writer, now = self._opened, self.now()
        return await writer.write(lambda file: table.reopen(file.connection, key, file.owner.token, now))

    async def get(self, key: str) -> JournalRecord | None:
        return await self._opened.read(lambda file: table.get(file.connection, key))

    async def load(self, key: str, payload: Payload) -> bytes | None:
        return await self._opened.read(lambda file: table.load(file.connection, key, payload))

    async def find(self, rollout_id: str) -> list[JournalRecord]:
        return await self._opened.read(lambda file: table.find(file.connection, rollout_id))

    async def records(
        self, states: Iterable[RolloutState] | None = None, *, limit: int = RECORDS_LIMIT, offset: int = 0
    ) -> list[JournalRecord]:
        wanted = list(RolloutState if states is None else states)
        return await self._opened.read(lambda file: table.records(file.connection, wanted, limit, offset))

    async def claim_abandoned(self, limit: int = CLAIM_LIMIT) -> list[JournalRecord]:
        return await self._opened.write(lambda file: _claim(file, limit))

    async def counts(self) -> dict[RolloutState, int]:
        return await self._opened.read(lambda file: table.counts(file.connection))

    async def oldest_unsettled(self) -> float | None:
        return await self._opened.read(lambda file: table.oldest_unsettled(file.connection))

    async def prune(self) -> int:
        cutoffs, sign = self._cutoffs(), self._require_timeline().sign()
        await self._opened.write(lambda file: _note_time(file, sign, min(cutoffs.values())))
        removed = 0
        for state, settled_before in cutoffs.items():
            removed += await self._prune_state(state, settled_before)
        await self._give_space_back()
        return removed

    async def purge(self, *, keys: Iterable[str] = (), states: Iterable[RolloutState] = ()) -> int:
        removed = 0
        remaining = iter(keys)
        while page := list(islice(remaining, table.PAGE_ROWS)):
            removed += await self._opened.write(partial(_purge_keys, keys=page))
        for state in set(states):
            if state in SETTLED:
                removed += await self._prune_state(state, math.inf)
            else:
                removed += await self._purge_abandoned(state)
        await self._give_space_back()
        return removed

    async def _prune_state(self, state: RolloutState, settled_before: float) -> int:
        return await self._repeat(lambda file: table.prune_page(file.connection, state, settled_before))

    async def _purge_abandoned(self, state: RolloutState) -> int:
        return await self._repeat(lambda file: abandoned.purge_abandoned_page(file.connection, state, file.is_alive))

    async def _repeat(self, remove_page: Callable[[OpenFile], int]) -> int:
        """Remove page by page, so that others get their turn in between."""
        removed = 0
        while page := await self._opened.write(remove_page):
            removed += page
        return removed

    async def _give_space_back(self) -> None:
        try:
            await self._opened.read(lambda file: file.without_waiting(_shrink))
        except JournalError as error:
            logger.warning("Cannot make the journal smaller: %s", error)

    def _cutoffs(self) -> dict[RolloutState, float]:
        return self._retention.cutoffs(self._require_timeline())

    @property
    def _opened(self) -> Writer:
        if self._writer is None:
            raise JournalError(f"The journal {self.path} is not open: open it first.")
        return self._writer


def _accept(
    file: OpenFile, acceptance: Acceptance, now: float, cutoffs: Callable[[], dict[RolloutState, float]]
) -> JournalRecord | None:
    file.require_sound()
    # Here alone: the reserve is for the results of what was accepted.
    file.require_room()
    return table.accept(file.connection, acceptance, file.owner.token, now, cutoffs)


def _note_time(file: OpenFile, sign: Sign, gaps_before: float) -> None:
    file.require_sound()
    if not file.options.create:
        return
    schema.note_sign(file.connection, sign)
    schema.forget_gaps(file.connection, gaps_before)


def _claim(file: OpenFile, limit: int) -> list[JournalRecord]:
    file.require_sound()
    claimed = abandoned.claim(file.connection, file.owner.token, limit, file.is_alive)
    file.sweep()
    return claimed


def _purge_keys(file: OpenFile, keys: Sequence[str]) -> int:
    return abandoned.purge_keys(file.connection, keys, file.is_alive)


def _shrink(file: OpenFile) -> None:
    """Make the file small again if nearly all of it is free; otherwise what is free is used by the next rollouts."""
    used_bytes, free_bytes = file.used_bytes, file.free_bytes
    if free_bytes > max(KEPT_FREE_BYTES, 3 * used_bytes) and used_bytes <= SHRUNK_AT_MOST_BYTES:
        # Nobody can commit meanwhile, hence the bound.
        file.connection.execute("VACUUM")
    # In WAL mode, what VACUUM has freed leaves the file at a checkpoint only.
    file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
