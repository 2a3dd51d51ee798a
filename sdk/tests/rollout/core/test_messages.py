"""Helpers for chat messages (`osmosis_ai.rollout.core.messages`)."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.core import messages as utils
from osmosis_ai.rollout.core.messages import (
    count_messages_by_role,
    get_message_content,
    get_message_role,
    get_message_text,
    is_assistant_message,
    is_readable_reply,
    is_tool_message,
    is_user_message,
    normalize_stop,
    parse_tool_calls,
    summarize,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
messages = st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]) | st.text(), json_values)


def test_the_exported_names_are_those_of_the_specification() -> None:
    assert sorted(utils.__all__) == [
        "count_messages_by_role",
        "get_message_content",
        "get_message_role",
        "is_assistant_message",
        "is_tool_message",
        "is_user_message",
        "normalize_stop",
        "parse_tool_calls",
    ]


def test_tool_calls_are_the_list_of_the_message() -> None:
    calls = [{"id": "1"}]
    assert parse_tool_calls({"tool_calls": calls}) is calls
    assert parse_tool_calls({"tool_calls": calls, "function_call": {"name": "add"}}) is calls


@pytest.mark.parametrize("beside", [{}, {"tool_calls": None}, {"tool_calls": []}])
def test_the_one_call_of_old_is_a_tool_call(beside: dict[str, Any]) -> None:
    function = {"name": "add", "arguments": "{}"}
    assert parse_tool_calls({"content": None, "function_call": function, **beside}) == [
        {"id": "call_0", "type": "function", "function": function}
    ]


@pytest.mark.parametrize(
    "message", [{}, {"tool_calls": None}, {"tool_calls": "add"}, {"tool_calls": ({"id": "1"},)}, {"tool_calls": {}}]
)
def test_tool_calls_of_another_shape_are_none_at_all(message: dict[str, Any]) -> None:
    assert parse_tool_calls(message) == []


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (None, None),
        ("END", ["END"]),
        ("", [""]),
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["a", 1, 2.5], ["a", "1", "2.5"]),
        (("a", "b"), ["a", "b"]),
        (["a", None, "b"], ["a", "b"]),
        (5, None),
        ({"a": 1}, None),
        ({"a"}, None),
    ],
)
def test_stop_sequences_become_a_list_of_strings(stop: Any, expected: list[str] | None) -> None:
    assert normalize_stop(stop) == expected


@given(st.one_of(json_values, st.lists(json_values).map(tuple)))
def test_any_stop_value_becomes_strings_or_nothing(stop: Any) -> None:
    normalized = normalize_stop(stop)
    assert normalized is None or all(isinstance(item, str) for item in normalized)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": "hello"}, "hello"),
        ({}, ""),
        ({"content": None}, ""),
        ({"content": 3}, ""),
        ({"content": [{"type": "text", "text": "hello"}]}, ""),
    ],
)
def test_content_is_text_or_empty(message: dict[str, Any], content: str) -> None:
    assert get_message_content(message) == content


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hello", "hello"),
        (None, ""),
        (
            [{"type": "text", "text": "a picture: "}, {"type": "image_url"}, {"type": "text", "text": "see?"}],
            "a picture: see?",
        ),
        ([{"type": "text"}, {"type": "text", "text": None}, None, 3], ""),
        ([{"type": "output_text", "text": "#### 18"}], "#### 18"),
        (["#### ", "18"], "#### 18"),
        ([{"text": "#### 18"}], "#### 18"),
        ({"type": "text", "text": "#### 18"}, "#### 18"),
        ([{"type": "text", "text": {"value": "#### 18"}}], "#### 18"),
        ([{"type": "reasoning", "text": "19?"}, {"type": "text", "text": "#### 18"}], "#### 18"),
        (18, ""),
    ],
)
def test_the_text_of_a_multimodal_message_is_that_of_its_text_parts(content: Any, text: str) -> None:
    assert get_message_text({"content": content}) == text


@pytest.mark.parametrize(
    "content", [18, True, [], {}, [None], [{"type": "image_url"}], {"type": ["text"], "text": "x"}]
)
def test_content_without_any_text_is_a_reply_only_beside_calls(content: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert not is_readable_reply({"content": content})
    assert is_readable_reply({"content": content, "tool_calls": [call]})


@pytest.mark.parametrize("content", [None, "", "x", [{"type": "text", "text": ""}], {"text": "x"}, ["x"]])
def test_an_empty_text_is_a_text(content: Any) -> None:
    assert is_readable_reply({"content": content})


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ({"role": "user"}, "user"),
        ({"role": "x"}, "x"),
        ({}, "unknown"),
        ({"role": None}, "unknown"),
        ({"role": 1}, "unknown"),
    ],
)
def test_role_is_text_or_unknown(message: dict[str, Any], role: str) -> None:
    assert get_message_role(message) == role


@pytest.mark.parametrize("role", ["assistant", "tool", "user", "system", "unknown"])
def test_each_role_is_recognised_by_one_predicate(role: str) -> None:
    predicates = {"assistant": is_assistant_message, "tool": is_tool_message, "user": is_user_message}
    recognised = [name for name, predicate in predicates.items() if predicate({"role": role})]
    assert recognised == ([role] if role in predicates else [])


def test_roles_are_counted_in_order_of_first_appearance() -> None:
    counts = count_messages_by_role([{"role": "user"}, {"role": "tool"}, {}, {"role": "user"}])
    assert list(counts.items()) == [("user", 2), ("tool", 1), ("unknown", 1)]


def test_no_messages_have_no_roles() -> None:
    assert count_messages_by_role([]) == {}


@given(messages)
def test_any_message_has_a_role_a_content_a_text_and_tool_calls(message: dict[str, Any]) -> None:
    assert isinstance(get_message_role(message), str)
    assert isinstance(get_message_content(message), str)
    assert isinstance(get_message_text(message), str)
    assert isinstance(parse_tool_calls(message), list)


def test_a_summary_is_the_role_and_the_first_hundred_characters() -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "image_url"}, {"type": "text", "text": "this?"}]
    assert summarize([{"role": "user", "content": parts}, {"role": "tool", "content": "x" * 101}, {}]) == [
        {"role": "user", "content": "What is this?"},
        {"role": "tool", "content": "x" * 100},
        {"role": "unknown", "content": ""},
    ]
