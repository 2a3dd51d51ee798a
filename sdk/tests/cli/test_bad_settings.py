"""A setting that cannot be used ends every way to start with one sentence and exit code 2; the doctor reports it.

An empty one is none, in every way too.
"""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.agent_files import write_agent
from support.processes import own_environment

VARIABLE = "OSMOSIS_ROLLOUT_SERVER_MAX_CONCURRENT_ROLLOUTS"
SENTENCE = (
    f"Error: The setting {VARIABLE} cannot be used: it must be a whole number from 1 to 10000, not 'abc'; correct it in"
    " the environment or in .env.\n"
)
SERVER = """
from osmosis_ai.rollout import create_app, run_app
from user_agent import agent_loop

app = create_app(agent_loop)
if __name__ == "__main__":
    run_app(app)
"""
AGENT, ROWS = ["-m", "server:agent_loop"], ["-d", "rows.jsonl"]
WAYS = {
    "serve": ["osmosis_ai", "serve", "-m", "server:agent_loop", "--local"],
    "uvicorn": ["uvicorn", "server:app"],
    "python": ["server"],
    "validate": ["osmosis_ai", "validate", *AGENT],
    "trainer": ["osmosis_ai", "trainer", *AGENT, *ROWS],
    "test": ["osmosis_ai", "test", *AGENT, *ROWS, "--model", "builtin/arithmetic"],
    "eval": ["osmosis_ai", "eval", *AGENT, *ROWS, "--model", "builtin/arithmetic", "--eval-fn", "x:y"],
    "rescore": ["osmosis_ai", "rescore", "results.json", "-m", "x:y"],
    "journal": ["osmosis_ai", "journal", "list"],
    "view": ["osmosis_ai", "view", "."],
}


@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way == "uvicorn" else pytest.mark.slow) for way in WAYS])
@pytest.mark.parametrize("place", [".env", pytest.param("environment", marks=pytest.mark.slow)])
def test_it_is_one_sentence(tmp_path: Path, way: str, place: str) -> None:
    write_agent(tmp_path)
    (tmp_path / "server.py").write_text(SERVER)
    if place == ".env":
        (tmp_path / ".env").write_text(f"{VARIABLE}=abc\n")
    done = subprocess.run(
        [sys.executable, "-m", *WAYS[way]],
        cwd=tmp_path,
        env=own_environment(**({VARIABLE: "abc"} if place == "environment" else {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stderr, done.returncode) == (SENTENCE, 2)


TOLD_INSTEAD = {
    **dict.fromkeys(("serve", "uvicorn", "python", "view"), "in use"),
    **dict.fromkeys(("trainer", "test", "eval"), "rows.jsonl"),
    "validate": "agent",
    "rescore": "results.json",
    "journal": "journal",
}
"""What comes after the settings: an address that is taken, a file that is not there."""


SERVING = ("serve", "uvicorn", "python")
KEY, METRICS_KEY = "OSMOSIS_ROLLOUT_SERVER_API_KEY", "OSMOSIS_ROLLOUT_SERVER_METRICS_KEY"


@pytest.mark.slow
@pytest.mark.parametrize("way", SERVING)
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_an_empty_key_opens_no_server(tmp_path: Path, way: str, place: str) -> None:
    write_agent(tmp_path)
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / ".env").write_text(f"{KEY}=\n" if place == ".env" else "")
    done = subprocess.run(
        [sys.executable, "-m", *WAYS[way]],
        cwd=tmp_path,
        env=own_environment(**({KEY: ""} if place == "environment" else {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: The setting {KEY} cannot be used: it must not be empty")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("variable", [KEY, METRICS_KEY])
@pytest.mark.parametrize("way", ["validate", "test", "trainer"])
def test_an_empty_key_stops_nothing_that_does_not_serve(tmp_path: Path, way: str, variable: str) -> None:
    write_agent(tmp_path)
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "rows.jsonl").write_text('{"user_prompt": "Work out 1 + 2.", "ground_truth": "3"}\n')
    done = subprocess.run(
        [sys.executable, "-m", *WAYS[way]],
        cwd=tmp_path,
        env=own_environment(**{variable: ""}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_an_empty_one_is_unset(tmp_path: Path, way: str) -> None:
    write_agent(tmp_path)
    (tmp_path / "server.py").write_text(SERVER)
    empty = ["OSMOSIS_ROLLOUT_SERVER_MAX_QUEUED_ROLLOUTS", METRICS_KEY, *([] if way in SERVING else [KEY])]
    (tmp_path / ".env").write_text("".join(f"{variable}=\n" for variable in empty))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        more = {"serve": ["--host", "127.0.0.1", "-p", port], "uvicorn": ["--port", port], "view": ["--port", port]}
        variables = {"ROLLOUT_SERVER_HOST": "127.0.0.1", "ROLLOUT_SERVER_PORT": port} if way == "python" else {}
        done = subprocess.run(
            [sys.executable, "-m", *WAYS[way], *more.get(way, [])],
            cwd=tmp_path,
            env=own_environment(**{VARIABLE: " "}, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    told = done.stdout + done.stderr
    assert "The setting" not in told
    assert TOLD_INSTEAD[way] in told
