from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.journal import Clock

from osmosis_ai.rollout.journal import Journal, MemoryJournal, SqliteJournal


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def sqlite(path: Path, clock: Clock) -> AsyncIterator[SqliteJournal]:
    async with SqliteJournal(path, clock=clock) as journal:
        yield journal


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, path: Path, clock: Clock) -> AsyncIterator[Journal]:
    """Each implementation in turn."""
    made: Journal = MemoryJournal(clock=clock) if request.param == "memory" else SqliteJournal(path, clock=clock)
    async with made:
        yield made
