import pytest
from support.journal import an_acceptance

from osmosis_ai.rollout.journal import (
    SETTLED,
    TRANSITIONS,
    UNSETTLED,
    Acceptance,
    JournalError,
    Move,
    RolloutState,
    UnknownKeyError,
)
from osmosis_ai.rollout.journal.types import MAX_ERROR_LENGTH, next_state, settling_move, storable_error

ACCEPTED, FINISHED = RolloutState.ACCEPTED, RolloutState.FINISHED
DELIVERED, UNDELIVERABLE = RolloutState.DELIVERED, RolloutState.UNDELIVERABLE

LEGAL = {
    (ACCEPTED, Move.FINISH): FINISHED,
    (FINISHED, Move.ACKNOWLEDGE): DELIVERED,
    (FINISHED, Move.GIVE_UP): UNDELIVERABLE,
    (DELIVERED, Move.REOPEN): FINISHED,
    (UNDELIVERABLE, Move.REOPEN): FINISHED,
    (UNDELIVERABLE, Move.ACKNOWLEDGE): DELIVERED,
}
REFUSED = {(ACCEPTED, Move.ACKNOWLEDGE), (ACCEPTED, Move.GIVE_UP)}
WITHOUT_EFFECT = {(state, move) for state in RolloutState for move in Move} - LEGAL.keys() - REFUSED


@pytest.mark.parametrize(("state", "move"), LEGAL)
def test_a_legal_move_leads_to_its_state(state: RolloutState, move: Move) -> None:
    assert next_state("key", state, move) is LEGAL[state, move]


@pytest.mark.parametrize(("state", "move"), sorted(WITHOUT_EFFECT))
def test_any_other_move_leaves_the_record_as_it_is(state: RolloutState, move: Move) -> None:
    assert next_state("key", state, move) is None


@pytest.mark.parametrize(("state", "move"), sorted(REFUSED))
def test_what_has_no_result_cannot_be_settled(state: RolloutState, move: Move) -> None:
    with pytest.raises(JournalError, match="no result yet"):
        next_state("key", state, move)


def test_the_table_names_every_move_once() -> None:
    assert TRANSITIONS.keys() == set(Move)


def test_no_move_leads_back_to_accepted() -> None:
    assert all(ACCEPTED not in moves.values() for moves in TRANSITIONS.values())


def test_a_move_of_nothing_names_the_key() -> None:
    with pytest.raises(UnknownKeyError, match="'lost'") as caught:
        next_state("lost", None, Move.FINISH)
    assert caught.value.key == "lost"


def test_every_state_is_either_settled_or_not() -> None:
    assert set(RolloutState) == SETTLED | UNSETTLED
    assert not SETTLED & UNSETTLED


@pytest.mark.parametrize("state", sorted(UNSETTLED))
def test_only_a_settled_state_can_be_settled_on(state: RolloutState) -> None:
    with pytest.raises(JournalError, match=f"cannot be settled as '{state}'"):
        settling_move(state)


def test_an_acceptance_does_not_show_its_secrets() -> None:
    shown = repr(an_acceptance(request=b"prompt"))
    assert "callback-secret" not in shown
    assert "prompt" not in shown


@pytest.mark.parametrize("field", ["key", "rollout_id", "fingerprint", "server_url", "api_key"])
def test_an_acceptance_refuses_text_that_no_file_can_keep(field: str) -> None:
    values = dict.fromkeys(("key", "rollout_id", "fingerprint", "server_url", "api_key"), "text")
    with pytest.raises(JournalError, match=f"The field {field} .* not valid Unicode"):
        Acceptance(**values | {field: "\ud800"}, init_reply=b"", request=b"")


def test_an_acceptance_needs_a_key() -> None:
    with pytest.raises(JournalError, match="empty key"):
        an_acceptance("")


def test_a_kept_error_is_short_and_valid() -> None:
    assert storable_error("\ud800" + "x" * 2 * MAX_ERROR_LENGTH) == "?" + "x" * (MAX_ERROR_LENGTH - 1)
    assert storable_error(None) is None
