import pytest

from osmosis_ai.rollout.core.schemas import RolloutRequest, RolloutResponse, RolloutStatus
from osmosis_ai.rollout.trainer import book
from osmosis_ai.rollout.trainer.book import Delivery, Phase, Rollout, RolloutBook

REQUEST = RolloutRequest(rollout_id="r1", server_url="http://trainer", messages=[], completion_params={})
RESULT = RolloutResponse(rollout_id="r1", status=RolloutStatus.COMPLETED)


def rollout_in(phase: Phase) -> Rollout:
    rollout = Rollout(REQUEST)
    if phase is not Phase.DISPATCHING:
        {Phase.RUNNING: lambda: rollout.start([]), Phase.FINISHED: lambda: rollout.finish(RESULT)}.get(
            phase, rollout.abandon
        )()
    assert rollout.phase is phase
    return rollout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Phase.DISPATCHING, Phase.RUNNING),
        (Phase.DISPATCHING, Phase.FINISHED),
        (Phase.DISPATCHING, Phase.ABANDONED),
        (Phase.RUNNING, Phase.FINISHED),
        (Phase.RUNNING, Phase.ABANDONED),
    ],
)
def test_a_rollout_may_go_on(before: Phase, after: Phase) -> None:
    rollout = rollout_in(before)
    if after is Phase.RUNNING:
        rollout.start([{"function": {}}])
        assert rollout.tools == [{"function": {}}]
    elif after is Phase.FINISHED:
        rollout.finish(RESULT)
        assert rollout.result is RESULT
    else:
        rollout.abandon()
    assert rollout.phase is after
    assert rollout.ended.is_set() == (after is not Phase.RUNNING)
    assert rollout.tools_known_or_ended.is_set()


@pytest.mark.parametrize("before", [Phase.FINISHED, Phase.ABANDONED])
def test_an_end_is_final(before: Phase) -> None:
    rollout = rollout_in(before)
    with pytest.raises(ValueError, match=f"r1 cannot go from {before.value} to finished"):
        rollout.finish(RESULT)
    with pytest.raises(ValueError, match=f"r1 cannot go from {before.value} to abandoned"):
        rollout.abandon()


@pytest.mark.parametrize("ended", [Phase.FINISHED, Phase.ABANDONED])
def test_a_rollout_starts_once_and_a_202_after_its_end_changes_nothing(ended: Phase) -> None:
    with pytest.raises(ValueError, match="from running to running"):
        rollout_in(Phase.RUNNING).start([])
    rollout = rollout_in(ended)
    rollout.start([{}])
    assert (rollout.phase, rollout.tools) == (ended, [])


def test_the_first_result_counts_and_later_ones_are_told_apart() -> None:
    rollouts = RolloutBook()
    assert rollouts.deliver(RESULT, b"one") is Delivery.UNKNOWN
    rollout = rollouts.open(REQUEST)
    assert rollouts.deliver(RESULT, b"one") is Delivery.ACCEPTED
    assert rollouts.deliver(RESULT, b"one") is Delivery.REPEATED
    rollouts.close(rollout)
    assert rollouts.deliver(RESULT, b"one") is Delivery.REPEATED
    assert rollouts.deliver(RESULT, b"two") is Delivery.CONTRADICTED
    assert rollouts.deliveries[Delivery.REPEATED] == 2


def test_the_result_of_an_abandoned_rollout_is_late_and_then_known() -> None:
    rollouts = RolloutBook()
    rollouts.close(rollouts.open(REQUEST))
    assert rollouts.find("r1") is None
    assert rollouts.has_ended("r1")
    assert rollouts.deliver(RESULT, b"one") is Delivery.LATE
    assert rollouts.deliver(RESULT, b"one") is Delivery.REPEATED
    assert rollouts.deliver(RESULT, b"two") is Delivery.CONTRADICTED


def test_only_the_newest_ends_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_REMEMBERED", 2)
    rollouts = RolloutBook()
    for number in range(3):
        rollouts.close(rollouts.open(REQUEST.model_copy(update={"rollout_id": f"r{number}"})))
    assert [rollouts.has_ended(f"r{number}") for number in range(3)] == [False, True, True]


def test_messages_that_go_on_are_told_from_messages_that_were_rewritten() -> None:
    rollout = Rollout(REQUEST)
    for messages in ([{"role": "user"}], [{"role": "user"}, {"role": "assistant"}]):
        rollout.note_messages(messages)
        rollout.note_messages(messages)
        assert rollout.rewrites == ()
    rollout.note_messages([{"role": "user"}, {"role": "tool"}])
    (told,) = rollout.rewrites
    assert told.startswith("messages[1] was changed (role was 'assistant' and is 'tool') before chat call 5")


def test_a_result_whose_conversation_is_another_one_is_told_and_so_is_what_the_server_tells() -> None:
    rollout = Rollout(REQUEST)
    rollout.note_messages([{"role": "user"}])
    rollout.note_reply([{"role": "user"}], {"role": "assistant", "content": "4"})
    told = ["the server's own", 7, "x" * 1000]
    rollout.finish(
        RolloutResponse(
            rollout_id="r1",
            status=RolloutStatus.COMPLETED,
            final_messages=[{"role": "user"}, {"role": "assistant", "content": "5"}],
            extra_fields={"messages_rewritten": told},
        )
    )
    first, *others = rollout.rewrites
    assert "messages[1], a reply of the model, was changed (content was '4' and is '5')" in first
    assert others == ["the server's own", "x" * book.MAX_TOLD_CHARACTERS]
