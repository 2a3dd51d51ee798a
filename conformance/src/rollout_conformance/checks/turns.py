"""More rollouts than a small server runs at once: some wait for their turn when it ends, and are owed a result, too."""

import asyncio
import contextlib

from rollout_conformance.checks.load import send_as_many
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout, Script
from rollout_conformance.vocabulary import Failed

MANY = 24
NOT_BEGUN = "what waits for its turn is in memory only, or dropped: it is on record from its 202 on, and reported"


async def many_more(kit: Kit, on_chat: Script) -> list[PlayedRollout]:
    """``MANY`` that were accepted, begun or not; none where there is no room for all of them."""
    taken = await send_as_many(kit, [kit.play(on_chat) for _ in range(MANY)], 0)
    if len(taken) == MANY:
        return taken
    with contextlib.suppress(Failed):  # another check's matter
        await asyncio.gather(*(kit.cancel_where_it_runs(rollout.rollout_id) for rollout in taken))
        await kit.results(taken)
    return []


async def require_reports_of(many: list[PlayedRollout], after: str) -> None:
    """A result of each.

    Raises:
        Failed: some are missing.
    """
    await asyncio.gather(*(rollout.over() for rollout in many), return_exceptions=True)
    missing = [rollout for rollout in many if not rollout.is_over]
    if missing:
        looked_at(missing[0])
        begun = sum(bool(rollout.chats) for rollout in missing)
        what = f"a terminal result for each of {len(many)} rollouts that were accepted right before {after}"
        got = f"none that was acknowledged for {len(missing)}, {begun or 'none'} of which had called the model"
        raise Failed(what, got, usually=None if begun else NOT_BEGUN)
