"""What tools return, as messages: any value becomes text that a trainer can read."""

import datetime
import enum
import json
import math
import uuid
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, NoReturn

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel

from osmosis_ai.rollout import (
    create_tool_error_result,
    create_tool_result,
    serialize_tool_result,
    tools,
)

python_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.dates()
    | st.decimals()
    | st.complex_numbers()
    | st.uuids()
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.floats() | st.dates() | st.none(), inner, max_size=4)
    ),
    max_leaves=8,
)


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


class TestResults:
    def test_a_result_answers_its_call(self) -> None:
        assert create_tool_result("call_1", "8") == {"role": "tool", "content": "8", "tool_call_id": "call_1"}

    def test_an_error_is_marked_as_one(self) -> None:
        assert create_tool_error_result("call_1", "division by zero") == {
            "role": "tool",
            "content": "Error: division by zero",
            "tool_call_id": "call_1",
        }

    def test_the_exported_names_are_those_of_the_specification(self) -> None:
        assert sorted(tools.__all__) == [
            "create_tool_error_result",
            "create_tool_result",
            "execute_tool_calls",
            "get_tool_call_info",
            "parse_tool_arguments",
            "serialize_tool_result",
        ]


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: float
    day: datetime.date = datetime.date(2026, 1, 2)


@dataclass
class Pair:
    left: Any
    right: Any


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Array:
    """As numpy's arrays and scalars look from outside."""

    def tolist(self) -> list[float]:
        return [1.5, math.nan]


class BrokenModel(Point):
    def model_dump(self, **kwargs: Any) -> NoReturn:
        raise RuntimeError("no")

    def __str__(self) -> str:
        return "a broken model"


class TestSerializing:
    @pytest.mark.parametrize(
        ("result", "text"),
        [
            ("as is", "as is"),
            ("", ""),
            ('{"a":1}', '{"a":1}'),
            (True, "true"),
            (False, "false"),
            (42, "42"),
            (-7, "-7"),
            (0.0, "0.0"),
            (-1.5, "-1.5"),
            (1e100, "1e+100"),
            (None, "null"),
            ({"a": 1, "b": 2}, '{"a": 1, "b": 2}'),
            ([1, 2, 3], "[1, 2, 3]"),
            ((1, "b"), '[1, "b"]'),
            ({1: None, False: 2.5, None: ""}, '{"1": null, "false": 2.5, "null": ""}'),
            ({}, "{}"),
        ],
    )
    def test_what_the_specification_lists(self, result: Any, text: str) -> None:
        assert serialize_tool_result(result) == text

    @pytest.mark.parametrize(
        ("result", "value"),
        [
            (datetime.date(2026, 1, 2), "2026-01-02"),
            (b"caf\xc3\xa9", "café"),
            (b"\xff\x00", "\\xff\x00"),
            (bytearray(b"ab"), "ab"),
            ({3, 1, 2}, [1, 2, 3]),
            (frozenset({"b", "a"}), ["a", "b"]),
            ({"b", 1}, [1, "b"]),
            (Decimal("0.30"), "0.30"),
            (PurePosixPath("a/b"), "a/b"),
            (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
            (Colour.RED, "red"),
            (Point(x=1.5), {"x": 1.5, "day": "2026-01-02"}),
            (Point(x=math.nan), {"x": None, "day": "2026-01-02"}),
            (Pair(1, {2}), {"left": 1, "right": [2]}),
            (MappingProxyType({"a": {1}}), {"a": [1]}),
            (deque([1, b"x"]), [1, "x"]),
            (range(3), [0, 1, 2]),
            (
                {datetime.date(2026, 1, 2): 1, (1, 2): 2, None: 3, 1.5: 4, False: {5}},
                {"2026-01-02": 1, "(1, 2)": 2, "null": 3, "1.5": 4, "false": [5]},
            ),
            (Array(), [1.5, None]),
            (int, "<class 'int'>"),
            (Unprintable(), "<Unprintable>"),
            (BrokenModel(x=1), "a broken model"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_json_cannot_express_has_a_readable_form(self, result: Any, value: Any) -> None:
        assert strict_json(serialize_tool_result(result)) == value
        assert strict_json(serialize_tool_result([result])) == [value]

    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    def test_numbers_that_are_not_finite_are_null(self, number: float) -> None:
        assert serialize_tool_result(number) == "null"
        assert serialize_tool_result({"a": [number, 1]}) == '{"a": [null, 1]}'

    def test_other_alphabets_are_not_escaped(self) -> None:
        assert serialize_tool_result({"città": "北京 🚀"}) == '{"città": "北京 🚀"}'

    def test_an_integer_of_any_length_is_exact(self) -> None:
        digits = "-" + "123456789" * 1000
        number = int(Decimal(digits))
        assert serialize_tool_result(number) == digits
        assert strict_json(serialize_tool_result([number, 5])) == [digits, 5]

    def test_a_lone_surrogate_is_replaced(self) -> None:
        assert serialize_tool_result("a\ud800b") == "a?b"
        assert serialize_tool_result({"k": "a\ud800b"}) == '{"k": "a?b"}'

    def test_data_that_contains_itself_is_cut(self) -> None:
        loop: list[Any] = [1]
        loop.append(loop)
        assert serialize_tool_result(loop) == '[1, "..."]'

    def test_data_nested_too_deeply_is_cut(self) -> None:
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        assert strict_json(serialize_tool_result(deep))
        while deep:  # dismantled by hand, since freeing it in one go recurses
            deep = deep[0]

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_string_is_passed_on(self, text: str) -> None:
        assert serialize_tool_result(text) is text

    @given(python_values)
    def test_anything_else_becomes_strict_json_that_utf8_can_carry(self, value: Any) -> None:
        text = serialize_tool_result(value)
        text.encode("utf-8")
        if not isinstance(value, str):
            strict_json(text)

    @given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers() | st.none()))
    def test_json_values_survive(self, value: dict[str, Any]) -> None:
        assert json.loads(serialize_tool_result(value)) == value
