"""The server's own key: how one is made, and what counts as the same one."""

import string

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.server.api_key import (
    API_KEY_PREFIX,
    API_KEY_RANDOM_BYTES,
    generate_api_key,
    validate_api_key,
)


def test_a_generated_key_is_the_prefix_and_43_url_safe_characters() -> None:
    key = generate_api_key()
    assert (API_KEY_PREFIX, API_KEY_RANDOM_BYTES) == ("osm_rollout_", 32)
    assert key.startswith("osm_rollout_")
    random_part = key.removeprefix("osm_rollout_")
    assert len(random_part) == 43
    assert set(random_part) <= set(string.ascii_letters + string.digits + "-_")


def test_no_two_generated_keys_are_equal() -> None:
    assert len({generate_api_key() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("provided", "expected", "same"),
    [
        ("key", "key", True),
        ("Key", "key", False),
        ("key ", "key", False),
        ("ke", "key", False),
        ("keyy", "key", False),
        ("", "key", False),
        (None, "key", False),
        (None, "", False),
        ("schlüssel", "schlüssel", True),
        ("schlussel", "schlüssel", False),
        ("\udcff", "key", False),
        ("鍵" * 1000, "key", False),
    ],
)
def test_only_the_same_text_is_the_same_key(provided: str | None, expected: str, same: bool) -> None:
    assert validate_api_key(provided, expected) is same


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_no_text_whatever_makes_the_comparison_fail(provided: str, expected: str) -> None:
    assert validate_api_key(provided, expected) is (provided == expected)
