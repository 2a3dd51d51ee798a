"""Every tool call of a model, right or malformed, is answered with a tool message."""

import asyncio
import json
import threading
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.core.exceptions import ToolExecutionError
from osmosis_ai.rollout.core.tools import execute_tool_calls
from tools import MAX_DIGITS, TOOLS, Tool, call_tool


def tool_call(name: Any, arguments: Any, call_id: Any = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def answer_to(call: Any) -> dict[str, str]:
    return asyncio.run(call_tool(call))


def run(name: str, arguments: Any) -> str:
    """The content of the answer; arguments other than text are sent as JSON text."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return answer_to(tool_call(name, text))["content"]


def run_raw(name: str, a: str, b: str) -> str:
    """As a model writes it: the operands are spliced into the JSON text untouched."""
    return run(name, f'{{"a": {a}, "b": {b}}}')


# Schemas


def test_a_schema_says_what_the_function_says() -> None:
    assert TOOLS["divide"].schema.model_dump(exclude_none=True) == {
        "type": "function",
        "function": {
            "name": "divide",
            "description": "Divide the first number by the second: a / b.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "number", "description": "First number"},
                    "b": {"type": "number", "description": "Second number"},
                },
                "required": ["a", "b"],
            },
            "strict": False,
        },
    }


def test_there_are_the_four_operations() -> None:
    assert list(TOOLS) == ["add", "subtract", "multiply", "divide"]


# Arithmetic


@pytest.mark.parametrize(
    ("name", "a", "b", "result"),
    [
        ("add", "5", "3", "8"),
        ("add", "0.1", "0.2", "0.3"),
        ("add", "1.50", "1.50", "3"),
        ("add", "0.12345678901234567890123", "1", "1.12345678901234567890123"),
        ("subtract", "5", "7.25", "-2.25"),
        ("subtract", "3", "3", "0"),
        ("multiply", "0.00123", "0.01", "0.0000123"),
        ("multiply", "-1", "0.0", "0"),
        ("multiply", "1e10", "1e10", "100000000000000000000"),
        ("multiply", "1e308", "10", "1" + "0" * 309),
        ("divide", "100", "4", "25"),
        ("divide", "1", "3", "0.3333333333333333"),
        ("divide", "2", "3", "0.6666666666666667"),
        ("divide", "-7", "2", "-3.5"),
        ("divide", "0", "5", "0"),
        ("divide", "1", "1024", "0.0009765625"),
        ("divide", "123456789012345678901", "2", "61728394506172839450.5"),
        ("divide", "1", "1e20", "0.00000000000000000001"),
    ],
)
def test_decimals_are_computed_as_decimals(name: str, a: str, b: str, result: str) -> None:
    assert run_raw(name, a, b) == result


@pytest.mark.parametrize("digits", [20, 400, MAX_DIGITS // 2])
def test_integers_are_exact_at_any_size(digits: int) -> None:
    nines = 10**digits - 1
    assert run_raw("multiply", str(nines), str(nines)) == str(nines * nines)
    assert run_raw("subtract", str(nines), "1") == str(nines - 1)


@given(a=st.integers(), b=st.integers())
def test_integers_agree_with_python(a: int, b: int) -> None:
    assert run("add", {"a": a, "b": b}) == str(a + b)
    assert run("subtract", {"a": a, "b": b}) == str(a - b)
    assert run("multiply", {"a": a, "b": b}) == str(a * b)


decimals = st.decimals(min_value=-(10**30), max_value=10**30, places=12)


@given(a=decimals, b=decimals)
def test_decimals_agree_with_fractions(a: Decimal, b: Decimal) -> None:
    assert Fraction(run_raw("add", f"{a:f}", f"{b:f}")) == Fraction(a) + Fraction(b)
    assert Fraction(run_raw("multiply", f"{a:f}", f"{b:f}")) == Fraction(a) * Fraction(b)
    if b:
        quotient, exact = Fraction(run_raw("divide", f"{a:f}", f"{b:f}")), Fraction(a) / Fraction(b)
        assert abs(quotient - exact) <= abs(exact) / 10**15


def test_arguments_may_come_decoded() -> None:
    assert answer_to(tool_call("add", {"a": 0.1, "b": 10**30}))["content"] == f"1{'0' * 30}.1"


# Malformed numbers


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
    assert run_raw("divide", value, "1") == "Error: argument a of divide must be a finite number"


def test_a_float_that_is_not_finite_is_refused() -> None:
    content = answer_to(tool_call("add", {"a": float("inf"), "b": 1}))["content"]
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
    assert answer_to(tool_call("add", {"a": 10**5000, "b": 1}))["content"] == TOO_LONG


def test_a_result_that_grows_too_long_is_an_overflow() -> None:
    assert run_raw("multiply", "1e3000", "1e3000") == TOO_LONG
    assert run_raw("multiply", "1e-3000", "1e-3000") == TOO_LONG
    assert run_raw("divide", "1e3000", "1e-3000") == TOO_LONG


@pytest.mark.parametrize("divisor", ["0", "0.0", "-0", '"0"', "0e5"])
def test_division_by_zero_is_an_error_for_the_model(divisor: str) -> None:
    assert run_raw("divide", "1", divisor) == "Error: division by zero: b must not be 0"
    assert run_raw("divide", "0", divisor) == "Error: division by zero: b must not be 0"


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
    assert answer_to(tool_call("add", arguments))["content"].endswith("a, b missing")


@pytest.mark.parametrize("name", ["power", "", "Add", None, 5, ["add"], {"add": 1}])
def test_an_unknown_tool_is_answered_with_the_known_ones(name: Any) -> None:
    content = answer_to(tool_call(name, "{}"))["content"]
    assert content == "Error: no such tool; there are add, subtract, multiply, divide"


@pytest.mark.parametrize("call", [None, 5, "add", [], {}, {"id": None}, {"function": None}, {"function": "add"}])
def test_what_is_no_tool_call_is_answered(call: Any) -> None:
    answer = answer_to(call)
    assert answer["content"].startswith("Error: no such tool")
    assert answer["tool_call_id"] == "unknown"


def test_an_answer_is_a_tool_message_with_the_id_of_its_call() -> None:
    assert answer_to(tool_call("add", '{"a": 1, "b": 2}', "call_7")) == {
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
            {"name": st.sampled_from(list(TOOLS)) | json_values},
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
    answer = answer_to(call)
    assert answer["role"] == "tool"
    assert isinstance(answer["content"], str)
    assert isinstance(answer["tool_call_id"], str)


# Tools of one's own


async def test_calls_of_one_turn_run_together_and_answer_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    everybody_is_here = threading.Barrier(3, timeout=10)

    def meet(name: Annotated[str, "Who comes"]) -> str:
        """Return when three have come."""
        everybody_is_here.wait()
        return name

    monkeypatch.setitem(TOOLS, "meet", Tool(meet))
    calls = [tool_call("meet", {"name": name}, name) for name in ("Ada", "Ben", "Cleo")]
    answers = await execute_tool_calls(calls, call_tool)
    assert [answer["content"] for answer in answers] == ["Ada", "Ben", "Cleo"]
    assert [answer["tool_call_id"] for answer in answers] == ["Ada", "Ben", "Cleo"]


def test_a_tool_may_be_async_and_take_text_whole_numbers_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    async def repeat(text: Annotated[str, "What"], times: Annotated[int, "How often"] = 2) -> dict[str, str]:
        """Repeat a text."""
        await asyncio.sleep(0)
        return {"text": text * times}

    tool = Tool(repeat)
    monkeypatch.setitem(TOOLS, "repeat", tool)
    parameters = tool.schema.function.parameters
    assert {name: schema.type for name, schema in parameters.properties.items()} == {
        "text": "string",
        "times": "integer",
    }
    assert parameters.required == ["text"]
    assert run("repeat", {"text": "ab"}) == '{"text": "abab"}'
    assert run("repeat", {"text": "ab", "times": "3"}) == '{"text": "ababab"}'
    assert run("repeat", {"text": "ab", "times": 1.5}) == "Error: argument times of repeat must be a whole number"
    assert run("repeat", {"text": 5}) == "Error: argument text of repeat must be a text"


def test_a_float_parameter_takes_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(of: Annotated[float, "What"]) -> float:
        """Halve a number."""
        return of / 2

    monkeypatch.setitem(TOOLS, "half", Tool(half))
    assert run("half", {"of": "3"}) == "1.5"


def test_a_parameter_of_an_unknown_type_is_refused_when_the_tool_is_made() -> None:
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with pytest.raises(TypeError, match="Parameter numbers of tool total needs an annotation: one of Decimal, float"):
        Tool(total)


def test_a_tool_without_parameters_or_descriptions_has_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    def ping(host: str = "here") -> str:
        return f"pong from {host}"

    tool = Tool(ping)
    monkeypatch.setitem(TOOLS, "ping", tool)
    assert tool.schema.function.description == "ping"
    assert tool.schema.function.parameters.properties["host"].description is None
    assert run("ping", "") == "pong from here"


def test_a_fault_of_the_tool_itself_is_no_message_for_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up() -> str:
        """Look something up."""
        raise ConnectionError("database is down")

    monkeypatch.setitem(TOOLS, "look_up", Tool(look_up))
    with pytest.raises(ToolExecutionError, match="look_up failed: database is down") as raised:
        run("look_up", {})
    assert (raised.value.tool_name, raised.value.tool_call_id) == ("look_up", "call_1")
    assert isinstance(raised.value.__cause__, ConnectionError)
