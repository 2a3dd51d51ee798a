"""The agent loop against a scripted model: what it sends, when it stops, what it reports."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.rollout import (
    CompletionsResult,
    LLMClientProtocol,
    RolloutContext,
    RolloutMetrics,
    RolloutRequest,
    RolloutResult,
)
from osmosis_ai.rollout.run.policies.arithmetic import ArithmeticPolicy
from server import agent_loop
from tools import TOOLS

Message = dict[str, Any]
ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "test_data.jsonl").read_text("utf-8").splitlines()]
USAGE = {"prompt_tokens": 10, "completion_tokens": 5}


class ScriptedModel:
    """Answers the nth call with the nth reply, the last one for ever; keeps a copy of what each call was given."""

    def __init__(self, *replies: Message, finish_reason: str = "stop", usage: dict[str, int] = USAGE) -> None:
        self.replies = replies
        self.finish_reason = finish_reason
        self.usage = usage
        self.calls: list[tuple[list[Message], dict[str, Any]]] = []

    async def chat_completions(self, messages: list[Message], **kwargs: Any) -> CompletionsResult:
        self.calls.append((list(messages), kwargs))
        reply = self.replies[min(len(self.calls), len(self.replies)) - 1]
        return CompletionsResult(
            message=reply, token_ids=[], logprobs=[], usage=self.usage, finish_reason=self.finish_reason
        )

    def get_metrics(self) -> RolloutMetrics:
        return RolloutMetrics(num_llm_calls=len(self.calls))


def says(text: Any) -> Message:
    return {"role": "assistant", "content": text}


def calls(*tool_calls: tuple[str, Any], content: str | None = None) -> Message:
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                },
            }
            for number, (name, arguments) in enumerate(tool_calls)
        ],
    }


ADD = calls(("add", {"a": 1, "b": 2}))
QUESTION = [{"role": "system", "content": "Use the tools."}, {"role": "user", "content": "What is 1 + 2?"}]


def context(model: LLMClientProtocol, traces: Path | None = None, **fields: Any) -> RolloutContext:
    request = RolloutRequest.model_validate(
        {
            "rollout_id": "rollout-1",
            "server_url": "http://127.0.0.1:1",
            "messages": QUESTION,
            "completion_params": {},
            "metadata": {"ground_truth": "3"},
            **fields,
        }
    )
    tools = agent_loop.get_tools(request)
    return RolloutContext(request=request, tools=tools, llm=model, _debug_dir=str(traces) if traces else None)


async def rollout(model: LLMClientProtocol, **fields: Any) -> RolloutResult:
    return await agent_loop.run(context(model, **fields))


async def test_the_model_calls_tools_until_it_answers() -> None:
    model = ScriptedModel(ADD, says("#### 3"))
    result = await rollout(model)
    assert (result.status, result.finish_reason, result.reward) == ("COMPLETED", "stop", 1.0)
    assert result.final_messages == [
        *QUESTION,
        ADD,
        {"role": "tool", "content": "3", "tool_call_id": "call_0"},
        says("#### 3"),
    ]


async def test_messages_are_only_appended_to_and_the_request_keeps_its_own() -> None:
    model = ScriptedModel(ADD, ADD, says("#### 3"))
    ctx = context(model)
    result = await agent_loop.run(ctx)
    sent = [messages for messages, _ in model.calls] + [result.final_messages]
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(sent))
    assert ctx.request.messages == QUESTION


async def test_every_completion_param_is_passed_on_in_every_turn() -> None:
    params = {"temperature": 0.3, "top_p": 0.9, "top_k": 40, "seed": 7, "min_p": 0.05, "unheard_of": {"deep": [1]}}
    model = ScriptedModel(ADD, says("#### 3"))
    await rollout(model, completion_params=params)
    assert [kwargs for _, kwargs in model.calls] == [params, params]


async def test_calls_of_one_turn_are_answered_in_order() -> None:
    turn = calls(("multiply", {"a": 6, "b": 7}), ("divide", {"a": 1, "b": 0}), ("add", {"a": "0.1", "b": 0.2}))
    result = await rollout(ScriptedModel(turn, says("#### 3")))
    answers = [message for message in result.final_messages if message["role"] == "tool"]
    assert [answer["tool_call_id"] for answer in answers] == ["call_0", "call_1", "call_2"]
    assert [answer["content"] for answer in answers] == ["42", "Error: division by zero: b must not be 0", "0.3"]


async def test_malformed_calls_get_an_error_each_and_the_rollout_goes_on() -> None:
    turn = calls(("add", "{"), ("power", {"a": 1}), ("add", {"a": 1}), ("add", {"a": True, "b": None}))
    turn["tool_calls"] += [None, "add", {}, {"id": 5, "function": None}]
    result = await rollout(ScriptedModel(turn, says("#### 3")))
    answers = [message["content"] for message in result.final_messages if message["role"] == "tool"]
    assert len(answers) == 8
    assert all(answer.startswith("Error: ") for answer in answers)
    assert (result.status, result.reward) == ("COMPLETED", 1.0)


@pytest.mark.parametrize("tool_calls", [None, [], "add", {"name": "add"}])
async def test_what_is_no_list_of_calls_is_no_call(tool_calls: Any) -> None:
    result = await rollout(ScriptedModel(says("#### 3") | {"tool_calls": tool_calls}))
    assert (result.finish_reason, result.reward, len(result.final_messages)) == ("stop", 1.0, 3)


async def test_the_one_call_of_old_is_run_and_goes_back_as_it_came() -> None:
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 1, "b": 1}'}}
    model = ScriptedModel(legacy, says("#### 2"), finish_reason="function_call")
    result = await rollout(model, metadata={"ground_truth": "2"})
    assert result.reward == 1.0
    called, answer, _ = result.final_messages[-3:]
    assert (called, answer["content"]) == (legacy, "2")


async def test_the_finish_reason_is_the_models_own() -> None:
    result = await rollout(ScriptedModel(says("#### 3"), finish_reason="length"))
    assert result.finish_reason == "length"


@pytest.mark.parametrize("max_turns", [1, 3])
async def test_it_stops_after_max_turns(max_turns: int) -> None:
    model = ScriptedModel(ADD)
    result = await rollout(model, max_turns=max_turns)
    assert len(model.calls) == max_turns
    assert (result.status, result.finish_reason, result.reward) == ("COMPLETED", "max_turns", 0.0)
    assert result.final_messages[-1]["role"] == "tool"


async def test_it_stops_when_the_conversation_has_max_tokens_total() -> None:
    model = ScriptedModel(ADD, usage={"prompt_tokens": 60, "completion_tokens": 40})
    result = await rollout(model, max_tokens_total=100)
    assert (len(model.calls), result.finish_reason) == (1, "max_tokens")


async def test_a_prompt_counted_in_every_turn_is_not_added_up() -> None:
    model = ScriptedModel(ADD, ADD, says("#### 3"), usage={"prompt_tokens": 60, "completion_tokens": 10})
    result = await rollout(model, max_tokens_total=100)
    assert (len(model.calls), result.finish_reason) == (3, "stop")


@pytest.mark.parametrize(
    "usage", [{"completion_tokens": 30}, {"prompt_tokens": 0, "completion_tokens": 30}], ids=["absent", "zero"]
)
async def test_tokens_are_counted_where_the_trainer_leaves_the_prompt_out(usage: dict[str, int]) -> None:
    model = ScriptedModel(ADD, usage=usage)
    result = await rollout(model, max_tokens_total=100)
    assert (len(model.calls), result.finish_reason) == (4, "max_tokens")


async def test_a_trainer_that_counts_nothing_leaves_it_to_max_turns() -> None:
    result = await rollout(ScriptedModel(ADD, usage={}), max_tokens_total=1, max_turns=2)
    assert result.finish_reason == "max_turns"


async def test_an_answer_within_the_last_tokens_is_an_answer() -> None:
    result = await rollout(ScriptedModel(says("#### 3")), max_tokens_total=1)
    assert (result.finish_reason, result.reward) == ("stop", 1.0)


@pytest.mark.parametrize(
    ("metadata", "reward"),
    [
        ({"ground_truth": "3"}, 1.0),
        ({"ground_truth": 3}, 1.0),
        ({"ground_truth": 4}, 0.0),
        ({"ground_truth": 0}, 0.0),
        ({"ground_truth": None}, None),
        ({}, None),
    ],
)
async def test_the_reward_compares_the_answer_with_the_ground_truth(metadata: Message, reward: float | None) -> None:
    result = await rollout(ScriptedModel(says("#### 3")), metadata=metadata)
    assert result.reward == reward


async def test_an_answer_in_parts_is_read() -> None:
    parts = [{"type": "text", "text": "It is\n"}, {"type": "text", "text": "#### 3"}]
    assert (await rollout(ScriptedModel(says(parts)))).reward == 1.0


@pytest.mark.parametrize("content", [None, "", 3, [{"type": "image_url", "image_url": {"url": "data:,"}}]])
async def test_an_answer_without_text_is_wrong(content: Any) -> None:
    result = await rollout(ScriptedModel(says(content)))
    assert (result.status, result.reward) == ("COMPLETED", 0.0)


async def test_an_answer_in_the_request_is_not_the_models() -> None:
    messages = [*QUESTION, says("#### 3"), {"role": "user", "content": "Are you sure?"}]
    result = await rollout(ScriptedModel(says("No.")), messages=messages)
    assert result.reward == 0.0


async def test_tool_calls_are_counted_in_the_metrics() -> None:
    result = await rollout(ScriptedModel(calls(("add", {"a": 1, "b": 2}), ("add", "{")), says("#### 3")))
    assert result.metrics is not None
    assert (result.metrics.num_llm_calls, result.metrics.num_tool_calls) == (2, 2)
    assert result.metrics.tool_latency_ms > 0


async def test_the_trace_tells_the_rollout_event_by_event(tmp_path: Path) -> None:
    turn = calls(("add", {"a": 1, "b": 2}), ("add", {"a": 3, "b": 4}))
    model = ScriptedModel(turn, says("#### 3"))
    await agent_loop.run(context(model, traces=tmp_path))
    events = [json.loads(line) for line in (tmp_path / "rollout-1.jsonl").read_text(encoding="utf-8").splitlines()]
    for event in events:
        assert event.pop("rollout_id") == "rollout-1"
        assert event.pop("time") > 0
    results = [{"role": "tool", "content": "3"}, {"role": "tool", "content": "7"}]
    assert events == [
        {"event": "pre_llm", "turn": 0, "num_messages": 2, "messages_summary": QUESTION},
        {
            "event": "llm_response",
            "turn": 0,
            "has_tool_calls": True,
            "tool_calls": turn["tool_calls"],
            "finish_reason": "stop",
        },
        {"event": "tool_results", "turn": 0, "num_tool_results": 2, "results_summary": results},
        {
            "event": "pre_llm",
            "turn": 1,
            "num_messages": 5,
            "messages_summary": [*QUESTION, {"role": "assistant", "content": ""}, *results],
        },
        {"event": "llm_response", "turn": 1, "has_tool_calls": False, "tool_calls": [], "finish_reason": "stop"},
        {"event": "rollout_complete", "finish_reason": "stop", "reward": 1.0, "total_turns": 2},
    ]


async def test_the_agents_own_events_hold_the_beginning_of_a_long_message(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "x" * 100_000}]
    await agent_loop.run(context(ScriptedModel(says("y" * 100_000)), traces=tmp_path, messages=messages))
    assert max(map(len, (tmp_path / "rollout-1.jsonl").read_text().splitlines())) < 500


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["user_prompt"])
async def test_the_builtin_policy_solves_every_row_of_the_dataset(row: dict[str, str]) -> None:
    policy = ArithmeticPolicy()
    policy.set_tools(TOOLS.schemas)
    messages = [{"role": role, "content": row[f"{role}_prompt"]} for role in ("system", "user")]
    result = await rollout(policy, messages=messages, metadata={"ground_truth": row["ground_truth"]})
    assert (result.finish_reason, result.reward) == ("stop", 1.0)


def test_the_agent_offers_four_tools() -> None:
    request = context(ScriptedModel()).request
    names = [tool.function.name for tool in agent_loop.get_tools(request)]
    assert (agent_loop.name, names) == ("calculator", ["add", "subtract", "multiply", "divide"])
