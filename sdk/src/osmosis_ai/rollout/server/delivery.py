"""The owner of delivery: a result is put on record, carried to its trainer, and settled, by nobody else.

Rollouts of this process, those that dead processes left (``recovery``) and those that an operator sends again
(``redelivery``) all go through a ``Courier``. It never changes a result: the same bytes, until the trainer has them.
A trainer that refuses a body gets the result once more, without its messages (``parcels``); from then on those bytes.

    record    journal "finished": from here on another process would deliver these bytes, too
    attempt   one post, at most ``ATTEMPTS_AT_ONCE_PER_TRAINER`` to one trainer, within the bounds of ``parcels``
    carry_on  more posts until an answer, the deadline or the shutdown; then journal "delivered" or "undeliverable"

What a shutdown cuts off stays in the journal as it stands, and the next process that has it takes it up. A shortage of
ours (memory, the journal) is no attempt: it is waited out, and never counts against the trainer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from osmosis_ai.rollout.core.exceptions import (
    OsmosisProtocolError,
    OsmosisTrainerAbsentError,
    OsmosisValidationError,
    is_retryable_status,
)
from osmosis_ai.rollout.core.settings import RolloutClientSettings
from osmosis_ai.rollout.core.watch import NO_WATCH, RolloutWatch, Verdict
from osmosis_ai.rollout.journal import Journal, JournalError, RolloutState, UnknownKeyError
from osmosis_ai.rollout.server.byte_budget import ByteBudget
from osmosis_ai.rollout.server.parcels import BYTES_AT_ONCE, BYTES_AT_ONCE_PER_TRAINER, Parcel, Parcels
from osmosis_ai.rollout.wire.backoff import delay_seconds

logger = logging.getLogger(__name__)

ATTEMPTS_AT_ONCE_PER_TRAINER = 32
JOURNAL_RETRY_SECONDS = 0.5
BODY_REFUSED = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Not acceptable as it is (RFC 9110, 15.5.1, 15.5.14 and 15.5.21); another body may be."""

T = TypeVar("T")


class CompletionClient(Protocol):
    """What delivery needs of a rollout's client."""

    async def send_completion(self, payload: bytes, attempts: int) -> None:
        """Post a terminal result, a JSON object, in at most ``attempts`` attempts."""
        ...


ClientFactory = Callable[..., AbstractAsyncContextManager[Any]]
"""Makes the client of one rollout; called with ``server_url``, ``rollout_id`` and ``api_key``."""


@dataclass
class Delivery:
    """One result on its way to one trainer."""

    parcel: Parcel
    rollout_id: str
    server_url: str
    api_key: str | None = field(repr=False)
    client: CompletionClient | None = None
    """That of the run, for the first attempt; each other makes its own."""
    watch: RolloutWatch = NO_WATCH
    started_at: float = field(default_factory=time.monotonic)
    attempts: int = 0
    verdict: Verdict = Verdict.UNANSWERED
    error: Exception | None = None
    """Of the last attempt, or what kept it from being made."""
    was_made: bool = False
    """Whether the last attempt got as far as the trainer."""
    instead: bytes | None = field(default=None, repr=False)
    """What is to be sent instead of what was refused."""

    @property
    def problem(self) -> str | None:
        """Why the trainer has not taken it, as far as is known."""
        return None if self.error is None else f"{type(self.error).__name__}: {self.error}"


