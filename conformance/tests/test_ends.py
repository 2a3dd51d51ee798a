"""A server that is a process, killed and stopped: a correct one passes every check, and each defect there is found."""

import asyncio

import pytest
from servers.judging import KEY, Found, failed, found_side_by_side, is_found, judged_process
from servers.mutants import MUTANTS, Mutant

from rollout_conformance import Report, select

# As in test_defects, but that each of them is a process: side by side they wait for the ends of these.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENT_SECONDS = 30.0
SILENT_SECONDS = 5.0
CORRECT_SECONDS = 180.0
"""Of a correct server nothing fails to come, so it is no wait, on a machine that is busy."""
DRAIN_SECONDS = 6.0
OVERLOAD = 300
AT_ONCE = 6
PROCESSES = [mutant for mutant in MUTANTS.values() if mutant.needs == "process"]


async def judge(mutant: Mutant) -> Report:
    limit = SILENT_SECONDS if mutant.is_silent else PATIENT_SECONDS
    # That a drain is too short is found where its length is said; what comes at its end, without.
    drain_seconds = DRAIN_SECONDS if mutant.name == "ends-what-lasts-too-soon" else None
    checks = select(sorted(mutant.finds | mutant.beside))
    return await judged_process(mutant.name, checks, timeout_seconds=limit, drain_seconds=drain_seconds)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, list[Found]]:
    return asyncio.run(found_side_by_side(PROCESSES, judge, AT_ONCE))


@pytest.mark.parametrize("mutant", PROCESSES, ids=lambda mutant: mutant.name)
def test_a_defect_at_the_end_of_the_process_is_found(mutant: Mutant, verdicts: dict[str, list[Found]]) -> None:
    assert is_found(mutant, verdicts[mutant.name][-1]), verdicts[mutant.name]


async def test_a_correct_server_passes_every_check() -> None:
    report = await judged_process(
        "correct",
        select(),
        timeout_seconds=CORRECT_SECONDS,
        drain_seconds=DRAIN_SECONDS,
        key=KEY,
        overload=OVERLOAD,
    )
    assert failed(report) == {}
    assert report.is_success
