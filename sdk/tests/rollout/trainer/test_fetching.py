"""A trainer that speaks 0.3, against a server of ours and against bodies that others send."""

import json
from typing import Any

import pytest
from support.live_server import LiveServer
from support.rollouts import ScriptedAgent, chat_once, tool

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest, RolloutStatus
from osmosis_ai.rollout.server.app import create_app
from osmosis_ai.rollout.trainer import ChatCall, Ending, RolloutOutcome, Trainer
from osmosis_ai.rollout.trainer.fetching import result_in


def request(rollout_id: str, **fields: Any) -> RolloutRequest:
    message = {"role": "user", "content": f"This is {rollout_id}."}
    about = {"messages": [message], "completion_params": {"top_k": 5}, **fields}
    return RolloutRequest(rollout_id=rollout_id, server_url="http://placeholder", **about)


@pytest.mark.slow
async def test_a_trainer_of_0_3_starts_answers_with_the_tools_of_each_call_and_fetches() -> None:
    calls: list[ChatCall] = []

    async def reply(call: ChatCall) -> CompletionsResult:
        calls.append(call)
        return CompletionsResult({"role": "assistant", "content": f"For {call.rollout_id}."}, [], [], {}, "stop")

    outcomes: list[RolloutOutcome] = []
    with LiveServer(create_app(ScriptedAgent(chat_once, [tool()]), api_key="server-key")) as server:
        async with Trainer(reply, server_url=server.url, server_api_key="server-key", protocol="0.3") as trainer:
            ids = ["a", "b 2", "ü"]
            await trainer.run([request(each, metadata={"ground_truth": "4"}) for each in ids], outcomes.append)
            refused = await trainer.run_one(request("a/b"))
    assert {outcome.outcome for outcome in outcomes} == {Ending.COMPLETED}
    results = {outcome.request.rollout_id: outcome.result for outcome in outcomes}
    assert {each: result and result.final_messages[-1]["content"] for each, result in results.items()} == {
        each: f"For {each}." for each in ids
    }
    assert {result and result.reward for result in results.values()} == {1.0}
    assert {call.sampling.get("top_k") for call in calls} == {5}
    assert {name["function"]["name"] for call in calls for name in call.tools} == {"add"}
    assert (refused.outcome, "422" in (refused.problem or "")) == (Ending.REFUSED, True)


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        ({"status": "success", "sample": {"messages": [], "reward": 0.5}}, RolloutStatus.COMPLETED, "success"),
        ({"status": "failure", "err_category": "timeout"}, RolloutStatus.ERROR, "timeout"),
        ({"status": "failure", "sample": None}, RolloutStatus.ERROR, "agent_error"),
        ({"status": "cancelled"}, RolloutStatus.ERROR, "cancelled"),
        ({"status": "running"}, None, None),
        ({"status": "unknown"}, None, None),
        ({"status": "success", "rollout_id": "other"}, None, None),
        ({"status": "success", "sample": {"reward": "high"}}, None, None),
        ({"status": "success", "sample": []}, RolloutStatus.COMPLETED, "success"),
        ({"status": ["success"]}, None, None),
        ([], None, None),
    ],
)
def test_a_poll_says_how_a_rollout_ended_or_nothing(body: Any, status: Any, outcome: Any) -> None:
    content = json.dumps({"rollout_id": "r", **body} if isinstance(body, dict) else body).encode()
    result = result_in("r", content)
    assert (result and result.status, result and result.extra_fields["outcome"]) == (status, outcome)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b'{"rollout_id":"r","status":"success","sample":{"reward":NaN}}']
)
def test_what_is_no_answer_is_none(content: bytes) -> None:
    assert result_in("r", content) is None


def test_there_are_two_protocols() -> None:
    with pytest.raises(ValueError, match=r"There is no protocol '0.4': give one of 0.2, 0.3."):
        Trainer(lambda call: NotImplemented, server_url="http://127.0.0.1:1", protocol="0.4")
