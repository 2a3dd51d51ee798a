"""``osmosis trainer --model`` with an endpoint that dies, in one process tree: the server is a real one. `eval` too."""

import json
import socket
from pathlib import Path

import pytest
from support.model_endpoint import HANG_UP, ModelEndpoint, arithmetic, refuse

from osmosis_ai.cli import main


@pytest.fixture
def project(adder_project: Path) -> Path:
    return adder_project


@pytest.mark.slow
def test_a_model_that_is_not_there_is_one_sentence_with_the_address_once(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    code = main(["trainer", "-m", "agent:adder", "-d", "rows.jsonl", "--base-url", f"http://{address}/v1"])
    out, err = capfd.readouterr()
    assert code == 1
    assert "Traceback" not in out + err
    assert (out + err).count("Cannot connect to API endpoint") == 1
    assert f"http://{address}/v1" in err


@pytest.mark.slow
def test_a_call_that_the_model_refuses_ends_its_rollout_and_no_other(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ModelEndpoint(refuse(400, "no such image")) as endpoint:
        code = main(["trainer", "-m", "agent:adder", "-d", "rows.jsonl", "--base-url", endpoint.url])
    out, err = capfd.readouterr()
    assert code == 1
    assert "Traceback" not in out + err
    assert "1 x refused request: LLM API error (HTTP 400): no such image" in out
    assert "Error: 1 of " in err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["trainer", "eval"])
def test_a_model_that_dies_in_the_middle_is_one_sentence_with_the_address_once_and_no_zero(
    command: str, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ModelEndpoint() as endpoint:
        endpoint.otherwise = lambda body: arithmetic(body) if len(endpoint.calls) < 4 else HANG_UP
        arguments = ["-m", "agent:adder", "-d", "rows.jsonl", "--model", "m", "--base-url", endpoint.url]
        code = main([command, *arguments, "--concurrency", "1", "-o", "results.json"])
    out, err = capfd.readouterr()
    assert code == 1
    assert "Traceback" not in out + err
    assert err.count("The connection broke before the reply was there") == 1
    assert err.count(endpoint.url) == 1
    document = json.loads((project / "results.json").read_text())
    runs = document["results"] if command == "trainer" else [run for row in document["rows"] for run in row["runs"]]
    assert {run["reward"] if command == "trainer" else run["scores"].get("reward") for run in runs} == {1.0, None}
