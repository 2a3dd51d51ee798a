"""Arguments made from a schema fit the schema."""

from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from jsonschema import Draft202012Validator

from rollout_conformance.tool_arguments import arguments_for
from rollout_conformance.tool_schemas import problem_of

POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
SCHEMAS: dict[str, dict[str, Any]] = {
    "plain types": {
        "a": {"type": "number"},
        "b": {"type": "integer", "minimum": 10, "maximum": 12},
        "c": {"type": "string", "minLength": 9, "maxLength": 12},
        "d": {"type": "boolean"},
        "e": {"type": "null"},
    },
    "choices": {
        "a": {"enum": ["x", "y"]},
        "b": {"const": 7},
        "c": {"type": "string", "default": "d"},
        "d": {"type": ["null", "integer"]},
        "e": {"anyOf": [{"type": "null"}, {"type": "integer", "exclusiveMinimum": 5}]},
    },
    "nested": {
        "a": {
            "type": "array",
            "items": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
        },
        "b": {"type": "array", "minItems": 3, "items": {"type": "string", "format": "date"}},
        "c": {"$ref": "#/$defs/point"},
        "d": {"allOf": [{"type": "object", "properties": {"y": {"type": "number"}}, "required": ["y"]}]},
    },
    "upper bounds": {"a": {"type": "number", "maximum": -3}, "b": {"type": "integer", "exclusiveMaximum": 1}},
}


@pytest.mark.parametrize("properties", SCHEMAS.values(), ids=SCHEMAS)
def test_the_arguments_fit(properties: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": properties, "required": list(properties), "$defs": {"point": POINT}}
    assert list(Draft202012Validator(schema).iter_errors(arguments_for(schema))) == []


def test_only_what_is_required_is_given() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}
    assert arguments_for(schema) == {"a": "text"}


def test_a_number_has_a_fraction_where_it_may() -> None:
    for schema, number in (({}, 2.5), ({"minimum": 7}, 8.5), ({"multipleOf": 3}, 2), ({"maximum": 1}, 1)):
        properties = {"a": {"type": "number", **schema}, "b": {"type": "integer"}}
        assert arguments_for({"type": "object", "properties": properties}) == {"a": number, "b": 2}


def test_a_schema_that_refers_to_itself_comes_to_an_end() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}
    assert "next" in arguments_for({**node, "$defs": {"node": node}})


KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "required", "items", "enum", "anyOf", "allOf", "$ref"),
        *("minimum", "exclusiveMaximum", "multipleOf", "minItems"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYWORDS, inner, max_size=4)
        # Of a known type, so that what is special to it is looked at.
        | st.tuples(
            st.sampled_from(["object", "array", "integer", "number", "string"]), st.dictionaries(KEYWORDS, inner)
        ).map(lambda made: made[1] | {"type": made[0]})
    ),
    max_leaves=12,
)


@given(JSON)
@example({"items": {"type": None, "properties": None, "required": 1.0}})
@example({"type": "object", "required": [[]], "properties": {"a": {}}})
@example({"items": {"allOf": [{"properties": None, "required": 1}]}})
@example({"items": {"type": "integer", "minimum": [], "multipleOf": float("nan"), "maximum": float("inf")}})
@example({"items": {"type": [[], "null"]}})
def test_whatever_a_server_offers_no_schema_breaks_the_kit(schema: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": schema}}
    if problem_of(tool) == "":
        assert isinstance(arguments_for(schema), dict)
