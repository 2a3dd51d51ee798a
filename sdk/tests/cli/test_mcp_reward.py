"""``--reward`` scores what an agent over MCP tools answers, in every command that runs one."""

import json
from pathlib import Path

import pytest
from support.mcp_agents import CALCULATOR
from support.mcp_servers import served

from osmosis_ai.cli import main

MCP = ["--mcp", str(CALCULATOR)]
REWARD = "def half(solution_str, ground_truth, extra_info=None):\n    return 0.5\n\nnumber = 3\n"


@pytest.fixture
def dataset(working_directory: Path) -> list[str]:
    (working_directory / "scoring.py").write_text(REWARD)
    row = {"system_prompt": "Calculate.", "user_prompt": "What is 3 + 4?", "ground_truth": "7"}
    (working_directory / "rows.jsonl").write_text(json.dumps(row))
    return ["-d", "rows.jsonl", "--json"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["test", "trainer"])
def test_test_and_trainer_take_the_reward_of_a_function(
    command: str, dataset: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # trainer starts `osmosis serve` with the same option.
    model = ["--model", "builtin/arithmetic"]
    assert main([command, *MCP, "--reward", "scoring:half", *model, *dataset]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["reward"] for result in results] == [0.5]


SERVER = """
import sys
from fastmcp import FastMCP

mcp = FastMCP("tools")


@mcp.tool()
def add(a: float, b: float) -> float:
    return a + b


mcp.run("http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False, log_level="error")
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["test", "trainer"])
def test_a_server_that_runs_takes_the_place_of_a_folder(
    command: str, dataset: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(SERVER, tmp_path) as url:
        arguments = ["--mcp", url, "--reward", "scoring:half", "--model", "builtin/arithmetic"]
        assert main([command, *arguments, *dataset]) == 0
    [result] = json.loads(capsys.readouterr().out)["results"]
    assert result["reward"] == 0.5
    called = [message["content"] for message in result["messages"] if message["role"] == "tool"]
    assert [float(content) for content in called] == [7.0]


def test_eval_takes_it_beside_its_own_functions(dataset: list[str]) -> None:
    functions = ["--reward", "scoring:half", "--eval-fn", "scoring:half", "--model", "builtin/arithmetic"]
    assert main(["eval", *MCP, *functions, *dataset]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["-m", "agent:agent_loop", "--reward", "scoring:half"], 2, "--reward goes with --mcp"),
        ([*MCP, "--reward", "scoring"], 2, "scoring"),
        ([*MCP, "--reward", "scoring:halve"], 1, "did you mean 'half'"),
        ([*MCP, "--reward", "scoring:number"], 1, "--reward scoring:number is a int; name a function"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "test"])
def test_one_that_cannot_be_used_is_told(
    command: str,
    arguments: list[str],
    code: int,
    problem: str,
    dataset: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rest = ["-p", "0"] if command == "serve" else [*dataset, "--model", "builtin/arithmetic"]
    assert main([command, *arguments, *rest]) == code
    assert problem in "".join(capsys.readouterr())
