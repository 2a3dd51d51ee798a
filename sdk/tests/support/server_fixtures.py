"""Fixtures for tests that serve in this process; a ``conftest`` takes them by importing them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from osmosis_ai.rollout.core.settings import reset_settings
from support.fake_trainer import FakeTrainer
from support.rollouts import StandInClients


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nobody's settings, and an empty working directory."""
    for name in list(os.environ):
        if name.upper().startswith("OSMOSIS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    reset_settings()
    yield
    reset_settings()


@pytest.fixture
def trainer() -> Iterator[FakeTrainer]:
    with FakeTrainer() as trainer:
        yield trainer


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> StandInClients:
    """Stands in for the SDK's client to the trainer."""
    clients = StandInClients()
    monkeypatch.setattr("osmosis_ai.rollout.server.app.OsmosisLLMClient", clients)
    return clients
