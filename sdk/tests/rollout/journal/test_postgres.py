"""What the journal in PostgreSQL promises beyond the contract: lost connections, cancellations, schemas, secrets."""

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
import uvloop
from support.journal import an_acceptance
from support.postgres import Database, needs_postgres, with_least_rights
from support.postgres_journal import asked, claim_when_possible, cut_off, until_problem, until_true

from osmosis_ai.rollout.journal import JournalError, PostgresJournal
from osmosis_ai.rollout.journal.errors import NoJournalError
from osmosis_ai.rollout.journal.postgres import batches, journal as postgres_journal

pytestmark = [pytest.mark.slow, needs_postgres]

DEADLINE_SECONDS = 60.0
SOON_SECONDS = 10.0
"""Half of what one question took that is not for somebody who waits."""


async def test_two_open_at_once_and_make_one_schema(postgres: Database) -> None:
    url = postgres.new_url()
    journals = [PostgresJournal(url) for _ in range(6)]
    await asyncio.gather(*(journal.open() for journal in journals))
    outcomes = await asyncio.gather(*(journal.accept(an_acceptance("key")) for journal in journals))
    assert outcomes.count(None) == 1
    await asyncio.gather(*(journal.close() for journal in journals))


async def test_many_keys_at_once_from_many_replicas_are_each_accepted_once(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may take longer, and whoever is told so has been promised nothing.
    monkeypatch.setattr("osmosis_ai.rollout.journal.postgres.batches.ACCEPT_PATIENCE_SECONDS", DEADLINE_SECONDS)
    monkeypatch.setattr("osmosis_ai.rollout.journal.postgres.batches.WRITE_SECONDS", DEADLINE_SECONDS)
    url = postgres.new_url()
    journals = [PostgresJournal(url) for _ in range(3)]
    await asyncio.gather(*(journal.open() for journal in journals))
    keys = [f"key {number}" for number in range(300)]
    ways = (keys, keys[::-1], keys[150:] + keys[:150])
    outcomes = await asyncio.gather(
        *(journal.accept(an_acceptance(key)) for journal, way in zip(journals, ways, strict=True) for key in way)
    )
    assert outcomes.count(None) == len(keys)
    await asyncio.gather(*(journal.close() for journal in journals))


async def test_results_that_come_soon_after_another_share_a_commit(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = replace(batches.FINISH, alone_seconds=1.0)
    for module in (batches, postgres_journal):
        monkeypatch.setattr(module, "FINISH", patient)
    url = postgres.new_url()
    async with PostgresJournal(url) as journal, asked(url) as connection:
        for key in ("first", "second", "third"):
            await journal.accept(an_acceptance(key))
        await journal.finish("first", b"result")
        second = asyncio.ensure_future(journal.finish("second", b"result"))
        assert await journal.get("second") is not None, "it is in the thread, too"
        assert await journal.finish("third", b"result")
        assert await second
        assert await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM rollouts") == 2


def test_its_loop_is_of_the_kind_of_the_one_that_opens_it(postgres: Database) -> None:
    async def loop_of_journal() -> type[asyncio.AbstractEventLoop]:
        told: asyncio.Queue[type[asyncio.AbstractEventLoop]] = asyncio.Queue()
        here, journal = asyncio.get_running_loop(), PostgresJournal(postgres.new_url(lease=1))

        def tell(*_: object) -> None:
            here.call_soon_threadsafe(told.put_nowait, type(asyncio.get_running_loop()))

        journal.on_backlog = tell
        async with journal:
            return await told.get()

    assert uvloop.run(loop_of_journal()) is uvloop.Loop
    assert asyncio.run(loop_of_journal()) is not uvloop.Loop


async def test_a_commit_whose_answer_is_lost_is_one_acceptance(postgres: Database) -> None:
    url = postgres.new_url()
    async with cut_off(postgres, url) as (journal, partition):
        await journal.accept(an_acceptance("warm"))
        partition.cut_replies()
        accepting = asyncio.ensure_future(journal.accept(an_acceptance("key")))
        await until_true(url, "SELECT count(*) = 1 FROM rollouts WHERE key = 'key'")
        partition.reset()
        partition.mend()
        assert await accepting is None
        assert await journal.finish("key", b"result")


@pytest.mark.parametrize("comes_again", [False, True])
async def test_what_was_refused_and_is_on_record_all_the_same_has_an_end(
    postgres: Database, monkeypatch: pytest.MonkeyPatch, comes_again: bool
) -> None:
    monkeypatch.setattr("osmosis_ai.rollout.journal.postgres.batches.ACCEPT_PATIENCE_SECONDS", 2.0)
    url = postgres.new_url()
    async with PostgresJournal(url) as other, cut_off(postgres, url) as (journal, partition):
        await journal.accept(an_acceptance("warm"))
        partition.cut_replies()
        accepting = asyncio.ensure_future(journal.accept(an_acceptance("key")))
        await until_true(url, "SELECT count(*) = 1 FROM rollouts WHERE key = 'key'")
        partition.cut()
        partition.reset()
        with pytest.raises(JournalError):
            await accepting
        if comes_again:
            assert await other.accept(an_acceptance("key")) is not None, "promised by another"
        partition.mend()
        if comes_again:
            assert await claim_when_possible(other) == ["key"]
        else:
            await until_true(url, "SELECT count(*) = 0 FROM rollouts WHERE key = 'key'")
            assert await other.accept(an_acceptance("key")) is None


async def test_what_a_partition_held_back_is_not_done_when_it_arrives(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_url()
    async with cut_off(postgres, url) as (journal, partition):
        await journal.accept(an_acceptance("warm"))
        partition.cut()
        with monkeypatch.context() as impatient:
            impatient.setattr("osmosis_ai.rollout.journal.postgres.batches.WRITE_SECONDS", 0.5)
            impatient.setattr("osmosis_ai.rollout.journal.postgres.batches.ACCEPT_PATIENCE_SECONDS", 0.2)
            with pytest.raises(JournalError):
                await journal.accept(an_acceptance("key"))
        partition.mend()
        await until_problem(journal, there_is=False)
        assert await journal.accept(an_acceptance("key")) is None
        assert await journal.finish("key", b"result")


@pytest.mark.parametrize("before", ["accept", "finish"])
async def test_whoever_is_not_answered_in_time_is_told_and_promised_nothing(
    postgres: Database, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """One acceptance is under way, or behind a result that is, others wait in line: none waits for a write's end."""
    batches = "osmosis_ai.rollout.journal.postgres.batches"
    monkeypatch.setattr(f"{batches}.WRITE_SECONDS", 3600.0)
    url = postgres.new_url(lease=3600)
    async with cut_off(postgres, url) as (journal, partition), asyncio.timeout(DEADLINE_SECONDS):
        await journal.accept(an_acceptance("warm"))
        monkeypatch.setattr(f"{batches}.ACCEPT_PATIENCE_SECONDS", 0.5)
        partition.cut()
        finishing = asyncio.ensure_future(journal.finish("warm", b"result")) if before == "finish" else None
        first = asyncio.ensure_future(journal.accept(an_acceptance("first")))
        await asyncio.to_thread(partition.on_bytes.wait)
        others = [journal.accept(an_acceptance(f"other {number}")) for number in range(3)]
        for answer in await asyncio.gather(first, *others, return_exceptions=True):
            assert isinstance(answer, JournalError)
        assert "does not answer" in (journal.problem or "")
        partition.mend()
        assert finishing is None or await finishing
        await until_problem(journal, there_is=False)
        await until_true(url, "SELECT count(*) = 1 FROM rollouts")
        monkeypatch.undo()
        assert await journal.accept(an_acceptance("first")) is None
        assert await journal.finish("first", b"result")


async def test_questions_to_a_database_that_does_not_answer_end_soon_all_of_them(postgres: Database) -> None:
    url = postgres.new_url(lease=3600)
    async with cut_off(postgres, url) as (journal, partition):
        await journal.accept(an_acceptance("warm"))
        partition.cut()
        await journal.note_attempt("warm", attempts=1, error="why")
        for _ in range(2):
            async with asyncio.timeout(SOON_SECONDS):
                asked: list[Awaitable[Any]] = [journal.get("warm") for _ in range(10)]
                asked += [journal.find("rollout"), journal.records(), journal.counts(), journal.oldest_unsettled()]
                asked += [journal.ask_cancel([], "a", False), journal.ask_cancel([], None, True)]
                answers = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(answer) for answer in answers} == {JournalError}
            await until_problem(journal)
        partition.mend()
        await until_problem(journal, there_is=False)
        assert await journal.get("warm") is not None


async def test_who_waits_in_line_in_vain_leaves_the_one_at_work_alone(postgres: Database) -> None:
    url = postgres.new_url(lease=3600)
    async with PostgresJournal(url) as journal, asked(url) as blocking:
        await journal.accept(an_acceptance("key"))
        async with blocking.transaction():
            await blocking.execute("LOCK TABLE rollouts")
            pruning = asyncio.ensure_future(journal.prune())
            await until_true(
                url, "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND relation = 'rollouts'::regclass"
            )
            with pytest.raises(JournalError, match="no answer in time"):
                await journal.get("key")
            assert not pruning.done()
        assert await pruning == 0
        assert await journal.get("key") is not None


async def test_one_that_cannot_be_written_does_not_harm_its_neighbours(postgres: Database) -> None:
    url = postgres.new_url()
    async with PostgresJournal(url) as journal, asked(url) as connection:
        await connection.execute("ALTER TABLE rollouts ADD CHECK (octet_length(request) < 1000)")
        keys = [str(number) for number in range(10)]
        outcomes = await asyncio.gather(
            *(journal.accept(an_acceptance(key, request=bytes(2000 if key == "5" else 10))) for key in keys),
            return_exceptions=True,
        )
        assert [key for key, outcome in zip(keys, outcomes, strict=True) if outcome is not None] == ["5"]


async def test_what_is_said_of_one_that_was_known_does_not_harm_the_new_ones_beside_it(postgres: Database) -> None:
    url = postgres.new_url()
    async with PostgresJournal(url) as journal, PostgresJournal(url) as other, asked(url) as connection:
        await other.accept(an_acceptance("known"))
        await connection.execute("ALTER TABLE rollouts ADD CHECK (NOT repeated)")
        new, known = await asyncio.gather(
            *(journal.accept(an_acceptance(key)) for key in ("new", "known")), return_exceptions=True
        )
        assert isinstance(known, JournalError)
        assert new is None, "it is on record, and nobody else will run it"


async def test_a_cancellation_reaches_the_owner(postgres: Database) -> None:
    url = postgres.new_url(lease=3600)
    keys: asyncio.Queue[list[str]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    owner = PostgresJournal(url)
    owner.on_cancel = lambda found: loop.call_soon_threadsafe(keys.put_nowait, found)  # type: ignore[assignment]
    async with owner, PostgresJournal(url) as other:
        for key in ("a\0\\", "b", "c"):
            await owner.accept(an_acceptance(key, rollout_id=f"rollout {key}"))
        await owner.finish("c", b"result")
        assert await other.ask_cancel(["rollout a\0\\", "rollout c", "nobody's"], None, False) == ["rollout a\0\\"]
        assert await keys.get() == ["a\0\\"]
        assert len(await other.ask_cancel([], "rollout ", False) or ()) == 2
        assert await keys.get() == ["b"]
        assert await owner.ask_cancel([], None, True) == [], "of the others alone"
        assert await other.ask_cancel([], None, True, spaces=("d", "e")) == [], "of these keys alone"


async def test_a_cancel_passes_over_nothing_that_somebody_holds_for_a_moment(postgres: Database) -> None:
    url = postgres.new_url()
    async with PostgresJournal(url) as owner, PostgresJournal(url) as other, asked(url) as connection:
        for key in ("held", "free"):
            await owner.accept(an_acceptance(key, rollout_id=key))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM rollouts WHERE rollout_id = 'held' FOR UPDATE")
        asking = asyncio.ensure_future(other.ask_cancel([], None, True))
        await until_true(url, "SELECT bool_or(cancel_asked) FROM rollouts")
        assert not asking.done()
        await transaction.rollback()
        assert sorted(await asking or ()) == ["free", "held"]
        twice = await asyncio.gather(*(other.ask_cancel(["held"], None, False) for _ in range(2)))
        assert twice == [["held"], ["held"]], "it is being cancelled, whoever asked first"


async def test_a_claim_whose_answer_is_lost_is_made_again(postgres: Database) -> None:
    url = postgres.new_url()
    async with cut_off(postgres, url) as (journal, partition):
        assert await journal.claim_abandoned() == []
        async with PostgresJournal(url) as leaving:
            await leaving.accept(an_acceptance("key"))
        partition.cut_replies()
        claiming = asyncio.ensure_future(journal.claim_abandoned())
        await until_true(url, "SELECT count(*) = 1 FROM rollouts WHERE claim IS NOT NULL")
        partition.reset()
        partition.mend()
        with pytest.raises(JournalError):
            await claiming
        assert await claim_when_possible(journal) == ["key"]


async def test_a_schema_that_is_not_there_or_newer_is_named(postgres: Database) -> None:
    url = postgres.new_url()
    with pytest.raises(NoJournalError, match="There is no journal at 127"):
        await PostgresJournal(url, create=False).open()
    async with PostgresJournal(url), PostgresJournal(url, create=False) as looking, asked(url) as connection:
        assert await looking.records() == []
        await connection.execute("UPDATE version SET version = 99")
    with pytest.raises(JournalError, match="version 99 of a newer SDK"):
        await PostgresJournal(url).open()


async def test_a_schema_of_the_version_before_gets_its_secret_once(postgres: Database) -> None:
    url = postgres.new_url()
    async with PostgresJournal(url) as journal, asked(url) as connection:
        await journal.accept(an_acceptance("key"))
        before = journal.sign("text")
        await connection.execute("DROP TABLE secrets; UPDATE version SET version = 1")
    with pytest.raises(JournalError, match=r"version 1 of an older SDK, .*: start a server of this SDK"):
        await PostgresJournal(url, create=False).open()
    await until_true(url, "SELECT version = 1 AND to_regclass('secrets') IS NULL FROM version")
    journals = [PostgresJournal(url) for _ in range(5)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*map(stack.enter_async_context, journals))
        (after,) = {journal.sign("text") for journal in journals}
        assert after != before
        assert await journals[0].get("key") is not None


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_keep_every_text_is_refused(postgres: Database, encoding: str) -> None:
    url = postgres.new_url()
    async with asked(url) as connection:
        await connection.execute(f"CREATE DATABASE in_{encoding} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = url.replace("/postgres?", f"/in_{encoding.lower()}?")
    with pytest.raises(JournalError, match=f"has the encoding {encoding}, .*: name one that was created with"):
        await PostgresJournal(url).open()
    await until_true(url, "SELECT count(*) = 0 FROM pg_namespace WHERE nspname LIKE 'journal%'")


async def test_all_who_make_a_schema_at_once_have_its_secret(postgres: Database) -> None:
    url = postgres.new_url()
    journals = [PostgresJournal(url) for _ in range(5)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*map(stack.enter_async_context, journals))
        assert len({journal.sign("text") for journal in journals}) == 1


async def test_tables_that_came_back_empty_get_a_secret_from_who_serves(postgres: Database) -> None:
    url = await with_least_rights(postgres.new_url())
    async with asked(url) as connection:
        assert (
            await connection.fetchval("WITH gone AS (DELETE FROM secrets RETURNING 1) SELECT count(*) FROM gone") == 1
        )
    with pytest.raises(JournalError, match="has no secret yet: start a server"):
        await PostgresJournal(url, create=False).open()
    async with PostgresJournal(url) as one, PostgresJournal(url, create=False) as other:
        assert one.sign("text") == other.sign("text")
