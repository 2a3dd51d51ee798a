"""What the trainer is told: the agent's result if it is one, and never a failure that looks like a reward."""

import asyncio
import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.fake_trainer import FakeTrainer
from support.rollouts import INIT, JsonObject, ScriptedAgent, StandInClients, chat_once, client_of, init_body

from osmosis_ai.rollout.core.base import RolloutContext, RolloutResult
from osmosis_ai.rollout.core.exceptions import OsmosisRolloutError, ToolExecutionError
from osmosis_ai.rollout.core.schemas import RolloutMetrics, RolloutStatus
from osmosis_ai.rollout.server.app import create_app

MESSAGES: list[JsonObject] = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "#### 4"}]
CIRCULAR: JsonObject = {"role": "user"}
CIRCULAR["content"] = CIRCULAR
DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]


async def result_of(trainer: FakeTrainer, run: Any, **init: Any) -> JsonObject:
    """The result that reaches the trainer for an agent that runs ``run``."""
    async with client_of(create_app(ScriptedAgent(run))) as client:
        assert (await client.post(INIT, json=init_body(server_url=trainer.url, **init))).status_code == 202
        return await trainer.result("rollout-1")


def returning(returned: Any) -> Any:
    async def run(ctx: RolloutContext) -> Any:
        return returned

    return run


def completed(**changes: Any) -> RolloutResult:
    fields: dict[str, Any] = {"status": "COMPLETED", "final_messages": MESSAGES, "finish_reason": "stop"}
    return RolloutResult(**{**fields, **changes})


