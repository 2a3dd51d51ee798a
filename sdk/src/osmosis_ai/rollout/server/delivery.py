"""The owner of delivery: a result is put on record, carried to its trainer, and settled, by nobody else.

Rollouts of this process, those that dead processes left (``recovery``) and those that an operator sends again
(``redelivery``) all go through a ``Courier``. It never changes a result: the same bytes, until the trainer has them.

    record    journal "finished": from here on another process would deliver these bytes, too
    attempt   one post, at most ``ATTEMPTS_AT_ONCE_PER_TRAINER`` to one trainer
    carry_on  more posts until an answer, the deadline or the shutdown; then journal "delivered" or "undeliverable"

What a shutdown cuts off stays in the journal as it stands, and the next process that has it takes it up.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from osmosis_ai.rollout.core.exceptions import OsmosisProtocolError, OsmosisValidationError, is_retryable_status
from osmosis_ai.rollout.core.results import TerminalResult
from osmosis_ai.rollout.core.settings import RolloutClientSettings
from osmosis_ai.rollout.core.watch import NO_WATCH, RolloutWatch, Verdict
from osmosis_ai.rollout.journal import Journal, JournalError, RolloutState, UnknownKeyError
from osmosis_ai.rollout.wire.backoff import delay_seconds

logger = logging.getLogger(__name__)

ATTEMPTS_AT_ONCE_PER_TRAINER = 32
JOURNAL_RETRY_SECONDS = 0.5

T = TypeVar("T")


class CompletionClient(Protocol):
    """What delivery needs of a rollout's client."""

    async def send_completion(self, payload: bytes, attempts: int) -> None:
        """Post a terminal result, a JSON object, in at most ``attempts`` attempts."""
        ...


@dataclass
class Delivery:
    """One result on its way to one trainer."""

    key: str
    rollout_id: str
    server_url: str
    client: CompletionClient
    result: TerminalResult
    watch: RolloutWatch = NO_WATCH
    started_at: float = field(default_factory=time.monotonic)
    attempts: int = 0
    verdict: Verdict = Verdict.UNANSWERED
    error: Exception | None = None
    """Of the last attempt."""

    @property
    def problem(self) -> str | None:
        """Why the trainer has not taken it, as far as is known."""
        return None if self.error is None else f"{type(self.error).__name__}: {self.error}"


class _Trainer:
    """How one trainer answers, so that a dead one delays nobody else's results."""

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(ATTEMPTS_AT_ONCE_PER_TRAINER)
        self.is_back = asyncio.Event()
        self._failing = False

    def note(self, verdict: Verdict) -> None:
        """The first result it takes after failures wakes all that wait for it, long before their backoff ends."""
        if verdict is Verdict.ACKNOWLEDGED and self._failing:
            self.is_back.set()
            # Those who wait hold the old one; whoever fails from here on waits for the next answer.
            self.is_back = asyncio.Event()
        self._failing = verdict is Verdict.UNANSWERED


