"""The end of the server: what it has accepted is reported, by itself or by its successor on the same journal."""

import asyncio
import os
import signal
import time

import httpx

from rollout_conformance.catalogue import check
from rollout_conformance.endpoint import Answer
from rollout_conformance.kit import INIT_PATH, Kit, describe
from rollout_conformance.played import Call, PlayedRollout
from rollout_conformance.scripts import acknowledge, answering, encoded, waiting_for
from rollout_conformance.server_command import own_client
from rollout_conformance.vocabulary import STOPPING, Failed, Skipped

ROLLOUTS = 4
POLL_SECONDS = 0.05
STILL_RUNNING_SECONDS = 1.0
"""How long rollouts go on while the server has begun to end."""


@check(
    "drain.killed", "way-2 way-5", "After kill -9 and a new start, every rollout that had a 202 is reported.", STOPPING
)
async def killed(kit: Kit) -> None:
    if kit.command is None:
        raise Skipped("the kit can kill and start only what it has started itself: give --command")
    model, is_back = kit.hold(), asyncio.Event()

    async def once_back(call: Call) -> Answer | None:
        return await acknowledge(call) if is_back.is_set() else Answer(503)

    running = [await kit.start(waiting_for(model, answering())) for _ in range(ROLLOUTS)]
    undelivered = kit.play(on_completed=once_back)
    undelivered.has_delivery_faults = True
    await kit.send(undelivered)
    for rollout in running:
        await rollout.first_chat()
    await undelivered.wait_until(lambda played: bool(played.completions), "a terminal result")
    await kit.command.kill()
    model.set()
    is_back.set()
    await kit.command.start()
    await _require_reports([*running, undelivered], "kill -9 and a new start")
    if undelivered.contradiction():
        raise Failed("the same result after kill -9 and a new start", "another one")
    await kit.must_serve()


@check(
    "drain.stopped",
    "drain-1 drain-2",
    "After SIGTERM inits are refused, running rollouts are reported, the exit code is 0.",
    STOPPING,
)
async def stopped(kit: Kit) -> None:
    if kit.command is None and kit.options.server_pid is None:
        raise Skipped("the kit stops only a server it may stop: give --command, or --server-pid")
    model = kit.hold()
    running = [await kit.start(waiting_for(model, answering())) for _ in range(ROLLOUTS)]
    for rollout in running:
        await rollout.first_chat()
    _terminate(kit)
    late = await _refused_after_sigterm(kit)
    await asyncio.sleep(STILL_RUNNING_SECONDS)
    model.set()
    await _require_reports([*running, *late], "SIGTERM")
    await _require_end(kit)


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


async def _require_end(kit: Kit) -> None:
    limit = kit.options.timeout_seconds
    if kit.command is not None:
        code = await kit.command.exit_code(limit)
        if code != 0:
            raise Failed("exit code 0 after SIGTERM", f"{code}" if code is not None else f"no end within {limit:g} s")
        return
    deadline = time.monotonic() + limit
    while _is_alive(kit.options.server_pid or 0):
        if time.monotonic() > deadline:
            raise Failed("the end of the process after SIGTERM", f"none within {limit:g} s")
        await asyncio.sleep(POLL_SECONDS)


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
