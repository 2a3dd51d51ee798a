"""Tokens of polling leases: from the rollout and the journal's secret, the same for all who have that journal."""

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from support.journal import an_acceptance

from osmosis_ai.rollout.journal import Journal, JournalError, MemoryJournal, SqliteJournal
from osmosis_ai.rollout.journal.token import is_reply_to_start, token_in, token_of, with_token

REPLY = b'{"status":"queued","polling_lease_timeout_sec":120.0}'


async def test_it_is_the_journals_whenever_it_is_opened(journal: Journal) -> None:
    token = token_of(journal, "pull:one", "print")
    await journal.close()
    await journal.open()
    assert token_of(journal, "pull:one", "print") == token
    assert len(token) == 43
    assert {token_of(journal, "pull:two", "print"), token_of(journal, "pull:one", "another")}.isdisjoint({token})
    async with MemoryJournal() as another:
        assert token_of(another, "pull:one", "print") != token


async def test_all_who_open_a_new_journal_at_once_agree(path: Path) -> None:
    journals = [SqliteJournal(path) for _ in range(8)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*map(stack.enter_async_context, journals))
        assert len({token_of(journal, "key", "print") for journal in journals}) == 1


async def test_a_journal_of_an_older_sdk_gets_a_secret_when_it_is_opened(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("key"))
        token = token_of(journal, "key", "print")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE secrets")
        connection.commit()
    async with SqliteJournal(path, create=False) as looking:
        made = token_of(looking, "key", "print")
        assert await looking.get("key") is not None
    async with SqliteJournal(path) as journal:
        assert token_of(journal, "key", "print") == made != token


async def test_a_journal_that_was_never_open_signs_nothing(path: Path) -> None:
    with pytest.raises(JournalError, match="not open"):
        SqliteJournal(path).sign("text")


async def test_a_reply_keeps_the_token_that_it_brings() -> None:
    given = with_token(REPLY, "first")
    assert (token_in(REPLY), token_in(given), token_in(with_token(given, "second"))) == (None, "first", "first")
    assert [is_reply_to_start(reply) for reply in (REPLY, b'{"tools":[]}', b"print", b"[]")] == [True, *[False] * 3]
