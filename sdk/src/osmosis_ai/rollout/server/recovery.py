"""What processes that are gone have left in the journal: reported or delivered, and never run again.

A rollout that was cut off is not repeated, because its trainer has recorded turns of it under that id. Taking up the
same record in two processes is the journal's to prevent (``claim_abandoned``).
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from osmosis_ai.rollout.core.results import Stop, StopReason, TerminalResult, result_without_run
from osmosis_ai.rollout.core.watch import NO_WATCH, Observer
from osmosis_ai.rollout.journal import Journal, JournalError, JournalRecord
from osmosis_ai.rollout.observe.redaction import LOG_CONTEXT, LogContext
from osmosis_ai.rollout.server.delivery import Courier, Delivery
from osmosis_ai.rollout.server.rollouts import ClientFactory, Rollout

logger = logging.getLogger(__name__)


class Recovery:
    """Takes up abandoned records, each in a task made by ``spawn``."""

    def __init__(
        self,
        journal: Journal,
        courier: Courier,
        make_client: ClientFactory,
        observer: Observer,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._journal = journal
        self._courier = courier
        self._make_client = make_client
        self._observer = observer
        self._spawn = spawn

    async def take_up_abandoned(self) -> None:
        """Take up all there is now.

        Raises:
            JournalError: the journal cannot be used.
        """
        while not self._courier.ending and (records := await self._journal.claim_abandoned()):
            for record in records:
                self._spawn(self._take_up(record))
            await asyncio.sleep(0)

    async def _take_up(self, record: JournalRecord) -> None:
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
                since = record.deliverable_since or self._journal.now()
                age_seconds = max(self._journal.now() - since, 0.0)
                watch = self._observer.recovered(record.rollout_id, record.server_url, age_seconds)
                if record.result is None:
                    watch.ended(result.summary, max(self._journal.now() - record.accepted_at, 0.0))
                delivery = Delivery(
                    record.key,
                    record.rollout_id,
                    record.server_url,
                    llm,
                    result,
                    watch,
                    # The deadline runs from the result, not from this start, or restarts would make it run for ever.
                    # The time in which nobody served, and so nobody tried, does not count.
                    started_at=time.monotonic() - self._journal.served_since(since),
                    attempts=record.delivery_attempts,
                )
                await self._courier.attempt(delivery)  # also after the deadline: it may be past only because of us
                await self._courier.carry_on(delivery)
        except Exception:
            logger.exception("Rollout %a: its result stays in the journal.", record.rollout_id)
        finally:
            watch.gone()


async def result_of_unrun(journal: Journal, rollout: Rollout, reason: StopReason) -> TerminalResult:
    """An ERROR with the messages of the init as they came: the agent may have changed its own."""
    try:
        record = await journal.get(rollout.key)
    except JournalError as error:
        logger.warning("Rollout %a: its messages cannot be read from the journal: %s", rollout.rollout_id, error)
        record = None
    return result_without_run(rollout.rollout_id, reason) if record is None else _unrun(record, reason)


def _unrun(record: JournalRecord, reason: StopReason) -> TerminalResult:
    messages = json.loads(record.request)["messages"] if record.request else []
    return result_without_run(record.rollout_id, reason, messages)
