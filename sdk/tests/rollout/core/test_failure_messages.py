"""What an agent has left among its messages must not keep its ERROR from being taken."""

import json
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.rollouts import INIT, JsonObject, ScriptedAgent, client_of, init_body
from support.server_fixtures import clean_environment, trainer

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.results import Outcome, StopReason, result_without_run, without_messages
from osmosis_ai.rollout.server.app import create_app

__all__ = ["clean_environment", "trainer"]

GOOD: list[Any] = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
REASON = StopReason(Outcome.AGENT_ERROR, "boom")


class SpoiltDict(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


ODD = ["a text", 7, None, ["a", "list"], b"bytes", object(), float("nan"), SpoiltDict(role="user")]


def failed(messages: list[Any], reason: StopReason = REASON) -> JsonObject:
    return result_without_run("r", reason, messages).payload


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_what_is_no_object_is_left_out_and_told(odd: Any) -> None:
    payload = failed([GOOD[0], odd, GOOD[1]])
    assert payload["final_messages"] == GOOD
    assert payload["extra_fields"] == {"outcome": "agent_error", "messages_left_out": 1}
    assert payload["error_message"] == "boom (1 of 3 messages cannot be sent, and are left out)"


def test_an_object_is_kept_as_far_as_it_can_be_written() -> None:
    payload = failed([{"role": "user", "content": {1}}, "text", {"role": "user", "content": float("nan")}])
    assert [message["content"] for message in payload["final_messages"]] == ["{1}", "nan"]
    assert payload["extra_fields"]["messages_left_out"] == 1


def test_a_long_message_does_not_cut_what_is_told() -> None:
    payload = failed(["text"], StopReason(Outcome.TIMEOUT, "x" * 9_999))
    assert payload["error_message"].endswith("x... (1 of 1 messages cannot be sent, and are left out)")
    assert len(payload["error_message"]) <= 2003


@pytest.mark.slow
def test_a_long_conversation_leaves_the_rest_of_the_result_whole() -> None:
    payload = failed([{"role": "user", "content": [object()] * 300_000}])
    assert (payload["finish_reason"], payload["extra_fields"]["outcome"]) == ("error", "agent_error")


@pytest.mark.parametrize("said", ["a text", ["a", "b"], {"role": "user"}, ({"role": "user"}, "x"), [None]], ids=str)
async def test_whatever_an_agent_sends_to_its_model_its_error_is_taken(trainer: FakeTrainer, said: Any) -> None:
    async def run(ctx: RolloutContext) -> Any:
        await ctx.chat(said)

    async with client_of(create_app(ScriptedAgent(run))) as client:
        assert (await client.post(INIT, json=init_body(server_url=trainer.url))).status_code == 202
        result = await trainer.result("rollout-1")
    assert result["status"] == "ERROR"
    assert all(isinstance(message, dict) for message in result["final_messages"])


def test_a_result_without_messages_is_else_the_same() -> None:
    fields: JsonObject = {"rollout_id": "r", "status": "COMPLETED", "final_messages": GOOD, "finish_reason": "stöp"}
    extra = {"outcome": "success", "final_messages": [1]}
    encoded = json.dumps({**fields, "reward": 0.1, "extra_fields": extra}).encode()
    shorter = without_messages(encoded)
    assert shorter is not None
    told = {**extra, "messages_refused": True}
    assert json.loads(shorter) == {**fields, "final_messages": [], "reward": 0.1, "extra_fields": told}
    assert without_messages(encoded) == shorter, "the same bytes each time"
    assert without_messages(shorter) is None
