"""The end of the server on SIGTERM: what it has accepted is reported, by itself or by its successor."""

import asyncio
import contextlib
import os
import secrets
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from rollout_conformance.asking import INIT_PATH, describe, path_of, retry_after_seconds
from rollout_conformance.catalogue import check
from rollout_conformance.checks import completed, errors
from rollout_conformance.checks.restart import reported, require_reports, restart_of, start_again
from rollout_conformance.checks.state import require_attempts, until_delivered
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.options import RUN_VARIABLE, SHORT_DRAIN_SECONDS, SHORT_RUN_SECONDS
from rollout_conformance.played import PlayedRollout
from rollout_conformance.processes import is_alive
from rollout_conformance.scripts import answering, encoded, owing, waiting_for
from rollout_conformance.server_command import own_client
from rollout_conformance.strict_json import parse_object
from rollout_conformance.vocabulary import STOPPING, ConformanceError, Failed, NotExercised, Skipped

if TYPE_CHECKING:
    from rollout_conformance.server_command import ServerCommand

ROLLOUTS = 4
POLL_SECONDS = 0.05
STILL_RUNNING_SECONDS = 1.0
"""How long rollouts go on while the server has begun to end."""
ANSWER_SECONDS = 5.0
"""In which a worker that has nothing left to do has ended, however busy the machine is."""
LEAST_KEY_CHARACTERS = 8
LEAST_DRAIN_SECONDS = 3.0
"""Beyond ``STILL_RUNNING_SECONDS``: those that end in time have to be told from those that last."""
UNKNOWN_SECONDS = 5.0
"""For so long the end of a drain is waited for of which nobody has said how long it is."""
SLACK_SECONDS = 0.5
LONG_SECONDS = 30
"""Of a Retry-After, so that a result is not offered again by itself meanwhile."""


@dataclass
class Stop:
    """What was seen of a server that was sent SIGTERM while rollouts ran."""

    problem: Failed | None = None
    """Why rollouts are missing, or inits were taken all the same."""
    during: dict[str, httpx.Response | None] = field(default_factory=dict)
    """What was answered while rollouts ran, by what was asked; ``None`` where no connection came about."""
    cancelled: PlayedRollout | None = None
    """A rollout whose end was asked for meanwhile."""
    ending: str = ""
    """How the process ended, where not with exit code 0."""
    owed: PlayedRollout | None = None
    """Its result was answered 503 until the process had ended."""
    offered_before: int = 0
    """How often that had been offered when the server was told to end, and when it had ended."""
    offered_at_the_end: int = 0
    owed_state: dict[str, Any] = field(default_factory=dict)
    """Of that, once it was delivered by the next process."""
    missing: Failed | None = None
    """Why it did not come after a new start; or came as another."""
    lasting: PlayedRollout | None = None
    """Its model does not answer before the process has ended; none where that is not waited for."""
    began_at: float = 0.0
    """When the server was told to end."""
    has_short_limit: bool = False
    """Whether the process after it was started with ``SHORT_RUN_SECONDS``."""
    goes_on: bool = False
    """Whether it had not ended ``UNKNOWN_SECONDS`` later, so that the model of ``lasting`` answered."""


async def stop_of(kit: Kit) -> Stop:
    """The one stop of the run, which the checks of this group look at."""
    if kit.command is None and kit.options.server_pid is None:
        raise Skipped("the kit stops only a server it may stop: give --command, or --server-pid")
    if kit.trainer.stop is None:
        kit.trainer.stop = asyncio.create_task(_stop(kit))
    return await asyncio.shield(kit.trainer.stop)


