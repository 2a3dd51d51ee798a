"""From a result to its acknowledgement: on record first, then delivered, then settled.

Invariants: a result is delivered only once the journal has it (or can no longer contradict it); what a shutdown cuts
off stays in the journal as it stands, and the next process, or another one that shares the journal, takes it up.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from osmosis_ai.rollout.core.results import Stop, StopReason, TerminalResult, result_without_run
from osmosis_ai.rollout.core.watch import NO_WATCH, Observer, Verdict
from osmosis_ai.rollout.journal import (
    Journal,
    JournalError,
    JournalGoneError,
    JournalRecord,
    RolloutState,
    UnknownKeyError,
)
from osmosis_ai.rollout.observe.redaction import LOG_CONTEXT, LogContext
from osmosis_ai.rollout.server.delivery import Courier, Delivery
from osmosis_ai.rollout.server.rollouts import Rollout

logger = logging.getLogger(__name__)

JOURNAL_RETRY_SECONDS = 0.5

T = TypeVar("T")
ClientFactory = Callable[..., AbstractAsyncContextManager[Any]]


class Settlement:
    """Records and delivers results, and those of earlier processes too.

    Args:
        journal: opened and closed by its owner.
        make_client: called with ``server_url``, ``rollout_id`` and ``api_key``.
    """

    def __init__(self, journal: Journal, courier: Courier, make_client: ClientFactory, observer: Observer) -> None:
        self.ending = False
        """Whether the server ends: from then on a journal that fails is not tried again."""
        self._journal = journal
        self._courier = courier
        self._make_client = make_client
        self._observer = observer

    async def record(self, rollout: Rollout, result: TerminalResult) -> bool:
        """Put the result on record; ``False`` if it must not be delivered by this process.

        A result that is delivered without being on record would be contradicted by the next process, which finds an
        unfinished rollout. So this goes on until the journal works again, or the server ends.
        """
        rollout_id = rollout.rollout_id
        if rollout.traced is not None:
            rollout.traced.record_result(result.encoded)
        try:
            ours = await self._insist(lambda: self._journal.finish(rollout.key, result.encoded))
        except (UnknownKeyError, JournalGoneError) as error:
            logger.error(
                "Rollout %a: nothing on record can contradict its result, so it goes out: %s", rollout_id, error
            )
            return True
        except JournalError as error:
            logger.error("Rollout %a: its result is lost, as it cannot be put on record: %s", rollout_id, error)
            return False
        if not ours:
            logger.error("Rollout %a: another result is on record; this one is dropped.", rollout_id)
        return ours

    async def _insist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Repeat a journal operation that fails (the disk is full, say) as long as the server runs."""
        while True:
            try:
                return await operation()
            except (UnknownKeyError, JournalGoneError):
                raise
            except JournalError as error:
                if self.ending:
                    raise
                logger.warning("The journal fails, trying again: %s", error)
                await asyncio.sleep(JOURNAL_RETRY_SECONDS)

    async def carry_on(self, key: str, delivery: Delivery) -> None:
        """Carry on a delivery to its end and settle it; one that is cut off by a shutdown stays in the journal."""
        await self._courier.pursue(delivery)
        error = f"{type(delivery.error).__name__}: {delivery.error}" if delivery.error is not None else None
        try:
            if self._courier.is_final(delivery):
                await self._insist(lambda: self._settle(key, delivery, error))
            else:
                await self._journal.note_attempt(key, attempts=delivery.attempts, error=error or "")
        except JournalError as journal_error:
            logger.error("Rollout %a: its delivery is not on record: %s", delivery.rollout_id, journal_error)

    async def _settle(self, key: str, delivery: Delivery, error: str | None) -> None:
        if delivery.verdict is Verdict.ACKNOWLEDGED:
            await self._journal.settle(key, RolloutState.DELIVERED, attempts=delivery.attempts)
        else:
            logger.error("Rollout %a: its result is undeliverable: %s", delivery.rollout_id, error)
            await self._journal.settle(key, RolloutState.UNDELIVERABLE, attempts=delivery.attempts, error=error)

    async def result_of_unrun(self, rollout: Rollout, reason: StopReason) -> TerminalResult:
        """An ERROR with the messages of the init as they came: the agent may have changed its own."""
        try:
            record = await self._journal.get(rollout.key)
        except JournalError as error:
            logger.warning("Rollout %a: its messages cannot be read from the journal: %s", rollout.rollout_id, error)
            record = None
        return result_without_run(rollout.rollout_id, reason) if record is None else _unrun(record, reason)

    async def take_up_abandoned(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Take up what processes that are gone have left in the journal, each record in a task made by ``spawn``.

        Raises:
            JournalError: the journal cannot be used.
        """
        while not self.ending and (records := await self._journal.claim_abandoned()):
            for record in records:
                spawn(self._take_up(record))
            await asyncio.sleep(0)

    async def _take_up(self, record: JournalRecord) -> None:
        """Report a rollout that was cut off, or deliver a result that was left behind; nothing is run again."""
        LOG_CONTEXT.set(LogContext(record.rollout_id, record.api_key))
        watch = NO_WATCH
        try:
            result = TerminalResult(record.result) if record.result is not None else _unrun(record, Stop.RESTART.value)
            if record.result is None and not await self._journal.finish(record.key, result.encoded):
                return
            client = self._make_client(
                server_url=record.server_url, rollout_id=record.rollout_id, api_key=record.api_key
            )
            async with client as llm:
                age_seconds = time.time() - (record.deliverable_since or time.time())
                watch = self._observer.recovered(record.rollout_id, record.server_url, age_seconds)
                if record.result is None:
                    watch.ended(result.summary, time.time() - record.accepted_at)
                delivery = Delivery(
                    record.rollout_id,
                    record.server_url,
                    llm,
                    result,
                    watch,
                    started_at=time.monotonic() - age_seconds,
                    attempts=record.delivery_attempts,
                )
                await self._courier.attempt(delivery)
                await self.carry_on(record.key, delivery)
        except Exception:
            logger.exception("Rollout %a: its result stays in the journal.", record.rollout_id)
        finally:
            watch.gone()


def _unrun(record: JournalRecord, reason: StopReason) -> TerminalResult:
    messages = json.loads(record.request)["messages"] if record.request else []
    return result_without_run(record.rollout_id, reason, messages)
