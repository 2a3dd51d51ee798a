"""Twenty rows with each provider that the README names, by its own wire; and some step by step in a terminal."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.adder_project import results_of, row, write_rows
from support.providers import PROVIDERS, TIMEOUT_SECONDS, Provider
from support.terminal import terminal

from osmosis_ai.cli import main

ROWS = 20
STEPPED_ROWS = 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(TIMEOUT_SECONDS),
    pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS),
]


@pytest.fixture(autouse=True)
def _in_the_project(adder_project: object) -> None:
    write_rows(*(row(number, 2) for number in range(ROWS)))


def test_a_batch(provider: Provider) -> None:
    with provider.stub() as endpoint:
        arguments = provider.arguments("test", endpoint, "-o", "results.json", "--concurrency", "4")
        ended = subprocess.run(
            [sys.executable, "-m", "osmosis_ai", *arguments],
            env=provider.environment(endpoint),
            capture_output=True,
            text=True,
            check=False,
        )
    # A machine that is busy holds the loop up, and it is said.
    said = [line for line in ended.stderr.splitlines() if not line.startswith("Event loop blocked ")]
    assert (ended.returncode, said) == (0, [])
    assert "Mean reward: 1.00 (over 20 runs)" in ended.stdout
    results = results_of()["results"]
    assert [(result["turns"], result["tool_calls"], result["reward"]) for result in results] == [(2, 1, 1.0)] * ROWS
    assert results_of()["summary"]["total_tokens"] == ROWS * 2 * 15
    assert [call.path for call in endpoint.calls] == [provider.path] * (1 + ROWS * 2)
    assert {call.headers[provider.key_header].removeprefix("Bearer ") for call in endpoint.calls} == {"sk"}


def test_a_session(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    with provider.stub() as endpoint:
        for name, value in provider.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        with terminal(provider.arguments("test", endpoint, "-i"), TIMEOUT_SECONDS) as screen:
            for number in range(STEPPED_ROWS):
                screen.type_after("Select a row to test [0-19]", f"{number}\n")
                screen.type_after("Turn 1: LLM Response", "n\n")
                screen.type_after("Turn 2: LLM Response", "n\n")
                screen.type_after("[m]essages, [Enter] continue", "\n")
            screen.type_after("Select a row to test", "q\n")
            assert screen.exit_code() == 0
    assert screen.text.count("Reward: 1.0\n") == STEPPED_ROWS
    assert screen.text.count("• add(") == STEPPED_ROWS
    assert "Traceback" not in screen.text
    assert len(endpoint.calls) == 1 + STEPPED_ROWS * 2


@pytest.mark.parametrize("command", ["eval", "trainer"])
def test_what_a_model_had_thought_comes_back_to_it(
    command: str, provider: Provider, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The wires refuse a turn of the model's own that has lost any of it; trainer sends it through a rollout server."""
    write_rows(row(1, 2), row(3, 4))
    scored = ["--eval-fn", "scores:right"] if command == "eval" else []
    Path("scores.py").write_text(
        "def right(solution_str, ground_truth):\n    return float(ground_truth in solution_str)\n"
    )
    with provider.stub() as endpoint:
        for name, value in provider.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        code = main(provider.arguments(command, endpoint, "--json", *scored))
    out, err = capfd.readouterr()
    assert code == 0, err
    assert len(endpoint.calls) == (1 if command == "eval" else 0) + 2 * 2
    assert "Let me see." in out or command == "eval"
