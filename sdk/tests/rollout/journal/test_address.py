"""The URL of a journal in PostgreSQL, and texts as that can hold them; without a database."""

import pytest
from hypothesis import given, settings, strategies as st

from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.journal import JournalError
from osmosis_ai.rollout.journal.place import secret_of, shown
from osmosis_ai.rollout.journal.postgres.address import is_postgres, parse
from osmosis_ai.rollout.journal.postgres.statements import read, stored

URL = "postgresql://me:p%40ss-word@db.internal:5433/rollouts?schema=agents&lease=30&sslmode=verify-full"


def test_what_is_ours_is_taken_out_and_the_rest_left_to_libpq() -> None:
    address = parse(URL)
    assert (address.schema, address.lease_seconds, address.password) == ("agents", 30.0, "p@ss-word")
    assert address.dsn == "postgresql://me:p%40ss-word@db.internal:5433/rollouts?sslmode=verify-full"


def test_what_is_shown_has_neither_user_nor_password() -> None:
    for text in (str(parse(URL)), repr(parse(URL)), shown(URL), repr(RolloutServerSettings(journal=URL))):
        assert "ss-word" not in text
        assert "me:" not in text
    assert shown(URL) == "db.internal:5433/rollouts (schema agents)"


def test_a_path_is_no_url() -> None:
    assert not any(map(is_postgres, (".osmosis/journal.db", "off", "postgresql.db", "/postgres:/x")))
    assert secret_of("a:b@c") is None
    assert secret_of("postgresql://u@h/d?password=hidden-one") == "hidden-one"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/d?schema=A",
        "postgresql://h/d?schema=a;drop",
        "postgresql://h/d?lease=0",
        "postgresql://h/d?lease=nan",
        "postgresql://[h/d",
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(JournalError, match=r": (use|give) "):
        parse(url)


@settings(max_examples=40)
@given(st.text(alphabet="a\0\\0é🎲"))
def test_any_text_comes_back(text: str) -> None:
    kept = stored(text)
    assert kept is not None
    assert "\0" not in kept
    assert read(kept) == text


@settings(max_examples=40)
@given(st.text(alphabet="a\0\\0"), st.text(alphabet="a\0\\0"))
def test_what_begins_with_a_prefix_still_does(prefix: str, rest: str) -> None:
    kept = stored(prefix + rest)
    assert kept is not None
    assert kept.startswith(stored(prefix) or "")
