"""Fixtures for tests that serve in a process of its own; a module takes them by importing them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.faulty_trainer import FaultyTrainer


@pytest.fixture
def trainer() -> Iterator[FaultyTrainer]:
    with FaultyTrainer() as trainer:
        yield trainer


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for the journal, which a test may move, close or delete."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"
