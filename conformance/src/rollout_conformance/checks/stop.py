"""The one stop of the server in a run: SIGTERM while rollouts run, what came of them, and a new start.

The checks of ``drain`` look at it.
"""

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from rollout_conformance.asking import INIT_PATH, describe, field_of, path_of, retry_after_seconds
from rollout_conformance.checks.restart import require_reports
from rollout_conformance.checks.starting import start_again
from rollout_conformance.checks.state import until_delivered
from rollout_conformance.checks.turns import many_more, require_reports_of
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.lateness import Lateness, watched
from rollout_conformance.options import SHORT_DRAIN_SECONDS
from rollout_conformance.played import PlayedRollout
from rollout_conformance.processes import is_alive
from rollout_conformance.scripts import answering, calling_offered_tools, encoded, first, owing, waiting_for
from rollout_conformance.vocabulary import Failed, NotExercised, Skipped, TooBusy

ROLLOUTS = 4
POLL_SECONDS = 0.05
STILL_RUNNING_SECONDS = 1.0
"""How long rollouts go on while the server has begun to end."""
ENOUGH_ASKED = 5
"""Times that were in vain, after which another one would be."""
MANY_TAKEN = 30
"""Inits after SIGTERM, one after the other: no matter of one process being told later than another."""
ANSWER_SECONDS = 5.0
"""In which a worker that has nothing left to do has ended, however busy the machine is."""
NO_TIME = "the refusal of a server that ends is made elsewhere than that of a full one: it has Retry-After, too"
TAKES_INITS = "nothing notes that the server ends, or inits do not look at it: refuse them from SIGTERM on"
ENDED_IN_A_PAUSE = "a call that waits for its next attempt is ended by SIGTERM: it is running like any other"
REFUSALS = {
    f"{status} with Retry-After: 1": Answer(status, encoded({"detail": "not now"}), {"Retry-After": "1"})
    for status in (503, 500)
}
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

    running: list[PlayedRollout]
    """Their model answers while the server ends."""
    cancelled: PlayedRollout
    """A rollout whose end was asked for meanwhile."""
    owed: PlayedRollout
    """Its result was answered 503 until the process had ended."""
    refused: dict[str, PlayedRollout] = field(default_factory=dict)
    """So are these, whose call was refused for a time just before; by how."""
    owed_longer: list[PlayedRollout] = field(default_factory=list)
    """Their results are answered 503 until the next process has ended, too: of one that had one, and one cut off."""
    is_long_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set then."""
    turned_away: PlayedRollout | None = None
    """Its init was answered 503."""
    state_of_turned_away: httpx.Response | None = None
    """As the next process told it."""
    refused_badly: Failed | None = None
    """What was wrong with the refusal of an init; all else is looked at all the same."""
    problem: Failed | NotExercised | None = None
    """Why rollouts are missing, or inits were taken all the same; or that this machine was too late to tell."""
    during: dict[str, httpx.Response | None] = field(default_factory=dict)
    """What was answered while rollouts ran, by what was asked; ``None`` where no connection came about."""
    was_asked_late: bool = False
    """Whether that of one was not known when a drain may have been over."""
    ending: str = ""
    """How the process ended, where not with exit code 0."""
    offered_before: int = 0
    """How often ``owed`` had been offered when the server was told to end, and when it had ended."""
    offered_at_the_end: int = 0
    owed_state: dict[str, Any] = field(default_factory=dict)
    """Of ``owed``, once it was delivered by the next process."""
    missing: Failed | None = None
    """Why ``owed`` was not delivered after a new start; or was as another result."""
    lasting: PlayedRollout | None = None
    """Its model does not answer before the process has ended; none where that is not waited for."""
    began_at: float = 0.0
    """When the server was told to end."""
    is_back: bool = False
    """Whether it could be started again."""
    lateness: Lateness = field(default_factory=Lateness)
    """How late the kit was until the process had ended."""
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
    model, left_waiting, is_over, is_back = kit.hold(), kit.hold(), kit.hold(), asyncio.Event()
    # By itself: its trainer asks for patience.
    owed = kit.play(on_completed=owing(is_back, retry_after=str(LONG_SECONDS)))
    owed.has_delivery_faults = True
    kit.group()
    scripts = [answering(), calling_offered_tools()] * (ROLLOUTS // 2)
    running = [kit.play(waiting_for(model, script)) for script in scripts]
    stop = Stop(running, kit.play(waiting_for(left_waiting, answering())), owed)
    for what, answer in REFUSALS.items():
        stop.refused[what] = kit.play(first(answer, then=waiting_for(model, answering())))
    asked = [*stop.running, *stop.refused.values(), stop.cancelled]
    if not why_no_end_is_awaited(kit):
        stop.lasting = kit.play(waiting_for(is_over, answering()))
        asked.append(stop.lasting)
        if kit.command is not None:
            stop.owed_longer.append(kit.play(waiting_for(is_over, answering()), owing(stop.is_long_over)))
            asked += stop.owed_longer
    if kit.command is not None:
        stop.owed_longer.append(kit.play(on_completed=owing(stop.is_long_over)))
    for rollout in stop.owed_longer:
        rollout.has_delivery_faults = True
    await asyncio.gather(*map(kit.send, {*asked, *stop.owed_longer, stop.owed}))
    for rollout in asked:
        await rollout.first_chat()
    await stop.owed.wait_until(lambda played: bool(played.completions), "a terminal result")
    many = await many_more(kit, waiting_for(model, answering()))
    await asyncio.sleep(POLL_SECONDS)
    stop.offered_before = len(stop.owed.completions)
    stop.began_at = time.monotonic()
    async with watched() as stop.lateness:
        _terminate(kit)
        try:
            await _go_on(kit, stop, model, left_waiting)
        except (Failed, NotExercised) as verdict:
            stop.problem = verdict
        finally:
            model.set()
            left_waiting.set()
        if stop.lasting is not None and kit.options.drain_seconds is None:
            left = stop.began_at + UNKNOWN_SECONDS - time.monotonic()
            stop.goes_on = bool(await _end(kit, max(0.0, left))) and not stop.lasting.completions
            if stop.goes_on:
                is_over.set()
        stop.ending = await _end(kit, kit.options.timeout_seconds + (kit.options.drain_seconds or 0))
    # What it has sent at its end may still have to be read.
    with contextlib.suppress(Failed, TimeoutError):
        async with asyncio.timeout(SLACK_SECONDS):
            await stop.owed.wait_until(lambda played: len(played.completions) > stop.offered_before, "a last offer")
    stop.offered_at_the_end = len(stop.owed.completions)
    is_back.set()
    is_over.set()
    if kit.command is not None:
        try:
            await start_again(kit.command, "SIGTERM")
            stop.is_back = True
            await stop.owed.result()
            if text := stop.owed.contradiction():
                raise Failed("the same result after SIGTERM and a new start", text, usually=stop.owed.why_contradicted)
            if stop.turned_away is not None:
                stop.state_of_turned_away = await kit.status(stop.turned_away.rollout_id)
            with contextlib.suppress(Failed):  # another check's matter
                stop.owed_state = await until_delivered(kit, stop.owed)
        except Failed as failure:
            stop.missing = failure
        try:
            # By it or by the next process, as of what has not begun.
            await require_reports_of(many, "SIGTERM, in all")
        except Failed as failure:
            stop.problem = stop.problem or failure
    return stop


async def _go_on(kit: Kit, stop: Stop, model: asyncio.Event, left_waiting: asyncio.Event) -> None:
    """While the server ends: ask what it says of that, and let the model answer.

    Raises:
        Failed: inits are taken, rollouts are not reported, or do not end as they should.
        NotExercised: this machine was too late to tell.
    """
    late = await _refused_after_sigterm(kit, stop)
    # The model answers in its time, however long the server takes to say how it stands.
    asyncio.get_running_loop().call_later(STILL_RUNNING_SECONDS, model.set)
    wanted = {
        "GET /ready": ("GET", "/ready", 503),
        "GET its state": ("GET", path_of(stop.running[0].rollout_id), 200),
        "POST its cancel": ("POST", f"{path_of(stop.cancelled.rollout_id)}/cancel", 202),
    }
    given = await asyncio.gather(*(_asked(kit, stop, *one) for one in wanted.values()))
    stop.during = dict(zip(wanted, given, strict=True))
    await model.wait()
    left_waiting.set()
    await require_reports([*stop.running, *stop.refused.values(), stop.cancelled, *late], "SIGTERM")
    for rollout in (*stop.running, *stop.refused.values()):
        end = (await rollout.result()).get("status")
        is_over = rollout.completions[0].came_at >= _surely_goes_on_until(kit, stop)
        # One that was refused may wait longer than it was told to, until the drain is over.
        if end == "COMPLETED" or (is_over and rollout not in stop.running):
            continue
        # On a busy machine the answer comes late, and a drain that is short may have been over.
        if is_over:
            raise maybe_over(kit)
        looked_at(rollout)
        what = f"COMPLETED, of a rollout whose model answered {STILL_RUNNING_SECONDS:g} s after SIGTERM"
        if rollout in stop.running:
            raise Failed(what, str(end))
        refusal = next(how for how, one in stop.refused.items() if one is rollout)
        raise Failed(f"{what}, and {refusal} just before it", str(end), usually=ENDED_IN_A_PAUSE)


def why_no_end_is_awaited(kit: Kit) -> str:
    """Why no rollout lasts until the drain is over; an empty text where one does."""
    seconds, most = kit.options.drain_seconds, kit.options.timeout_seconds
    if seconds is not None and not LEAST_DRAIN_SECONDS <= seconds <= most:
        return (
            f"only a drain of {LEAST_DRAIN_SECONDS:g} to {most:g} s (--timeout) is waited for, not one of {seconds:g} s"
        )
    return ""


def _least_drain(kit: Kit) -> float:
    """In which a rollout that runs may end."""
    return SHORT_DRAIN_SECONDS if kit.options.drain_seconds is None else kit.options.drain_seconds


def _surely_goes_on_until(kit: Kit, stop: Stop) -> float:
    """What the server does before that, it does while its rollouts may go on."""
    return stop.began_at + _least_drain(kit) - SLACK_SECONDS


def maybe_over(kit: Kit) -> TooBusy:
    """The verdict on what came so late that rollouts need not go on."""
    return TooBusy(f"it was so late that a drain of {_least_drain(kit):g} s may have been over")


async def _asked(kit: Kit, stop: Stop, method: str, path: str, status: int) -> httpx.Response | None:
    """The answer, asked for again for a while: one of several processes may be at its end already."""
    deadline, said, in_vain = time.monotonic() + ANSWER_SECONDS, None, 0
    while (response := await _answer(kit, method, path)) is None or response.status_code != status:
        said = said if response is None else response  # which counts, also if the process ends meanwhile
        in_vain += time.monotonic() < _surely_goes_on_until(kit, stop)
        if time.monotonic() > deadline:
            stop.was_asked_late = stop.was_asked_late or in_vain < ENOUGH_ASKED
            break
        await asyncio.sleep(POLL_SECONDS)
    return said if response is None else response


async def _answer(kit: Kit, method: str, path: str) -> httpx.Response | None:
    try:
        key = {"Authorization": f"Bearer {kit.options.api_key}"} if kit.options.api_key else {}
        return await kit.http.request(method, f"{kit.options.server_url}{path}", headers=key)
    except httpx.TransportError:
        return None


def _terminate(kit: Kit) -> None:
    if kit.command is not None:
        kit.command.terminate()
    elif kit.options.server_pid is not None:
        try:
            os.kill(kit.options.server_pid, signal.SIGTERM)
        except OSError as error:
            raise Failed(f"a process {kit.options.server_pid} to stop", error.strerror or "none") from None


async def _refused_after_sigterm(kit: Kit, stop: Stop) -> list[PlayedRollout]:
    """Ask until inits are refused; what is still accepted in between is owed a result too."""
    late: list[PlayedRollout] = []
    key = {"Authorization": f"Bearer {kit.options.api_key}"} if kit.options.api_key else {}
    while len(late) < MANY_TAKEN:
        rollout = kit.play()
        try:
            url = f"{kit.options.server_url}{INIT_PATH}"
            response = await kit.http.request(
                "POST", url, content=encoded(rollout.init), headers={"Content-Type": "application/json", **key}
            )
        except httpx.TransportError:
            return late
        if response.status_code == 503:
            stop.turned_away = rollout
        if response.status_code != 202:
            stop.refused_badly = _fault_of_refusal(response)
            return late
        kit.took(rollout, response)
        late.append(rollout)
        await asyncio.sleep(POLL_SECONDS)
    seconds = time.monotonic() - stop.began_at
    got = f"202 to {MANY_TAKEN}, for {seconds:.1f} s"
    raise Failed("503, or no connection, to an init after SIGTERM", got, usually=TAKES_INITS)


def _fault_of_refusal(response: httpx.Response) -> Failed | None:
    if response.status_code != 503:
        return Failed("503, or no connection, to an init after SIGTERM", describe(response))
    if retry_after_seconds(response) is None:
        return Failed("Retry-After with the 503 to an init after SIGTERM", describe(response), usually=NO_TIME)
    if field_of(response, "code") != "shutting_down":
        return Failed("the code 'shutting_down' with the 503 to an init after SIGTERM", describe(response))
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