class Courier:
    """Carries results to trainers; one per event loop.

    Args:
        journal: opened and closed by its owner.
        settings: ``retry_base_delay`` and ``retry_max_delay`` shape the backoff.
        deadline_seconds: how long a result is tried after its first attempt.
    """

    def __init__(self, journal: Journal, settings: RolloutClientSettings, deadline_seconds: float) -> None:
        self.ending = False
        """Whether the server ends: what other processes left is for the next one."""
        self._journal = journal
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._trainers: dict[tuple[str, ...], _Trainer] = {}
        self._last_call = asyncio.Event()

    async def record(self, key: str, rollout_id: str, result: TerminalResult) -> bool:
        """Put the result on record; ``False`` if it must not be delivered by this process.

        A result that is delivered without being on record would be contradicted by the next process, which finds an
        unfinished rollout. So this goes on until the journal works again, or the bounds of the shutdown cancel it.
        """
        try:
            ours = await self._insist(self._journal.finish, key, result.encoded)
        except UnknownKeyError as error:
            # No file's absence, and no error of the system, says as much: that is a `JournalError`, and waits.
            logger.error(
                "Rollout %a: nothing on record can contradict its result, so it goes out: %s", rollout_id, error
            )
            return True
        except asyncio.CancelledError:
            logger.error("Rollout %a: its result cannot be put on record, and ends with the server.", rollout_id)
            raise
        if not ours:
            logger.error("Rollout %a: another result is on record; this one is dropped.", rollout_id)
        return ours

    async def attempt(self, delivery: Delivery) -> None:
        """Post once; never raises but for cancellation."""
        trainer = self._trainer(delivery.server_url)
        # A trainer that comes back with thousands of results waiting must not get them all at once.
        async with trainer.gate:
            delivery.attempts += 1
            mark = delivery.watch.attempt_begins(delivery.attempts)
            error: Exception | None = None
            try:
                await delivery.client.send_completion(delivery.result.encoded, attempts=1)
            except Exception as failure:  # noqa: BLE001 - whatever went wrong, the result must not be lost
                error = failure
            delivery.error, delivery.verdict = error, _verdict_on(error)
            trainer.note(delivery.verdict)
            if error is not None:
                _log_failure(delivery)
            delivery.watch.attempt_ends(mark, delivery.verdict, error)

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
        await self.pursue(delivery)
        try:
            if self._is_final(delivery):
                if delivery.verdict is not Verdict.ACKNOWLEDGED:
                    logger.error("Rollout %a: its result is undeliverable: %s", delivery.rollout_id, delivery.problem)
                await self._insist(self.settle, delivery)
            else:
                await self._journal.note_attempt(delivery.key, attempts=delivery.attempts, error=delivery.problem or "")
        except JournalError as error:
            logger.error("Rollout %a: its delivery is not on record: %s", delivery.rollout_id, error)

    async def settle(self, delivery: Delivery, otherwise: RolloutState = RolloutState.UNDELIVERABLE) -> None:
        """Put on record that the trainer has the result; if it has not, that it is in the state ``otherwise``.

        Raises:
            JournalError: the journal cannot be used.
        """
        state = RolloutState.DELIVERED if delivery.verdict is Verdict.ACKNOWLEDGED else otherwise
        await self._journal.settle(delivery.key, state, attempts=delivery.attempts, error=delivery.problem)

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
        return time.monotonic() - delivery.started_at > self._deadline_seconds

    async def _wait(self, delivery: Delivery) -> None:
        trainer = self._trainer(delivery.server_url)
        wakers = [asyncio.create_task(event.wait()) for event in (trainer.is_back, self._last_call)]
        try:
            await asyncio.wait(
                wakers,
                timeout=delay_seconds(self._settings, delivery.attempts, delivery.error),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for waker in wakers:
                waker.cancel()

    def _trainer(self, server_url: str) -> _Trainer:
        origin = urlsplit(server_url)[:2]  # scheme and host
        trainer = self._trainers.get(origin)
        if trainer is None:
            trainer = self._trainers[origin] = _Trainer()
        return trainer


def _log_failure(delivery: Delivery) -> None:
    refused = delivery.verdict is Verdict.REFUSED
    logger.log(
        logging.ERROR if refused else logging.WARNING,
        "Rollout %a: result not delivered (attempt %d, %s): %s",
        delivery.rollout_id,
        delivery.attempts,
        "refused for good" if refused else "will be retried",
        delivery.problem,
    )


def _verdict_on(error: Exception | None) -> Verdict:
    if error is None:
        return Verdict.ACKNOWLEDGED
    # What our own client will not send will not go better the next time.
    refused = isinstance(error, OsmosisProtocolError) or (
        isinstance(error, OsmosisValidationError) and not is_retryable_status(error.status_code)
    )
    return Verdict.REFUSED if refused else Verdict.UNANSWERED
