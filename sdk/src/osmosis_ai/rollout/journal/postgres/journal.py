"""The journal in PostgreSQL: many replicas, on many machines, share what was promised.

Promise: once ``accept``, ``finish``, ``settle`` or ``reopen`` has returned, what it recorded is committed by the
database, as durable as that is (``synchronous_commit``). A record is changed by its owner alone, while its lease lives,
but for an acknowledgement: ``finish`` is false for a record that another has taken over, whatever became of it.

Three connections: one renews the lease and hears of others (``lease``), one writes (``batches``), one does all else.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from osmosis_ai.rollout.journal.base import CLAIM_LIMIT, RECORDS_LIMIT, Journal
from osmosis_ai.rollout.journal.clock import Clock, Timeline
from osmosis_ai.rollout.journal.errors import JournalError, UnknownKeyError
from osmosis_ai.rollout.journal.postgres import statements
from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.adoption import Pages, adopt
from osmosis_ai.rollout.journal.postgres.batches import ACCEPT, FINISH, NOTE_ATTEMPT, NOTE_POLL, SETTLE, Batches, Write
from osmosis_ai.rollout.journal.postgres.explain import is_definite, journal_error
from osmosis_ai.rollout.journal.postgres.home import Home, quietly
from osmosis_ai.rollout.journal.postgres.lease import Lease
from osmosis_ai.rollout.journal.postgres.link import Link
from osmosis_ai.rollout.journal.postgres.schema import prepare
from osmosis_ai.rollout.journal.postgres.timeline import begin_timeline
from osmosis_ai.rollout.journal.retention import Retention
from osmosis_ai.rollout.journal.types import (
    SETTLED,
    Acceptance,
    JournalRecord,
    Payload,
    RolloutState,
    settling_move,
    storable_error,
)

logger = logging.getLogger(__name__)

ASK_SECONDS = 3.0
"""For a short answer that somebody waits for."""
ASK_AGAIN_SECONDS = 1.0
"""The same where the database did not answer the last time."""
HELD_SECONDS = 0.02
"""Between two looks at a row that somebody holds."""
SECONDS = 20.0
"""For all else but a rollout that waits for its commit."""
DRAIN_SECONDS = 5.0
DOUBT_SECONDS = 10.0
"""How long a chat call waits to learn whether it still may be made."""
MOVE_SECONDS = 86400.0
"""For all of another journal."""

T = TypeVar("T")


class PostgresJournal(Journal):
    """A journal in the schema of a database; see ``docs/many-machines.md``.

    ``url``: ``postgresql://...``, with what asyncpg takes, ``schema=NAME`` (default ``osmosis``) and ``lease=SECONDS``
    (default 15): how long after its last renewal an owner is taken over. ``create``: whether to make an absent schema;
    if not, ``open`` raises ``NoJournalError``, it leaves no sign of life, and becomes an owner with its first write
    only: an operator looks, whom the right to read is enough for, and a standby.

    May be used from several threads and event loops, but not in a forked child.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        retention: Retention | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(retention)
        self.address = parse(url)
        self._create = create
        self._clock = clock
        self._home: Home | None = None
        self._work: list[asyncio.Future[None]] = []
        """Of an owner; one that only looks has none."""
        self._claims = 0
        self._unclear_claims: list[int] = []
        """Claims that may have been carried out, and whose answer was lost."""

    async def open(self) -> None:
        if self._home is not None:
            raise JournalError(f"The journal at {self.address} is open already: close it first.")
        home = self._home = Home(lambda write: self._batches.put(write))
        home.start()
        try:
            self._timeline = await home.call(partial(self._open, home))
        except BaseException:
            self._home = None
            home.stop()
            raise

    async def close(self) -> None:
        home, self._home = self._home, None
        if home is not None:
            try:
                await home.call(self._close)
            finally:
                home.stop()

    @property
    def problem(self) -> str | None:
        return None if self._home is None or self._lease.problem is None else str(self._lease.problem)

    def in_doubt(self) -> Awaitable[None] | None:
        home = self._home
        return None if home is None or not self._lease.is_in_doubt else self._make_sure(home)

    async def _make_sure(self, home: Home) -> None:
        with contextlib.suppress(JournalError, TimeoutError):
            async with asyncio.timeout(DOUBT_SECONDS):
                await home.call(self._lease.make_sure)

    async def accept(self, acceptance: Acceptance) -> JournalRecord | None:
        home = await self._as_promiser()
        values = statements.accept_row(acceptance, self.now())
        size_bytes = len(acceptance.request) + len(acceptance.init_reply)
        record: JournalRecord | None = await home.write(Write(ACCEPT, acceptance.key, values, size_bytes))
        return record

    async def finish(self, key: str, result: bytes) -> bool:
        write = Write(FINISH, key, (statements.id_of(key), result, self.now()), len(result))
        return bool(await (await self._as_owner()).write(write))

    async def settle(self, key: str, state: RolloutState, *, attempts: int, error: str | None = None) -> bool:
        settling_move(state)
        home = await self._as_owner()
        values = (statements.id_of(key), attempts, statements.stored(storable_error(error)), self.now())
        return bool(await home.write(Write(SETTLE[state], key, values)))

    async def note_attempt(self, key: str, *, attempts: int, error: str) -> None:
        # Nobody waits, as in the journal of SQLite.
        values = (statements.id_of(key), attempts, statements.stored(storable_error(error)))
        (await self._as_owner()).write_later(Write(NOTE_ATTEMPT, key, values))

    async def note_poll(self, key: str) -> None:
        (await self._as_owner()).write_later(Write(NOTE_POLL, key, (statements.id_of(key), self.now())))

    async def leave_out_messages(self, key: str) -> bool:
        async def leave_out(connection: Any) -> bool:
            key_id = statements.id_of(key)
            if await connection.fetchval(statements.LEAVE_OUT_MESSAGES, self._lease.epoch, key_id):
                return True
            standing = await connection.fetch(statements.GET, [key_id])
            if not standing and not self._lease.was_lost:
                raise UnknownKeyError(key)
            if standing and _is_ours(standing[0], self._lease.epoch, RolloutState.FINISHED):
                await self._lease.require_live(connection)
            return False

        return await self._change(leave_out, SECONDS)

    async def reopen(self, key: str) -> JournalRecord | None:
        now = self.now()

        async def reopen(connection: Any) -> JournalRecord | None:
            row = await connection.fetchrow(statements.REOPEN, self._lease.epoch, statements.id_of(key), now)
            if row is None:
                await self._lease.require_live(connection)
                return None
            return statements.record_of(row)

        return await self._change(reopen, SECONDS)

    async def get(self, key: str) -> JournalRecord | None:
        found = await self._fetch(statements.GET, [statements.id_of(key)])
        return found[0] if found else None

    async def load(self, key: str, payload: Payload) -> bytes | None:
        async def load(connection: Any) -> bytes | None:
            query = f"SELECT {payload} FROM rollouts WHERE id = $1"  # noqa: S608 - a column's name, of an enum
            content: bytes | None = await connection.fetchval(query, statements.id_of(key))
            return content

        is_small = payload is Payload.INIT_REPLY
        return await self._do(load, None if is_small else SECONDS)

    async def find(self, rollout_id: str) -> list[JournalRecord]:
        return await self._fetch(statements.FIND, statements.stored(rollout_id))

    async def records(
        self, states: Iterable[RolloutState] | None = None, *, limit: int = RECORDS_LIMIT, offset: int = 0
    ) -> list[JournalRecord]:
        wanted = [state.value for state in (RolloutState if states is None else states)]
        return await self._fetch(statements.RECORDS, wanted, limit, offset)

    async def claim_abandoned(self, limit: int = CLAIM_LIMIT) -> list[JournalRecord]:
        await self._as_promiser()

        async def claim(connection: Any) -> list[JournalRecord]:
            if unclear := self._unclear_claims:
                rows = await connection.fetch(statements.CLAIMED, self._lease.epoch, unclear)
                self._unclear_claims = []
                if rows:
                    return statements.in_order(rows)
            self._claims += 1
            try:
                rows = await connection.fetch(statements.CLAIM, self._lease.epoch, limit, self._claims)
            except BaseException:
                self._unclear_claims.append(self._claims)
                raise
            return statements.in_order(rows)

        return await self._do(claim, SECONDS)

    async def adopt(self, pages: Pages) -> int:
        """Records of another journal, in that order, all of them now this owner's; how many were not there already.

        All or none: a key that another rollout has here is a ``JournalError``, as is whatever ``pages`` raises, which
        are asked for in another thread.
        """
        return await self._change(lambda connection: adopt(connection, self._lease, pages), MOVE_SECONDS)

    async def ask_cancel(
        self, ids: Iterable[str], prefix: str | None, all_of_them: bool, *, spaces: Sequence[str] = ("",)
    ) -> list[str] | None:
        meant = (
            all_of_them,
            [statements.stored(rollout_id) for rollout_id in ids],
            statements.stored(prefix),
            self._lease.channel,
            list(spaces),
        )

        async def ask(connection: Any) -> list[str]:
            asked: dict[str, None] = {}
            while True:
                rows = await connection.fetch(statements.ASK_CANCEL, self._lease.epoch, *meant)
                asked |= dict.fromkeys(row["rollout_id"] for row in rows if row["is_asked"])
                if all(row["is_asked"] for row in rows):
                    return [statements.read(rollout_id) or "" for rollout_id in asked]
                await asyncio.sleep(HELD_SECONDS)

        return await self._change(ask)

    async def counts(self) -> dict[RolloutState, int]:
        async def count(connection: Any) -> dict[RolloutState, int]:
            found = dict(await connection.fetch(statements.COUNTS))
            return {state: found.get(state.value, 0) for state in RolloutState}

        return await self._do(count)

    async def oldest_unsettled(self) -> float | None:
        async def oldest(connection: Any) -> float | None:
            time: float | None = await connection.fetchval(statements.OLDEST_UNSETTLED)
            return time

        return await self._do(oldest)

    async def prune(self) -> int:
        cutoffs = self._retention.cutoffs(self._require_timeline())
        removed = 0
        for state, settled_before in cutoffs.items():
            removed += await self._repeat(statements.PRUNE, lambda: self._lease.epoch, state.value, settled_before)
        if self._create:
            forget = statements.FORGET_GAPS
            await self._change(lambda connection: connection.execute(forget, min(cutoffs.values())), SECONDS)
        return removed

    async def purge(self, *, keys: Iterable[str] = (), states: Iterable[RolloutState] = ()) -> int:
        removed = 0
        ids = [statements.id_of(key) for key in keys]
        for first in range(0, len(ids), statements.PAGE_ROWS):
            page = ids[first : first + statements.PAGE_ROWS]
            removed += await self._change(partial(_remove, statements.PURGE_KEYS, page), SECONDS)
        for state in set(states):
            if state in SETTLED:
                removed += await self._repeat(statements.PRUNE, lambda: self._lease.epoch, state.value, math.inf)
            else:
                removed += await self._repeat(statements.PURGE_STATE, state.value)
        return removed

    async def _repeat(self, statement: str, *arguments: Any) -> int:
        """Remove page by page, so that others get their turn in between."""
        removed = 0
        while page := await self._change(partial(_remove, statement, *arguments), SECONDS):
            removed += page
        return removed

    async def _fetch(self, query: str, *arguments: Any) -> list[JournalRecord]:
        async def fetch(connection: Any) -> list[JournalRecord]:
            return statements.records_of(await connection.fetch(query, *arguments))

        return await self._do(fetch)

    async def _do(self, work: Callable[[Any], Coroutine[Any, Any, T]], seconds: float | None = None) -> T:
        """What ``work`` gives with the connection for all that no rollout's commit waits for.

        ``seconds``: for as long at most, the wait for the connection included; ``None``: somebody waits for a short
        answer.
        """
        home = self._opened
        if seconds is None:
            seconds = SECONDS if not self._create else ASK_SECONDS if self.problem is None else ASK_AGAIN_SECONDS

        async def do() -> T:
            try:
                async with asyncio.timeout(seconds):
                    await self._batches.noted()
                    async with self._link.held(seconds) as connection:
                        return await work(connection)
            except JournalError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it in one sentence
                if not is_definite(error):
                    self._lease.renew_soon()  # which tells whether the database answers
                raise journal_error(self.address, error) from None

        return await home.call(do)

    async def _change(self, work: Callable[[Any], Coroutine[Any, Any, T]], seconds: float | None = None) -> T:
        """The same for what changes something, which an owner alone does."""
        await self._as_owner()
        return await self._do(work, seconds)

    async def _as_owner(self) -> Home:
        home = self._opened
        if not self._work:
            await home.call(self._begin)
        return home

    async def _as_promiser(self) -> Home:
        """The same, where nothing is known to be in the way of what is promised."""
        home = await self._as_owner()
        if (problem := self._lease.problem) is not None:
            raise JournalError(*problem.args)
        return home

    async def _open(self, home: Home) -> Timeline:
        """In the thread, as the following."""
        self._link = Link(self.address, "reader")
        self._lease = lease = Lease(self.address, self.address.lease_seconds, None)
        self._batches = Batches(
            self.address, lease, lambda: self._retention.cutoffs(self._require_timeline()), home.answer
        )
        self._unclear_claims = []
        self._work, self._beginning = [], asyncio.Lock()
        lease.prove = self._batches.prove
        lease.on_lost, lease.on_abandoned = self.on_lost, self.on_abandoned
        lease.on_cancel, lease.on_problem, lease.on_backlog = self.on_cancel, self.on_problem, self.on_backlog
        try:
            async with self._link.held(SECONDS) as connection:
                self._secret = await prepare(connection, self.address, create=self._create)
                timeline = await begin_timeline(connection, self._clock, serves=self._create)
            if self._create:
                lease.sign = timeline.sign
                await self._begin()
        except Exception as error:  # noqa: BLE001 - as above
            await self._link.close()
            raise journal_error(self.address, error) from None
        return timeline

    async def _begin(self) -> None:
        """Become an owner."""
        async with self._beginning:
            if not self._work:
                try:
                    await self._lease.register()
                except Exception as error:  # noqa: BLE001 - as above
                    raise journal_error(self.address, error) from None
                self._work = [asyncio.ensure_future(work) for work in (self._lease.keep(), self._batches.work())]

    async def _close(self) -> None:
        await quietly(self._batches.is_idle.wait(), DRAIN_SECONDS)
        work, self._work = self._work, []
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await self._lease.release()
        await self._batches.close()
        await self._link.close()

    @property
    def _opened(self) -> Home:
        if self._home is None:
            raise JournalError(f"The journal at {self.address} is not open: open it first.")
        return self._home


def _is_ours(row: Any, epoch: int, state: RolloutState) -> bool:
    return bool(row["epoch"] == epoch and row["state"] == state)


async def _remove(statement: str, *arguments: Any) -> int:
    *values, connection = arguments
    given: Sequence[Any] = [value() if callable(value) else value for value in values]
    # The status of a command is its name and how many rows it was done to.
    return int((await connection.execute(statement, *given)).rpartition(" ")[2])
