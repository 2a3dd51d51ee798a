"""The end of the server on SIGTERM: what it has accepted is reported, by itself or by its successor."""

import contextlib
import secrets

from rollout_conformance.asking import describe, field_of
from rollout_conformance.catalogue import check
from rollout_conformance.checks import errors
from rollout_conformance.checks.limits import LIMITED, limited_of
from rollout_conformance.checks.restart import READ_SECONDS, reported, restart_of
from rollout_conformance.checks.state import require_attempts
from rollout_conformance.checks.stop import (
    SLACK_SECONDS,
    UNKNOWN_SECONDS,
    maybe_over,
    stop_of,
    why_no_end_is_awaited,
)
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.lateness import require_in_time
from rollout_conformance.vocabulary import STOPPING, Failed, NotExercised, Skipped, TooBusy

LEAST_KEY_CHARACTERS = 8


@check(
    "drain.stopped",
    "drain-1 drain-2 err-4",
    "After SIGTERM inits are refused, and every rollout that was accepted is reported.",
    STOPPING,
)
async def stopped(kit: Kit) -> None:
    stop = await stop_of(kit)
    if problem := stop.refused_badly or stop.problem:
        raise problem


MEANWHILE = {
    "GET /ready": "that the server ends is told to inits alone: /ready says it too",
    "GET its state": "what has run until then is not told any more: it is, until the process ends",
    "POST its cancel": "cancels are refused like inits: they are taken until the process ends",
}


@check("drain.answers", "drain-3", "Meanwhile /ready says 503, a state is told, and a cancel is taken.", STOPPING)
async def answers(kit: Kit) -> None:
    expected = {"GET /ready": 503, "GET its state": 200, "POST its cancel": 202}
    stop = await stop_of(kit)
    during = stop.during
    if not during:
        raise NotExercised("inits were taken after SIGTERM, so that nothing else was asked", cause="drain.stopped")
    for what, response in during.items():
        if response is None or response.status_code != expected[what]:
            if stop.was_asked_late:
                raise maybe_over(kit)
            got = describe(response) if response is not None else "no connection"
            usually = None if response is None else MEANWHILE[what]
            raise Failed(f"{expected[what]} to {what} while rollouts go on after SIGTERM", got, usually=usually)
        if what == "GET /ready" and field_of(response, "ready") is not False:
            what = "'ready' false with the 503 to GET /ready after SIGTERM"
            raise Failed(what, describe(response), usually=MEANWHILE["GET /ready"])
    if (end := (await stop.cancelled.result()).get("status")) != "ERROR":
        looked_at(stop.cancelled)
        raise Failed("an ERROR, of a rollout that was cancelled after SIGTERM", str(end))


@check(
    "drain.interrupted",
    "drain-2 drain-5",
    "One that lasts goes on until the drain is over, and is an ERROR then, outcome 'interrupted'.",
    STOPPING,
)
async def interrupted(kit: Kit) -> None:
    stop = await stop_of(kit)
    if why_not := why_no_end_is_awaited(kit):
        raise Skipped(why_not)
    rollout, seconds = stop.lasting, kit.options.drain_seconds
    if rollout is None:
        raise NotExercised("no rollout was seen to go on after SIGTERM")
    if stop.goes_on:
        raise Skipped(f"rollouts go on for more than {UNKNOWN_SECONDS:g} s after SIGTERM: give --drain SECONDS")
    if kit.command is None and not rollout.completions:
        raise (Skipped if seconds is None else NotExercised)(
            "its result comes from the next process, which --server-pid does not start"
        )
    result, extra = await rollout.result(), {}
    looked_at(rollout)
    after = rollout.completions[0].came_at - stop.began_at
    if seconds is not None and after < seconds - SLACK_SECONDS:
        raise Failed(
            f"no result of a rollout that lasts before its {seconds:g} s after SIGTERM", f"one after {after:.1f} s"
        )
    if seconds is not None:
        require_in_time(stop.lateness, seconds)
    if isinstance(found := result.get("extra_fields"), dict):
        extra = found
    if result.get("status") != "ERROR" or extra.get("outcome", "interrupted") != "interrupted":
        what = "an ERROR, outcome 'interrupted', of a rollout that lasts longer than the server goes on after SIGTERM"
        raise Failed(what, f"{result.get('status')}, {extra.get('outcome')}")


@check("drain.delivered", "deliver-1", "What was delivered before the kill is not offered again.", STOPPING)
async def delivered(kit: Kit) -> None:
    restart = await reported(kit)
    # While that server goes on, one that offers everything again after its start does so.
    with contextlib.suppress(Skipped, NotExercised):
        await limited_of(kit)
    if (count := len(restart.delivered.completions)) > restart.before[restart.delivered.rollout_id]:
        if not restart.is_read:
            raise TooBusy(f"the server may not have read in {READ_SECONDS:g} s that its result was acknowledged")
        looked_at(restart.delivered)
        raise Failed("one delivery of a result that was acknowledged before kill -9", f"{count}")


