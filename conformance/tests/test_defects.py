"""The kit judges an independent server right, and finds each planted defect by the check that is made for it."""

import asyncio

import pytest
from servers.judging import KEY, Found, found_side_by_side, is_found, judged
from servers.mutants import MUTANTS, Mutant
from servers.small import SmallServer

from rollout_conformance import Check, Report, Status, select

# The mutants are judged in a fixture, all of them in the time of the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENT_SECONDS = 30.0
SILENT_SECONDS = 5.0
AT_ONCE, TIMED_AT_ONCE = 16, 5
"""What is found by how soon something comes has less beside it."""
IN_PROCESS = [mutant for mutant in MUTANTS.values() if mutant.needs != "process"]


def checks_for(mutant: Mutant) -> tuple[Check, ...]:
    """What is run: the checks that must fail, and those that play plain rollouts and must not."""
    neighbours = {"init.nulls", "chat.reserved", "retries.cut", "errors.short_message"} - mutant.finds
    names = mutant.finds | mutant.beside | (set() if mutant.is_silent or mutant.is_total else neighbours)
    return select(sorted(names))


async def judge(mutant: Mutant) -> Report:
    server = mutant.server(api_key=KEY if mutant.needs == "key" else None)
    limit = SILENT_SECONDS if mutant.is_silent else PATIENT_SECONDS
    return await judged(server, checks_for(mutant), timeout_seconds=limit)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, list[Found]]:
    async def all_of_them() -> dict[str, list[Found]]:
        timed = [mutant for mutant in IN_PROCESS if mutant.is_timed]
        others = [mutant for mutant in IN_PROCESS if not mutant.is_timed]
        return {
            **await found_side_by_side(others, judge, AT_ONCE),
            **await found_side_by_side(timed, judge, TIMED_AT_ONCE),
        }

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("mutant", IN_PROCESS, ids=lambda mutant: mutant.name)
def test_each_planted_defect_is_found_by_its_check(mutant: Mutant, verdicts: dict[str, list[Found]]) -> None:
    assert is_found(mutant, verdicts[mutant.name][-1]), verdicts[mutant.name]


async def test_without_a_key_the_checks_of_keys_are_skipped_with_a_reason() -> None:
    report = await judged(SmallServer(), select(["auth"]), timeout_seconds=PATIENT_SECONDS)
    assert {result.status for result in report.results} == {Status.SKIPPED}
    assert all("no key" in result.reason for result in report.results)
    assert not report.is_success


def test_every_check_has_a_planted_defect() -> None:
    found = set().union(*(mutant.finds for mutant in MUTANTS.values()))
    checks = {check.id for check in select()}
    assert found - checks == set()
    assert checks - found == set()
