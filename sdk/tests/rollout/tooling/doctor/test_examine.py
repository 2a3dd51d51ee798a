"""The table of checks and how they are run: side by side, within a time limit, whatever they do."""

import time
from typing import NoReturn

import pytest

from osmosis_ai.rollout.tooling.doctor.case import Case, Check
from osmosis_ai.rollout.tooling.doctor.examination import CHECKS, examine
from osmosis_ai.rollout.tooling.doctor.types import Diagnosis, Finding, Need, Setup, Status


def sleep(case: Case) -> Finding:
    time.sleep(600)
    return Finding(Status.OK, "Slept.", None)


def fail(case: Case) -> NoReturn:
    raise KeyError("a bug")


def quote(case: Case) -> Finding:
    return Finding(Status.PROBLEM, f"It says {case.setup.api_key}.", f"Use {case.setup.trainer_key}.")


def test_every_check_has_an_id_of_its_own_and_says_what_it_is_about() -> None:
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids) >= 15
    assert all(check.about for check in CHECKS)


def test_one_that_hangs_holds_up_nothing() -> None:
    started = time.monotonic()
    diagnosis = examine(Setup(), time_limit_seconds=0.2, checks=[Check("slow", "time", sleep)])
    assert time.monotonic() - started < 30.0  # and not 600
    finding = diagnosis.findings["slow"]
    assert finding.status is Status.NOT_CHECKED
    assert finding.fix is not None
    assert "--timeout 30" in finding.fix


def test_one_that_fails_says_so() -> None:
    finding = examine(Setup(), checks=[Check("bug", "bugs", fail)]).findings["bug"]
    assert finding.status is Status.NOT_CHECKED
    assert "KeyError" in finding.message


def test_one_without_what_it_needs_says_how_to_give_it() -> None:
    check = Check("needy", "needs", fail, (Need.TRAINER,))
    assert examine(Setup(), checks=[check]).findings["needy"].message == "Give the trainer with --trainer URL."


def test_keys_are_never_shown() -> None:
    setup = Setup(api_key="key-of-the-server", trainer_key="key-of-the-trainer")
    diagnosis = examine(setup, checks=[Check("quote", "quotes", quote)])
    assert diagnosis.findings["quote"] == Finding(Status.PROBLEM, "It says ***.", "Use ***.")
    assert "key-of-the" not in repr(setup)


@pytest.mark.parametrize(
    ("statuses", "is_healthy"),
    [([], True), ([Status.OK, Status.WARNING, Status.NOT_CHECKED], True), ([Status.OK, Status.PROBLEM], False)],
)
def test_only_a_problem_is_unhealthy(statuses: list[Status], is_healthy: bool) -> None:
    findings = {str(number): Finding(status, "", None) for number, status in enumerate(statuses)}
    assert Diagnosis(findings, 0.0).is_healthy is is_healthy
