"""``serve --json`` and ``view --json``: one line on standard output as soon as they can be called, and nothing else."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.agent_files import write_agent
from support.plain_http import PLAIN
from support.processes import Program, own_environment
from support.traces import TraceMaker, saying

from osmosis_ai.cli import main

AGENT = ("-m", "user_agent:agent_loop")
SERVE = ("serve", *AGENT, "-H", "127.0.0.1", "--journal", "off", "--json")


def told_by(program: Program) -> dict[str, Any]:
    program.wait_for(r"^\{.*\}\n")
    told: dict[str, Any] = json.loads(program.stdout)
    return told


def init(port: int, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{port}/v1/rollout/init"
    return httpx.post(url, json={}, headers=headers, **PLAIN).status_code


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_says_where_it_is_with_which_key(tmp_path: Path, workers: int) -> None:
    write_agent(tmp_path)
    options = ["--journal", "j.db", "--workers", str(workers), "--log", "logs", "-p", "0"]
    with Program(tmp_path, *SERVE, *options) as server:
        told = told_by(server)
        assert (told["host"], told["pid"], told["workers"]) == ("127.0.0.1", server.pid, workers)
        assert (told["agent_name"], told["needs_key"], told["journal"]) == ("agent", True, "j.db")
        assert told["traces"].startswith("logs/")
        assert isinstance(told["tool_count"], int)
        assert init(told["port"], told["api_key"]) == 422  # an empty body, from somebody known
        assert init(told["port"], "another") == 401
        assert server.signal(signal.SIGTERM) == 0
        assert json.loads(server.stdout) == told


@pytest.mark.slow
def test_a_key_that_was_given_is_not_told(tmp_path: Path) -> None:
    write_agent(tmp_path)
    with Program(tmp_path, *SERVE, "-p", "0", "--no-validate", OSMOSIS_ROLLOUT_SERVER_API_KEY="osm_given") as server:
        told = told_by(server)
        assert (told["needs_key"], told["api_key"], told["tool_count"]) == (True, None, None)
        assert "osm_given" not in server.stdout + server.stderr


def test_what_cannot_be_served_is_told_as_everywhere(
    working_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_agent(working_directory)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([*SERVE, "-p", str(port)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert f"Cannot listen on 127.0.0.1:{port}" in told["error"]
    assert told["exit_code"] == 1


@pytest.mark.slow
def test_an_invalid_agent_is_told_in_the_document(tmp_path: Path) -> None:
    (tmp_path / "user_agent.py").write_text(
        "from osmosis_ai.rollout import RolloutAgentLoop\n"
        "class Loop(RolloutAgentLoop):\n    name = 'x'\n    def get_tools(self, request):\n        return 5\n"
        "    async def run(self, ctx):\n        ...\n"
        "agent_loop = Loop()\n"
    )
    command = [sys.executable, "-m", "osmosis_ai", *SERVE, "-p", "0"]
    done = subprocess.run(command, cwd=tmp_path, env=own_environment(), capture_output=True, timeout=60)
    told = json.loads(done.stdout)
    assert "Agent loop validation failed with 1 error(s)" in told["error"]
    assert (told["exit_code"], done.returncode) == (1, 1)


@pytest.mark.slow
def test_the_page_of_traces_says_where_it_is(tmp_path: Path) -> None:
    TraceMaker("r1").start("Hi?").turn(1, saying("x")).end(reward=1.0).write(tmp_path / "traces")
    with Program(tmp_path, "view", "traces", "--json") as viewer:
        told = told_by(viewer)
        assert (told["folder"], told["pid"]) == ("traces", viewer.pid)
        assert httpx.get(told["url"], **PLAIN).status_code == 200