async def _stop(kit: Kit) -> Stop:
    stop, is_back = Stop(), asyncio.Event()
    model, left_waiting, is_over = kit.hold(), kit.hold(), kit.hold()

    running = [kit.play(waiting_for(model, answering())) for _ in range(ROLLOUTS)]
    stop.cancelled = kit.play(waiting_for(left_waiting, answering()))
    stop.owed = kit.play(on_completed=owing(is_back, retry_after=str(LONG_SECONDS)))
    stop.owed.has_delivery_faults = True
    asked = [*running, stop.cancelled]
    if not _why_no_end_is_awaited(kit):
        stop.lasting = kit.play(waiting_for(is_over, answering()))
        asked.append(stop.lasting)
    await asyncio.gather(*map(kit.send, (*asked, stop.owed)))
    for rollout in asked:
        await rollout.first_chat()
    await stop.owed.wait_until(lambda played: bool(played.completions), "a terminal result")
    await asyncio.sleep(POLL_SECONDS)
    stop.offered_before = len(stop.owed.completions)
    stop.began_at = time.monotonic()
    _terminate(kit)
    try:
        late = await _refused_after_sigterm(kit)
        # The model answers in its time, however long the server takes to say how it stands.
        asyncio.get_running_loop().call_later(STILL_RUNNING_SECONDS, model.set)
        wanted = {
            "GET /ready": ("GET", "/ready", 503),
            "GET its state": ("GET", path_of(running[0].rollout_id), 200),
            "POST its cancel": ("POST", f"{path_of(stop.cancelled.rollout_id)}/cancel", 202),
        }
        given = await asyncio.gather(*(_asked(kit, *one) for one in wanted.values()))
        stop.during = dict(zip(wanted, given, strict=True))
        await model.wait()
        left_waiting.set()
        await require_reports([*running, stop.cancelled, *late], "SIGTERM")
        for rollout in running:
            end = (await rollout.result()).get("status")
            # On a busy machine the answer comes late, and a drain that is short may have been over.
            was_in_time = rollout.completions[0].came_at - stop.began_at < _least_drain(kit) - SLACK_SECONDS
            if end != "COMPLETED" and was_in_time:
                looked_at(rollout)
                what = f"COMPLETED, of a rollout whose model answered {STILL_RUNNING_SECONDS:g} s after SIGTERM"
                raise Failed(what, str(end))
    except Failed as failure:
        stop.problem = failure
    finally:
        model.set()
        left_waiting.set()
    if stop.lasting is not None and kit.options.drain_seconds is None:
        left = stop.began_at + UNKNOWN_SECONDS - time.monotonic()
        stop.goes_on = bool(await _end(kit, max(0.0, left))) and not stop.lasting.completions
        if stop.goes_on:
            is_over.set()
    stop.ending = await _end(kit, kit.options.timeout_seconds + (kit.options.drain_seconds or 0))
    stop.offered_at_the_end = len(stop.owed.completions)
    is_back.set()
    is_over.set()
    if kit.command is not None:
        try:
            stop.has_short_limit = await _start_with_short_limit(kit.command)
            await stop.owed.result()
            if text := stop.owed.contradiction():
                raise Failed("the same result after SIGTERM and a new start", text)
            with contextlib.suppress(Failed):  # another check's matter
                stop.owed_state = await until_delivered(kit, stop.owed)
        except Failed as failure:
            stop.missing = failure
    return stop


async def _start_with_short_limit(command: "ServerCommand") -> bool:
    """Start it once more: whether that is with ``SHORT_RUN_SECONDS``, which a server may refuse."""
    if RUN_VARIABLE not in os.environ:
        with contextlib.suppress(ConformanceError):
            await command.start({RUN_VARIABLE: f"{SHORT_RUN_SECONDS:g}"})
            return True
    await start_again(command, "SIGTERM")
    return False


def _why_no_end_is_awaited(kit: Kit) -> str:
    seconds, most = kit.options.drain_seconds, kit.options.timeout_seconds
    if seconds is not None and not LEAST_DRAIN_SECONDS <= seconds <= most:
        return (
            f"only a drain of {LEAST_DRAIN_SECONDS:g} to {most:g} s (--timeout) is waited for, not one of {seconds:g} s"
        )
    return ""


def _least_drain(kit: Kit) -> float:
    """In which a rollout that runs may end."""
    return SHORT_DRAIN_SECONDS if kit.options.drain_seconds is None else kit.options.drain_seconds


async def _asked(kit: Kit, method: str, path: str, status: int) -> httpx.Response | None:
    """The answer, asked for again for a while: one of several processes may be at its end already."""
    deadline, said = time.monotonic() + ANSWER_SECONDS, None
    while (response := await _answer(kit, method, path)) is None or response.status_code != status:
        said = said if response is None else response  # which counts, also if the process ends meanwhile
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(POLL_SECONDS)
    return said if response is None else response


async def _answer(kit: Kit, method: str, path: str) -> httpx.Response | None:
    try:
        async with own_client(kit.options.timeout_seconds) as http:
            key = {"Authorization": f"Bearer {kit.options.api_key}"} if kit.options.api_key else {}
            return await http.request(method, f"{kit.options.server_url}{path}", headers=key)
    except httpx.TransportError:
        return None


@check(
    "drain.stopped",
    "drain-1 drain-2",
    "After SIGTERM inits are refused, and every rollout that was accepted is reported.",
    STOPPING,
)
async def stopped(kit: Kit) -> None:
    if problem := (await stop_of(kit)).problem:
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
        raise NotExercised("rollouts were not seen to go on after SIGTERM")
    for what, response in during.items():
        if response is None or response.status_code != expected[what]:
            got = describe(response) if response is not None else "no connection"
            usually = None if response is None else MEANWHILE[what]
            raise Failed(f"{expected[what]} to {what} while rollouts go on after SIGTERM", got, usually=usually)
        if what == "GET /ready" and _field_of(response, "ready") is not False:
            what = "'ready' false with the 503 to GET /ready after SIGTERM"
            raise Failed(what, describe(response), usually=MEANWHILE["GET /ready"])
    if stop.cancelled is not None and (end := (await stop.cancelled.result()).get("status")) != "ERROR":
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
    if why_not := _why_no_end_is_awaited(kit):
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
    if isinstance(found := result.get("extra_fields"), dict):
        extra = found
    if result.get("status") != "ERROR" or extra.get("outcome", "interrupted") != "interrupted":
        what = "an ERROR, outcome 'interrupted', of a rollout that lasts longer than the server goes on after SIGTERM"
        raise Failed(what, f"{result.get('status')}, {extra.get('outcome')}")