@check("drain.kept", "drain-6", "A result that was not acknowledged by then is offered by the next process.", STOPPING)
async def kept(kit: Kit) -> None:
    stop = await stop_of(kit)
    if kit.command is None:
        raise Skipped("the kit starts anew only what it has started itself: give --command")
    if stop.missing:
        raise stop.missing


@check("drain.attempts", "state-14", "The offers of a process before count in delivery_attempts.", STOPPING)
async def attempts(kit: Kit) -> None:
    stop = await stop_of(kit)
    if kit.command is None:
        raise Skipped("the kit starts anew only what it has started itself: give --command")
    if not stop.owed_state:
        raise NotExercised("the next process was not seen to deliver what was owed", cause="drain.kept")
    looked_at(stop.owed)
    usually = "it is counted in memory: put each offer on record, at the latest when the process ends"
    count = len(stop.owed.completions)
    # The end of a process may lose its last.
    least = count - (stop.offered_at_the_end - stop.offered_before)
    require_attempts(stop.owed_state, least, count, " by two processes", usually=usually)


@check("drain.last_offer", "drain-7", "It is offered once more before the process ends.", STOPPING)
async def last_offer(kit: Kit) -> None:
    stop = await stop_of(kit)
    if stop.offered_at_the_end <= stop.offered_before:
        looked_at(stop.owed)
        raise Failed("another delivery of a result between SIGTERM and the end of the process", "none")


@check(
    "drain.results",
    "way-1 way-4 result-1 result-3 result-4 result-6 result-8",
    "The results of what was cut off, or interrupted, are as those of any rollout.",
    STOPPING,
)
async def results(kit: Kit) -> None:
    await stop_of(kit)
    if kit.command is not None and (altered := (await restart_of(kit)).altered):
        raise altered
    # What ends by its limit is that check's matter.
    errors.require_as_any([one for one in kit.trainer.rollouts if one.is_accepted and one.check_id != LIMITED])


@check(
    "drain.finish_reasons",
    "result-17",
    "Their finish_reason is 'error': nobody has asked for their end.",
    STOPPING,
)
async def finish_reasons(kit: Kit) -> None:
    await stop_of(kit)
    if kit.command is not None:
        await restart_of(kit)
    errors.require_finish_reasons([one for one in kit.trainer.rollouts if one.is_accepted])


@check("drain.printed", "key-11", "No key is in what the process has printed.", STOPPING)
async def printed(kit: Kit) -> None:
    if kit.command is None:
        raise Skipped("the kit sees only what a process prints that it has started itself: give --command")
    if not any(rollout.init.get("api_key") for rollout in kit.trainer.rollouts):
        # A run of this check alone.
        await (await kit.start(api_key=secrets.token_urlsafe(12))).result()
    keys = {str(one.init["api_key"]) for one in kit.trainer.rollouts if isinstance(one.init.get("api_key"), str)}
    for whose, key in (("the server's own", kit.options.api_key or ""), *(("an api_key", key) for key in keys)):
        if len(key) >= LEAST_KEY_CHARACTERS and key.encode() in kit.command.output():
            raise Failed("output without keys", f"{whose} in it")


@check("drain.exit_code", "drain-4", "The process then ends by itself, with exit code 0.", STOPPING)
async def exit_code(kit: Kit) -> None:
    if ending := (await stop_of(kit)).ending:
        raise Failed("the end of the process after SIGTERM, with exit code 0", ending)


@check("drain.owed_longer", "way-1 way-2", "What two processes have left is offered by the third, the same.", STOPPING)
async def owed_longer(kit: Kit) -> None:
    stop = await stop_of(kit)
    restart = await reported(kit)
    if restart.longer is not None:
        raise restart.longer
    if not stop.is_long_over.is_set():
        raise NotExercised("nothing was owed by a process before the one that was killed")


@check("drain.turned_away", "way-3", "An init that is refused after SIGTERM leaves nothing behind.", STOPPING)
async def turned_away(kit: Kit) -> None:
    stop = await stop_of(kit)
    if stop.turned_away is None:
        raise Skipped("no init was answered after SIGTERM: there was no connection")
    if stop.state_of_turned_away is None:
        raise NotExercised("the next process was not seen to deliver what was owed", cause="drain.kept")
    looked_at(stop.turned_away)
    if stop.turned_away.chats or stop.turned_away.completions:
        raise Failed("no callback for an init that was refused after SIGTERM", stop.turned_away.calls_in_words)
    if stop.state_of_turned_away.status_code != 404:
        what = "404 to the state of a rollout whose init was refused after SIGTERM, from the next process"
        raise Failed(what, describe(stop.state_of_turned_away))
