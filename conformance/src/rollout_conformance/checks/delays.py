"""How long a server waits before it asks again, and offers a result again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import pairwise

from rollout_conformance.catalogue import check
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import Call, PlayedRollout
from rollout_conformance.scripts import acknowledge, answering, refusing
from rollout_conformance.vocabulary import Failed

ROLLOUTS = 6
"""So that the chance in the delays of each makes no difference."""
LEAST_WAIT_SECONDS = 0.1
GROWTH = 1.5
"""Of the third wait over the first: 4 where each is double, 1 where all are alike."""
TRIES = 3


def _waits(calls: list[Call]) -> list[float]:
    return [later.came_at - (one.answered_at or later.came_at) for one, later in pairwise(calls)]


async def _require_growth(what: str, play: Callable[[], Awaitable[list[tuple[PlayedRollout, list[Call]]]]]) -> None:
    """Of three waits each: not nothing, and longer each time.

    A busy machine only makes them look longer, and may be busier at the beginning, so a server has several tries.
    """
    problem = None
    for _ in range(TRIES):
        played = await play()
        waits = [_waits(calls[:4]) for _, calls in played]
        shortest = min(waits, key=sum)
        looked_at(played[waits.index(shortest)][0])
        one, _, third = (sum(nth) / len(waits) for nth in zip(*waits, strict=True))
        if sum(shortest) < 3 * LEAST_WAIT_SECONDS:
            told = ", ".join(f"{wait:.2f}" for wait in shortest)
            raise Failed(f"at least {3 * LEAST_WAIT_SECONDS:.1f} s for three further {what}", f"waits of {told} s")
        if third >= GROWTH * one:
            return
        told = f"{one:.2f} s before the first, {third:.2f} s before the third"
        problem = Failed(f"longer waits before each further of the {what}", told)
    if problem:
        raise problem


@check("retries.delay", "retry-10", "Attempts are not made one right after the other; they wait longer each time.")
async def calls(kit: Kit) -> None:
    async def play() -> list[tuple[PlayedRollout, list[Call]]]:
        rollouts = await asyncio.gather(*(kit.start(refusing(500, 3, answering())) for _ in range(ROLLOUTS)))
        await kit.results(rollouts)
        if short := next((rollout for rollout in rollouts if len(rollout.chats) < 4), None):
            looked_at(short)
            raise Failed("a fourth call after 500 three times", f"{len(short.chats)} calls")
        return [(rollout, rollout.chats) for rollout in rollouts]

    await _require_growth("calls", play)


@check("delivery.delay", "deliver-14", "Results are not offered one right after the other; it takes longer each time.")
async def deliveries(kit: Kit) -> None:
    async def play() -> list[tuple[PlayedRollout, list[Call]]]:
        async with AsyncExitStack() as stack:
            # A trainer each: one that takes a result may be offered all others at once.
            doors = [await stack.enter_async_context(kit.door()) for _ in range(ROLLOUTS)]
            rollouts = [kit.play(on_completed=refusing(503, 3, acknowledge), at=door.url) for door in doors]
            for door, rollout in zip(doors, rollouts, strict=True):
                await door.open()
                rollout.has_delivery_faults = True
            await asyncio.gather(*map(kit.send, rollouts))
            await kit.results(rollouts)
        return [(rollout, rollout.completions) for rollout in rollouts]

    await _require_growth("deliveries", play)
