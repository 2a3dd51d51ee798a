"""The URL of a journal in PostgreSQL, and texts as that can hold them; without a database."""

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.journal import JournalError
from osmosis_ai.rollout.journal.place import journal_at, secret_of, shown
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
        "postgresql://h/d?schema=pg_mine",
        "postgresql://h/d?schema=information_schema",
        f"postgresql://h/d?schema={56 * 'a'}",
        "postgresql://h/d?schema=a;drop",
        "postgresql://h/d?lease=0",
        "postgresql://h/d?lease=nan",
        "postgresql://[h/d",
        "postgresql://h:99999/d",
        "postgresql://h:port/d",
        "postgresql://h/d?nothing",
        # A password as it is, where its characters mean something in a URL.
        "postgresql://me:secret/secret@h/d",
        "postgresql://me:12/secret@h/d",
        "postgresql://me:secret?secret@h/d",
        "postgresql://me:12?secret@h/d",
        "postgresql://me:secret#secret@h/d",
        "postgresql://me:12#secret@h/d",
        # Another's way to name a database; and a slip.
        "jdbc:postgresql://me:secret@h/d",
        "postgresql+asyncpg://me:secret@h/d",
        "postgresql:/me:secret@h/d",
        "postgresql:me:secret@h/d",
        '"postgresql://me:secret@h/d"',
        "mysql://me:secret@h/d",
        "sqlite:///secret.db",
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(url: str) -> None:
    assert is_postgres(url), "never a path, which would be made"
    for look in (parse, journal_at, secret_of, shown):
        with pytest.raises(JournalError, match=r": (use|give) ") as refused:
            look(url)
        assert "secret" not in f"{refused.value!r} {refused.value.__cause__!r}"
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "dsn", "password"),
    [
        ("postgres://me:p%40ss@h/d", "postgres://me:p%40ss@h/d", "p@ss"),
        ("postgresql://me:p@ss%zz@h:1,[::1]:2/d", "postgresql://me:p%40ss%25zz@h:1,[::1]:2/d", "p@ss%zz"),
        ("postgresql://me@corp:p:w@h/d", "postgresql://me%40corp:p%3Aw@h/d", "p:w"),
        (" POSTGRESQL://me:p%2Fw@h/d\n", "postgresql://me:p%2Fw@h/d", "p/w"),
        ("postgresql://me@h/d", "postgresql://me@h/d", None),
        (
            "postgresql:///d?host=/run/postgresql&user=me@corp",
            "postgresql:/d?host=%2Frun%2Fpostgresql&user=me%40corp",
            None,
        ),
        ("postgresql://me:pw@%2Frun%2Fpg:5433/d", "postgresql://me:pw@%2Frun%2Fpg:5433/d", "pw"),
    ],
)
def test_what_is_clear_is_passed_on_as_it_is_meant(url: str, dsn: str, password: str | None) -> None:
    address = parse(url)
    assert (address.dsn, address.password) == (dsn, password)
    assert password is None or password not in shown(url)


@given(st.text(alphabet="a\0\\0é🎲"))
def test_any_text_comes_back(text: str) -> None:
    kept = stored(text)
    assert kept is not None
    assert "\0" not in kept
    assert read(kept) == text


@given(st.text(alphabet="a\0\\0"), st.text(alphabet="a\0\\0"))
def test_what_begins_with_a_prefix_still_does(prefix: str, rest: str) -> None:
    kept = stored(prefix + rest)
    assert kept is not None
    assert kept.startswith(stored(prefix) or "")
