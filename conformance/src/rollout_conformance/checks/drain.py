"""The end of the server: what it has accepted is reported, by itself or by its successor on the same journal."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from rollout_conformance.catalogue import check
from rollout_conformance.endpoint import Answer
from rollout_conformance.kit import INIT_PATH, Kit, describe, path_of, retry_after_seconds
from rollout_conformance.played import Call, PlayedRollout
from rollout_conformance.scripts import acknowledge, answering, encoded, waiting_for
from rollout_conformance.server_command import own_client
from rollout_conformance.strict_json import is_same_document
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import STOPPING, Failed, NotExercised, Skipped

if TYPE_CHECKING:
    from rollout_conformance.server_command import ServerCommand

ROLLOUTS = 4
POLL_SECONDS = 0.05
STILL_RUNNING_SECONDS = 1.0
"""How long rollouts go on while the server has begun to end."""


@dataclass
class Restart:
    """What was seen of a server that was killed while rollouts ran, and started again."""

    problem: Failed | None = None
    """Why results are missing, or are others."""
    first: httpx.Response | None = None
    """The answer to an init before it."""
    again: httpx.Response | None = None
    """That to the same init after it."""
    runs: int = 1
    """How often the agent asked the model for its first message."""
    cut_off: str = ""
    """What is wrong with the end of a rollout that ran when the process ended."""


async def restart_of(kit: Kit) -> Restart:
    """The one restart of the run, which the checks of this group look at."""
    if kit.command is None:
        raise Skipped("the kit can kill and start only what it has started itself: give --command")
    if kit.trainer.restart is None:
        kit.trainer.restart = asyncio.create_task(_restart(kit, kit.command))
    return await asyncio.shield(kit.trainer.restart)


async def _restart(kit: Kit, command: "ServerCommand") -> Restart:
    restart = Restart()
    model, is_back = kit.hold(), asyncio.Event()

    async def once_back(call: Call) -> Answer | None:
        return await acknowledge(call) if is_back.is_set() else Answer(503)

    running = [await kit.start(waiting_for(model, answering())) for _ in range(ROLLOUTS)]
    undelivered = kit.play(on_completed=once_back)
    undelivered.has_delivery_faults = True
    restart.first = await kit.send(undelivered)
    for rollout in running:
        await rollout.first_chat()
    await undelivered.wait_until(lambda played: bool(played.completions), "a terminal result")
    await command.kill()
    model.set()
    await command.start()
    try:
        restart.again = await kit.post(undelivered.init)
        is_back.set()
        await _require_reports([*running, undelivered], "kill -9 and a new start")
        if undelivered.contradiction():
            raise Failed("the same result after kill -9 and a new start", undelivered.contradiction())
        if len(keys := {call.key for call in undelivered.completions}) > 1:
            raise Failed("the same Idempotency-Key with a result after kill -9 and a new start", quoted(sorted(keys)))
        await kit.must_serve()
        ends = [(await rollout.result()).get("status") for rollout in running]
        restart.cut_off = next(
            (
                f"{end}, after {len(one.chats)} calls"
                for one, end in zip(running, ends, strict=True)
                if end != "ERROR" or len(one.chats) > 1
            ),
            "",
        )
    except Failed as failure:
        restart.problem = failure
    finally:
        is_back.set()
    restart.runs = len(undelivered.chats)
    return restart


@check("drain.killed", "way-2", "After kill -9 and a new start, every rollout that had a 202 is reported.", STOPPING)
async def killed(kit: Kit) -> None:
    if problem := (await restart_of(kit)).problem:
        raise problem


@check(
    "drain.cut_off", "way-5", "What ran when the process was killed is reported as an ERROR, not run again.", STOPPING
)
async def cut_off(kit: Kit) -> None:
    restart = await restart_of(kit)
    if restart.problem:
        raise NotExercised("what was accepted before kill -9 was not reported after it")
    if restart.cut_off:
        raise Failed(
            "an ERROR, and no further call, for a rollout that ran when the process was killed", restart.cut_off
        )


@check("drain.repeated", "same-3", "An init repeated after that gets the first answer, and starts nothing.", STOPPING)
async def repeated(kit: Kit) -> None:
    restart = await restart_of(kit)
    if restart.first is None or restart.again is None:
        raise NotExercised("the server did not come back")
    if restart.again.status_code != 202 or not is_same_document(restart.first.content, restart.again.content):
        raise Failed("the first answer to an init repeated after kill -9 and a new start", describe(restart.again))
    if restart.runs > 1:
        raise Failed("one run of a rollout whose result was on record before kill -9", f"{restart.runs} first calls")


@dataclass
class Stop:
    """What was seen of a server that was sent SIGTERM while rollouts ran."""

    problem: Failed | None = None
    """Why rollouts are missing, or inits were taken all the same."""
    during: dict[str, httpx.Response | None] = field(default_factory=dict)
    """What was answered while rollouts ran, by what was asked; ``None`` where no connection came about."""
    ending: str = ""
    """How the process ended, where not with exit code 0."""


async def stop_of(kit: Kit) -> Stop:
    """The one stop of the run, which the checks of this group look at."""
    if kit.command is None and kit.options.server_pid is None:
        raise Skipped("the kit stops only a server it may stop: give --command, or --server-pid")
    if kit.trainer.stop is None:
        kit.trainer.stop = asyncio.create_task(_stop(kit))
    return await asyncio.shield(kit.trainer.stop)


async def _stop(kit: Kit) -> Stop:
    stop = Stop()
    model = kit.hold()
    running = [await kit.start(waiting_for(model, answering())) for _ in range(ROLLOUTS)]
    for rollout in running:
        await rollout.first_chat()
    _terminate(kit)
    try:
        late = await _refused_after_sigterm(kit)
        for what, path, status in (
            ("GET /ready", "/ready", 503),
            ("GET its state", path_of(running[0].rollout_id), 200),
        ):
            stop.during[what] = await _asked(kit, path, status)
        await asyncio.sleep(STILL_RUNNING_SECONDS)
        model.set()
        await _require_reports([*running, *late], "SIGTERM")
    except Failed as failure:
        stop.problem = failure
    finally:
        model.set()
    stop.ending = await _end(kit)
    return stop


async def _asked(kit: Kit, path: str, status: int) -> httpx.Response | None:
    """The answer, asked for again for a while: one of several processes may be at its end already."""
    deadline = time.monotonic() + STILL_RUNNING_SECONDS
    while (response := await _answer(kit, path)) is None or response.status_code != status:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(POLL_SECONDS)
    return response


async def _answer(kit: Kit, path: str) -> httpx.Response | None:
    try:
        async with own_client(kit.options.timeout_seconds) as http:
            key = {"Authorization": f"Bearer {kit.options.api_key}"} if kit.options.api_key else {}
            return await http.get(f"{kit.options.server_url}{path}", headers=key)
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


@check("drain.answers", "drain-3", "Meanwhile /ready says 503, and the state of a rollout is told.", STOPPING)
async def answers(kit: Kit) -> None:
    expected = {"GET /ready": 503, "GET its state": 200}
    during = (await stop_of(kit)).during
    if not during:
        raise NotExercised("rollouts were not seen to go on after SIGTERM")
    for what, response in during.items():
        if response is None or response.status_code != expected[what]:
            got = describe(response) if response is not None else "no connection"
            raise Failed(f"{expected[what]} to {what} while rollouts go on after SIGTERM", got)


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
            return late
        if response.status_code != 202:
            raise Failed("503, or no connection, to an init after SIGTERM", describe(response))
        kit.took(rollout, response)
        late.append(rollout)
        await asyncio.sleep(POLL_SECONDS)
    raise Failed("503, or no connection, to an init after SIGTERM", f"202 for {kit.options.timeout_seconds:g} s")


async def _require_reports(rollouts: list[PlayedRollout], after: str) -> None:
    results = await asyncio.gather(*(rollout.result() for rollout in rollouts), return_exceptions=True)
    missing = sum(isinstance(result, Failed) for result in results)
    if missing:
        raise Failed(
            f"a terminal result for each of {len(rollouts)} accepted rollouts after {after}", f"none for {missing}"
        )


async def _end(kit: Kit) -> str:
    limit = kit.options.timeout_seconds
    if kit.command is not None:
        code = await kit.command.exit_code(limit)
        return "" if code == 0 else f"exit code {code}" if code is not None else f"no end within {limit:g} s"
    deadline = time.monotonic() + limit
    while _is_alive(kit.options.server_pid or 0):
        if time.monotonic() > deadline:
            return f"no end within {limit:g} s"
        await asyncio.sleep(POLL_SECONDS)
    return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    # A child that nobody has waited for still has its id.
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123 - a file of the kernel's
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
