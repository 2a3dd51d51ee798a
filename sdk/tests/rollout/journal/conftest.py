from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.journal import TestClock
from support.postgres import Database, database, needs_postgres, with_least_rights

from osmosis_ai.rollout.journal import Journal, MemoryJournal, PostgresJournal, Retention, SqliteJournal

RETENTION = Retention(delivered_seconds=100, undeliverable_seconds=700)


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def sqlite(path: Path, clock: TestClock) -> AsyncIterator[SqliteJournal]:
    async with SqliteJournal(path, clock=clock, retention=RETENTION) as journal:
        yield journal


@pytest.fixture(scope="session")
def postgres() -> Iterator[Database]:
    with database() as running:
        yield running


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("postgres", marks=[pytest.mark.slow, needs_postgres])],
)
async def journal(request: pytest.FixtureRequest, path: Path, clock: TestClock) -> AsyncIterator[Journal]:
    """Each implementation in turn."""
    made: Journal
    if request.param == "memory":
        made = MemoryJournal(clock=clock, retention=RETENTION)
    elif request.param == "sqlite":
        made = SqliteJournal(path, clock=clock, retention=RETENTION)
    else:
        url = await with_least_rights(request.getfixturevalue("postgres").new_url())
        made = PostgresJournal(url, clock=clock, retention=RETENTION)
    async with made:
        yield made
