"""Who lives, and who is taken over, of the owners of a journal in PostgreSQL."""

import asyncio
import re
import signal
from contextlib import suppress

import pytest
from support.journal import TestClock, an_acceptance, claim_all
from support.postgres import Database, database, needs_postgres
from support.postgres_journal import (
    DEADLINE_SECONDS,
    asked,
    claim_when_possible,
    cut_off,
    until_problem,
    until_true,
)

from osmosis_ai.rollout.journal import JournalError, Payload, PostgresJournal, RolloutState
from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.lease import Lease

pytestmark = [pytest.mark.slow, needs_postgres]

LEASE_SECONDS = 1.5
AWAY_LEASE_SECONDS = 9
"""Of which a third is for whoever is late."""


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


async def test_who_lives_while_the_schema_is_made_anew_is_not_taken_for_who_came_after_that(postgres: Database) -> None:
    url = postgres.new_url(lease=LEASE_SECONDS)
    async with PostgresJournal(url) as before, asked(url) as connection:
        lost, loop = asyncio.Event(), asyncio.get_running_loop()
        before._lease.on_lost = lambda: loop.call_soon_threadsafe(lost.set)  # type: ignore[assignment]
        await connection.execute(f"DROP SCHEMA {before.address.schema} CASCADE")
        async with PostgresJournal(url) as after, asyncio.timeout(DEADLINE_SECONDS):
            await after.accept(an_acceptance("key"))
            await before._home.call(before._lease.renew)  # type: ignore[union-attr]
            await lost.wait()
            assert not await before.finish("key", b"of the other")
            assert await after.finish("key", b"result")


async def test_a_lease_that_ran_out_unnoticed_goes_on(postgres: Database) -> None:
    url = postgres.new_url(lease=LEASE_SECONDS)
    async with cut_off(postgres, url) as (journal, partition):
        await journal.accept(an_acceptance("key"))
        partition.cut()
        await until_true(url, "SELECT bool_and(lease_until < clock_timestamp()) FROM owners")
        partition.mend()
        await until_problem(journal, there_is=False)
        assert await journal.finish("key", b"result")


async def test_an_owner_whose_lease_ran_out_is_in_doubt_until_it_has_asked_after_that(postgres: Database) -> None:
    url, clock = postgres.new_url(), TestClock()
    async with cut_off(postgres, url) as (_, partition):
        lease = Lease(parse(url.replace(f":{postgres.port}/", f":{partition.port}/")), LEASE_SECONDS, None)
        lease._clock = clock
        await lease.register()
        await lease.renew()
        clock.now += 0.99 * LEASE_SECONDS
        assert not lease.is_in_doubt
        partition.cut()
        await lease.renew()
        clock.now += 0.01 * LEASE_SECONDS
        assert lease.is_in_doubt, "it was asked, in vain, while the lease still held"
        await lease.renew()
        assert not lease.is_in_doubt, "it cannot be known now"
        clock.now += 10 * LEASE_SECONDS
        assert lease.is_in_doubt, "this one was stopped meanwhile"
        partition.mend()
        await lease.renew()
        assert not lease.is_in_doubt
        await lease.release()


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


async def test_a_step_back_of_the_databases_clock_keeps_nobody(postgres: Database) -> None:
    """To the others, a lease that the clock made longer looks like this."""
    url = postgres.new_url(lease=LEASE_SECONDS)
    async with PostgresJournal(url) as other, cut_off(postgres, url) as (cut, partition), asked(url) as connection:
        await cut.accept(an_acceptance("key"))
        partition.cut()
        await other._home.call(other._lease.renew)  # type: ignore[union-attr]
        await connection.execute("UPDATE owners SET lease_until = lease_until + interval '1 hour'")
        assert await claim_when_possible(other) == ["key"]


@pytest.mark.parametrize("schema", ["osmosis", "user", "table", 55 * "x"])
async def test_another_replica_is_told_of_a_release_at_once(postgres: Database, schema: str) -> None:
    url = re.sub("schema=[^&]*", f"schema={schema}", postgres.new_url(lease=3600))
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


async def test_nobody_is_taken_over_who_could_not_renew_as_the_database_was_away() -> None:
    with database("fsync=off") as own:
        url = own.new_url(lease=AWAY_LEASE_SECONDS)
        async with PostgresJournal(url) as other, cut_off(own, url) as (late, partition):
            await late.accept(an_acceptance("key"))
            await other._home.call(other._lease.renew)  # type: ignore[union-attr]
            own.stop(signal.SIGQUIT)
            await asyncio.sleep(AWAY_LEASE_SECONDS)
            partition.cut()
            own.start()
            await until_problem(other, there_is=False)
            await until_true(url, "SELECT count(*) = 1 FROM owners WHERE lease_until < clock_timestamp()")
            partition.mend()
            await until_problem(late, there_is=False)
            assert await late.finish("key", b"result")
            assert await other.claim_abandoned() == []
