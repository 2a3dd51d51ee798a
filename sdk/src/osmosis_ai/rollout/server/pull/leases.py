"""How long a rollout goes on that nobody asks for: each poll gives its lease the whole time anew.

Invariants: only a rollout without a result is cancelled by it, so a finished one is never lost to a lease; a lease runs
by the steady clock, and not while this process was stopped or its event loop blocked, as no poll could come then. Polls
that other processes of the journal take are noted there (``Journal.note_poll``), and looked for before one expires.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field

from osmosis_ai.rollout.core.results import Stop
from osmosis_ai.rollout.journal import Journal
from osmosis_ai.rollout.server.rollouts import Rollout

logger = logging.getLogger(__name__)

LOOKS_PER_LEASE = 20
LONGEST_LOOK_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Lease:
    """That of one rollout of this process which has no result yet."""

    rollout: Rollout
    until: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its result is on record, or never will be."""


class Leases:
    """Those of one event loop, by key."""

    def __init__(self, journal: Journal, seconds: float) -> None:
        self._journal = journal
        self._seconds = seconds
        self._leases: dict[str, Lease] = {}
        self._watch: asyncio.Task[None] | None = None
        self._look_seconds = min(seconds / LOOKS_PER_LEASE, LONGEST_LOOK_SECONDS)

    def get(self, key: str) -> Lease | None:
        """The lease of a rollout that runs here."""
        return self._leases.get(key)

    def begin(self, rollout: Rollout) -> None:
        """It is accepted."""
        self._leases[rollout.key] = Lease(rollout, time.monotonic() + self._seconds)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())

    def renew(self, lease: Lease) -> None:
        """Somebody asked for it."""
        lease.until = time.monotonic() + self._seconds

    def end(self, key: str) -> None:
        """It needs none any more; whoever waits looks at the journal."""
        if (lease := self._leases.pop(key, None)) is not None:
            lease.ended.set()

    def close(self) -> None:
        """Nothing is cancelled from now on."""
        if self._watch is not None:
            self._watch.cancel()

    async def _look(self) -> None:
        """Cancel what nobody asks for, as long as there is any."""
        before = time.monotonic()
        while self._leases:
            await asyncio.sleep(self._look_seconds)
            now = time.monotonic()
            if (late := now - before - self._look_seconds) > self._look_seconds:
                for lease in self._leases.values():
                    lease.until += late
            before = now
            for lease in [lease for lease in self._leases.values() if lease.until <= now]:
                try:
                    await self._expire(lease)
                except Exception as error:  # noqa: BLE001 - the next look tries again
                    logger.warning("Rollout %a: its lease cannot be looked up: %s", lease.rollout.rollout_id, error)

    async def _expire(self, lease: Lease) -> None:
        record = await self._journal.get(lease.rollout.key)
        if record is not None and record.polled_at is not None:
            left = self._seconds - (self._journal.now() - record.polled_at)
            if left > 0:
                lease.until = max(lease.until, time.monotonic() + left)
        if lease.until <= time.monotonic():
            lease.rollout.stop(Stop.LEASE_EXPIRED.value)
