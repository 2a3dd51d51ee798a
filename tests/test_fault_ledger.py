"""The fault bench would notice: its ledger calls what is lost lost, and what contradicts contradicting."""

import json

import pytest

from bench.faults.ledger import Ledger


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
    ledger.chatted("r", "one run")
    ledger.chatted("r", "one run")
    assert ledger.started_twice == set()
    ledger.chatted("r", "another run")
    assert ledger.started_twice == {"r"}


def test_a_call_after_the_result_is_noticed(ledger: Ledger) -> None:
    ledger.posted("r", body(), kept=False)
    ledger.chatted("r", "a run")
    assert ledger.chats_after_result == {"r"}


def test_only_a_success_may_carry_a_reward(ledger: Ledger) -> None:
    ledger.posted("r", body(reward=1.0), kept=True)
    assert ledger.rewarded_failures == set()
    ledger.posted("r", body("timeout", reward=0.0), kept=True)
    assert ledger.rewarded_failures == {"r"}


def test_another_reply_to_the_same_init_is_noticed(ledger: Ledger) -> None:
    ledger.promised("r", b"reply")
    assert ledger.answered_differently == set()
    ledger.promised("r", b"another reply")
    assert ledger.answered_differently == {"r"}
