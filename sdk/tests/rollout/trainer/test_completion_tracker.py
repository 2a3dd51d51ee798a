"""Waiting for what a mock trainer received (`RolloutCompletionTracker` of `osmosis_ai.rollout.trainer.testing`)."""

import threading

import pytest

from osmosis_ai.rollout.trainer.testing import RolloutCompletionTracker


@pytest.fixture
def tracker() -> RolloutCompletionTracker:
    return RolloutCompletionTracker()


def test_a_recorded_completion_ends_the_wait(tracker: RolloutCompletionTracker) -> None:
    tracker.record({"rollout_id": "r1"})
    assert tracker.wait() is True
    assert tracker.event.is_set()
    assert tracker.responses == [{"rollout_id": "r1"}]


def test_waiting_in_vain_is_false(tracker: RolloutCompletionTracker) -> None:
    assert tracker.wait(timeout=0.01) is False
    assert tracker.wait(timeout=0.01, count=1) is False


def test_setting_the_event_ends_the_wait(tracker: RolloutCompletionTracker) -> None:
    tracker.event.set()
    assert tracker.wait(0.01) is True


def test_clearing_keeps_the_objects(tracker: RolloutCompletionTracker) -> None:
    event, responses = tracker.event, tracker.responses
    tracker.record({})
    tracker.clear()
    assert tracker.event is event
    assert not event.is_set()
    assert tracker.responses is responses
    assert responses == []


def test_each_tracker_has_its_own_objects() -> None:
    first, second = RolloutCompletionTracker(), RolloutCompletionTracker()
    first.record({})
    assert second.responses == []
    assert not second.event.is_set()


def test_the_wait_for_several_ends_with_the_last(tracker: RolloutCompletionTracker) -> None:
    tracker.record({"n": 0})
    assert tracker.wait(0.01, count=3) is False
    threads = [threading.Thread(target=tracker.record, args=({"n": n},)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    assert tracker.wait(30, count=3) is True
    assert sorted(response["n"] for response in tracker.responses) == [0, 1, 2]
    for thread in threads:
        thread.join()


def test_more_completions_than_waited_for_will_do(tracker: RolloutCompletionTracker) -> None:
    for _ in range(3):
        tracker.record({})
    assert tracker.wait(0.01, count=2) is True
