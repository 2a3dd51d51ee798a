from typing import Any

import pytest

from osmosis_ai.rollout.run.zero_reasons import zero_lines, zero_reason

CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}


def said(content: str | None, *calls: dict[str, Any], **more: str) -> list[dict[str, Any]]:
    message = {"role": "assistant", "content": content, "tool_calls": list(calls), **more}
    return [{"role": "user", "content": "?"}, message]


@pytest.mark.parametrize(
    ("finish_reasons", "messages", "tools", "reason"),
    [
        (("length", "stop"), said("I was"), ["add"], "truncated at max_tokens"),
        (("tool_calls", "max_turns"), said(None, CALL), ["add"], "stopped at max_turns"),
        (("tool_calls", "max_tokens"), said(None, CALL), ["add"], "stopped at the rollout's limit of tokens"),
        (("stop", "stop"), said("#### 4"), ["add"], "called no tool although 1 was offered"),
        (("stop", "stop"), said("#### 4"), ["add", "sub", "mul", "div"], "called no tool although 4 were offered"),
        (("stop",), said('<tool_call>\n{"name": "add"}\n</tool_call>'), ["add"], "tool calls came as text"),
        (("stop",), said('{"name": "add", "parameters": {"a": 1}}'), ["add"], "tool calls came as text"),
        (("stop",), said('[TOOL_CALLS] [{"name": "add"}]'), ["add"], "tool calls came as text"),
        (("stop",), said('{"name": "Ann", "arguments": 3}'), ["add"], "called no tool although 1 was offered"),
        (("stop",), said("#### 4", CALL), ["add"], None),
        (("stop", None), said("#### 4"), [], None),
        (("stop",), said(" \n"), ["add"], "ended with an empty reply"),
        (("stop",), said(None), [], "ended with an empty reply"),
        (("stop",), said("", reasoning_content="#### 4"), [], "ended with an empty reply, all of it is reasoning"),
        (("stop",), said(None, reasoning="#### 4"), ["add"], "ended with an empty reply, all of it is reasoning"),
        (("stop",), said(None, refusal="No."), [], "ended with an empty reply, its refusal says why"),
        (("length",), said(None, reasoning_content="Let me"), [], "truncated at max_tokens"),
    ],
)
def test_what_a_conversation_shows(
    finish_reasons: tuple[str | None, ...], messages: list[dict[str, Any]], tools: list[str], reason: str | None
) -> None:
    found = zero_reason(finish_reasons, messages, tools)
    assert found is None if reason is None else str(found).startswith(reason)


def test_the_most_frequent_reason_comes_first() -> None:
    assert zero_lines({"a": 1, "b": 3}, 5) == ["3 of 5: b", "1 of 5: a"]