class TestSuccess:
    async def test_is_passed_on_as_the_agent_made_it(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            return ctx.complete(MESSAGES, finish_reason="max_turns", reward=0.25)

        result = await result_of(trainer, run)
        metrics = result.pop("metrics")
        assert result == {
            "rollout_id": "rollout-1",
            "status": "COMPLETED",
            "final_messages": MESSAGES,
            "finish_reason": "max_turns",
            "reward": 0.25,
            "extra_fields": {"outcome": "success"},
        }
        assert set(metrics) == set(RolloutMetrics.model_fields)

    async def test_no_reward_is_left_out_and_a_reward_of_zero_is_not(self, trainer: FakeTrainer) -> None:
        assert "reward" not in await result_of(trainer, returning(completed()))
        with FakeTrainer() as other:
            assert (await result_of(other, returning(completed(reward=0.0))))["reward"] == 0.0

    @pytest.mark.parametrize("status", ["COMPLETED", RolloutStatus.COMPLETED])
    @pytest.mark.parametrize("reward", [1, True, Decimal("1"), Fraction(1)])
    async def test_the_reward_may_be_any_finite_number(self, trainer: FakeTrainer, status: str, reward: Any) -> None:
        result = await result_of(trainer, returning(completed(status=status, reward=reward)))
        assert (result["status"], result["reward"]) == ("COMPLETED", 1.0)

    async def test_extra_fields_travel_along_but_the_outcome_is_ours(self, trainer: FakeTrainer) -> None:
        extra = {"tokens": [1, 2], "outcome": "fabulous"}
        result = await result_of(trainer, returning(completed(extra_fields=extra)))
        assert result["extra_fields"] == {"tokens": [1, 2], "outcome": "success"}
        assert extra["outcome"] == "fabulous"

    async def test_text_of_any_script_arrives_unharmed(self, trainer: FakeTrainer) -> None:
        messages = [{"role": "assistant", "content": "数学 🧮 \u2028 \0"}]
        assert (await result_of(trainer, returning(completed(final_messages=messages))))["final_messages"] == messages


class TestErrorOfTheAgent:
    async def test_is_passed_on_with_its_messages_and_without_a_reward(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            result = ctx.error("the tool is down", MESSAGES)
            result.reward = 1.0
            return result

        result = await result_of(trainer, run)
        assert (result["status"], result["error_message"]) == ("ERROR", "the tool is down")
        assert (result["finish_reason"], result["final_messages"]) == ("error", MESSAGES)
        assert "reward" not in result
        assert result["extra_fields"]["outcome"] == "agent_error"


class TestOutcome:
    async def test_a_chat_call_that_fails_is_the_models(self, trainer: FakeTrainer) -> None:
        trainer.chat_answers = [400]
        result = await result_of(trainer, chat_once)
        assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "llm_error")
        assert "HTTP 400" in result["error_message"]
        assert result["final_messages"] == init_body()["messages"]

    async def test_a_chat_call_whose_failure_the_agent_reports_is_the_models_too(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            try:
                await ctx.chat(list(ctx.request.messages))
            except OsmosisRolloutError as error:
                return ctx.error(f"no reply: {error}")

        trainer.chat_answers = [422]
        assert (await result_of(trainer, run))["extra_fields"]["outcome"] == "llm_error"

    async def test_a_tool_that_fails_is_the_tools(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            try:
                raise ToolExecutionError("division by zero")
            except ToolExecutionError as error:
                raise RuntimeError("turn 1 failed") from error

        assert (await result_of(trainer, run))["extra_fields"]["outcome"] == "tool_error"

    async def test_an_error_the_agent_got_over_does_not_spoil_its_success(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            try:
                await ctx.chat(list(ctx.request.messages))
            except OsmosisRolloutError:
                return ctx.complete(MESSAGES, reward=1.0)

        trainer.chat_answers = [400]
        result = await result_of(trainer, run)
        assert (result["extra_fields"]["outcome"], result["reward"]) == ("success", 1.0)


class TestNonsense:
    @pytest.mark.parametrize(
        ("returned", "said"),
        [
            (None, "NoneType, not a RolloutResult"),
            ({"status": "COMPLETED"}, "dict, not a RolloutResult"),
            (completed(status="completed"), "status must be COMPLETED or ERROR, got 'completed'"),
            (completed(status=None), "status must be COMPLETED or ERROR"),
            (completed(status=[]), "status must be COMPLETED or ERROR"),
            (completed(reward=math.nan), "reward must be a finite number, got 'nan'"),
            (completed(reward=-math.inf), "reward must be a finite number"),
            (completed(reward=10**400), "reward must be a finite number"),
            (completed(reward="1.0"), "reward must be a finite number, got '1.0'"),
            (completed(reward=1j), "reward must be a finite number"),
            (completed(final_messages=None), "final_messages must be a list of messages, got NoneType"),
            (completed(final_messages=["hello"]), "final_messages[0] must be a message object, got str"),
            (completed(final_messages=tuple(MESSAGES)), "final_messages must be a list of messages, got tuple"),
            (completed(finish_reason=None), "finish_reason must be text"),
            (completed(error_message=ValueError("x")), "error_message must be text"),
            (completed(metrics={"num_llm_calls": 1}), "metrics must be RolloutMetrics"),
            (completed(metrics=RolloutMetrics(total_latency_ms=math.nan)), "metrics cannot be written as JSON"),
            (completed(extra_fields=[1]), "extra_fields must be an object"),
            (completed(extra_fields={"x": object()}), "extra_fields cannot be written as JSON"),
        ],
    )
    async def test_is_an_error_that_says_why(self, trainer: FakeTrainer, returned: Any, said: str) -> None:
        result = await result_of(trainer, returning(returned))
        assert (result["status"], result["finish_reason"]) == ("ERROR", "error")
        assert result["error_message"].startswith("invalid result: ")
        assert said in result["error_message"]
        assert result["extra_fields"]["outcome"] == "invalid_result"
        assert "reward" not in result

    @pytest.mark.parametrize(
        "message",
        [
            {"role": "assistant", "content": object()},
            {"role": "assistant", "content": math.nan},
            {"role": "assistant", "content": b"bytes"},
            {"role": "assistant", "content": "\ud800"},
            {"role": "assistant", ("a", "tuple"): 1},
            {"role": "assistant", "content": 10**5000},
            CIRCULAR,
            {"role": "assistant", "content": DEEP},
        ],
        ids=["object", "nan", "bytes", "surrogate", "key", "integer", "circular", "deep"],
    )
    async def test_messages_that_json_cannot_hold_are_named_and_kept_as_far_as_they_can_be(
        self, trainer: FakeTrainer, message: JsonObject
    ) -> None:
        result = await result_of(trainer, returning(completed(final_messages=[*MESSAGES, message], reward=1.0)))
        assert result["error_message"] == "invalid result: final_messages[2] cannot be written as JSON"
        assert result["final_messages"][:2] == MESSAGES
        assert len(result["final_messages"]) == 3
        assert "reward" not in result


anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from(["COMPLETED", "ERROR", RolloutStatus.ERROR, ValueError("x"), RolloutMetrics()]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.builds(
        RolloutResult,
        status=st.sampled_from(["COMPLETED", "ERROR"]) | anything,
        final_messages=st.lists(st.dictionaries(st.text(max_size=3), anything, max_size=2), max_size=2) | anything,
        finish_reason=st.text(max_size=5) | anything,
        error_message=st.none() | anything,
        metrics=st.none() | anything,
        reward=st.none() | st.floats() | anything,
        extra_fields=st.dictionaries(st.text(max_size=3), anything, max_size=2) | anything,
    )
)
def test_whatever_is_returned_arrives_as_one_strict_result(returned: RolloutResult) -> None:
    async def drive() -> JsonObject:
        clients = StandInClients()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("osmosis_ai.rollout.server.app.OsmosisLLMClient", clients)
            async with client_of(create_app(ScriptedAgent(returning(returned)))) as client:
                await client.post(INIT, json=init_body())
                return (await clients.result())[1]

    result = asyncio.run(drive())
    metrics = result.pop("metrics")
    json.dumps(result, allow_nan=False, ensure_ascii=False).encode()
    assert result["status"] in ("COMPLETED", "ERROR")
    assert isinstance(result["finish_reason"], str)
    assert all(isinstance(message, dict) for message in result["final_messages"])
    assert metrics is None or isinstance(metrics, RolloutMetrics)
    if result["status"] == "ERROR":
        assert result["reward"] is None
    else:
        assert returned.status == "COMPLETED"
        assert result["reward"] is None or math.isfinite(result["reward"])
