"""What processes that are gone have left in the journal: reported or delivered, and never run again.

A rollout that was cut off is not repeated, because its trainer has recorded turns of it under that id. Taking up the
same record in two processes is the journal's to prevent (``claim_abandoned``). What a shortage keeps from being dealt
with is taken up again in the next round. A page is claimed when the one before has gone out once, or has had its time:
what is not claimed is there for others, so those that are equally quick take equal shares.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from osmosis_ai.rollout.core.results import ResultSummary, Stop, StopReason, TerminalResult, result_without_run
from osmosis_ai.rollout.core.watch import Observer
from osmosis_ai.rollout.journal import UNSETTLED, Journal, JournalError, JournalRecord, Payload, RolloutState
from osmosis_ai.rollout.journal.base import CLAIM_LIMIT
from osmosis_ai.rollout.observe.redaction import LOG_CONTEXT, LogContext
from osmosis_ai.rollout.server.attempts import Delivery
from osmosis_ai.rollout.server.delivery import Courier
from osmosis_ai.rollout.server.parcels import Parcel
from osmosis_ai.rollout.server.pull.lane import PullLane
from osmosis_ai.rollout.server.pull.results import as_pulled
from osmosis_ai.rollout.server.rollouts import Rollout
from osmosis_ai.rollout.server.terms import is_pulled

logger = logging.getLogger(__name__)

DECODED_PER_BYTE = 4
"""What a request takes in memory while its messages are put into a result, for each of its bytes."""
PAGE_SECONDS = 0.25
"""How long a page whose trainers are slow keeps back the next, which others may wait for."""


class Recovery:
    """Takes up abandoned records, each in a task made by ``spawn``."""

    def __init__(
        self,
        journal: Journal,
        courier: Courier,
        pull: PullLane,
        observer: Observer,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._journal = journal
        self._courier = courier
        self._pull = pull
        self._observer = observer
        self._spawn = spawn
        self._left: list[str] = []
        """Keys of records that are ours and that nobody works on."""
        self._unsent: set[str] = set()
        """Keys of records that were claimed and have not gone out once."""
        self._has_room = asyncio.Event()

    async def take_up_abandoned(self) -> None:
        """Take up all there is now, what an earlier round could not deal with included.

        Raises:
            JournalError: the journal cannot be used.
        """
        left, self._left = self._left, []
        while left:
            try:
                record = await self._journal.get(left[-1])
            except BaseException:
                self._left += left
                raise
            left.pop()
            if record is not None and record.state in UNSETTLED:
                self._spawn(self._take_up(record))
        while not self._courier.ending and (records := await self._journal.claim_abandoned()):
            self._unsent.update(record.key for record in records)
            for record in records:
                self._spawn(self._take_up(record))
            if len(self._unsent) >= CLAIM_LIMIT:
                self._has_room.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(PAGE_SECONDS):
                        await self._has_room.wait()
            await asyncio.sleep(0)

    def _went_out(self, key: str) -> None:
        self._unsent.discard(key)
        if len(self._unsent) < CLAIM_LIMIT // 2:
            self._has_room.set()

    async def _take_up(self, record: JournalRecord) -> None:
        LOG_CONTEXT.set(LogContext(record.rollout_id, record.api_key))
        try:
            if is_pulled(record.key):
                await self._keep(record)
            elif record.state is RolloutState.FINISHED:
                await self._deliver(record, Parcel(record.key, record.payload_bytes, None, record.without_messages))
            elif (made := await self._report(record)) is not None:
                await self._deliver(record, *made)
        except Exception:
            # It is ours now, so nobody else takes it up.
            self._left.append(record.key)
            logger.exception(
                "Rollout %a: its result stays in the journal; the next round tries again.", record.rollout_id
            )
        finally:
            self._went_out(record.key)

    async def _keep(self, record: JournalRecord) -> None:
        """A result that its trainer fetches is only put on record."""
        if record.state is not RolloutState.FINISHED:
            if (made := await self._report(record)) is None:
                return
            watch = self._observer.recovered(record.rollout_id, record.server_url, 0.0)
            watch.ended(made[1], max(self._journal.now() - record.accepted_at, 0.0))
            watch.gone()
        self._pull.owe(record)

    async def _report(self, record: JournalRecord) -> tuple[Parcel, ResultSummary] | None:
        """Put on record that the rollout was interrupted; ``None`` if that is not ours to deliver."""
        size_bytes = DECODED_PER_BYTE * record.payload_bytes
        async with self._courier.room_for(size_bytes).share(size_bytes):
            result = await _unrun(self._journal, record.key, record.rollout_id, Stop.RESTART.value)
            if is_pulled(record.key):
                result = as_pulled(record.rollout_id, result, None)
            parcel = Parcel.of(record.key, result)
            if not await self._courier.record(parcel, record.rollout_id):
                return None
            if parcel.is_on_record:
                parcel.content = None
            return parcel, result.summary

    async def _deliver(self, record: JournalRecord, parcel: Parcel, interrupted: ResultSummary | None = None) -> None:
        since = record.deliverable_since or self._journal.now()
        age_seconds = max(self._journal.now() - since, 0.0)
        watch = self._observer.recovered(record.rollout_id, record.server_url, age_seconds)
        try:
            if interrupted is not None:
                watch.ended(interrupted, max(self._journal.now() - record.accepted_at, 0.0))
            delivery = Delivery(
                parcel,
                record.rollout_id,
                record.server_url,
                record.api_key,
                watch=watch,
                # The deadline runs from the result, not from this start, or restarts would make it run for ever.
                # The time in which nobody served, and so nobody tried, does not count.
                started_at=time.monotonic() - self._journal.served_since(since),
                attempts=record.delivery_attempts,
            )
            await self._courier.attempt(delivery)  # also after the deadline: it may be past only because of us
            self._went_out(record.key)
            await self._courier.carry_on(delivery)
        finally:
            watch.gone()


async def result_of_unrun(journal: Journal, rollout: Rollout, reason: StopReason) -> TerminalResult:
    """An ERROR with the messages of the init as they came: the agent may have changed its own."""
    try:
        return await _unrun(journal, rollout.key, rollout.rollout_id, reason)
    except JournalError as error:
        logger.warning("Rollout %a: its messages cannot be read from the journal: %s", rollout.rollout_id, error)
        return result_without_run(rollout.rollout_id, reason)


async def _unrun(journal: Journal, key: str, rollout_id: str, reason: StopReason) -> TerminalResult:
    request = await journal.load(key, Payload.REQUEST)
    try:
        messages = json.loads(request)["messages"] if request else []
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        # Damaged, which SQLite does not see within a row. Its trainer waits all the same.
        logger.error("Rollout %a: its messages on record cannot be read, and are left out: %s", rollout_id, error)
        messages = []
    return result_without_run(rollout_id, reason, messages)
