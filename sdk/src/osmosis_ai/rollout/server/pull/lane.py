"""The pull lane of delivery: a result waits in the journal for its trainer, who may ask any process that has it.

Invariants: a result is settled by the first authenticated poll that is answered with it, and until the record has
outlived its retention every other gets the same bytes, which are those on record. Without its lease's token nobody
gets a result, and nobody without the server's key learns that the rollout exists. No result is in memory unless
somebody is waiting for it. One that is never fetched is given up after the deadline of deliveries, and kept as long as
any other that is undeliverable.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json

from osmosis_ai.rollout.core.watch import Phase
from osmosis_ai.rollout.journal import Journal, JournalError, JournalRecord, Payload, RolloutState
from osmosis_ai.rollout.journal.token import is_reply_to_start, token_in, token_of, with_token
from osmosis_ai.rollout.server.pull.bodies import PullStatus, Start
from osmosis_ai.rollout.server.pull.leases import Leases
from osmosis_ai.rollout.server.requests import RefusedError, unknown_rollout
from osmosis_ai.rollout.server.rollouts import Rollout, Rollouts
from osmosis_ai.rollout.server.terms import pull_key

logger = logging.getLogger(__name__)

FIRST_LOOK_SECONDS = 0.05
LONGEST_LOOK_SECONDS = 0.5
"""At the record of a rollout that another process runs."""
LOOKED_AT_ONCE = 500
LOOKED_AT_AFTER_SECONDS = 60.0


@dataclass(slots=True)
class _Unfetched:
    since: float
    """By the journal's time."""
    looked_at: float = field(default_factory=time.monotonic)


