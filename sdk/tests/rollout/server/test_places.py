"""What an app writes to disk without being told to: a server its journal, anything else nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.fake_trainer import FakeTrainer
from support.live_server import LiveServer
from support.rollouts import INIT, ScriptedAgent, init_body

from osmosis_ai.rollout import RolloutServerSettings, RolloutSettings, create_app
from osmosis_ai.rollout.core.settings import reset_settings
from osmosis_ai.rollout.core.trace.folder import trace_folder


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROLLOUT_DEBUG_DIR", raising=False)
    monkeypatch.delenv("OSMOSIS_ROLLOUT_SERVER_JOURNAL", raising=False)
    reset_settings()
    return tmp_path


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[None]:
    """The lifespan as an ASGI server runs it (ASGI 3.0, "Lifespan Protocol")."""
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.create_task(app(scope, received.get, sent.put))
    await received.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    yield
    await received.put({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await running


async def test_a_server_keeps_a_journal(empty_folder: Path) -> None:
    async with served(create_app(ScriptedAgent())):
        assert (empty_folder / ".osmosis/journal.db").exists()


async def test_a_setting_names_another_place(empty_folder: Path) -> None:
    settings = RolloutSettings(server=RolloutServerSettings(journal="elsewhere.db"))
    async with served(create_app(ScriptedAgent(), settings=settings)):
        assert (empty_folder / "elsewhere.db").exists()
        assert not (empty_folder / ".osmosis").exists()


async def test_a_variable_names_another_place(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_JOURNAL", "elsewhere.db")
    async with served(create_app(ScriptedAgent())):
        assert (empty_folder / "elsewhere.db").exists()
        assert not (empty_folder / ".osmosis").exists()


@pytest.mark.parametrize("where", ["setting", "variable"])
async def test_off_is_a_place_too(monkeypatch: pytest.MonkeyPatch, empty_folder: Path, where: str) -> None:
    if where == "variable":
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_JOURNAL", "off")
    settings = RolloutSettings(server=RolloutServerSettings(journal="off")) if where == "setting" else None
    async with served(create_app(ScriptedAgent(), settings=settings)):
        assert files_in(empty_folder) == set()


def test_a_bare_app_in_a_test_writes_nothing(trainer: FakeTrainer, empty_folder: Path) -> None:
    with TestClient(create_app(ScriptedAgent())) as client:
        assert client.post(INIT, json=init_body(server_url=trainer.url)).status_code == 202
    with LiveServer(create_app(ScriptedAgent())) as server, TestClient(create_app(ScriptedAgent())):
        assert server.port > 0
    assert files_in(empty_folder) == set()


def test_traces_go_below_the_folder_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, trainer: FakeTrainer, empty_folder: Path
) -> None:
    monkeypatch.setenv("ROLLOUT_DEBUG_DIR", str(empty_folder / "traces"))
    app = create_app(ScriptedAgent())
    assert files_in(empty_folder) == set()
    with TestClient(app) as client:
        assert client.post(INIT, json=init_body(server_url=trainer.url)).status_code == 202
    [trace] = (empty_folder / "traces").rglob("*.jsonl")
    assert trace.parent.parent == empty_folder / "traces"


def test_an_argument_wins_over_the_variable(
    monkeypatch: pytest.MonkeyPatch, trainer: FakeTrainer, empty_folder: Path
) -> None:
    monkeypatch.setenv("ROLLOUT_DEBUG_DIR", str(empty_folder / "traces"))
    with TestClient(create_app(ScriptedAgent(), debug_dir=str(empty_folder / "mine"))) as client:
        assert client.post(INIT, json=init_body(server_url=trainer.url)).status_code == 202
    assert [path.parent.name for path in empty_folder.rglob("*.jsonl")] == ["mine"]


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_folder_nothing_is_traced(
    monkeypatch: pytest.MonkeyPatch, trainer: FakeTrainer, empty_folder: Path, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("ROLLOUT_DEBUG_DIR", value)
    with TestClient(create_app(ScriptedAgent())) as client:
        assert client.post(INIT, json=init_body(server_url=trainer.url)).status_code == 202
    assert files_in(empty_folder) == set()


def test_each_start_has_a_trace_folder_of_its_own(empty_folder: Path) -> None:
    folders = []
    for _ in range(3):
        folders.append(trace_folder(empty_folder))
        folders[-1].mkdir()
    assert len(set(folders)) == 3
    assert all(folder.name.partition("-")[0].isdecimal() for folder in folders)
