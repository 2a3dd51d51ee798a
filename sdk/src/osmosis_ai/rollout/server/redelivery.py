"""Delivering settled results again, on an operator's word: the same bytes, from this process, whoever else serves.

While it lasts the record is ours, so no server delivers it too. If this process dies half-way, the next server takes
the record up like any other that was left behind.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.core.settings import RolloutClientSettings
from osmosis_ai.rollout.journal import Journal, JournalRecord, RolloutState
from osmosis_ai.rollout.server.attempts import Delivery
from osmosis_ai.rollout.server.delivery import Courier
from osmosis_ai.rollout.server.parcels import Parcel
from osmosis_ai.rollout.server.terms import is_pulled
from osmosis_ai.rollout.wire.channels import TrainerChannels
from osmosis_ai.rollout.wire.client import OsmosisLLMClient


@dataclass(frozen=True)
class Redelivery:
    """What came of one: ``error`` is ``None`` if the trainer has taken the result."""

    rollout_id: str
    key: str
    error: str | None


class Redeliverer:
    """Delivers results of ``journal``, each for at most ``deadline_seconds`` after its first attempt."""

    def __init__(self, journal: Journal, settings: RolloutClientSettings, deadline_seconds: float) -> None:
        self._journal = journal
        self._settings = settings
        self._courier = Courier(journal, self._client, settings, deadline_seconds)
        self._channel = TrainerChannels(settings.max_connections, settings.max_keepalive_connections)

    async def redeliver(self, key: str) -> Redelivery | None:
        """Deliver the settled result under ``key`` again; ``None`` if there is none, or if its trainer fetches it.

        One that is not taken goes back to the state it had, with the error.

        Raises:
            JournalError: the journal cannot be used.
        """
        if is_pulled(key):
            return None
        before = await self._journal.get(key)
        record = await self._journal.reopen(key)
        if before is None or record is None or record.payload_bytes == 0:
            return None
        parcel = Parcel(key, record.payload_bytes, None, record.without_messages)
        delivery = Delivery(parcel, record.rollout_id, record.server_url, record.api_key)
        await self._courier.attempt(delivery)
        await self._courier.pursue(delivery)
        # Back to what it was: one that was delivered is not undeliverable because somebody tried again.
        await self._courier.settle(delivery, otherwise=before.state)
        return Redelivery(record.rollout_id, key, delivery.problem)

    def _client(self, **about: Any) -> OsmosisLLMClient:
        return OsmosisLLMClient(**about, settings=self._settings, channel=self._channel)

    async def close(self) -> None:
        """Close the connections to trainers."""
        await self._channel.aclose()


async def settled_keys(journal: Journal, names: Sequence[str], states: Sequence[RolloutState]) -> AsyncIterator[str]:
    """The keys of the settled records under ``names`` (rollout ids or keys) and of those in ``states``."""
    for name in names:
        for record in await records_named(journal, name):
            if record.settled_at is not None:
                yield record.key
    for state in states:
        offset = 0
        while page := await journal.records([state], offset=offset):
            offset += len(page)
            for record in page:
                yield record.key


async def records_named(journal: Journal, name: str) -> list[JournalRecord]:
    """The records of the rollout id ``name``, newest first, or else the one under that key."""
    if found := await journal.find(name):
        return found
    record = await journal.get(name)
    return [record] if record is not None else []
