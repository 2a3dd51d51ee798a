"""How long a rollout may run, and that the pauses of its trainer are none of that time.

Tried on the last process that the kit starts, whose limit is short where it takes it from its environment.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

from rollout_conformance.catalogue import check
from rollout_conformance.checks import errors
from rollout_conformance.checks.starting import start_with_short_limit
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.lateness import TRIES, Lateness, reaction_seconds, require_in_time, watched
from rollout_conformance.options import RUN_VARIABLE, SHORT_RUN_SECONDS
from rollout_conformance.played import Call, PlayedRollout, Script
from rollout_conformance.scripts import (
    answering,
    asking_at_once,
    calling_offered_tools,
    raw,
    refusing,
    saying,
    turn_of,
    waiting_for,
)
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import STOPPING, Failed, NotExercised, Skipped

LIMITED = "limits.run"
"""The check that the rollouts of this module are played for."""
PAUSE_SECONDS = 2 * SHORT_RUN_SECONDS
END_SECONDS = 8.0
"""In which a run that has met its limit has been reported."""
SLACK_SECONDS = 0.1
HEADER = {"Retry-After": "1"}
AWAY = "no connection"
PAUSES: dict[str, Script] = {
    **{f"{one}": refusing(one, None, answering(), HEADER) for one in (503, 429, 502, 504)},
    "404 without a body": raw(b"", 404, HEADER),
    "405 with a page": raw(b"<html></html>", 405, {**HEADER, "Content-Type": "text/html"}),
    "aborted replies": asking_at_once(saying("I was about", "abort"), HEADER["Retry-After"]),
}


@dataclass
class Limited:
    """What came of rollouts whose run may take ``SHORT_RUN_SECONDS``."""

    held: PlayedRollout
    """Its model does not answer."""
    held_later: PlayedRollout
    """Its first call is answered after a pause, its second one not."""
    paused: dict[str, PlayedRollout]
    """By what their trainer says for ``PAUSE_SECONDS``."""
    sent_at: float
    lateness: Lateness = field(default_factory=Lateness)
    """How late the kit was while ``held`` was waited for."""
    was_late: bool = False
    """Whether it was so late that it takes of the time of ``paused`` as well, in each of ``TRIES``."""


async def limited_of(kit: Kit) -> Limited:
    """The rollouts of this module, played once."""
    if kit.command is None:
        raise Skipped("the kit sets a limit only for what it has started itself: give --command")
    if kit.trainer.has_short_limit is None:
        try:
            kit.trainer.has_short_limit = await start_with_short_limit(kit.command, "its end")
        except Failed as failure:
            raise NotExercised(str(failure), cause="drain.killed") from None
    if not kit.trainer.has_short_limit:
        raise Skipped(f"{RUN_VARIABLE} is set already, or the server does not start with {SHORT_RUN_SECONDS:g} there")
    if kit.trainer.limited is None:
        kit.trainer.limited = asyncio.create_task(_play(kit.of_check(LIMITED)))
    return await asyncio.shield(kit.trainer.limited)


async def _play(kit: Kit) -> Limited:
    model = asyncio.Event()
    held, paused = waiting_for(model, answering()), refusing(503, 1, calling_offered_tools(), HEADER)

    async def held_later(call: Call) -> Answer | None:
        return await (held if turn_of(call) else paused)(call)

    limited = Limited(kit.play(held), kit.play(held_later), {}, time.monotonic())

    async def play(rollout: PlayedRollout, *, is_later: bool) -> None:
        await kit.send(rollout)
        if is_later:
            await rollout.wait_until(
                lambda played: played.is_over or any(map(turn_of, played.chats)), "a call of a second turn"
            )
        with contextlib.suppress(TimeoutError, Failed):
            async with asyncio.timeout(SHORT_RUN_SECONDS + END_SECONDS):
                await rollout.over()

    async def pause(what: str) -> None:
        for _ in range(TRIES):
            async with watched() as lateness:
                rollout = await _paused(kit, what)
            is_completed = (await rollout.result()).get("status") == "COMPLETED"
            late_seconds = max(lateness.worst_seconds, reaction_seconds(rollout))
            if is_completed or late_seconds < SHORT_RUN_SECONDS / 2:
                limited.paused[what] = rollout
                return
        limited.was_late = True

    async def hold() -> None:
        async with watched() as limited.lateness:
            await play(limited.held, is_later=False)

    try:
        away = () if kit.options.callback_url else (AWAY,)
        await asyncio.gather(
            hold(),
            play(limited.held_later, is_later=True),
            *(pause(what) for what in (*PAUSES, *away)),
        )
    finally:
        model.set()
    return limited


async def _paused(kit: Kit, what: str) -> PlayedRollout:
    """A rollout that has ended, whose trainer paused."""
    if what != AWAY:
        rollout = await kit.start(_for_a_while(PAUSES[what], answering()))
        await rollout.result()
        return rollout
    async with kit.door() as door:
        rollout = await kit.start(at=door.url)
        await asyncio.sleep(PAUSE_SECONDS)
        await door.open()
        await rollout.result()
    return rollout


def _for_a_while(faulty: Script, then: Script) -> Script:
    """Answers as ``faulty`` does until ``PAUSE_SECONDS`` after the first call."""
    ends_at: list[float] = []

    async def script(call: Call) -> Answer | None:
        ends_at[:] = ends_at or [time.monotonic() + PAUSE_SECONDS]
        return await (faulty if time.monotonic() < ends_at[0] else then)(call)

    return script


@check(LIMITED, "limit-2", "A run beyond its limit is an ERROR, outcome 'timeout', also after a pause.", STOPPING)
async def run(kit: Kit) -> None:
    limited = await limited_of(kit)
    _require_limit(limited)
    for rollout, which in ((limited.held, ""), (limited.held_later, ", once a pause is over")):
        looked_at(rollout)
        expected = f"an ERROR, outcome 'timeout', of a call that is not answered for {SHORT_RUN_SECONDS:g} s{which}"
        if not rollout.completions:
            if rollout is limited.held_later and len(rollout.chats) > 1 and not turn_of(rollout.chats[-1]):
                raise NotExercised("the agent does not call the model again after a tool call")
            usually = "the clock of the run is stopped by a pause, and not started again when a call is answered"
            raise Failed(expected, f"none within {SHORT_RUN_SECONDS + END_SECONDS:g} s", usually=usually)
        result = rollout.completions[0].fields
        extra = result.get("extra_fields")
        outcome = extra.get("outcome") if isinstance(extra, dict) else None
        if rollout is limited.held_later and result.get("status") == "COMPLETED" and not rollout.tools:
            continue
        if result.get("status") != "ERROR" or outcome != "timeout":
            raise Failed(expected, f"{result.get('status')}, {quoted(outcome)}")
    looked_at(limited.held)
    took = limited.held.completions[0].came_at - limited.sent_at
    if took < SHORT_RUN_SECONDS - SLACK_SECONDS:
        raise Failed(f"no end of a run before its limit of {SHORT_RUN_SECONDS:g} s", f"one after {took:.2f} s")
    require_in_time(limited.lateness, SHORT_RUN_SECONDS)


def _require_limit(limited: Limited) -> None:
    if not limited.held.completions:
        raise Skipped(f"the server does not take the limit of a run from {RUN_VARIABLE}")


@check(
    "limits.result",
    "result-1 result-4 result-6 result-8",
    "The result of such a run is as that of any rollout.",
    STOPPING,
)
async def result(kit: Kit) -> None:
    limited = await limited_of(kit)
    errors.require_as_any([limited.held, limited.held_later, *limited.paused.values()])
    _require_limit(limited)


@check("limits.paused", "retry-13", "What a call waits while its trainer pauses is not counted in that.", STOPPING)
async def paused(kit: Kit) -> None:
    limited = await limited_of(kit)
    ended = {what: await limited.paused[what].result() for what in (*PAUSES, AWAY) if what in limited.paused}
    failed = {what: result for what, result in ended.items() if result.get("status") != "COMPLETED"}
    for what, result in failed.items():
        looked_at(limited.paused[what])
        others = f" (the same after {', '.join(list(failed)[1:])})" if len(failed) > 1 else ""
        expected = f"COMPLETED, with {PAUSE_SECONDS:g} s of {what} in a run of at most {SHORT_RUN_SECONDS:g} s"
        raise Failed(expected, f"{result.get('status')}: {quoted(result.get('error_message'))}{others}")
    _require_limit(limited)
    if limited.was_late:
        raise NotExercised(
            "this machine was too late to tell what a run takes from what it waits: run it on an idle one"
        )
