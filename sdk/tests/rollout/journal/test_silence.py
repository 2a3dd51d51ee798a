"""Who has been silent for how long, as far as somebody was there to hear; without a database."""

from osmosis_ai.rollout.journal.postgres.silence import Silences

STEP_SECONDS = 10.0


def test_silence_is_what_passes_between_looks_at_the_same_count() -> None:
    silences = Silences(STEP_SECONDS)
    assert silences.look({1: 7, 2: 7}, 100.0) == {1: 0.0, 2: 0.0}
    assert silences.look({1: 7, 2: 8}, 105.0) == {1: 5.0, 2: 0.0}
    assert silences.look({1: 7, 2: 8}, 115.0) == {1: 15.0, 2: 10.0}


def test_who_is_new_or_comes_back_has_not_been_silent_before() -> None:
    silences = Silences(STEP_SECONDS)
    silences.look({1: 7}, 100.0)
    silences.look({}, 105.0)
    assert silences.look({1: 7, 2: 0}, 110.0) == {1: 0.0, 2: 0.0}


def test_a_step_in_which_leases_run_out_by_themselves_says_nothing() -> None:
    silences = Silences(STEP_SECONDS)
    silences.look({1: 7}, 100.0)
    silences.look({1: 7}, 110.0)
    assert silences.look({1: 7}, 120.1) == {1: 0.0}, "the looker slept, and perhaps all others"
    assert silences.look({1: 7}, 125.1) == {1: 5.0}


def test_what_could_not_be_heard_says_nothing() -> None:
    silences = Silences(STEP_SECONDS)
    silences.look({1: 7}, 100.0)
    silences.begin_anew()
    assert silences.look({1: 7}, 101.0) == {1: 0.0}
    assert silences.look({1: 7}, 102.0) == {1: 1.0}
