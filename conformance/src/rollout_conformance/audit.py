"""Audits look at every rollout that is played before the server is stopped. A run of an audit alone has none, so a few
are played first.

A run of many checks has all kinds of them, and goes without.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout
from rollout_conformance.scripts import acknowledge, answering, calling_offered_tools, refusing
from rollout_conformance.vocabulary import Failed

MANY_CHECKS = 100


async def audited(kit: Kit, *, refused_too: bool = False) -> list[PlayedRollout]:
    """Those that were accepted, once all have ended and nothing more has come for a while."""
    if kit.trainer.audited is None:
        kit.trainer.audited = asyncio.create_task(_settled(kit))
    # All audits wait for the one task: an audit that is cancelled must not take it along.
    rollouts = await asyncio.shield(kit.trainer.audited)
    return [rollout for rollout in rollouts if refused_too or rollout.is_accepted]


async def _settled(kit: Kit) -> list[PlayedRollout]:
    rollouts = await ended(kit)
    await kit.settle()
    if kit.trainer.stop is not None:
        # To look at them takes the kit's time, and there what it sees at which time counts.
        await asyncio.wait({kit.trainer.stop})
    return rollouts


async def ended(kit: Kit) -> list[PlayedRollout]:
    """All rollouts until now, once they have ended: then the server may be stopped."""
    if kit.trainer.ended is None:
        kit.trainer.ended = asyncio.create_task(_ended(kit))
    return await asyncio.shield(kit.trainer.ended)


async def _ended(kit: Kit) -> list[PlayedRollout]:
    if len({rollout.check_id for rollout in kit.trainer.rollouts if rollout.is_accepted}) < MANY_CHECKS:
        sample = kit.of_check("sample")
        await asyncio.gather(
            _play(sample.start()),
            _play(sample.start(calling_offered_tools(turns=2, at_once=2))),
            _play(sample.start(refusing(400, None, answering()))),
            _play(_with_faults(sample)),
        )
    refused = kit.of_check("callbacks.refused")
    sample_of_these = refused.play()
    sample_of_these.init["messages"] = "no list"
    with contextlib.suppress(Failed):
        await refused.post(sample_of_these.init, insist=False)
    results = (rollout.over() for rollout in kit.trainer.rollouts if rollout.is_accepted)
    await asyncio.gather(*results, return_exceptions=True)
    return list(kit.trainer.rollouts)


async def _with_faults(sample: Kit) -> PlayedRollout:
    """A call and a delivery that have to be made again."""
    rollout = sample.play(refusing(500, 1, answering()), refusing(503, 1, acknowledge, {"Retry-After": "0"}))
    rollout.has_delivery_faults = True
    await sample.send(rollout)
    return rollout


async def _play(started: Awaitable[PlayedRollout]) -> None:
    with contextlib.suppress(Failed):
        await (await started).result()


def first_problem(
    rollouts: Sequence[PlayedRollout],
    expected: str,
    problem_of: Callable[[PlayedRollout], str],
    usually: str | None = None,
) -> None:
    """Raise ``Failed`` for the first rollout with a problem; the text tells how many more there are.

    Args:
        usually: what usually lies behind it, where that is not what lies behind the check's other failures.
    """
    problems = [(rollout, problem) for rollout in rollouts if (problem := problem_of(rollout))]
    if not problems:
        return
    rollout, problem = problems[0]
    more = f", and {len(problems) - 1} more rollouts like it" if len(problems) > 1 else ""
    looked_at(rollout)
    subjects = frozenset(_subject(one) for one, _ in problems)
    raise Failed(expected, f"{problem} (rollout of {rollout.check_id}{more})", subjects, usually=usually)


def _subject(rollout: PlayedRollout) -> str:
    """Whose matter it is: that of being full, of a group where an init or a result was sent again, or of its check."""
    matters = {"load.overload": rollout.was_refused_first, "idempotency": len(rollout.statuses) > 1}
    matters |= {"delivery": rollout.has_delivery_faults}
    return "|".join([*(name for name, is_so in matters.items() if is_so), rollout.check_id])
