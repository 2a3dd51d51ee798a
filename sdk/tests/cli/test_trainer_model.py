"""``osmosis trainer --model`` with an endpoint that dies, in one process tree: the server is a real one."""

import socket
from pathlib import Path

import pytest
from support.model_endpoint import ModelEndpoint, refuse

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


def test_a_call_that_the_model_refuses_ends_its_rollout_and_no_other(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ModelEndpoint(refuse(400, "no such image")) as endpoint:
        code = main(["trainer", "-m", "agent:adder", "-d", "rows.jsonl", "--base-url", endpoint.url])
    out, err = capfd.readouterr()
    assert code == 1
    assert "Traceback" not in out + err
    assert "1 x ERROR: LLM API error (HTTP 400): no such image" in out
    assert "Error: 1 of " in err
