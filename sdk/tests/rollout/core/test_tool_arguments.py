"""What a model may write as arguments, and what it is answered where it writes something else."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.tool_calls import answer, run, tool_call

from osmosis_ai.rollout import Toolbox
from osmosis_ai.rollout.core.tool_arguments import MAX_DIGITS


def run_raw(name: str, a: str, b: str) -> str:
    """As a model writes it: the operands are spliced into the JSON text untouched."""
    return run(name, f'{{"a": {a}, "b": {b}}}')


# Numbers


def test_arguments_may_come_decoded() -> None:
    assert answer(tool_call("add", {"a": 0.1, "b": 10**30}))["content"] == f"1{'0' * 30}.1"


@pytest.mark.parametrize(
    ("a", "b", "result"), [('"5"', '"3"', "8"), ('" 5 "', "3", "8"), ('"+2.50"', "0.5", "3"), ('"1e2"', "1", "101")]
)
def test_a_number_sent_as_text_is_that_number(a: str, b: str, result: str) -> None:
    assert run_raw("add", a, b) == result


@pytest.mark.parametrize(
    "value", ['"five"', '""', '"1/2"', '"3, 4"', '"0x10"', '"\\ud800"', "true", "false", "null", "[5]", "{}"]
)
def test_what_is_no_number_is_refused(value: str) -> None:
    assert run_raw("add", "1", value) == "Error: argument b of add must be a number"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", '"nan"', '"sNaN"', '"-inf"', '"Infinity"'])
def test_nan_and_infinities_are_refused(value: str) -> None:
    assert run_raw("subtract", value, "1") == "Error: argument a of subtract must be a finite number"


def test_a_float_that_is_not_finite_is_refused() -> None:
    content = answer(tool_call("add", {"a": float("inf"), "b": 1}))["content"]
    assert content == "Error: argument a of add must be a finite number"


TOO_LONG = "Error: overflow: a number has more than 4,000 digits"


@pytest.mark.parametrize(
    "number",
    ["9" * (MAX_DIGITS + 1), "9" * 1_000_000, "1e999999999", "-1e4000", "1e-999999999", "1e99999999999999999999"],
    ids=["a digit too many", "a million digits", "huge", "hugely negative", "tiny", "beyond decimal itself"],
)
def test_an_absurdly_long_number_is_refused(number: str) -> None:
    assert run_raw("add", number, "1") == TOO_LONG
    assert run_raw("add", f'"{number}"', "1") == TOO_LONG


def test_a_long_integer_that_comes_decoded_is_refused() -> None:
    assert answer(tool_call("add", {"a": 10**5000, "b": 1}))["content"] == TOO_LONG


# Malformed calls


def test_arguments_encoded_twice_are_decoded() -> None:
    assert run("add", json.dumps(json.dumps({"a": 2, "b": "3"}))) == "5"


@pytest.mark.parametrize("text", ["{", "a=1", "{'a': 1}", " ", '{"a": 1,', '{"a":' * 100_000, "[" * 100_000])
def test_undecodable_arguments_are_an_error_for_the_model(text: str) -> None:
    assert run("add", text) == "Error: the arguments are not valid JSON"


@pytest.mark.parametrize("text", ["[1, 2]", "5", "true", '"text"', json.dumps(json.dumps(json.dumps({"a": 1})))])
def test_arguments_that_are_no_object_are_an_error_for_the_model(text: str) -> None:
    assert run("add", text).startswith("Error: the arguments ")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"a": 1}, "b missing"),
        ({"x": 1}, "a, b missing"),
        ({}, "a, b missing"),
        ({"a": 1, "b": 2, "c": 3}, "another argument given"),
    ],
)
def test_missing_and_extra_arguments_are_named(arguments: dict[str, Any], problem: str) -> None:
    assert run("add", arguments) == f"Error: add takes the arguments a, b: {problem}"


@pytest.mark.parametrize("arguments", [None, ""])
def test_absent_arguments_count_as_none_given(arguments: Any) -> None:
    assert answer(tool_call("add", arguments))["content"].endswith("a, b missing")


@pytest.mark.parametrize("name", ["power", "", "Add", None, 5, ["add"], {"add": 1}])
def test_an_unknown_tool_is_answered_with_the_known_ones(name: Any) -> None:
    content = answer(tool_call(name, "{}"))["content"]
    assert content == "Error: no such tool; there are add, subtract"


@pytest.mark.parametrize("call", [None, 5, "add", [], {}, {"id": None}, {"function": None}, {"function": "add"}])
def test_what_is_no_tool_call_is_answered(call: Any) -> None:
    message = answer(call)
    assert message["content"].startswith("Error: no such tool")
    assert message["tool_call_id"] == "unknown"


def test_an_answer_is_a_tool_message_with_the_id_of_its_call() -> None:
    assert answer(tool_call("add", '{"a": 1, "b": 2}', "call_7")) == {
        "role": "tool",
        "content": "3",
        "tool_call_id": "call_7",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
tool_calls = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "function": json_values
        | st.fixed_dictionaries(
            {"name": st.sampled_from(["add", "subtract"]) | json_values},
            optional={
                "arguments": json_values
                | st.text()
                | st.fixed_dictionaries({"a": json_values, "b": json_values}).map(json.dumps)
            },
        ),
    },
)


@given(call=tool_calls | json_values)
def test_no_tool_call_raises(call: Any) -> None:
    message = answer(call)
    assert message["role"] == "tool"
    assert isinstance(message["content"], str)
    assert isinstance(message["tool_call_id"], str)


def test_absurd_nesting_is_answered_where_the_schema_lets_anything_in() -> None:
    def keep(value: dict[str, Any]) -> str:
        return "kept"

    tools = Toolbox(keep)
    assert run("keep", '{"value": {"a": ' + "[" * 50 + "]" * 50 + "}}", tools) == "kept"
    deep = run("keep", '{"value": {"a": ' + "[" * 990 + "]" * 990 + "}}", tools)
    assert deep in ("Error: the arguments of keep are nested too deeply", "Error: the arguments are not valid JSON")


def test_a_million_wrong_items_are_refused_in_linear_time() -> None:
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    started = time.process_time()
    tools = Toolbox(total)
    assert run("total", {"numbers": [1] * 200_000 + ["x"]}, tools) == (
        "Error: argument numbers.200000 of total must be a number"
    )
    assert time.process_time() - started < 10


def test_a_short_text_that_stands_for_many_digits_is_cheap_to_refuse() -> None:
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    started = time.process_time()
    text = '{"numbers": [' + ",".join(["1e400"] * 50_000 + ["1e3999"] * 50_000) + "]}"
    assert run("total", text, Toolbox(total)) == (
        "Error: argument numbers.50000 of total must be a whole number without so large an exponent"
    )
    assert time.process_time() - started < 10
