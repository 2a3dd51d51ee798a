"""What is left of an init that was refused: nothing that could be asked for."""

import asyncio

from rollout_conformance.asking import describe
from rollout_conformance.catalogue import check
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout
from rollout_conformance.scripts import encoded
from rollout_conformance.vocabulary import Failed

ANNOUNCED_BYTES = 2**30
KNOWN = "the rollout is put into the index by id before its init is looked at, compared, or found room for"


@check("state.refused", "way-3 state-2 state-5", "An init that was refused has left no state, and nothing to cancel.")
async def refused(kit: Kit) -> None:
    taken = kit.play()
    taken.init["idempotency_key"] = f"{taken.rollout_id}/1"
    await kit.send(taken)
    await taken.result()
    conflict = kit.play(idempotency_key=taken.init["idempotency_key"])
    bad, kind, stranger, unfinished = (kit.play() for _ in range(4))
    bad.init["max_turns"] = 0
    refusals = {
        "another body under a used key": (conflict, await _status(kit, conflict)),
        "a field that is beyond its bounds": (bad, await _status(kit, bad)),
        "Content-Type: text/plain": (kind, await _status(kit, kind, {"Content-Type": "text/plain"})),
        "a body that does not come to its end": (
            unfinished,
            await kit.post_head(f"Content-Length: {ANNOUNCED_BYTES}", encoded(unfinished.init)),
        ),
    }
    if kit.options.api_key:
        refusals["a wrong key"] = stranger, (await kit.post(stranger.init, key="wrong")).status_code
    # That one was taken is another check's matter.
    left = [(rollout, what) for what, (rollout, status) in refusals.items() if status != 202]
    await asyncio.gather(*(require_nothing(kit, *one) for one in left))


async def _status(kit: Kit, rollout: PlayedRollout, headers: dict[str, str] | None = None) -> int:
    answer = await kit.post(rollout.init, headers=headers)
    if answer.status_code == 202:
        kit.took(rollout, answer)
    return answer.status_code


async def require_nothing(kit: Kit, rollout: PlayedRollout, what: str) -> None:
    """A rollout that was refused, for ``what``, is one that nobody knows."""
    for asked, answer in (
        ("the state", await kit.status(rollout.rollout_id)),
        ("the cancel", await kit.cancel(rollout.rollout_id)),
    ):
        if answer.status_code != 404:
            expected = f"404 to {asked} of a rollout whose init was refused for {what}"
            raise Failed(expected, describe(answer), usually=KNOWN)
