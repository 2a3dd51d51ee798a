"""The agent: its tools, its reward, one rollout with a script for the model, and every row of the dataset."""

import json
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.cli import main
from osmosis_ai.rollout import validate_agent_loop
from osmosis_ai.rollout.trainer import play, tool_call
from policy import reply
from rewards import compute_reward
from server import agent_loop

PROJECT = Path(__file__).parents[1]


def test_the_agent_can_be_served() -> None:
    validate_agent_loop(agent_loop).raise_if_invalid()


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (tool_call("add", a=0.1, b=0.2), "0.3"),
        (tool_call("divide", a=1, b=0), "Error: division by zero: b must not be 0"),
        (tool_call("no_such_tool"), "Error: no such tool; there are add, subtract, multiply, divide"),
    ],
)
async def test_a_call_of_the_model_gets_an_answer(call: dict[str, Any], answer: str) -> None:
    result = await play(agent_loop, [call, "#### 0"], "A question")
    assert result.final_messages[-2]["content"] == answer


@pytest.mark.parametrize(
    ("answer", "reward"), [("That makes\n#### 8", 1.0), ("#### 9", 0.0), ("It is 8.", 0.0), ("", 0.0)]
)
def test_the_reward_of_an_answer(answer: str, reward: float) -> None:
    assert compute_reward(answer, "8") == reward


async def test_one_rollout() -> None:
    result = await play(agent_loop, reply, "What is 5 + 3?", metadata={"ground_truth": "8"})
    assert (result.status, result.reward) == ("COMPLETED", 1.0)
    assert [message["role"] for message in result.final_messages] == ["user", "assistant", "tool", "assistant"]


def test_every_row_of_the_dataset_end_to_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server in a process of its own, rollouts over HTTP, the script for the model."""
    monkeypatch.chdir(PROJECT)
    rows = ["-m", "server:agent_loop", "-d", "test_data.jsonl", "--policy", "policy:reply", "--timeout", "30", "--json"]
    assert main(["trainer", *rows]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["completed"] == summary["planned"]
