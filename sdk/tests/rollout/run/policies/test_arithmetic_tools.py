import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.run.policies.arithmetic_tools import find_tools, read_number
from osmosis_ai.rollout.run.policies.expression import Operator


def definition(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


NUMBER = {"type": "number"}


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("add", Operator.ADD),
        ("sum", Operator.ADD),
        ("calculator_add", Operator.ADD),
        ("math.subtract", Operator.SUBTRACT),
        ("minus", Operator.SUBTRACT),
        ("Multiply", Operator.MULTIPLY),
        ("times", Operator.MULTIPLY),
        ("divide-numbers", Operator.DIVIDE),
    ],
)
def test_a_tool_is_known_by_its_name(name: str, operator: Operator) -> None:
    assert [*find_tools([definition(name, a=NUMBER, b=NUMBER)])] == [operator]


@pytest.mark.parametrize("name", ["address", "summary", "surplus", "divider", "search"])
def test_a_name_that_only_contains_an_operation_is_another_tool(name: str) -> None:
    assert find_tools([definition(name, a=NUMBER, b=NUMBER)]) == {}


def test_the_usual_name_goes_before_a_synonym_and_that_before_a_part_of_a_name() -> None:
    offered = [definition(name, a=NUMBER, b=NUMBER) for name in ("old_add", "plus", "add")]
    assert find_tools(offered)[Operator.ADD].name == "add"
    assert find_tools(offered[:2])[Operator.ADD].name == "plus"


@pytest.mark.parametrize(
    "strange",
    [
        {},
        {"function": None},
        {"function": {"name": "add"}},
        {"function": {"name": 3, "parameters": {"properties": {"a": {}, "b": {}}}}},
        {"function": {"name": "add", "parameters": {"properties": ["a", "b"]}}},
        definition("add", only_one=NUMBER),
    ],
)
def test_definitions_of_another_shape_are_passed_over(strange: dict[str, Any]) -> None:
    assert find_tools([strange]) == {}


def test_arguments_use_the_offered_parameter_names_and_keep_every_digit() -> None:
    tool = find_tools([definition("add", x=NUMBER, y={"type": "string"})])[Operator.ADD]
    assert tool.arguments("9" * 40, "-0.10") == f'{{"x": {"9" * 40}, "y": "-0.10"}}'


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("7", "7"),
        (" -7.50\n", "-7.50"),
        ("+7", "7"),
        ("\N{MINUS SIGN}7", "-7"),
        ("7.", "7"),
        (".5", "0.5"),
        ("007", "7"),
        ("1,234.5", "1234.5"),
        ("1E+30", "1E+30"),
        ('{"result": 7.10}', "7.10"),
        ('{"result": "7", "unit": "cm"}', "7"),
        ("The result is 7.", "7"),
        ("3 + 4 = 7", "7"),
        ("x2 is 7", "7"),
    ],
)
def test_the_number_of_an_answer_is_read(answer: str, number: str) -> None:
    assert read_number(answer) == number


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Error: division by zero",
        "ERROR 7",
        '{"error": "no", "code": 7}',
        '{"a": 1, "b": 2}',
        "{broken",
        '{"result": NaN}',
        "[" * 5_000,
        '{"a":' * 1_500,
        "NaN",
        "Infinity",
        "-",
        ".",
        "between 3 and 4",
        "no number",
        "9" * 20_000,
    ],
)
def test_an_answer_without_one_number_is_not_guessed_at(answer: str) -> None:
    assert read_number(answer) is None


@given(st.text() | st.integers().map(str) | st.floats().map(repr) | st.from_regex(r"[-+.,0-9eE= {}\"]{1,20}"))
def test_what_is_read_is_always_a_json_number(answer: str) -> None:
    number = read_number(answer)
    assert number is None or isinstance(json.loads(number), int | float)


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_every_decimal_number_is_read_as_its_value(value: Any) -> None:
    number = read_number(str(value))
    assert number is not None
    assert type(value)(number) == value
