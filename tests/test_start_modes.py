"""This project's server conforms, in each of the ways to start it."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from support.processes import own_environment

from rollout_conformance import KitOptions, Status, run, select

ROOT = Path(__file__).parents[1]
KEY = "the-key-of-the-server"
TIMEOUT_SECONDS = 120.0
CAPACITY = 150
DRAIN_SECONDS = 6
# Filling a server costs seconds of CPU, and is the same in every mode.
FILLED = "serve"
WHOLE = (FILLED, "serve, two workers")
"""What an agent and its calls come to is the same in every mode of as many processes."""
OF_THE_START = ("init.accepted", "http", "auth", "idempotency", "callbacks.once", "state", "drain", "limits")
"""What depends on it: the routes, the key, what several processes know of each other, and their end."""
QUICK = {
    "OSMOSIS_NO_DOTENV": "1",
    "OSMOSIS_ROLLOUT_CLIENT_RETRY_BASE_DELAY": "0.1",
    "OSMOSIS_ROLLOUT_SERVER_API_KEY": KEY,
    "OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS": str(DRAIN_SECONDS),
    "OSMOSIS_ROLLOUT_SERVER_MAX_TOTAL_ROLLOUTS": str(CAPACITY),
}
PYTHON = sys.executable
START_MODES = {
    "serve": (PYTHON, "-m", "osmosis_ai", "serve", "-m", "server:agent_loop", "-p", "{port}"),
    "python -m server": (PYTHON, "-m", "server"),
    "uvicorn": (PYTHON, "-m", "uvicorn", "server:app", "--port", "{port}"),
    "serve, two workers": (
        *(PYTHON, "-m", "osmosis_ai", "serve", "-m", "server:agent_loop", "-p", "{port}", "--workers", "2"),
    ),
    "uvicorn, two workers": (PYTHON, "-m", "uvicorn", "server:app", "--port", "{port}", "--workers", "2"),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mode", [pytest.param(mode, marks=pytest.mark.slow) for mode in START_MODES])
async def test_it_conforms_strictly(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(own_environment()):
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {"OSMOSIS_ROLLOUT_SERVER_JOURNAL": str(tmp_path / "journal.db"), "ROLLOUT_SERVER_PORT": str(port)}
    for name, value in (QUICK | places).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    options = KitOptions(
        f"http://127.0.0.1:{port}",
        KEY,
        timeout_seconds=TIMEOUT_SECONDS,
        server_command=tuple(word.format(port=port) for word in START_MODES[mode]),
        overload_rollouts=2 * CAPACITY,
        drain_seconds=DRAIN_SECONDS,
    )
    checks = select(() if mode in WHOLE else OF_THE_START, () if mode == FILLED else ("load.overload",))
    report = await run(options, checks, strict=True)
    unkept = {result.check.id: result.reason for result in report.results if result.status is not Status.PASSED}
    assert unkept == {}, json.dumps(unkept, indent=2)
