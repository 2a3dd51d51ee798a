"""The example as a process, driven by a trainer over sockets, in each of its own start modes."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Message, RecordingTrainer, ServerProcess, example_environment

Serve = Callable[..., ServerProcess]

PYTHON_M_SERVER: tuple[tuple[str, ...], dict[str, str]] = (
    ("server",),
    {"ROLLOUT_SERVER_HOST": "127.0.0.1", "ROLLOUT_SERVER_PORT": "{port}"},
)
UVICORN: tuple[tuple[str, ...], dict[str, str]] = (
    ("uvicorn", "server:app", "--host", "127.0.0.1", "--port", "{port}"),
    {},
)

QUESTION = {"role": "user", "content": "What is (3 + 4) * 2?"}
SAMPLING = {
    "temperature": 0.25,
    "top_p": 0.75,
    "max_tokens": 99,
    "stop": ["END"],
    "logprobs": True,
    "top_k": 40,
    "seed": 12345,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "field_of_tomorrow": {"nested": [1, 2]},
}


def init_body(trainer: RecordingTrainer, rollout_id: str = "rollout-1", **fields: Any) -> Message:
    return {
        "rollout_id": rollout_id,
        "server_url": trainer.url,
        "messages": [QUESTION],
        "completion_params": SAMPLING,
        "metadata": {"ground_truth": "14"},
        **fields,
    }


def tool_call(call_id: str, name: str, arguments: Any) -> Message:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*tool_calls: Message) -> Message:
    return {"role": "assistant", "content": None, "tool_calls": list(tool_calls)}


def saying(text: str) -> Message:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(PYTHON_M_SERVER, id="python -m server"),
        pytest.param(UVICORN, id="uvicorn server:app", marks=pytest.mark.slow),
    ],
)
def test_a_trainer_drives_a_rollout(
    mode: tuple[tuple[str, ...], dict[str, str]], serve: Serve, trainer: RecordingTrainer, tmp_path: Path
) -> None:
    trainer.replies = [
        calling(tool_call("c1", "add", '{"a": 3, "b": 4}')),
        calling(tool_call("c2", "multiply", '{"a": "7", "b": 2}')),
        saying("That makes\n#### 14"),
    ]
    arguments, variables = mode
    traces = tmp_path / "traces"
    before = int(time.time())
    server = serve(*arguments, **variables, ROLLOUT_DEBUG_DIR=str(traces))
    assert not traces.exists()

    accepted = server.init(init_body(trainer))
    assert accepted.status_code == 202
    assert [tool["function"]["name"] for tool in accepted.json()["tools"]] == ["add", "subtract", "multiply", "divide"]

    completion = trainer.completion()
    assert (completion["rollout_id"], completion["status"]) == ("rollout-1", "COMPLETED")
    assert (completion["reward"], completion["finish_reason"]) == (1.0, "stop")
    assert [message["role"] for message in completion["final_messages"]] == [
        "user",
        *("assistant", "tool") * 2,
        "assistant",
    ]
    assert completion["metrics"]["num_tool_calls"] == 2

    assert len(trainer.chats) == 3
    for chat in trainer.chats:
        assert SAMPLING.items() <= chat.items()
        assert chat["rollout_id"] == "rollout-1"
    assert [message["content"] for message in trainer.chats[-1]["messages"] if message["role"] == "tool"] == ["7", "14"]

    assert (tmp_path / ".osmosis/journal.db").exists()
    [trace] = traces.rglob("*.jsonl")
    assert trace.name == "rollout-1.jsonl"
    assert trace.parent.parent == traces
    assert before <= int(trace.parent.name) <= time.time()
    events = [json.loads(line)["event"] for line in trace.read_text(encoding="utf-8").splitlines()]
    turn = ["pre_llm", "llm_response", "tool_results"]
    assert [event for event in events if event in {*turn, "rollout_complete"}] == [
        *turn,
        *turn,
        *turn[:2],
        "rollout_complete",
    ]


@pytest.mark.slow
def test_malformed_calls_are_answered_and_the_rollout_goes_on(serve: Serve, trainer: RecordingTrainer) -> None:
    arguments, variables = PYTHON_M_SERVER
    trainer.replies = [
        calling(
            tool_call("c1", "add", '{"a": "5", "b": "3"}'),
            tool_call("c2", "add", json.dumps('{"a": 0.1, "b": 0.2}')),
            tool_call("c3", "divide", '{"a": 1, "b": 0}'),
            tool_call("c4", "modulo", "{}"),
            tool_call("c5", "add", '{"a": NaN, "b": true}'),
            tool_call("c6", "multiply", '{"a": 1e999999999, "b": 2}'),
            tool_call("c7", "add", "{" * 10_000),
            tool_call("c8", "multiply", f'{{"a": {"9" * 3000}, "b": 1}}'),
        ),
        saying("#### 14"),
    ]
    assert serve(*arguments, **variables).init(init_body(trainer)).status_code == 202
    completion = trainer.completion()
    assert (completion["status"], completion["reward"]) == ("COMPLETED", 1.0)
    answers = {
        message["tool_call_id"]: message["content"]
        for message in trainer.chats[1]["messages"]
        if message["role"] == "tool"
    }
    assert list(answers) == [f"c{number}" for number in range(1, 9)]
    assert (answers["c1"], answers["c2"], answers["c8"]) == ("8", "0.3", "9" * 3000)
    assert all(answers[f"c{number}"].startswith("Error: ") for number in range(3, 8))


@pytest.mark.slow
def test_limits_and_missing_ground_truths_reach_the_trainer(serve: Serve, trainer: RecordingTrainer) -> None:
    arguments, variables = PYTHON_M_SERVER
    trainer.replies = [calling(tool_call("c1", "add", '{"a": 3, "b": 4}'))]
    server = serve(*arguments, **variables)
    server.init(init_body(trainer, "short", max_turns=2))
    completion = trainer.completion()
    assert (completion["finish_reason"], completion["reward"], len(trainer.chats)) == ("max_turns", 0.0, 2)
    server.init(init_body(trainer, "small", max_tokens_total=15, metadata={}))
    completion = trainer.completion()
    assert (completion["finish_reason"], "reward" in completion, len(trainer.chats)) == ("max_tokens", False, 3)


def refused(tmp_path: Path, **variables: str) -> str:
    """What `python -m server` says, which then is all it does."""
    finished = subprocess.run(
        [sys.executable, "-m", "server"],
        env=example_environment(**variables),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 1
    return finished.stderr.strip()


@pytest.mark.parametrize(
    "port", ["nine thousand", *(pytest.param(port, marks=pytest.mark.slow) for port in ("-1", "65536"))]
)
def test_a_port_that_is_none_gives_one_sentence(port: str, tmp_path: Path) -> None:
    assert refused(tmp_path, ROLLOUT_SERVER_PORT=port) == f"ROLLOUT_SERVER_PORT must be a port number, not {port!r}."


@pytest.mark.slow
def test_dotenv_is_read_and_an_empty_variable_is_as_good_as_none(trainer: RecordingTrainer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    places = f"ROLLOUT_SERVER_HOST=127.0.0.1\nROLLOUT_SERVER_PORT={port}\nROLLOUT_DEBUG_DIR=traces\n"
    (tmp_path / ".env").write_text(places)
    command, empty = [sys.executable, "-m", "server"], {"ROLLOUT_SERVER_HOST": "", "ROLLOUT_SERVER_PORT": ""}
    server = ServerProcess(command, port, tmp_path, example_environment(**empty))
    try:
        trainer.replies = [saying("#### 14")]
        assert server.init(init_body(trainer)).status_code == 202
        trainer.completion()
    finally:
        server.stop()
    assert f"Uvicorn running on http://127.0.0.1:{port}" in (tmp_path / "output.txt").read_text()
    assert list((tmp_path / "traces").glob("*/*.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_that_cannot_be_listened_on_is_one_sentence(host: str, tmp_path: Path) -> None:
    line = refused(tmp_path, ROLLOUT_SERVER_HOST=host, ROLLOUT_SERVER_PORT="0")
    assert line.startswith(f"Cannot listen on {host}:0 (")
    assert line.endswith("choose another address with ROLLOUT_SERVER_HOST and ROLLOUT_SERVER_PORT.")
    assert "\n" not in line
    assert not (tmp_path / ".osmosis").exists()


@pytest.mark.slow
def test_a_journal_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    folder_is_a_file = tmp_path / "file"
    folder_is_a_file.touch()
    finished = subprocess.run(
        [sys.executable, "-m", "server"],
        env=example_environment(
            ROLLOUT_SERVER_HOST="127.0.0.1",
            ROLLOUT_SERVER_PORT="0",
            OSMOSIS_ROLLOUT_SERVER_JOURNAL=str(folder_is_a_file / "journal.db"),
        ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode != 0
    assert f"The journal {folder_is_a_file / 'journal.db'} cannot be used" in finished.stderr
    assert "Traceback" not in finished.stderr
