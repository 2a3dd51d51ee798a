"""One attempt to deliver a result: its post, what the trainer's answer means, and the bounds of all that go on at once.

At most ``ATTEMPTS_AT_ONCE_PER_TRAINER`` to one trainer, within the bytes of ``parcels``. An answer is final,
``ACKNOWLEDGED`` or ``REFUSED``; whatever else happens is ``UNANSWERED``, and ``delivery`` has another attempt made. A
shortage of ours (memory, the journal) is no attempt, and never counts against the trainer.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

from osmosis_ai.rollout.core.exceptions import (
    OsmosisProtocolError,
    OsmosisTrainerAbsentError,
    OsmosisValidationError,
    is_retryable_status,
)
from osmosis_ai.rollout.core.watch import NO_WATCH, RolloutWatch, Verdict
from osmosis_ai.rollout.journal import Journal
from osmosis_ai.rollout.server.byte_budget import ByteBudget
from osmosis_ai.rollout.server.parcels import BYTES_AT_ONCE, BYTES_AT_ONCE_PER_TRAINER, Parcel, Parcels

logger = logging.getLogger(__name__)

ATTEMPTS_AT_ONCE_PER_TRAINER = 32
BODY_REFUSED = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Not acceptable as it is (RFC 9110, 15.5.1, 15.5.14 and 15.5.21); another body may be."""


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


class Trainer:
    """How one trainer answers, so that a dead one delays nobody else's results."""

    def __init__(self) -> None:
        self.places = ByteBudget(ATTEMPTS_AT_ONCE_PER_TRAINER)
        """One for each attempt: a trainer that comes back with thousands of results waiting must not get all at once.
        """
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


class Attempts:
    """Those of one event loop.

    Args:
        make_client: called for each attempt but the first of a run.
    """

    def __init__(self, journal: Journal, parcels: Parcels, make_client: ClientFactory) -> None:
        self._journal = journal
        self._parcels = parcels
        self._make_client = make_client
        self._room = ByteBudget(BYTES_AT_ONCE)
        self._large_room = ByteBudget(BYTES_AT_ONCE_PER_TRAINER)
        """Of what is larger than that, so one at a time."""
        self._trainers: dict[tuple[str, ...], Trainer] = {}

    def trainer_at(self, server_url: str) -> Trainer:
        """The trainer that a URL leads to, whatever its path."""
        origin = urlsplit(server_url)[:2]  # scheme and host
        trainer = self._trainers.get(origin)
        if trainer is None:
            trainer = self._trainers[origin] = Trainer()
        return trainer

    def room_for(self, size_bytes: int) -> ByteBudget:
        """Where something of that size has its share of what may be in memory at once.

        Something large would wait until nearly all others are done, and whoever comes after it, too: for as long as a
        trainer hangs.
        """
        return self._room if size_bytes <= BYTES_AT_ONCE_PER_TRAINER else self._large_room

    async def make(self, delivery: Delivery) -> None:
        """Post once, as soon as there is room for it; never raises but for cancellation."""
        trainer = self.trainer_at(delivery.server_url)
        size_bytes = delivery.parcel.size_bytes
        taken: list[tuple[ByteBudget, int]] = []
        try:
            for share in ((trainer.places, 1), (trainer.room, size_bytes), (self.room_for(size_bytes), size_bytes)):
                budget, amount = share
                # Not as contexts, which cost each result some coroutines; one that has room at once needs none.
                if not budget.take_now(amount):
                    await budget.take(amount)
                taken.append(share)
            await self._post(delivery, trainer)
        finally:
            for budget, amount in taken:
                budget.give(amount)

    async def _post(self, delivery: Delivery, trainer: Trainer) -> None:
        content = delivery.parcel.content
        delivery.was_made = False
        if content is None:
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
        try:
            if delivery.client is not None:
                await delivery.client.send_completion(content, attempts=1)
            else:
                about = {name: getattr(delivery, name) for name in ("server_url", "rollout_id", "api_key")}
                async with self._make_client(**about) as client:
                    await client.send_completion(content, attempts=1)
        except Exception as failure:  # noqa: BLE001 - whatever went wrong, the result must not be lost
            delivery.error, delivery.verdict = failure, _verdict_on(failure)
        else:
            delivery.error, delivery.verdict = None, Verdict.ACKNOWLEDGED
        trainer.note(delivery.verdict)
        if delivery.error is not None:
            await self._fail(delivery, delivery.error)
        delivery.watch.attempt_ends(mark, delivery.verdict, delivery.error)
        _forget_frames(delivery.error)

    async def _fail(self, delivery: Delivery, error: Exception) -> None:
        if delivery.verdict is Verdict.REFUSED and getattr(error, "status_code", None) in BODY_REFUSED:
            await self._find_instead(delivery)
        _log_failure(delivery)
        # For other processes, now and then: at the first failure, and whenever their number has doubled.
        if delivery.attempts & (delivery.attempts - 1) == 0:
            try:
                await self._journal.note_attempt(
                    delivery.parcel.key, attempts=delivery.attempts, error=delivery.problem or ""
                )
            except Exception as failure:  # noqa: BLE001 - nothing depends on it
                logger.warning("Rollout %a: a failed attempt is not on record: %s", delivery.rollout_id, failure)

    async def _find_instead(self, delivery: Delivery) -> None:
        try:
            delivery.instead = await self._parcels.without_messages(delivery.parcel)
        except MemoryError:
            delivery.verdict = Verdict.UNANSWERED  # so that it is asked again, and then perhaps left out
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            logger.error("Rollout %a: its messages cannot be left out: %s", delivery.rollout_id, error)


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


def _verdict_on(error: Exception) -> Verdict:
    # What our own client will not send will not go better the next time. What does not come from the trainer may: a 404
    # that does not speak of the rollout, a page, a redirect.
    refused = isinstance(error, OsmosisProtocolError) or (
        isinstance(error, OsmosisValidationError)
        and not isinstance(error, OsmosisTrainerAbsentError)
        and error.status_code >= HTTPStatus.BAD_REQUEST
        and not is_retryable_status(error.status_code)
    )
    return Verdict.REFUSED if refused else Verdict.UNANSWERED
