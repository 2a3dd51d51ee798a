"""Commits that are shared: what waits for the same statement is carried out by one, on one connection.

Invariants: a key is in a statement once; one that cannot be written does not harm its neighbours; whoever waits is
answered (``on_answered``) when it is known what became of its write, or that nobody knows. An acceptance whose outcome
nobody knows is asked for again until its patience ends; then its caller hears that nothing was promised, whatever is
under way by then, and a record, if there is one, is taken back once the database answers. If another replica has
promised it meanwhile, to an init that came again, it is given up instead, and reported as any other without an owner.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from osmosis_ai.rollout.journal.errors import JournalError, UnknownKeyError
from osmosis_ai.rollout.journal.postgres import statements
from osmosis_ai.rollout.journal.postgres.address import Address
from osmosis_ai.rollout.journal.postgres.explain import is_definite, is_of_the_database, journal_error
from osmosis_ai.rollout.journal.postgres.lease import Lease
from osmosis_ai.rollout.journal.postgres.link import Link
from osmosis_ai.rollout.journal.retention import is_over
from osmosis_ai.rollout.journal.types import JournalRecord, Move, RolloutState, next_state

logger = logging.getLogger(__name__)

BATCH_LIMIT = 256
BATCH_BYTES = 8 * 1024 * 1024
"""Of a statement, unless one write alone has more."""
WRITE_SECONDS = 8.0
RETRY_SECONDS = 1.0
ACCEPT_PATIENCE_SECONDS = 4.0
"""Less than the 5 that a client of HTTP waits by default, such as httpx."""
PACE_SECONDS = 0.02
"""From one statement to the next of its kind, once it carried several writes: what comes meanwhile shares it, and the
waking of whoever waits."""
SLOW_PACE_SECONDS = 0.1
"""The same where neither an agent nor a trainer waits."""


@dataclass(frozen=True, eq=False)
class Kind:
    """Of writes: their statement, and the arguments that it takes beside the arrays.

    ``otherwise`` says what came of a write that changed nothing. It is called with the write, the record as it stands,
    and whether the lease lives.
    """

    name: str
    statement: str
    otherwise: "Callable[[Batches, Write, JournalRecord | None, bool], Any]"
    done: Any = True
    arguments: "Callable[[Batches], tuple[Any, ...]]" = lambda _: ()
    pace_seconds: float = PACE_SECONDS
    alone_seconds: float = 0.0
    """The same after a write that came alone; none where whoever waits may send the next one only then."""


@dataclass(slots=True, eq=False)
class Write:
    """One of them; ``values`` are its columns, the first its id."""

    kind: Kind
    key: str
    values: tuple[Any, ...]
    size_bytes: int = 0
    loop: asyncio.AbstractEventLoop | None = None
    future: "asyncio.Future[Any] | None" = None
    """Of whoever waits, in ``loop``."""
    value: Any = None
    error: JournalError | None = None
    is_unclear: bool = False
    """Whether it may have been carried out."""
    is_same: bool = False
    """Of a result: whether this very one stands."""
    patience_ends_at: float = field(default_factory=lambda: time.monotonic() + ACCEPT_PATIENCE_SECONDS)


class Batches:
    """Carries out writes, in a task that runs ``work``; all of it in one event loop."""

    def __init__(
        self,
        address: Address,
        lease: Lease,
        cutoffs: Callable[[], dict[RolloutState, float]],
        on_answered: Callable[[Write], None],
    ) -> None:
        self.lease = lease
        self.cutoffs = cutoffs
        self._on_answered = on_answered
        self._address = address
        self._link = Link(address, "writer")
        self._queues: dict[Kind, deque[Write]] = {}
        self._due_at: dict[Kind, float] = {}
        """When the next statement of a kind may begin."""
        self._something = asyncio.Event()
        self._given_up: list[Write] = []
        """Acceptances of which nobody knows whether they are on record, and nobody waits for."""
        self._is_refused = False
        """Whether the last write failed for what has nothing to do with it."""
        self._awaited: dict[Write, None] = {}
        """Acceptances that somebody waits for, the one with the least patience first."""
        self._patience: asyncio.TimerHandle | None = None
        self._notes: set[Write] = set()
        """Those that nobody waits for, until it is known what became of them."""
        self._noted = asyncio.Event()
        self.is_idle = asyncio.Event()
        self.is_idle.set()

    async def noted(self) -> None:
        """Wait until the notes that were made before can be read."""
        before = set(self._notes)
        while not before.isdisjoint(self._notes):
            self._noted.clear()
            await self._noted.wait()

    def put(self, write: Write) -> None:
        """Have it carried out."""
        queue = self._queues.get(write.kind)
        if queue is None:
            queue = self._queues[write.kind] = deque()
            self._due_at[write.kind] = 0.0
        if not queue:
            self._something.set()
        queue.append(write)
        if write.kind in NOTES:
            self._notes.add(write)
        elif write.kind is ACCEPT:
            self._awaited[write] = None
            self._look_at_patience()
        self.is_idle.clear()

    async def work(self) -> None:
        """Carry out what comes, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._something.wait()
            self._something.clear()
            if self._given_up and not any(self._queues.values()):
                await self._carry_out([])
            while due := self._due():
                for kind in due:
                    began, writes = time.monotonic(), _take(self._queues[kind])
                    pace_seconds = kind.pace_seconds if len(writes) > 1 else kind.alone_seconds
                    self._due_at[kind] = 0.0 if self._queues[kind] else began + pace_seconds
                    await self._carry_out(writes)
            if not any(self._queues.values()):
                self.is_idle.set()

    def _due(self) -> list[Kind]:
        now = time.monotonic()
        return [kind for kind, queue in self._queues.items() if queue and self._due_at[kind] <= now]

    def _pause_seconds(self) -> float | None:
        """Until there is something to do, if nothing comes."""
        due_at = [self._due_at[kind] for kind, queue in self._queues.items() if queue]
        if due_at:
            return max(min(due_at) - time.monotonic(), 0.0)
        return RETRY_SECONDS if self._given_up else None

    def _look_at_patience(self) -> None:
        """One timer for all, as hardly any is ever needed."""
        if self._patience is None and self._awaited:
            ends_at = next(iter(self._awaited)).patience_ends_at
            self._patience = asyncio.get_running_loop().call_at(ends_at, self._end_patience)

    def _end_patience(self) -> None:
        self._patience, now = None, time.monotonic()
        late = [write for write in self._awaited if write.patience_ends_at <= now]
        if late:
            self.lease.note(TimeoutError())
        for write in late:
            del self._awaited[write]
            # A copy is answered: what becomes of the write itself has nobody to hear it.
            self._on_answered(replace(write, error=journal_error(self._address, TimeoutError())))
            write.loop = write.future = None
            if write in self._queues[ACCEPT]:
                self._queues[ACCEPT].remove(write)
                self._answer(write)
        self._look_at_patience()

    async def prove(self, seconds: float) -> None:
        """Once a write has been refused: raise what asyncpg raises where another one would be, too."""
        if self._is_refused:
            async with self._link.held(seconds) as connection:
                await connection.execute(statements.TOUCH, self.lease.epoch)
            self._is_refused = False

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def _carry_out(self, writes: list[Write]) -> None:
        try:
            async with self._link.held(WRITE_SECONDS) as connection:
                await self._abandon(connection)
                if writes:
                    await self._send(connection, writes)
        except Exception as error:  # noqa: BLE001 - the task must live on
            await self._failed(writes, error)
        else:
            self._is_refused = False

    async def _send(self, connection: Any, writes: list[Write]) -> None:
        """Have them done; one that is answered is in ``writes`` no more, as what is raised later says nothing of it."""
        kind = writes[0].kind
        columns = [list(column) for column in zip(*(write.values for write in writes), strict=True)]
        row = await connection.fetchrow(kind.statement, self.lease.epoch, *kind.arguments(self), *columns)
        done = set(row["ids"])
        rest = []
        for write in writes:
            if write.values[0] in done:
                write.value, write.error = kind.done, None
                self._answer(write)
            else:
                rest.append(write)
        writes[:] = rest
        if not row["live"]:
            self.lease.renew_soon()
        if rest:
            standing = {}
            if kind is ACCEPT:
                ids, times = [write.values[0] for write in rest], [write.values[-1] for write in rest]
                await connection.execute(statements.NOTE_REPEATED, self.lease.epoch, ids, times)
            for found in await connection.fetch(statements.GET, [write.values[0] for write in rest]):
                standing[found["id"]] = statements.record_of(found)
            for write in rest:
                record = standing.get(write.values[0])
                if kind is FINISH and record is not None and record.state is RolloutState.FINISHED:
                    write.is_same = bool(await connection.fetchval(statements.SAME_RESULT, *write.values[:2]))
                writes.remove(write)
                try:
                    write.error = None
                    write.value = kind.otherwise(self, write, record, row["live"])
                except JournalError as error:
                    write.error = error
                except _AgainError:
                    self._queues[kind].append(write)
                    continue
                self._answer(write)

    async def _failed(self, writes: list[Write], error: Exception) -> None:
        if is_definite(error) and len(writes) > 1:
            # One that cannot be written (too large, say) has undone its neighbours too.
            for write in writes:
                await self._carry_out([write])
            return
        told = journal_error(self._address, error)
        if is_of_the_database(error):
            self._is_refused = True
            self.lease.note(error)
        for write in writes:
            if write.kind is ACCEPT and not is_definite(error) and not isinstance(error, ConnectionRefusedError):
                write.is_unclear = True
            if write.is_unclear and time.monotonic() < write.patience_ends_at:
                self._queues[write.kind].append(write)
                continue
            # A copy each: one exception raised in many tasks would gather all their tracebacks.
            write.error = type(told)(*told.args)
            self._answer(write)
        if any(write.is_unclear for write in writes):
            await asyncio.sleep(0.2)
            self._something.set()

    def _answer(self, write: Write) -> None:
        if write.kind in NOTES:
            self._notes.discard(write)
            self._noted.set()
        elif write.kind is ACCEPT:
            self._awaited.pop(write, None)
            if write.future is None or (write.error is not None and write.is_unclear):
                self._given_up.append(write)
        self._on_answered(write)

    async def _abandon(self, connection: Any) -> None:
        while self._given_up:
            write = self._given_up[-1]
            for statement in (statements.TAKE_BACK, statements.ABANDON):
                await connection.execute(statement, self.lease.epoch, write.values[0], write.values[-1])
            self._given_up.pop()
            self.lease.on_abandoned()


