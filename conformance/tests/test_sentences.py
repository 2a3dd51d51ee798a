"""Every sentence of the protocol has a check or a reason, every check a sentence, and a name never changes hands."""

from collections import defaultdict

from rollout_conformance import Result, Status, select
from rollout_conformance.coverage import coverage
from rollout_conformance.sentences import WHY_NOT, WITHDRAWN, Level, sentences


def tried() -> dict[str, list[str]]:
    """By sentence: its checks."""
    found = defaultdict(list)
    for check in select():
        for name in check.sentences:
            found[name].append(check.id)
    return found


def test_every_sentence_has_a_check_or_a_reason_and_not_both() -> None:
    assert set(tried()) | set(WHY_NOT) == set(sentences())
    assert set(tried()) & set(WHY_NOT) == set()


def test_a_permission_has_no_check() -> None:
    assert {name for name, one in sentences().items() if one.level is Level.MAY} <= set(WHY_NOT)


def test_every_check_has_sentences_and_they_are_of_one_level() -> None:
    mixed = {
        check.id: check.sentences
        for check in select()
        if len({sentences()[name].level for name in check.sentences}) != 1
    }
    assert mixed == {}


def test_a_name_stays_with_its_sentence() -> None:
    numbers = defaultdict(list)
    for name in [*sentences(), *WITHDRAWN]:
        topic, _, number = name.rpartition("-")
        numbers[topic].append(int(number))
    # One that is gone without being withdrawn leaves a gap, and so does one that was numbered anew.
    assert {topic: sorted(found) for topic, found in numbers.items()} == {
        topic: list(range(1, len(found) + 1)) for topic, found in numbers.items()
    }


def test_a_run_says_how_many_sentences_it_has_tried() -> None:
    [accepted, at_once] = select(["init.accepted", "init.at_once"])
    covered = coverage([Result(accepted, Status.PASSED), Result(at_once, Status.SKIPPED, "not here")])

    assert covered.checked == accepted.sentences
    assert set(at_once.sentences) < set(covered.not_exercised)
    assert set(covered.not_checkable) == set(WHY_NOT)
    assert str(covered).startswith(f"Of {len(sentences())} sentences of the protocol 1 were checked, ")
