"""The kit's verdicts on servers of this package: in this process, in one of their own, and on many side by side."""

import asyncio
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from rollout_conformance import Check, ConformanceError, KitOptions, Report, Status, run
from servers.mutants import Mutant
from servers.serving import serving
from servers.small import DRAIN_VARIABLE, KEY_VARIABLE, SmallServer

KEY = "the-key-of-the-server"
FOLDER = Path(__file__).parents[1]
SETTLE_SECONDS = 0.2
FEW = 40
"""So many may be missed because others ran beside them, and are judged again; more are no accident."""

Found = dict[str, str]
"""By the id of each check that has not passed: why."""


async def judged(server: SmallServer, checks: Sequence[Check], *, timeout_seconds: float, overload: int = 60) -> Report:
    """The kit's report on a server in this process."""
    async with serving(server) as url:
        return await run(_options(url, server.api_key, timeout_seconds, overload), checks, strict=True)


async def judged_process(
    name: str,
    checks: Sequence[Check],
    *,
    timeout_seconds: float,
    drain_seconds: float | None = None,
    key: str | None = None,
    overload: int = 60,
) -> Report:
    """The same, on the mutant of this name, or a correct server, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"PYTHONPATH": str(FOLDER)} | ({} if key is None else {KEY_VARIABLE: key})
    variables |= {} if drain_seconds is None else {DRAIN_VARIABLE: f"{drain_seconds:g}"}
    with tempfile.TemporaryDirectory() as folder:
        words = (sys.executable, "-m", "servers.small", name, str(port), f"{folder}/journal")
        options = replace(
            _options(f"http://127.0.0.1:{port}", key, timeout_seconds, overload),
            server_command=("env", *(f"{variable}={value}" for variable, value in variables.items()), *words),
            drain_seconds=drain_seconds,
        )
        return await run(options, checks, strict=True)


def _options(url: str, key: str | None, timeout_seconds: float, overload: int) -> KitOptions:
    return KitOptions(
        url, key, timeout_seconds=timeout_seconds, settle_seconds=SETTLE_SECONDS, overload_rollouts=overload
    )


def failed(report: Report) -> Found:
    """What has not passed."""
    return {result.check.id: result.reason for result in report.results if result.status is not Status.PASSED}


def is_found(mutant: Mutant, found: Found) -> bool:
    """Whether those checks fail that must, by what they saw, and no others."""
    return found.keys() == mutant.finds and all(reason.startswith("expected ") for reason in found.values())


async def found_side_by_side(
    mutants: Collection[Mutant], judge: Callable[[Mutant], Awaitable[Report]], at_once: int
) -> dict[str, list[Found]]:
    """By mutant what is found: ``at_once`` of them side by side, for most of a run is waiting.

    One that was missed like this is judged once more, alone: it has two verdicts.
    """
    slots = asyncio.Semaphore(at_once)

    async def one(mutant: Mutant) -> Found:
        async with slots:
            try:
                return failed(await judge(mutant))
            except ConformanceError as error:  # it did not answer in time
                return {"": str(error)}

    verdicts = {
        mutant.name: [found] for mutant, found in zip(mutants, await asyncio.gather(*map(one, mutants)), strict=True)
    }
    for mutant in [mutant for mutant in mutants if not is_found(mutant, verdicts[mutant.name][0])][:FEW]:
        verdicts[mutant.name].append(await one(mutant))
    return verdicts
