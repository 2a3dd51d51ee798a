"""Records in a journal, brought into each state."""

from osmosis_ai.rollout.journal import Journal, Payload, RolloutState
from support.journal import an_acceptance

ACCEPTED, FINISHED = RolloutState.ACCEPTED, RolloutState.FINISHED


DELIVERED, UNDELIVERABLE = RolloutState.DELIVERED, RolloutState.UNDELIVERABLE


KEPT = {DELIVERED: 100.0, UNDELIVERABLE: 700.0}
"""Seconds, of the fixtures' journals."""


async def bring(journal: Journal, key: str, state: RolloutState) -> None:
    """A record under ``key`` in ``state``."""
    assert await journal.accept(an_acceptance(key, rollout_id=f"rollout of {key}")) is None
    if state is not ACCEPTED:
        assert await journal.finish(key, f"result of {key}".encode())
    if state in (DELIVERED, UNDELIVERABLE):
        assert await journal.settle(key, state, attempts=1)


async def result_of(journal: Journal, key: str) -> bytes | None:
    return await journal.load(key, Payload.RESULT)


async def keys(journal: Journal) -> list[str]:
    return [record.key for record in await journal.records()]
