"""Journals in PostgreSQL that are cut off, looked at from beside, and waited for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from osmosis_ai.rollout.journal import JournalError, JournalRecord, PostgresJournal
from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.link import connect
from support.partition import Partition
from support.postgres import Database

DEADLINE_SECONDS = 60.0


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
                while page := await journal.claim_abandoned():
                    claimed += page  # what is claimed stays so, whatever comes of the next page
            await asyncio.sleep(0.02)
    return [record.key for record in claimed]


async def until_problem(journal: PostgresJournal, there_is: bool = True) -> str | None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (journal.problem is not None) is not there_is:  # noqa: ASYNC110 - a property is all there is
            await asyncio.sleep(0.02)
    return journal.problem
