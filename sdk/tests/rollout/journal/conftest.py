from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.journal import TestClock

from osmosis_ai.rollout.journal import Journal, MemoryJournal, Retention, SqliteJournal

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


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, path: Path, clock: TestClock) -> AsyncIterator[Journal]:
    """Each implementation in turn."""
    made: Journal = (
        MemoryJournal(clock=clock, retention=RETENTION)
        if request.param == "memory"
        else SqliteJournal(path, clock=clock, retention=RETENTION)
    )
    async with made:
        yield made