class _AgainError(Exception):
    """What stood in the way has gone meanwhile."""


def _take(queue: deque[Write]) -> list[Write]:
    """The first of a queue, as many as fit into a statement; of each key one."""
    taken: dict[bytes, Write] = {}
    later: list[Write] = []
    size_bytes = 0
    while queue and len(taken) < BATCH_LIMIT:
        write = queue.popleft()
        if write.values[0] in taken:
            later.append(write)
        elif taken and size_bytes + write.size_bytes > BATCH_BYTES:
            later.append(write)
            break
        else:
            taken[write.values[0]] = write
            size_bytes += write.size_bytes
    queue.extendleft(reversed(later))
    return list(taken.values())


def _require_live(batches: Batches, live: bool) -> None:
    if not live:
        raise batches.lease.has_run_out()


def _not_accepted(batches: Batches, write: Write, record: JournalRecord | None, live: bool) -> JournalRecord | None:
    mine = record is not None and record.owner == str(batches.lease.epoch) and record.state is RolloutState.ACCEPTED
    if record is not None and mine and write.is_unclear and record.accepted_at == write.values[-1]:
        return None  # the first try did it, and its answer was lost
    _require_live(batches, live)
    if record is None or is_over(record, batches.cutoffs()):
        raise _AgainError
    return record


