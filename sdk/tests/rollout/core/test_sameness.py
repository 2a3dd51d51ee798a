"""What is the same message, and how a difference reads."""

from typing import Any

import pytest

from osmosis_ai.rollout.core.sameness import difference, shown

Message = dict[str, Any]


def calling(arguments: Any, **fields: Any) -> Message:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **fields}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (calling('{"a": 1, "b": [true, null]}'), calling('{"b":[true,null],"a":1}')),
        (calling('{"a": 1}'), calling('{"a":1.0}')),
        (calling('{"a": "\\u00e9"}'), calling('{"a": "é"}')),
        (calling(""), calling("{}")),
        (calling("not json"), calling("not json")),
        (calling("{}"), calling("{}", content="")),
        (calling("{}"), {name: value for name, value in calling("{}").items() if name != "content"}),
        (calling("{}", reasoning_content="hm", logprobs=[1]), calling("{}")),
        (calling("{}"), calling("{}", refusal=None, annotations=[])),
        (
            calling("{}"),
            calling("{}", tool_calls=[{"index": 0, "id": "c1", "function": {"name": "add", "arguments": "{}"}}]),
        ),
        ({"role": "assistant", "content": "4", "tool_calls": []}, {"content": "4", "role": "assistant"}),
        ({"role": "user", "content": "4"}, {"role": "user", "content": [{"type": "text", "text": "4"}]}),
        ({"role": "tool", "content": "", "tool_call_id": "c1"}, {"role": "tool", "content": [], "tool_call_id": "c1"}),
    ],
)
def test_what_says_the_same_is_the_same(old: Message, new: Message) -> None:
    assert difference(old, new) is None
    assert difference(old, dict(old)) is None
    assert shown(old) == shown(new)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            {"role": "assistant", "content": "I think it is 4"},
            {"role": "assistant", "content": "4"},
            "content was 'I think it is 4' and is '4'",
        ),
        ({"role": "assistant", "content": "4"}, {"role": "user", "content": "4"}, "role was 'assistant' and is 'user'"),
        ({"role": "assistant", "content": "4"}, calling("{}"), "content was '4' and is ''"),
        (
            calling('{"a": 1}'),
            calling('{"a": true}'),
            """tool_calls[0].function.arguments was '{"a": 1}' and is '{"a": true}'""",
        ),
        (calling("{}"), calling("{"), "tool_calls[0].function.arguments was '{}' and is '{'"),
        (
            calling("{}"),
            calling("{}", tool_calls=[]),
            """tool_calls[0] was '{"id": "c1", "type": "function", "function": {"name": "add",...' and is absent""",
        ),
        (
            calling("{}"),
            calling("{}", tool_calls=[{"id": "c2", "function": {"name": "add", "arguments": "{}"}}]),
            "tool_calls[0].id was 'c1' and is 'c2'",
        ),
        (
            calling("{}"),
            calling("{}", tool_calls=[{"id": "c1", "function": {"name": "sub", "arguments": "{}"}}]),
            "tool_calls[0].function.name was 'add' and is 'sub'",
        ),
        (
            {"role": "tool", "content": "4", "tool_call_id": "c1"},
            {"role": "tool", "content": "4"},
            "tool_call_id was 'c1' and is absent",
        ),
        (
            calling("{}", reasoning_content="I see"),
            calling("{}", reasoning_content="hm"),
            "reasoning_content was 'I see' and is 'hm'",
        ),
        (calling("{}"), calling("{}", reasoning_content="hm"), "reasoning_content was absent and is 'hm'"),
        (
            {"role": "user", "content": f"{'a' * 1000}b"},
            {"role": "user", "content": f"{'a' * 1000}c{'d' * 1000}"},
            f"content was '...{'a' * 15}b' and is '...{'a' * 15}c{'d' * 41}...'",
        ),
        (
            {"role": "user", "content": "\ud800\x1b[2J"},
            {"role": "user", "content": "x"},
            r"content was '\\ud800\x1b[2J' and is 'x'",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            {"role": "user", "content": ""},
            """content was '[{"type": "image_url", "image_url": {}}]' and is ''""",
        ),
    ],
)
def test_the_first_field_that_differs_is_named_with_both_values(old: Message, new: Message, told: str) -> None:
    assert str(difference(old, new)) == told
    assert (shown(old) == shown(new)) is told.startswith("reasoning_content")  # which may be left out


@pytest.mark.parametrize("strange", [None, 7, "x", {}, {"tool_calls": [7]}, {"tool_calls": {"a": 1}}, {"content": {}}])
def test_anything_can_be_compared(strange: Any) -> None:
    assert difference(calling("{}"), strange) is not None


def test_nesting_without_end_is_a_difference() -> None:
    deep: Message = {"role": "user", "content": []}
    other: Message = {"role": "user", "content": []}
    for message in (deep, other):
        inner = message["content"]
        for _ in range(100_000):
            inner.append([])
            inner = inner[0]
    assert difference(deep, other) is not None
    assert shown(deep) == shown(other)
    assert shown(calling("[" * 400 + "]" * 400)) != shown(calling("{}"))
