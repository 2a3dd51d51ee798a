"""The owner of delivery: a result is put on record, carried to its trainer, and settled, by nobody else.

Rollouts of this process, those that dead processes left (``recovery``) and those that an operator sends again
(``redelivery``) all go through a ``Courier``. It never changes a result: the same bytes, until the trainer has them.
A trainer that refuses a body gets the result once more, without its messages (``parcels``); from then on those bytes.

    record    journal "finished": from here on another process would deliver these bytes, too
    attempt   one post (``attempts``)
    carry_on  more posts until an answer, the deadline or the shutdown; then journal "delivered" or "undeliverable"

What a shutdown cuts off stays in the journal as it stands, and the next process that has it takes it up.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from osmosis_ai.rollout.core.settings import RolloutClientSettings
from osmosis_ai.rollout.core.watch import Verdict
from osmosis_ai.rollout.journal import Journal, JournalError, RolloutState, UnknownKeyError
from osmosis_ai.rollout.server.attempts import Attempts, ClientFactory, Delivery
from osmosis_ai.rollout.server.parcels import Parcel, Parcels
from osmosis_ai.rollout.wire.backoff import delay_seconds

logger = logging.getLogger(__name__)

JOURNAL_RETRY_SECONDS = 0.5

T = TypeVar("T")


class Courier:
    """Carries results to trainers; one per event loop.

    Args:
        journal: opened and closed by its owner.
        make_client: called for each attempt but the first of a run.
        settings: ``retry_base_delay`` and ``retry_max_delay`` shape the backoff.
        deadline_seconds: how long a result is tried after its first attempt.
    """

    def __init__(
        self, journal: Journal, make_client: ClientFactory, settings: RolloutClientSettings, deadline_seconds: float
    ) -> None:
        self.ending = False
        """Whether the server ends: what other processes left is for the next one."""
        self.under_way: dict[str, Delivery] = {}
        """By key, those that have begun."""
        self._journal = journal
        self._parcels = Parcels(journal)
        self._attempts = Attempts(journal, self._parcels, make_client)
        self.room_for = self._attempts.room_for
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._last_call = asyncio.Event()

    async def record(self, parcel: Parcel, rollout_id: str) -> bool:
        """Put a result that was just made on record; ``False`` if it must not be delivered by this process.

        A result that is delivered without being on record would be contradicted by the next process, which finds an
        unfinished rollout. So this goes on until the journal works again, or the bounds of the shutdown cancel it.
        """
        try:
            ours = await self._insist(self._journal.finish, parcel.key, parcel.content)
        except UnknownKeyError as error:
            # No file's absence, and no error of the system, says as much: that is a `JournalError`, and waits.
            logger.error(
                "Rollout %a: nothing on record can contradict its result, so it goes out: %s", rollout_id, error
            )
            parcel.is_on_record = False
            return True
        except asyncio.CancelledError:
            logger.error("Rollout %a: its result cannot be put on record, and ends with the server.", rollout_id)
            raise
        if not ours:
            logger.error("Rollout %a: another result is on record; this one is dropped.", rollout_id)
        return ours

    async def attempt(self, delivery: Delivery) -> None:
        """Post once, and once more without messages if that was refused; never raises but for cancellation."""
        self.under_way[delivery.parcel.key] = delivery
        await self._attempts.make(delivery)
        if delivery.instead is not None and await self._leaves_out_messages(delivery, delivery.instead):
            await self._attempts.make(delivery)
        delivery.client = None
        if delivery.verdict is Verdict.UNANSWERED:
            self._parcels.let_go(delivery.parcel)

    async def _leaves_out_messages(self, delivery: Delivery, instead: bytes) -> bool:
        delivery.client = delivery.instead = None
        # Until it is cancelled: then the next process finds the whole result, and offers that again.
        return await self._insist(self._parcels.leave_out_messages, delivery.parcel, instead)

    async def pursue(self, delivery: Delivery) -> None:
        """Go on after a failed attempt until there is an answer, the deadline, or the one attempt after ``close``."""
        while not self._is_final(delivery):
            # Asked before the wait: the last call may come during it, and that attempt is not the one it grants.
            last_try = self._last_call.is_set()
            if not last_try:
                await self._wait(delivery)
            await self.attempt(delivery)
            if last_try:
                break

    async def carry_on(self, delivery: Delivery) -> None:
        """``pursue``, and settle; a delivery that is cut off by a shutdown stays in the journal."""
        try:
            try:
                await self.pursue(delivery)
            finally:
                self._parcels.forget(delivery.parcel)
            if self._is_final(delivery):
                if delivery.verdict is not Verdict.ACKNOWLEDGED:
                    logger.error("Rollout %a: its result is undeliverable: %s", delivery.rollout_id, delivery.problem)
                await self._insist(self.settle, delivery)
            else:
                await self._journal.note_attempt(
                    delivery.parcel.key, attempts=delivery.attempts, error=delivery.problem or ""
                )
        except JournalError as error:
            logger.error("Rollout %a: its delivery is not on record: %s", delivery.rollout_id, error)
        finally:
            del self.under_way[delivery.parcel.key]

    async def settle(self, delivery: Delivery, otherwise: RolloutState = RolloutState.UNDELIVERABLE) -> None:
        """Put on record that the trainer has the result; if it has not, that it is in the state ``otherwise``.

        Raises:
            JournalError: the journal cannot be used.
        """
        state = RolloutState.DELIVERED if delivery.verdict is Verdict.ACKNOWLEDGED else otherwise
        await self._journal.settle(delivery.parcel.key, state, attempts=delivery.attempts, error=delivery.problem)

    def close(self) -> None:
        """Let every waiting delivery make one last attempt now, and none after that."""
        self._last_call.set()

    async def _insist(self, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Repeat a journal operation that fails (the disk is full, say) until it is cancelled."""
        while True:
            try:
                return await operation(*arguments)
            except UnknownKeyError:
                raise  # another try would find the same
            except JournalError as error:
                logger.warning("The journal fails, trying again: %s", error)
                await asyncio.sleep(JOURNAL_RETRY_SECONDS)

    def _is_final(self, delivery: Delivery) -> bool:
        if delivery.verdict is not Verdict.UNANSWERED:
            return True
        # Nobody but its trainer, asked, can say that it does not take it.
        return delivery.was_made and time.monotonic() - delivery.started_at > self._deadline_seconds

    async def _wait(self, delivery: Delivery) -> None:
        trainer = self._attempts.trainer_at(delivery.server_url)
        wakers = [asyncio.create_task(event.wait()) for event in (trainer.is_back, self._last_call)]
        try:
            await asyncio.wait(
                wakers,
                timeout=delay_seconds(self._settings, max(delivery.attempts, 1), delivery.error),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for waker in wakers:
                waker.cancel()
