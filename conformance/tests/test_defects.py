"""The kit judges an independent server right, and finds each planted defect by the check that is made for it."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from servers.mutants import MUTANTS, Mutant
from servers.serving import serving
from servers.small import DRAIN_VARIABLE, SmallServer

from rollout_conformance import ConformanceError, KitOptions, Report, Status, run, select

# The mutants are judged in a fixture, all of them in the time of the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TESTS = Path(__file__).parent
KEY = "the-key-of-the-server"
PATIENT_SECONDS = 30.0
SILENT_SECONDS = 5.0
CORRECT_SECONDS = 180.0
"""Of a correct server nothing fails to come, so it is no wait: all share one event loop, on a machine that is busy."""
SETTLE_SECONDS = 0.2
DRAIN_SECONDS = 6.0
AT_ONCE = 8
IN_PROCESS = [mutant for mutant in MUTANTS.values() if mutant.needs != "process"]
PROCESSES = [mutant for mutant in MUTANTS.values() if mutant.needs == "process"]


async def judged(
    server: SmallServer, *only: str, timeout_seconds: float = PATIENT_SECONDS, overload: int = 60
) -> Report:
    """The kit's report on a server in this process."""
    async with serving(server) as url:
        options = KitOptions(
            url,
            server.api_key,
            timeout_seconds=timeout_seconds,
            settle_seconds=SETTLE_SECONDS,
            overload_rollouts=overload,
        )
        return await run(options, select(only), strict=True)


def failed(report: Report) -> dict[str, str]:
    return {result.check.id: result.reason for result in report.results if result.status is not Status.PASSED}


def checks_for(mutant: Mutant) -> set[str]:
    """What is run: the checks that must fail, and those that play plain rollouts and must not."""
    neighbours = {"init.nulls", "chat.reserved", "retries.cut", "errors.short_message"} - mutant.finds
    return set(mutant.finds | mutant.beside) | (set() if mutant.is_silent or mutant.is_total else neighbours)


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """All at once, but for those that are found by time: most of a run is waiting."""

    async def run_all() -> dict[str, Report]:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(mutant: Mutant) -> tuple[str, Report]:
            async with slots:
                server = mutant.server(api_key=KEY if mutant.needs == "key" else None)
                limit = SILENT_SECONDS if mutant.is_silent else PATIENT_SECONDS
                try:
                    report = await judged(server, *checks_for(mutant), timeout_seconds=limit)
                except ConformanceError:  # it did not answer in time: all of them share one event loop
                    report = await judged(server, *checks_for(mutant), timeout_seconds=PATIENT_SECONDS)
                return mutant.name, report

        together = await asyncio.gather(*(one(mutant) for mutant in IN_PROCESS if not mutant.is_timed))
        return dict([*together, *[await one(mutant) for mutant in IN_PROCESS if mutant.is_timed]])

    return asyncio.run(run_all())


@pytest.mark.parametrize("mutant", IN_PROCESS, ids=lambda mutant: mutant.name)
def test_each_planted_defect_is_found_by_its_check(mutant: Mutant, reports: dict[str, Report]) -> None:
    found = failed(reports[mutant.name])
    assert found.keys() == mutant.finds, found
    assert all(reason.startswith("expected ") for reason in found.values())


async def test_a_correct_server_passes_every_check() -> None:
    server = SmallServer(api_key=KEY)
    server.capacity = 300
    report = await judged(server, timeout_seconds=CORRECT_SECONDS, overload=500)
    skipped = {check.id for check in select(["drain", "limits"])}
    assert failed(report).keys() == skipped, failed(report)
    assert report.is_success


async def test_without_a_key_the_checks_of_keys_are_skipped_with_a_reason() -> None:
    report = await judged(SmallServer(), "auth")
    assert {result.status for result in report.results} == {Status.SKIPPED}
    assert all("no key" in result.reason for result in report.results)
    assert not report.is_success


def command(name: str, port: int, journal: Path) -> tuple[str, ...]:
    return sys.executable, "-m", "servers.small", name, str(port), str(journal)


async def judged_process(
    name: str, journal: Path, *only: str, timeout_seconds: float, drain_seconds: float | None = None
) -> Report:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = KitOptions(
        f"http://127.0.0.1:{port}",
        timeout_seconds=timeout_seconds,
        settle_seconds=SETTLE_SECONDS,
        server_command=command(name, port, journal),
        drain_seconds=drain_seconds,
    )
    return await run(options, select(only), strict=True)


async def test_a_correct_process_passes_being_killed_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv(DRAIN_VARIABLE, str(DRAIN_SECONDS))
    report = await judged_process(
        "correct", tmp_path / "journal", "drain", "limits", timeout_seconds=CORRECT_SECONDS, drain_seconds=DRAIN_SECONDS
    )
    assert failed(report) == {}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", PROCESSES, ids=lambda mutant: mutant.name)
async def test_a_defect_at_the_end_of_the_process_is_found(
    mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    limit = SILENT_SECONDS if mutant.is_silent else PATIENT_SECONDS
    # That a drain is too short is found where its length is said; what comes at its end, without.
    drain_seconds = DRAIN_SECONDS if mutant.name == "ends-what-lasts-too-soon" else None
    if drain_seconds is not None:
        monkeypatch.setenv(DRAIN_VARIABLE, str(drain_seconds))
    report = await judged_process(
        mutant.name, tmp_path / "journal", *mutant.finds, timeout_seconds=limit, drain_seconds=drain_seconds
    )
    assert failed(report).keys() == mutant.finds, failed(report)


def test_every_check_has_a_planted_defect() -> None:
    found = set().union(*(mutant.finds for mutant in MUTANTS.values()))
    checks = {check.id for check in select()}
    assert found - checks == set()
    assert checks - found == set()
