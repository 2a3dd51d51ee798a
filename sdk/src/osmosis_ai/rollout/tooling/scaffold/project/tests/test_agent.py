"""The agent as a trainer meets it: its tools, its reward, one rollout, and then every row of the dataset."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from osmosis_ai.cli import main
from osmosis_ai.rollout import OsmosisLLMClient, RolloutContext, RolloutRequest, create_app, validate_agent_loop
from osmosis_ai.rollout.trainer.testing import (
    RolloutCompletionTracker,
    create_mock_trainer_app,
    patch_httpx_for_mock_trainer,
)
from rewards import compute_reward
from server import agent_loop
from tools import TOOLS

PROJECT = Path(__file__).parents[1]
KEY = "key-of-the-server"


def test_the_agent_can_be_served() -> None:
    validate_agent_loop(agent_loop).raise_if_invalid()


@pytest.mark.parametrize(
    ("tool", "arguments", "answer"),
    [
        ("add", {"a": 0.1, "b": 0.2}, "0.3"),
        ("divide", {"a": 1, "b": 0}, "Error: division by zero: b must not be 0"),
        ("no_such_tool", {}, "Error: no such tool; there are add, subtract, multiply, divide"),
    ],
)
async def test_a_call_of_the_model_gets_an_answer(tool: str, arguments: dict[str, Any], answer: str) -> None:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    request = RolloutRequest(rollout_id="rollout-1", server_url="http://trainer", messages=[], completion_params={})
    ctx = RolloutContext(request=request, tools=[], llm=OsmosisLLMClient("http://trainer", "rollout-1"))
    [message] = await TOOLS.answer(ctx, [{"id": "call_1", "type": "function", "function": function}])
    assert message == {"role": "tool", "tool_call_id": "call_1", "content": answer}


@pytest.mark.parametrize(
    ("answer", "reward"), [("That makes\n#### 8", 1.0), ("#### 9", 0.0), ("It is 8.", 0.0), ("", 0.0)]
)
def test_the_reward_of_an_answer(answer: str, reward: float) -> None:
    assert compute_reward(answer, "8") == reward


def test_one_rollout_with_a_mock_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    results = RolloutCompletionTracker()
    trainer = create_mock_trainer_app(results)  # it answers a request to add with a call of add(5, 3)
    with TestClient(trainer) as trainer_client, TestClient(create_app(agent_loop, api_key=KEY)) as server:
        patch_httpx_for_mock_trainer(trainer_client, monkeypatch)
        init = {
            "rollout_id": "rollout-1",
            "server_url": "http://trainer",
            "messages": [{"role": "user", "content": "Please add 5 and 3."}],
            "completion_params": {"temperature": 0.7},
            "metadata": {"ground_truth": "8"},
        }
        accepted = server.post("/v1/rollout/init", json=init, headers={"Authorization": f"Bearer {KEY}"})
        assert accepted.status_code == 202
        assert results.wait(timeout=20)

    [result] = results.responses
    assert (result["status"], result["metrics"]["num_tool_calls"]) == ("COMPLETED", 1)
    roles = [message["role"] for message in result["final_messages"]]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert result["final_messages"][2]["content"] == "8"


def test_every_row_of_the_dataset_end_to_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server in a process of its own, rollouts over HTTP, a script for the model."""
    monkeypatch.chdir(PROJECT)
    assert main(["trainer", "-m", "server:agent_loop", "-d", "test_data.jsonl", "--timeout", "30", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["mean_reward"] == 1.0
