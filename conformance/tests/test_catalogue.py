"""The catalogue: ids are unique, summaries are lines, and checks are chosen by id, group or pattern."""

import re
import subprocess
import sys

import pytest

from rollout_conformance import select
from rollout_conformance.catalogue import GROUPS
from rollout_conformance.vocabulary import UsageError


def test_every_check_has_an_id_of_its_own_in_a_known_group_and_one_line() -> None:
    checks = select()
    assert len({check.id for check in checks}) == len(checks)
    assert {check.group for check in checks} == set(GROUPS)
    assert all(re.fullmatch(r"[a-z]+\.[a-z0-9_]+", check.id) for check in checks)
    assert all(check.summary.endswith(".") and len(check.summary) < 110 for check in checks)


def test_the_order_of_checks_does_not_depend_on_what_was_imported_first() -> None:
    told = "import rollout_conformance.checks.delays; from rollout_conformance import select\n"
    told += "print(*(check.id for check in select()))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [check.id for check in select()]


def test_checks_are_chosen_by_id_group_and_pattern() -> None:
    assert [check.id for check in select(["init.tools"])] == ["init.tools"]
    assert {check.group for check in select(["auth", "ids"])} == {"auth", "ids"}
    assert {check.id for check in select(["*.too_many"])} == {"retries.too_many", "delivery.too_many"}
    assert "init.tools" not in {check.id for check in select(["init"], ["init.tools"])}


@pytest.mark.parametrize(("only", "skip"), [(["nope"], []), ([], ["nope"]), (["init.tools"], ["init"])])
def test_a_choice_of_nothing_is_an_error(only: list[str], skip: list[str]) -> None:
    with pytest.raises(UsageError):
        select(only, skip)
