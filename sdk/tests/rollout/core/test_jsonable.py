"""Whatever an agent produced becomes strict JSON, and what is JSON already stays as it is."""

import json
import math
from collections.abc import Iterator
from datetime import date
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.core.jsonable import MAX_NESTING, MAX_VALUES, copy_json, is_strict_json, plain, with_short_texts

JSON_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | JSON_TEXT,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(JSON_TEXT, values, max_size=4),
)
ANYTHING = st.recursive(
    st.none()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.dates()
    | st.complex_numbers()
    | st.builds(object)
    | st.integers(min_value=-(10**1300), max_value=10**1300),
    lambda values: (
        st.lists(values, max_size=4)
        | st.tuples(values, values)
        | st.frozensets(st.integers(), max_size=3)
        | st.dictionaries(st.text(st.characters()) | st.integers() | st.none() | st.dates(), values, max_size=4)
    ),
)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Unreadable(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


class TestPlain:
    @given(JSON)
    def test_json_stays_as_it_is(self, value: Any) -> None:
        assert plain(value) == value

    @given(ANYTHING)
    def test_anything_becomes_strict_json(self, value: Any) -> None:
        assert is_strict_json(plain(value))

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (math.nan, "nan"),
            (-math.inf, "-inf"),
            (date(2026, 1, 2), "2026-01-02"),
            ((1, [2]), [1, [2]]),
            ({1: "a", None: "b", (2, 3): "c"}, {"1": "a", "None": "b", "(2, 3)": "c"}),
            (Colour.RED, "red"),
            (Level.HIGH, 3),
            ("\ud800!", "?!"),
            ({"\udfff": "\ud800"}, {"?": "?"}),
            (Unprintable(), "<unprintable Unprintable>"),
            (Unreadable(a=1), "<unreadable Unreadable>"),
            pytest.param(10**5000, "<integer too large>", id="huge"),
        ],
    )
    def test_what_json_cannot_express_becomes_text(self, value: Any, expected: Any) -> None:
        assert plain([value]) == [expected]

    def test_a_cycle_is_cut_where_it_closes(self) -> None:
        parent: dict[str, Any] = {"name": "parent"}
        parent["children"] = [{"name": "a", "parent": parent}, {"name": "b", "parent": parent}]
        assert plain(parent) == {
            "name": "parent",
            "children": [{"name": "a", "parent": "<contains itself>"}, {"name": "b", "parent": "<contains itself>"}],
        }

    def test_the_same_value_twice_is_no_cycle(self) -> None:
        shared = [1]
        assert plain([shared, {"again": shared}]) == [[1], {"again": [1]}]

    def test_a_web_of_references_ends_within_bounds(self) -> None:
        web: list[dict[str, Any]] = [{} for _ in range(30)]
        for node in web:
            node["others"] = [other for other in web if other is not node]
        assert is_strict_json(plain(web))

    def test_nesting_is_cut(self) -> None:
        value: Any = "bottom"
        for _ in range(100_000):
            value = [value]
        cut = plain(value)
        for _ in range(MAX_NESTING):
            (cut,) = cut
        assert cut == "<nested too deep>"

    def test_what_comes_after_too_many_values_is_cut(self) -> None:
        def values(value: Any) -> Iterator[Any]:
            yield value
            for item in value if isinstance(value, list) else ():
                yield from values(item)

        assert sum(1 for _ in values(plain([[0] * 1000] * 1000))) == MAX_VALUES


class TestIsStrictJson:
    @given(JSON)
    def test_json_is(self, value: Any) -> None:
        assert is_strict_json(value)

    @pytest.mark.parametrize(
        "value", [math.nan, [math.inf], "\ud800", {"\ud800": 1}, {1}, {(1, 2): 3}, object(), [10**5000], b""]
    )
    def test_anything_else_is_not(self, value: Any) -> None:
        assert not is_strict_json(value)

    def test_a_cycle_and_bottomless_nesting_are_not(self) -> None:
        cycle: list[Any] = []
        cycle.append(cycle)
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        assert not is_strict_json(cycle)
        assert not is_strict_json(deep)


class TestCopyJson:
    @given(JSON)
    def test_a_copy_is_equal_and_shares_nothing_that_can_change(self, value: Any) -> None:
        before = json.dumps(value)
        copy = copy_json(value)
        assert copy == value
        _change_everything(copy)
        assert json.dumps(value) == before


class TestWithShortTexts:
    def test_long_text_is_cut_at_any_depth_and_says_so(self) -> None:
        value = {"a": ["x" * 50, {"b": "y" * 10}], "n": 1, "z": None}
        assert with_short_texts(value, 10) == {
            "a": ["x" * 10 + "... [40 characters left out]", {"b": "y" * 10}],
            "n": 1,
            "z": None,
        }


def _change_everything(value: Any) -> None:
    if isinstance(value, dict | list):
        for item in list(value.values() if isinstance(value, dict) else value):
            _change_everything(item)
        value.clear()
        value.update({"changed": True}) if isinstance(value, dict) else value.append("changed")
