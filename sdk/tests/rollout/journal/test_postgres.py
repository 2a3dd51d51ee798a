"""What the journal in PostgreSQL promises beyond the contract: leases, other clocks, lost connections, secrets."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from support.journal import an_acceptance, claim_all
from support.partition import Partition
from support.postgres import PASSWORD, Database, needs_postgres

from osmosis_ai.rollout.journal import JournalError, JournalRecord, Payload, PostgresJournal, RolloutState
from osmosis_ai.rollout.journal.errors import NoJournalError
from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.link import connect

pytestmark = [pytest.mark.slow, needs_postgres]

DEADLINE_SECONDS = 60.0
LEASE_SECONDS = 1.5


@asynccontextmanager
async def asked(url: str) -> AsyncIterator[Any]:
    """A connection beside the journal's."""
    connection = await connect(parse(url), "test")
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def cut_off(database: Database, url: str) -> AsyncIterator[tuple[PostgresJournal, Partition]]:
    """A journal that reaches its database through a proxy."""
    with Partition(database.port) as partition:
        journal = PostgresJournal(url.replace(f":{database.port}/", f":{partition.port}/"))
        async with journal:
            try:
                yield journal, partition
            finally:
                partition.mend()


async def until_true(url: str, query: str) -> None:
    async with asked(url) as connection, asyncio.timeout(DEADLINE_SECONDS):
        while not await connection.fetchval(query):  # noqa: ASYNC110 - the database tells by answers alone
            await asyncio.sleep(0.02)


async def claim_when_possible(journal: PostgresJournal) -> list[str]:
    """What can be claimed as soon as there is something, and the journal is in order."""
    claimed: list[JournalRecord] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not claimed:
            with suppress(JournalError):
                claimed = await claim_all(journal)
            await asyncio.sleep(0.02)
    return [record.key for record in claimed]


async def until_problem(journal: PostgresJournal, there_is: bool = True) -> str | None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (journal.problem is not None) is not there_is:  # noqa: ASYNC110 - a property is all there is
            await asyncio.sleep(0.02)
    return journal.problem


async def test_two_open_at_once_and_make_one_schema(postgres: Database) -> None:
    url = postgres.new_url()
    journals = [PostgresJournal(url) for _ in range(6)]
    await asyncio.gather(*(journal.open() for journal in journals))
    outcomes = await asyncio.gather(*(journal.accept(an_acceptance("key")) for journal in journals))
    assert outcomes.count(None) == 1
    await asyncio.gather(*(journal.close() for journal in journals))


async def test_many_keys_at_once_from_many_replicas_are_each_accepted_once(postgres: Database) -> None:
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


async def test_who_does_not_renew_is_taken_over_and_changes_nothing_when_it_wakes(postgres: Database) -> None:
    url = postgres.new_url(lease=LEASE_SECONDS)
    async with PostgresJournal(url) as other, cut_off(postgres, url) as (cut, partition):
        for key in ("running", "finished"):
            await cut.accept(an_acceptance(key))
        await cut.finish("finished", b"result")
        lost, loop = asyncio.Event(), asyncio.get_running_loop()
        cut._lease.on_lost = lambda: loop.call_soon_threadsafe(lost.set)  # type: ignore[assignment]
        partition.cut()
        assert await claim_when_possible(other) == ["running", "finished"]
        with pytest.raises(JournalError, match="does not answer"):
            await cut.finish("running", b"of the one that was cut off")
        with pytest.raises(JournalError):
            await cut.accept(an_acceptance("new"))
        partition.mend()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await lost.wait()
        await until_problem(cut, there_is=False)
        assert not await cut.finish("running", b"of the one that was cut off")
        assert not await cut.finish("finished", b"result")
        assert not await cut.settle("finished", RolloutState.UNDELIVERABLE, attempts=1)
        assert not await cut.leave_out_messages("finished")
        assert await other.finish("running", b"interrupted")
        assert await other.load("running", Payload.RESULT) == b"interrupted"
        assert await other.settle("running", RolloutState.DELIVERED, attempts=1)
        await other.purge(keys=["running"])
        assert not await cut.finish("running", b"late"), "nothing can say that this does not contradict"
        assert await cut.accept(an_acceptance("new")) is None, "it goes on as a new owner"


async def test_a_lease_that_ran_out_unnoticed_goes_on(postgres: Database) -> None:
    url = postgres.new_url(lease=LEASE_SECONDS)
    async with cut_off(postgres, url) as (journal, partition):
        await journal.accept(an_acceptance("key"))
        partition.cut()
        await until_true(url, "SELECT bool_and(lease_until < clock_timestamp()) FROM owners")
        partition.mend()
        await until_problem(journal, there_is=False)
        assert await journal.finish("key", b"result")