def _not_finished(batches: Batches, write: Write, record: JournalRecord | None, live: bool) -> bool:
    if record is None:
        if batches.lease.was_lost:
            return False  # it may have been taken over, delivered and removed since
        raise UnknownKeyError(write.key)
    mine = record.owner == str(batches.lease.epoch)
    if mine and record.state is RolloutState.ACCEPTED:
        _require_live(batches, live)
        raise _AgainError
    return mine and write.is_same


def _not_settled(move: Move) -> Callable[[Batches, Write, JournalRecord | None, bool], bool]:
    """Whoever heard of an acknowledgement may say so; only the owner gives up."""

    def otherwise(batches: Batches, write: Write, record: JournalRecord | None, live: bool) -> bool:
        to = next_state(write.key, None if record is None else record.state, move)
        is_ours = record is not None and record.owner == str(batches.lease.epoch)
        if to is not None and (is_ours or move is Move.ACKNOWLEDGE):
            _require_live(batches, live)
            raise _AgainError
        return False

    return otherwise


def _accept_arguments(batches: Batches) -> tuple[Any, ...]:
    cutoffs = batches.cutoffs()
    return cutoffs[RolloutState.DELIVERED], cutoffs[RolloutState.UNDELIVERABLE]


ACCEPT = Kind("accept", statements.ACCEPT, _not_accepted, None, _accept_arguments)
FINISH = Kind("finish", statements.FINISH, _not_finished, alone_seconds=PACE_SECONDS)
SETTLE = {
    RolloutState.DELIVERED: Kind(
        "acknowledge",
        statements.ACKNOWLEDGE,
        _not_settled(Move.ACKNOWLEDGE),
        pace_seconds=SLOW_PACE_SECONDS,
        alone_seconds=PACE_SECONDS,
    ),
    RolloutState.UNDELIVERABLE: Kind("give up", statements.GIVE_UP, _not_settled(Move.GIVE_UP)),
}
NOTE_ATTEMPT = Kind("note", statements.NOTE_ATTEMPT, lambda *_: None)
NOTE_POLL = Kind("poll", statements.NOTE_POLL, lambda *_: None)
NOTES = (NOTE_ATTEMPT, NOTE_POLL)
"""Nobody waits for these."""