@check("drain.delivered", "deliver-1", "What was delivered before the kill is not offered again.", STOPPING)
async def delivered(kit: Kit) -> None:
    restart = await reported(kit)
    # While that server goes on, and its successor starts, one that offers everything again after its start does so.
    await stop_of(kit)
    if (count := len(restart.delivered.completions)) > restart.before[restart.delivered.rollout_id]:
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
    if stop.owed is None or not stop.owed_state:
        raise NotExercised("the next process was not seen to deliver what was owed")
    looked_at(stop.owed)
    usually = "it is counted in memory: put each offer on record, at the latest when the process ends"
    count = len(stop.owed.completions)
    # The end of a process may lose its last.
    least = count - (stop.offered_at_the_end - stop.offered_before)
    require_attempts(stop.owed_state, least, count, " by two processes", usually=usually)


@check("drain.last_offer", "drain-7", "It is offered once more before the process ends.", STOPPING)
async def last_offer(kit: Kit) -> None:
    stop = await stop_of(kit)
    if stop.owed is not None and stop.offered_at_the_end <= stop.offered_before:
        looked_at(stop.owed)
        raise Failed("another delivery of a result between SIGTERM and the end of the process", "none")


@check(
    "drain.results",
    "result-1 result-4 result-6 result-8",
    "The results of what was cut off, or interrupted, are as those of any rollout.",
    STOPPING,
)
async def results(kit: Kit) -> None:
    await (restart_of if kit.command is not None else stop_of)(kit)
    await stop_of(kit)
    if kit.trainer.samples is None:
        kit.trainer.samples = asyncio.create_task(asyncio.sleep(0))
    # What the audits looked at before is looked at again, which harms nothing.
    for audit in (completed.shape, completed.outcome, errors.no_reward, errors.message):
        await audit(kit)


@check(
    "drain.finish_reasons",
    "result-17",
    "Their finish_reason is 'error': nobody has asked for their end.",
    STOPPING,
)
async def finish_reasons(kit: Kit) -> None:
    await (restart_of if kit.command is not None else stop_of)(kit)
    await stop_of(kit)
    await errors.finish_reason(kit)


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


def _terminate(kit: Kit) -> None:
    if kit.command is not None:
        kit.command.terminate()
    elif kit.options.server_pid is not None:
        try:
            os.kill(kit.options.server_pid, signal.SIGTERM)
        except OSError as error:
            raise Failed(f"a process {kit.options.server_pid} to stop", error.strerror or "none") from None


async def _refused_after_sigterm(kit: Kit) -> list[PlayedRollout]:
    """Wait until inits are refused; what is still accepted in between is owed a result too."""
    late: list[PlayedRollout] = []
    deadline = time.monotonic() + kit.options.timeout_seconds
    key = {"Authorization": f"Bearer {kit.options.api_key}"} if kit.options.api_key else {}
    while time.monotonic() < deadline:
        rollout = kit.play()
        try:
            # Not over the kit's open connections: a server may close those in any way it likes.
            async with own_client(kit.options.timeout_seconds) as http:
                url = f"{kit.options.server_url}{INIT_PATH}"
                response = await http.post(
                    url, content=encoded(rollout.init), headers={"Content-Type": "application/json", **key}
                )
        except httpx.TransportError:
            return late
        if response.status_code == 503:
            if retry_after_seconds(response) is None:
                raise Failed("Retry-After with the 503 to an init after SIGTERM", describe(response))
            if _field_of(response, "code") != "shutting_down":
                raise Failed("the code 'shutting_down' with the 503 to an init after SIGTERM", describe(response))
            return late
        if response.status_code != 202:
            raise Failed("503, or no connection, to an init after SIGTERM", describe(response))
        kit.took(rollout, response)
        late.append(rollout)
        await asyncio.sleep(POLL_SECONDS)
    raise Failed("503, or no connection, to an init after SIGTERM", f"202 for {kit.options.timeout_seconds:g} s")


def _field_of(response: httpx.Response, name: str) -> object:
    try:
        return parse_object(response.content).get(name)
    except ValueError:
        return None


async def _end(kit: Kit, limit: float) -> str:
    """How the process ended within ``limit`` seconds, where not with exit code 0."""
    if kit.command is not None:
        code = await kit.command.exit_code(limit)
        return "" if code == 0 else f"exit code {code}" if code is not None else f"no end within {limit:g} s"
    deadline = time.monotonic() + limit
    while is_alive(kit.options.server_pid or 0):
        if time.monotonic() > deadline:
            return f"no end within {limit:g} s"
        await asyncio.sleep(POLL_SECONDS)
    return ""
