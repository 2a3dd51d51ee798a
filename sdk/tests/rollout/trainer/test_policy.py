"""A script in a model's place: what it may be, and what it says."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from osmosis_ai.rollout.core.llm_client import LLMClientProtocol
from osmosis_ai.rollout.trainer import Reply, ScriptedPolicy, tool_call

ASKED = [{"role": "user", "content": "How many?"}]


async def said(policy: ScriptedPolicy, messages: list[dict[str, Any]]) -> dict[str, Any]:
    return (await policy.chat_completions(messages, temperature=1.0)).message


async def test_a_list_is_said_in_its_order() -> None:
    policy = ScriptedPolicy([tool_call("count", table="employees"), "4"])
    first = await policy.chat_completions(ASKED)
    assert first.finish_reason == "tool_calls"
    assert first.message["tool_calls"] == [
        {"id": "call_0_0", "type": "function", "function": {"name": "count", "arguments": '{"table": "employees"}'}}
    ]
    answered = [*ASKED, first.message, {"role": "tool", "tool_call_id": "call_0_0", "content": "4"}]
    last = await policy.chat_completions(answered)
    assert (last.message, last.finish_reason) == ({"role": "assistant", "content": "4"}, "stop")
    assert await said(policy, answered) == last.message, "a call that is repeated gets the same answer"


async def test_a_list_that_has_ended_says_so() -> None:
    with pytest.raises(IndexError, match="the script has 1 replies and was asked for number 2: add it"):
        await ScriptedPolicy(["4"]).chat_completions([*ASKED, {"role": "assistant", "content": "4"}])


async def test_several_calls_are_one_turn() -> None:
    message = await said(ScriptedPolicy([[tool_call("a"), tool_call("b", x=1)]]), ASKED)
    assert [call["id"] for call in message["tool_calls"]] == ["call_0_0", "call_0_1"]


async def test_a_function_of_the_messages_plain_or_async() -> None:
    async def later(messages: list[dict[str, Any]]) -> Reply:
        return str(messages[-1]["content"])

    assert (await said(ScriptedPolicy(lambda messages: f"{len(messages)}"), ASKED))["content"] == "1"
    assert (await said(ScriptedPolicy(later), ASKED))["content"] == "How many?"


async def test_a_subclass_sets_replies_or_overrides_reply() -> None:
    class Listed(ScriptedPolicy):
        replies = ("yes",)

    class Computed(ScriptedPolicy):
        def reply(self, messages: list[dict[str, Any]]) -> Reply:
            return {"content": ", ".join(tool["function"]["name"] for tool in self.tools)}

    computed = Computed()
    computed.set_tools([{"type": "function", "function": {"name": "count"}}])
    assert await said(Listed(), ASKED) == {"role": "assistant", "content": "yes"}
    assert await said(computed, ASKED) == {"role": "assistant", "content": "count"}


@pytest.mark.parametrize("nonsense", [None, 3, ["text"], [None]])
async def test_what_is_no_reply_is_refused_in_a_sentence(nonsense: Any) -> None:
    script: Sequence[Any] = [nonsense]
    with pytest.raises(
        TypeError, match=r"reply must give a text, a message or tool_call\(...\), one or a list; it gave"
    ):
        await ScriptedPolicy(script).chat_completions(ASKED)


async def test_it_counts_its_calls_and_tokens() -> None:
    policy = ScriptedPolicy(["4"])
    assert isinstance(policy, LLMClientProtocol)
    result = await policy.chat_completions(ASKED)
    metrics = policy.get_metrics()
    assert (metrics.num_llm_calls, metrics.prompt_tokens) == (1, -(-len(json.dumps(ASKED[0])) // 4))
    assert metrics.response_tokens == result.usage["completion_tokens"] > 0
    policy.reset_metrics()
    assert policy.get_metrics().num_llm_calls == 0