async def test_no_write_passes_between_the_end_of_a_lease_and_a_takeover(postgres: Database) -> None:
    url = postgres.new_url(lease=3600)
    async with PostgresJournal(url) as journal, asked(url) as connection:
        await journal.accept(an_acceptance("key"))
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM owners FOR UPDATE")
        await connection.execute("UPDATE owners SET lease_until = '-infinity'")
        finishing = asyncio.ensure_future(journal.finish("key", b"result"))
        await until_true(url, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
        await transaction.commit()
        with suppress(JournalError):
            assert not await finishing
        record = await journal.get("key")
        assert record is not None
        assert record.state is RolloutState.ACCEPTED


async def test_a_step_of_the_databases_clock_takes_nobody_over(postgres: Database) -> None:
    """To the others, a lease that the clock ended looks like this; its owner renews all the same."""
    url = postgres.new_url(lease=3)
    async with PostgresJournal(url) as journal, PostgresJournal(url) as other, asked(url) as connection:
        await journal.accept(an_acceptance("key"))
        async with asyncio.timeout(DEADLINE_SECONDS):
            for _ in range(4):
                await connection.execute("UPDATE owners SET lease_until = clock_timestamp() - interval '1 hour'")
                await asyncio.gather(other._home.call(other._lease.renew), asyncio.sleep(0.2))  # type: ignore[union-attr]
                assert await other.claim_abandoned() == []
        await journal._home.call(journal._lease.renew)  # type: ignore[union-attr]
        assert await journal.finish("key", b"result")


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
    monkeypatch.setattr("osmosis_ai.rollout.journal.postgres.batches.ACCEPT_PATIENCE_SECONDS", 0.0)
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
    monkeypatch.setattr("osmosis_ai.rollout.journal.postgres.batches.WRITE_SECONDS", 0.5)
    monkeypatch.setattr("osmosis_ai.rollout.journal.postgres.batches.ACCEPT_PATIENCE_SECONDS", 0.0)
    url = postgres.new_url()
    async with cut_off(postgres, url) as (journal, partition):
        await journal.accept(an_acceptance("warm"))
        partition.cut()
        with pytest.raises(JournalError):
            await journal.accept(an_acceptance("key"))
        partition.mend()
        await until_problem(journal, there_is=False)
        assert await journal.accept(an_acceptance("key")) is None
        assert await journal.finish("key", b"result")


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


async def test_another_replica_is_told_of_a_release_at_once(postgres: Database) -> None:
    url = postgres.new_url(lease=3600)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    staying = PostgresJournal(url)
    staying.on_abandoned = lambda: loop.call_soon_threadsafe(told.set)  # type: ignore[assignment]
    async with staying:
        async with PostgresJournal(url) as leaving:
            await leaving.accept(an_acceptance("key"))
        async with asyncio.timeout(DEADLINE_SECONDS):
            await told.wait()
        assert [record.key for record in await claim_all(staying)] == ["key"]


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
    journals = [PostgresJournal(url) for _ in range(5)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*map(stack.enter_async_context, journals))
        (after,) = {journal.sign("text") for journal in journals}
        assert after != before
        assert await journals[0].get("key") is not None


async def test_all_who_make_a_schema_at_once_have_its_secret(postgres: Database) -> None:
    url = postgres.new_url()
    journals = [PostgresJournal(url) for _ in range(5)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*map(stack.enter_async_context, journals))
        assert len({journal.sign("text") for journal in journals}) == 1


async def test_no_error_says_the_password(postgres: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good = postgres.new_url()
    said = [repr(PostgresJournal(good)), repr(parse(good)), str(parse(good))]
    for url in (
        good.replace(PASSWORD, "wrong-secret"),
        good.replace("/postgres?", "/nowhere?"),
        good.replace(str(postgres.port), "1"),
        good + "&sslmode=require",
        good + "&sslmode=nonsense",
        good.replace("127.0.0.1", "no-such-host.invalid"),
        good.replace("schema=", "schema=Not a name"),
        good.replace("schema=", "lease=0&schema="),
        good.replace(str(postgres.port), "99999999"),
    ):
        with pytest.raises(JournalError) as refused:
            await PostgresJournal(url).open()
        said += [str(refused.value), repr(refused.value), repr(refused.value.__cause__)]
        assert "\n" not in str(refused.value)
        assert "tester" not in str(refused.value)
    everything = "\n".join([*said, caplog.text])
    assert PASSWORD not in everything
    assert "wrong-secret" not in everything


async def test_the_password_may_be_in_a_file(
    postgres: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_url()
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:*:*:tester:{PASSWORD}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    async with PostgresJournal(url.replace(f":{PASSWORD}", "")) as journal:
        assert await journal.accept(an_acceptance()) is None
    services = tmp_path / "services"
    services.write_text(f"[rollouts]\nhost=127.0.0.1\nport={postgres.port}\ndbname=postgres\nuser=tester\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    schema = parse(url).schema
    async with PostgresJournal(f"postgresql:///?service=rollouts&schema={schema}") as journal:
        assert await journal.get("key") is not None
