"""The calculator's arithmetic, in numbers as a model writes them; what the SDK makes of its calls is tested there."""

import asyncio
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.tool_calls import content_of

from osmosis_ai.rollout.core.tool_arguments import MAX_DIGITS
from tools import TOOLS, divide


def run(name: str, arguments: Any) -> str:
    return asyncio.run(content_of(TOOLS, name, arguments))


def run_raw(name: str, a: str, b: str) -> str:
    """As a model writes it: the operands are spliced into the JSON text untouched."""
    return run(name, f'{{"a": {a}, "b": {b}}}')


def test_a_schema_says_what_the_function_says() -> None:
    *_, schema = TOOLS.schemas
    assert schema.model_dump(exclude_none=True) == {
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
                "additionalProperties": False,
            },
            "strict": False,
        },
    }


def test_there_are_the_four_operations() -> None:
    assert [schema.function.name for schema in TOOLS.schemas] == ["add", "subtract", "multiply", "divide"]


def test_a_tool_is_still_a_function() -> None:
    assert divide(Decimal(1), Decimal(8)) == Decimal("0.125")


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


TOO_LONG = "Error: overflow: a number has more than 4,000 digits"


def test_a_result_that_grows_too_long_is_an_overflow() -> None:
    assert run_raw("multiply", "1e3000", "1e3000") == TOO_LONG
    assert run_raw("multiply", "1e-3000", "1e-3000") == TOO_LONG
    assert run_raw("divide", "1e3000", "1e-3000") == TOO_LONG


@pytest.mark.parametrize("divisor", ["0", "0.0", "-0", '"0"', "0e5"])
def test_division_by_zero_is_an_error_for_the_model(divisor: str) -> None:
    assert run_raw("divide", "1", divisor) == "Error: division by zero: b must not be 0"
    assert run_raw("divide", "0", divisor) == "Error: division by zero: b must not be 0"
