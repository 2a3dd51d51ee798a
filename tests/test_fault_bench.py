"""The fault bench and the hostile one would notice: what is lost is called lost, what is too large too large."""

import json
from collections import Counter
from random import Random

import pytest

from bench.faults.__main__ import main
from bench.faults.kinds import FAULTS, chosen
from bench.faults.ledger import PARTIAL_TEXT, Ledger
from bench.faults.plan import Planned, make_plan
from bench.hostile import __main__ as hostile


def body(outcome: str = "success", **fields: object) -> bytes:
    return json.dumps({"rollout_id": "r", "extra_fields": {"outcome": outcome}, **fields}).encode()


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.promised("r", b"reply")
    return ledger


def test_a_promise_without_a_kept_result_is_lost(ledger: Ledger) -> None:
    ledger.posted("r", body(), kept=False)
    assert ledger.lost == {"r"}
    ledger.posted("r", body(), kept=True)
    assert ledger.lost == set()


def test_the_same_bytes_again_are_a_redelivery_and_others_a_contradiction(ledger: Ledger) -> None:
    ledger.posted("r", body(), kept=True)
    ledger.posted("r", body(), kept=True)
    assert (ledger.redelivered, ledger.contradicting) == (1, set())
    ledger.posted("r", body("interrupted"), kept=False)
    assert ledger.contradicting == {"r"}


def test_two_runs_under_one_id_are_one_too_many(ledger: Ledger) -> None:
    ledger.chatted("r", "1-run")
    ledger.chatted("r", "1-run")
    assert ledger.started_twice == set()
    ledger.chatted("r", "2-another")
    assert ledger.started_twice == {"r"}


def test_a_call_after_the_result_is_noticed(ledger: Ledger) -> None:
    ledger.posted("r", body(), kept=False)
    ledger.chatted("r", "1-run")
    assert ledger.chats_after_result == ledger.chats_after_result_alive == {"r"}


def test_a_call_after_the_result_is_no_surprise_from_one_that_was_cut_off(ledger: Ledger) -> None:
    ledger.ended.add(1)
    ledger.posted("r", body("interrupted"), kept=True)
    ledger.chatted("r", "1-run")
    assert (ledger.chats_after_result, ledger.chats_after_result_alive) == ({"r"}, set())


def test_only_a_success_may_carry_a_reward(ledger: Ledger) -> None:
    ledger.posted("r", body(reward=1.0), kept=True)
    assert ledger.rewarded_failures == set()
    ledger.posted("r", body("timeout", reward=0.0), kept=True)
    assert ledger.rewarded_failures == {"r"}


def test_a_reply_that_was_cut_off_may_carry_none(ledger: Ledger) -> None:
    messages = [{"role": "assistant", "content": f"{PARTIAL_TEXT} 1."}]
    ledger.posted("r", body("interrupted", final_messages=messages), kept=True)
    assert ledger.rewarded_failures == set()
    ledger.posted("r", body(final_messages=messages, reward=1.0), kept=True)
    assert ledger.rewarded_failures == {"r"}


@pytest.mark.parametrize(("outcome", "failed"), [("success", set()), ("interrupted", set()), ("llm_error", {"r"})])
def test_a_failure_that_is_not_an_interruption_is_one_without_a_reason(
    ledger: Ledger, outcome: str, failed: set[str]
) -> None:
    ledger.posted("r", body(outcome), kept=True)
    assert ledger.failed == failed


def test_only_what_ran_in_a_process_that_was_ended_may_be_interrupted(ledger: Ledger) -> None:
    ledger.chatted("r", "7-run")
    ledger.ended.add(7)
    ledger.posted("r", body("interrupted"), kept=True)
    assert ledger.interrupted_alive == set()
    ledger.chatted("s", "8-run")
    ledger.posted("s", body("interrupted"), kept=True)
    assert ledger.interrupted_alive == {"s"}


def test_one_seed_gives_one_plan_and_all_has_every_fault() -> None:
    def plan(seed: int) -> list[Planned]:
        return make_plan(Random(seed), chosen(["all", "kill"]), servers=3)  # noqa: S311 - guards nothing

    assert plan(7) == plan(7)
    names = Counter(planned.fault.name for planned in plan(7))
    assert names.keys() == FAULTS.keys()
    assert names["kill"] == FAULTS["kill"].times + 1
    assert plan(7) != plan(8)


@pytest.mark.parametrize("arguments", [["--faults", "nothing"], ["--faults", "kill,nothing"], ["--workers", "many"]])
def test_a_wrong_argument_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_is_lost_when_a_server_is_killed_and_replies_are_aborted(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = main(["--rollouts", "20", "--rate", "10", "--workers", "2", "--faults", "kill,abort"])
    assert exit_code == 0, capsys.readouterr().out


@pytest.mark.slow
def test_an_attack_is_measured_and_a_server_that_is_over_its_limit_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = ["--seconds", "1", "--only", "endless header lines"]
    monkeypatch.setattr(hostile, "HEALTH_P99_SECONDS", 60.0)
    exit_code = hostile.main(attack)
    assert exit_code == 0, capsys.readouterr().out
    monkeypatch.setattr(hostile, "PEAK_MEMORY_BYTES", 1)
    assert hostile.main(attack) == 1
    assert "memory" in capsys.readouterr().out


def test_another_reply_to_the_same_init_is_noticed(ledger: Ledger) -> None:
    ledger.promised("r", b"reply")
    assert ledger.answered_differently == set()
    ledger.promised("r", b"another reply")
    assert ledger.answered_differently == {"r"}
