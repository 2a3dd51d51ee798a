"""Fixtures for tests that serve in this process; a ``conftest`` takes them by importing them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from osmosis_ai.rollout.core.settings import reset_settings
from support.fake_trainer import FakeTrainer
from support.rollouts import StandInClients


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all tests that write nothing: a folder for each of thousands took longer than most of them."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture
def working_folder(request: pytest.FixtureRequest, shared_folder: Path) -> Path:
    """An empty one; of its own, where the test asks for ``tmp_path``."""
    return request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else shared_folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, working_folder: Path, shared_folder: Path) -> Iterator[None]:
    """Nobody's settings, and an empty working directory."""
    for name in list(os.environ):
        if name.upper().startswith("OSMOSIS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(working_folder)
    reset_settings()
    yield
    reset_settings()
    left = [each.name for each in shared_folder.iterdir()]
    for name in left:
        (shared_folder / name).rename(shared_folder.with_name(f"left-{name}"))
    assert not left, f"A test that writes into its working directory asks for tmp_path; this one left {left}."


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
