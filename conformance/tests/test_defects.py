"""The kit judges an independent server right, and finds each planted defect by the check that is made for it."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from servers.broken import BrokenServer
from servers.serving import serving
from servers.small import SmallServer

from rollout_conformance import KitOptions, Level, Report, Status, run, select

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
KEY = "the-key-of-the-server"
PATIENT_SECONDS = 30.0
SILENT_SECONDS = 3.0
SETTLE_SECONDS = 0.2
AT_ONCE = 8
IN_PROCESS = [broken for broken in BrokenServer.every if broken.needs != "process"]
PROCESSES = [broken for broken in BrokenServer.every if broken.needs == "process"]


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


def checks_for(broken: type[BrokenServer]) -> set[str]:
    """What is run: the checks that must fail, and those that play plain rollouts and must not."""
    neighbours = {"init.nulls", "chat.reserved", "retries.cut", "errors.short_message"} - broken.finds
    return broken.finds | (set() if broken.is_silent or broken.is_total else neighbours)


@pytest.fixture(scope="module")
def reports() -> dict[type[BrokenServer], Report]:
    """All at once: most of a run is waiting."""

    async def run_all() -> dict[type[BrokenServer], Report]:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(broken: type[BrokenServer]) -> tuple[type[BrokenServer], Report]:
            async with slots:
                server = broken(api_key=KEY if broken.needs == "key" else None)
                limit = SILENT_SECONDS if broken.is_silent else PATIENT_SECONDS
                return broken, await judged(server, *checks_for(broken), timeout_seconds=limit)

        return dict(await asyncio.gather(*map(one, IN_PROCESS)))

    return asyncio.run(run_all())


@pytest.mark.parametrize("broken", IN_PROCESS, ids=lambda broken: broken.__name__)
def test_each_planted_defect_is_found_by_its_check(
    broken: type[BrokenServer], reports: dict[type[BrokenServer], Report]
) -> None:
    assert failed(reports[broken]).keys() == broken.finds, failed(reports[broken])
    assert all(reason.startswith("expected ") for reason in failed(reports[broken]).values())


async def test_a_correct_server_passes_every_check() -> None:
    server = SmallServer(api_key=KEY)
    server.capacity = 80
    report = await judged(server, overload=200)
    skipped = {"drain.killed", "drain.stopped"}
    assert failed(report).keys() == skipped, failed(report)
    assert report.is_success


async def test_without_a_key_the_checks_of_keys_are_skipped_with_a_reason() -> None:
    report = await judged(SmallServer(), "auth")
    assert {result.status for result in report.results} == {Status.SKIPPED}
    assert all("no key" in result.reason for result in report.results)
    assert not report.is_success


def command(server: type[SmallServer], port: int, journal: Path) -> tuple[str, ...]:
    return sys.executable, "-m", "servers.small", server.__name__, str(port), str(journal)


async def judged_process(server: type[SmallServer], journal: Path, *only: str, timeout_seconds: float) -> Report:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = KitOptions(
        f"http://127.0.0.1:{port}",
        timeout_seconds=timeout_seconds,
        settle_seconds=SETTLE_SECONDS,
        server_command=command(server, port, journal),
    )
    return await run(options, select(only), strict=True)


async def test_a_correct_process_passes_being_killed_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    report = await judged_process(SmallServer, tmp_path / "journal", "drain", timeout_seconds=PATIENT_SECONDS)
    assert failed(report) == {}


@pytest.mark.slow
@pytest.mark.parametrize("broken", PROCESSES, ids=lambda broken: broken.__name__)
async def test_a_defect_at_the_end_of_the_process_is_found(
    broken: type[BrokenServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    limit = SILENT_SECONDS if broken.is_silent else PATIENT_SECONDS
    report = await judged_process(broken, tmp_path / "journal", *broken.finds, timeout_seconds=limit)
    assert failed(report).keys() == broken.finds, failed(report)


def test_every_must_has_a_planted_defect() -> None:
    found = set().union(*(broken.finds for broken in BrokenServer.every))
    without = {check.id for check in select() if check.level is Level.MUST} - found
    assert without == set()