class _Trainer:
    """How one trainer answers, so that a dead one delays nobody else's results."""

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(ATTEMPTS_AT_ONCE_PER_TRAINER)
        self.room = ByteBudget(BYTES_AT_ONCE_PER_TRAINER)
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
        self._room = ByteBudget(BYTES_AT_ONCE)
        self._large_room = ByteBudget(BYTES_AT_ONCE_PER_TRAINER)
        """Of what is larger than that, so one at a time."""
        self._journal = journal
        self._parcels = Parcels(journal)
        self._make_client = make_client
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._trainers: dict[tuple[str, ...], _Trainer] = {}
        self._last_call = asyncio.Event()

    def room_for(self, size_bytes: int) -> ByteBudget:
        """Where something of that size has its share of what may be in memory at once.

        Something large would wait until nearly all others are done, and whoever comes after it, too: for as long as a
        trainer hangs.
        """
        return self._room if size_bytes <= BYTES_AT_ONCE_PER_TRAINER else self._large_room

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
        await self._attempt(delivery)
        if delivery.instead is not None and await self._leaves_out_messages(delivery, delivery.instead):
            await self._attempt(delivery)
        delivery.client = None
        self._parcels.let_go(delivery.parcel)

    async def _attempt(self, delivery: Delivery) -> None:
        trainer = self._trainer(delivery.server_url)
        size_bytes = delivery.parcel.size_bytes
        # A trainer that comes back with thousands of results waiting must not get them all at once.
        async with trainer.gate:
            # Not as contexts, which cost each result some coroutines; one that has room at once needs none.
            if not trainer.room.take_now(size_bytes):
                await trainer.room.take(size_bytes)
            try:
                room = self.room_for(size_bytes)
                if not room.take_now(size_bytes):
                    await room.take(size_bytes)
                try:
                    await self._post(delivery, trainer)
                finally:
                    room.give(size_bytes)
            finally:
                trainer.room.give(size_bytes)

    async def _post(self, delivery: Delivery, trainer: _Trainer) -> None:
        delivery.was_made = False
        try:
            content = await self._parcels.content_of(delivery.parcel)
        except Exception as failure:  # noqa: BLE001 - a shortage of ours, which passes; the result must not be lost
            delivery.error, delivery.verdict = failure, Verdict.UNANSWERED
            _forget_frames(failure)
            logger.warning("Rollout %a: its result cannot be loaded yet: %s", delivery.rollout_id, delivery.problem)
            return
        delivery.was_made = True
        delivery.attempts += 1
        mark = delivery.watch.attempt_begins(delivery.attempts)
        error: Exception | None = None
        try:
            if delivery.client is not None:
                await delivery.client.send_completion(content, attempts=1)
            else:
                about = {name: getattr(delivery, name) for name in ("server_url", "rollout_id", "api_key")}
                async with self._make_client(**about) as client:
                    await client.send_completion(content, attempts=1)
        except Exception as failure:  # noqa: BLE001 - whatever went wrong, the result must not be lost
            error = failure
        delivery.error, delivery.verdict = error, _verdict_on(error)
        trainer.note(delivery.verdict)
        if error is not None:
            if delivery.verdict is Verdict.REFUSED and getattr(error, "status_code", None) in BODY_REFUSED:
                await self._find_instead(delivery)
            _log_failure(delivery)
            await self._note(delivery)
        delivery.watch.attempt_ends(mark, delivery.verdict, error)
        _forget_frames(error)

    async def _find_instead(self, delivery: Delivery) -> None:
        try:
            delivery.instead = await self._parcels.without_messages(delivery.parcel)
        except MemoryError:
            delivery.verdict = Verdict.UNANSWERED  # so that it is asked again, and then perhaps left out
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            logger.error("Rollout %a: its messages cannot be left out: %s", delivery.rollout_id, error)

    async def _leaves_out_messages(self, delivery: Delivery, instead: bytes) -> bool:
        delivery.client = delivery.instead = None
        # Until it is cancelled: then the next process finds the whole result, and offers that again.
        return await self._insist(self._parcels.leave_out_messages, delivery.parcel, instead)

    async def _note(self, delivery: Delivery) -> None:
        """Tell other processes now and then: at the first failure, and whenever their number has doubled."""
        if delivery.attempts & (delivery.attempts - 1) == 0:
            try:
                await self._journal.note_attempt(
                    delivery.parcel.key, attempts=delivery.attempts, error=delivery.problem or ""
                )
            except Exception as error:  # noqa: BLE001 - nothing depends on it
                logger.warning("Rollout %a: a failed attempt is not on record: %s", delivery.rollout_id, error)

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
            await self.pursue(delivery)
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
            self._parcels.forget(delivery.parcel)
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
        trainer = self._trainer(delivery.server_url)
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

    def _trainer(self, server_url: str) -> _Trainer:
        origin = urlsplit(server_url)[:2]  # scheme and host
        trainer = self._trainers.get(origin)
        if trainer is None:
            trainer = self._trainers[origin] = _Trainer()
        return trainer


def _log_failure(delivery: Delivery) -> None:
    refused = delivery.verdict is Verdict.REFUSED
    what_next = "refused for good" if delivery.instead is None else "it is offered without its messages"
    logger.log(
        logging.ERROR if refused else logging.WARNING,
        "Rollout %a: result not delivered (attempt %d, %s): %s",
        delivery.rollout_id,
        delivery.attempts,
        what_next if refused else "will be retried",
        delivery.problem,
    )


def _forget_frames(error: BaseException | None) -> None:
    """What is kept for its text must not keep the body that was sent: tracebacks hold all that their frames do."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _verdict_on(error: Exception | None) -> Verdict:
    if error is None:
        return Verdict.ACKNOWLEDGED
    # What our own client will not send will not go better the next time. A 404 that does not speak of the rollout may.
    refused = isinstance(error, OsmosisProtocolError) or (
        isinstance(error, OsmosisValidationError)
        and not isinstance(error, OsmosisTrainerAbsentError)
        and not is_retryable_status(error.status_code)
    )
    return Verdict.REFUSED if refused else Verdict.UNANSWERED
