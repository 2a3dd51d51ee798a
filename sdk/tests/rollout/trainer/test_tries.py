"""No two tries of any rollouts have the same id."""

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.trainer.tries import id_of_try

IDS = st.text(".12ap-", min_size=1, max_size=6)


@given(IDS, st.integers(1, 12), IDS, st.integers(1, 12))
def test_what_is_the_same_id_is_the_same_try_of_the_same_rollout(
    one: str, its_try: int, other: str, others_try: int
) -> None:
    try:
        same = id_of_try(one, its_try) == id_of_try(other, others_try)
    except ValueError:
        return
    assert same is ((one, its_try) == (other, others_try))


def test_the_first_is_what_was_given_and_a_section_is_no_try() -> None:
    assert id_of_try("1.2", 1) == "1.2"
    assert id_of_try("1", 2) == "1..2"


def test_what_ends_like_a_further_try_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^The rollout id 'p1\.\.2' ends like that of a further try"):
        id_of_try("p1..2", 1)