class PullLane:
    """That of one event loop.

    Args:
        wait_seconds: how long a poll waits for a result.
        deadline_seconds: how long a result waits for its first poll.
    """

    def __init__(
        self, journal: Journal, rollouts: Rollouts, wait_seconds: float, lease_seconds: float, deadline_seconds: float
    ) -> None:
        self.leases = Leases(journal, lease_seconds)
        self._journal = journal
        self._rollouts = rollouts
        self._wait_seconds = wait_seconds
        self._deadline_seconds = deadline_seconds
        self._unfetched: dict[str, _Unfetched] = {}
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Answer every poll that waits, with what is known: another process has to go on with it."""
        self._closing.set()
        self.leases.close()

    @property
    def closing(self) -> bool:
        """Whether polls do not wait any more."""
        return self._closing.is_set()

    def owe(self, record: JournalRecord) -> None:
        """A result of another process is ours to give up one day."""
        self._owe(record.key, record.deliverable_since or self._journal.now())

    def finished(self, rollout: Rollout) -> None:
        """Its result is on record."""
        self._owe(rollout.key, self._journal.now())
        self.leases.end(rollout.key)

    def _owe(self, key: str, since: float) -> None:
        self._unfetched[key] = _Unfetched(since)
        self._rollouts.unfetched = len(self._unfetched)

    def _fetched(self, key: str) -> None:
        self._unfetched.pop(key, None)
        self._rollouts.unfetched = len(self._unfetched)

    async def started(self, start: Start, reply: bytes) -> bytes:
        """The body of the 202 for ``start``, which was accepted with ``reply``, perhaps long ago.

        Whoever sent it has not had the time to poll.

        Raises:
            JournalError: the journal is not open.
        """
        key = pull_key(start.request.rollout_id)
        if (lease := self.leases.get(key)) is not None:
            self.leases.renew(lease)
        else:
            await self._journal.note_poll(key)
        if not is_reply_to_start(reply):  # salvaged without it
            reply = start.terms.reply
        return with_token(reply, token_of(self._journal, key, start.terms.fingerprint))

    async def poll(self, rollout_id: str, token: str, gone: "asyncio.Future[Any]") -> bytes:
        """The body of a poll's 200: the result if there is one within ``wait_seconds``, or where the rollout stands.

        ``gone``: done when whoever asks does not listen any more.

        Raises:
            RefusedError: 404 no such rollout, 403 another token.
            JournalError: the journal cannot be used.
        """
        key = pull_key(rollout_id)
        deadline = time.monotonic() + self._wait_seconds
        lease = self.leases.get(key)
        if lease is not None and lease.rollout.terms is not None:
            _require(_is_same(token_of(self._journal, key, lease.rollout.terms.fingerprint), token))
            self.leases.renew(lease)
            await self._wait(gone, lease.ended, self._wait_seconds)
            if not lease.ended.is_set():
                self.leases.renew(lease)
                return _standing(rollout_id, status_of(lease.rollout))
        else:
            _require(await self._is_token_of(key, token))
        look_seconds = FIRST_LOOK_SECONDS
        while True:
            record = await self._journal.get(key)
            if record is None or self._journal.is_over(record):
                raise unknown_rollout()
            if record.state is not RolloutState.ACCEPTED:
                return await self._fetch(record, gone)
            if look_seconds == FIRST_LOOK_SECONDS:
                await self._journal.note_poll(key)
            left = deadline - time.monotonic()
            if left <= 0 or gone.done() or self.closing:
                return _standing(rollout_id, PullStatus.RUNNING)
            await self._wait(gone, None, min(look_seconds, left))
            look_seconds = min(2 * look_seconds, LONGEST_LOOK_SECONDS)

    async def _wait(self, gone: "asyncio.Future[Any]", ended: asyncio.Event | None, seconds: float) -> None:
        events = [self._closing] if ended is None else [self._closing, ended]
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait({*waits, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _is_token_of(self, key: str, given: str) -> bool:
        record = await self._journal.get(key)
        if record is None or self._journal.is_over(record):
            raise unknown_rollout()
        if _is_same(token_of(self._journal, key, record.fingerprint), given):
            return True
        reply = await self._journal.load(key, Payload.INIT_REPLY)
        own = None if reply is None else token_in(reply)  # of an older SDK, or of a journal that was moved here
        return own is not None and _is_same(own, given)

    async def _fetch(self, record: JournalRecord, gone: "asyncio.Future[Any]") -> bytes:
        result = await self._journal.load(record.key, Payload.RESULT)
        if result is None:  # one of the oldest of a journal in memory
            raise unknown_rollout()
        if record.state is not RolloutState.DELIVERED and not gone.done():
            try:
                await self._journal.settle(record.key, RolloutState.DELIVERED, attempts=record.delivery_attempts + 1)
            except JournalError as error:
                logger.warning("Rollout %a: that its result was fetched is not on record: %s", record.rollout_id, error)
            else:
                self._fetched(record.key)
        return result

    async def maintain(self) -> None:
        """Give up results that nobody has fetched in time, and forget those that were fetched elsewhere.

        Raises:
            JournalError: the journal cannot be used.
        """
        now = time.monotonic()
        for key, waiting in list(self._unfetched.items())[:LOOKED_AT_ONCE]:
            if self._journal.served_since(waiting.since) > self._deadline_seconds:
                await self._journal.settle(key, RolloutState.UNDELIVERABLE, attempts=0, error="nobody has fetched it")
            elif now - waiting.looked_at < LOOKED_AT_AFTER_SECONDS:
                continue
            else:
                record = await self._journal.get(key)
                if record is not None and record.state is RolloutState.FINISHED:
                    waiting.looked_at = now
                    self._unfetched[key] = self._unfetched.pop(key)  # the next round begins with others
                    continue
            self._fetched(key)


def status_of(rollout: Rollout) -> PullStatus:
    """Where a rollout of this process stands that has no result yet."""
    if rollout.phase is Phase.QUEUED:
        return PullStatus.QUEUED
    grading = rollout.execution is not None and rollout.execution.is_grading
    return PullStatus.GRADING if grading else PullStatus.RUNNING


def _standing(rollout_id: str, status: PullStatus) -> bytes:
    body: Mapping[str, Any] = {
        "rollout_id": rollout_id,
        "status": status.value,
        "sample": None,
        "err_message": None,
        "err_category": None,
    }
    return to_json(body)


def _is_same(token: str, given: str) -> bool:
    return hmac.compare_digest(token.encode(), given.encode("utf-8", "surrogateescape"))


def _require(is_token: bool) -> None:
    if not is_token:
        raise RefusedError(HTTPStatus.FORBIDDEN, "This is not the rollout's polling lease.")
