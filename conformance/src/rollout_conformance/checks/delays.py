"""How long a server waits before it asks again, and offers a result again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from statistics import median

from rollout_conformance.catalogue import check
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.lateness import reaction_seconds, too_late, watched
from rollout_conformance.played import Call, PlayedRollout
from rollout_conformance.scripts import acknowledge, answering, breaking_off, refusing
from rollout_conformance.vocabulary import Failed, NotExercised

ROLLOUTS = 6
"""So that the chance in the delays of each makes no difference."""
APART_SECONDS = 0.25
"""From one to the next, so that a machine that stands still for a moment makes the same wait longer for few of them."""
LEAST_SECONDS = 0.2
"""Of three waits together."""
GROWTH = 1.5
"""Of the third wait over the first: 4 where each is double, 1 where all are alike."""
PAUSED = 2
TRIES = 3
"""Of which all are looked at together."""


def _waits(calls: list[Call]) -> list[float]:
    return [later.came_at - (one.answered_at or later.came_at) for one, later in pairwise(calls[:4])]


def fault_of_waits(
    waits: Sequence[Sequence[float]], what: str, late_seconds: float = 0.0
) -> Failed | NotExercised | None:
    """Of three waits of several rollouts: not nothing, and longer each time.

    What was seen of a wait is never shorter than it was, and may be ``late_seconds`` longer. So where all of three are
    short, they were; and that the third is no longer than the first is a fault only if it is one whatever part of that
    the first one holds. A busy machine makes some longer than others: the shortest tell, or else half of them.
    """
    shortest = [min(nth) for nth in zip(*waits, strict=True)]
    if sum(shortest) < LEAST_SECONDS:
        told = ", ".join(f"{wait:.2f}" for wait in shortest)
        usually = "it is made again at once: wait a while, such as half a second, and longer each time"
        expected = f"at least {LEAST_SECONDS:g} s for three further {what}"
        return Failed(expected, f"waits of {told} s", usually=usually)
    firsts, _, thirds = zip(*waits, strict=True)
    firsts_and_thirds = [(of_all(firsts), of_all(thirds)) for of_all in (min, median)]
    if any(third >= GROWTH * one for one, third in firsts_and_thirds):
        return None
    if any(third >= GROWTH * (one - late_seconds) for one, third in firsts_and_thirds):
        return too_late(late_seconds, shortest[0])
    one, third = firsts_and_thirds[-1]
    told = f"{one:.2f} s before the first, {third:.2f} s before the third"
    return Failed(f"longer waits before each further of the {what}", told, usually="each wait is as long as the first")


async def _require_growth(what: str, play: Callable[[], Awaitable[list[tuple[PlayedRollout, list[Call]]]]]) -> None:
    played = list[tuple[PlayedRollout, list[Call]]]()
    async with watched() as lateness:
        for _ in range(TRIES):
            played += await play()
            looked_at(min(played, key=lambda one: sum(_waits(one[1])))[0])
            waits = [_waits(calls) for _, calls in played]
            # A kit that was later than all the waits together has seen them in those of a server that has none.
            all_seconds = min(map(sum, waits))
            if fault_of_waits(waits, what) is None and lateness.worst_seconds < all_seconds:
                return
        # The server may be late as well, as where it has not been given the processor.
        late_seconds = max(lateness.worst_seconds, *(reaction_seconds(rollout) for rollout, _ in played))
        raise fault_of_waits(waits, what, late_seconds) or too_late(lateness.worst_seconds, all_seconds)


async def _one_by_one(kit: Kit, rollouts: Sequence[PlayedRollout]) -> None:
    """Send the inits ``APART_SECONDS`` from each other, and wait for all results."""

    async def play(rollout: PlayedRollout, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        await kit.send(rollout)
        await rollout.result()

    await asyncio.gather(*(play(rollout, number * APART_SECONDS) for number, rollout in enumerate(rollouts)))


async def _require_some_wait(kit: Kit, what: str, play: Callable[[], PlayedRollout]) -> None:
    """Before the calls after what may be waited for in other steps; of several rollouts the longest waits count."""
    rollouts = [play() for _ in range(PAUSED)]
    await asyncio.gather(*map(kit.send, rollouts))
    await kit.results(rollouts)
    longest = max(rollouts, key=lambda rollout: sum(_waits(rollout.chats)))
    waits = _waits(longest.chats)
    if len(waits) == 3 and sum(waits) < LEAST_SECONDS:  # fewer calls are another check's matter
        looked_at(longest)
        told = ", ".join(f"{wait:.2f}" for wait in waits)
        expected = f"at least {LEAST_SECONDS:g} s in all before the three calls after {what}, three times"
        raise Failed(expected, f"no wait to speak of: {told} s", usually=f"after {what} it is asked again at once")


@check("retries.delay", "retry-10", "Attempts are not made one right after the other; they wait longer each time.")
async def calls(kit: Kit) -> None:
    paused = {
        "503": lambda: kit.play(refusing(503, 3, answering())),
        "a reply with finish_reason 'abort'": lambda: kit.play(breaking_off("abort", 3, answering())),
    }
    *ends, growth = await asyncio.gather(
        *(_require_some_wait(kit, what, play) for what, play in paused.items()),
        _require_growth_of_calls(kit),
        return_exceptions=True,
    )
    for end in (growth, *ends):
        if isinstance(end, BaseException):
            raise end


async def _require_growth_of_calls(kit: Kit) -> None:
    async def play() -> list[tuple[PlayedRollout, list[Call]]]:
        rollouts = [kit.play(refusing(500, 3, answering())) for _ in range(ROLLOUTS)]
        await _one_by_one(kit, rollouts)
        if short := next((rollout for rollout in rollouts if len(rollout.chats) < 4), None):
            looked_at(short)
            usually = "a call is made again fewer than three times, as CLIENT_MAX_RETRIES says"
            raise Failed("a fourth call after 500 three times", f"{len(short.chats)} calls", usually=usually)
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
            await _one_by_one(kit, rollouts)
        return [(rollout, rollout.completions) for rollout in rollouts]

    await _require_growth("deliveries", play)
