"""The tool definition for an MCP tool: one type a parameter, no references, and nothing else lost."""

import json
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal

import pytest
from fastmcp import FastMCP
from hypothesis import given, strategies as st
from pydantic import BaseModel, Field

from osmosis_ai.rollout.mcp.agent_loop import MCPAgentLoop, _mcp_tool_to_openai

JsonObject = dict[str, Any]


def definition_of(parameters: Any, name: str = "tool", description: str | None = "Does it.") -> JsonObject:
    return _mcp_tool_to_openai(name, description, parameters).model_dump(exclude_none=True)


def property_of(schema: Any, **root: Any) -> JsonObject:
    """What becomes of one parameter's schema."""
    parameters = {"type": "object", "properties": {"x": schema}, **root}
    converted: JsonObject = definition_of(parameters)["function"]["parameters"]["properties"]["x"]
    return converted


def test_a_definition_has_the_shape_that_providers_take() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    assert definition_of(parameters, "greet", "Greets.") == {
        "type": "function",
        "function": {
            "name": "greet",
            "description": "Greets.",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            "strict": False,
        },
    }


@pytest.mark.parametrize("description", [None, ""])
def test_a_tool_without_a_description_is_described_by_its_name(description: str | None) -> None:
    assert definition_of({}, "greet", description)["function"]["description"] == "Tool: greet"


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}])
def test_a_tool_without_parameters_has_an_empty_object(parameters: Any) -> None:
    assert definition_of(parameters)["function"]["parameters"] == {"type": "object", "properties": {}, "required": []}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": "number"}, "number"),
        ({"type": "boolean"}, "boolean"),
        ({"type": ["null", "integer"]}, "integer"),
        ({"type": ["integer", "number"]}, "number"),
        ({"type": ["null"]}, "string"),
        ({"type": 7}, "string"),
        ({}, "string"),
        (True, "string"),
        (False, "string"),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "integer"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, "number"),
        ({"anyOf": [{"type": "integer"}, {"type": "number", "minimum": 1}]}, "number"),
        ({"anyOf": [{"type": "null"}]}, "string"),
        ({"anyOf": [{"anyOf": [{"type": "null"}, {"type": "boolean"}]}, {"type": "string"}]}, "boolean"),
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, "integer"),
        ({"allOf": [{"type": "integer"}]}, "integer"),
        ({"enum": [1, 2]}, "integer"),
        ({"enum": [1, 2.5]}, "number"),
        ({"enum": [True]}, "boolean"),
        ({"enum": ["a", 1]}, "string"),
        ({"const": "a"}, "string"),
        ({"const": 1.5}, "number"),
        ({"properties": {}}, "object"),
        ({"items": {}}, "array"),
    ],
)
def test_a_parameter_has_one_type(schema: Any, kind: str) -> None:
    assert property_of(schema)["type"] == kind


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer", "minimum": 1}, "maxItems": 3},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0.5, "title": "Share"},
        {"type": "string", "pattern": "^a", "format": "date", "examples": ["a1"], "default": "a"},
        {"type": "number", "enum": [1, 2, 3]},
        {"type": "string", "description": "Which.", "enum": ["x", "y"]},
        {"type": "string", "default": {"$ref": "data, not a reference"}},
    ],
)
def test_what_the_author_stated_stays(schema: JsonObject) -> None:
    assert property_of(schema) == schema


def test_keywords_beside_the_properties_stay() -> None:
    parameters = {"type": "object", "properties": {}, "additionalProperties": False, "title": "Arguments"}
    converted = definition_of(parameters)["function"]["parameters"]
    assert (converted["additionalProperties"], converted["title"]) == (False, "Arguments")


@pytest.mark.parametrize("schema", [{"type": "array"}, {"type": "array", "prefixItems": [{"type": "integer"}]}])
def test_an_array_always_says_items_as_hosted_apis_refuse_it_otherwise(schema: JsonObject) -> None:
    assert property_of(schema) == {**schema, "items": {}}
    assert property_of({"type": "object", "properties": {"y": schema}})["properties"]["y"] == {**schema, "items": {}}


def test_the_first_alternative_keeps_all_it_says() -> None:
    schema = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}], "title": "Names"}
    assert property_of(schema) == {"type": "array", "items": {"type": "string"}, "title": "Names"}


def test_alternatives_of_one_type_all_stay() -> None:
    circle = {"type": "object", "properties": {"radius": {"type": "number"}}}
    square = {"type": "object", "properties": {"side": {"type": "number"}}}
    converted = property_of({"oneOf": [circle, square, {"type": "null"}], "description": "A shape."})
    assert converted == {"type": "object", "description": "A shape.", "oneOf": [circle, square]}


def test_a_description_beside_alternatives_or_a_reference_goes_before_theirs() -> None:
    member = {"type": "string", "description": "Any colour."}
    assert property_of({"anyOf": [member], "description": "Of the car."})["description"] == "Of the car."
    reference = {"$ref": "#/$defs/Colour", "description": "Of the car."}
    assert property_of(reference, **{"$defs": {"Colour": member}})["description"] == "Of the car."
    assert property_of({"anyOf": [member]})["description"] == "Any colour."


def test_a_default_of_null_goes_with_the_null_it_stands_for() -> None:
    optional = [{"type": "integer"}, {"type": "null"}]
    assert property_of({"anyOf": optional, "default": None}) == {"type": "integer"}
    assert property_of({"anyOf": optional, "default": 3}) == {"type": "integer", "default": 3}


def test_a_constant_is_also_an_enum_of_one() -> None:
    assert property_of({"const": "metre"}) == {"type": "string", "const": "metre", "enum": ["metre"]}


def test_the_parts_of_all_of_become_one_and_keep_what_they_disagree_on() -> None:
    first = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "title": "First"}
    second = {"properties": {"b": {"type": "number"}}, "required": ["b", "a"], "title": "Second", "minProperties": 2}
    assert property_of({"allOf": [first, second], "minProperties": 1}) == {
        "type": "object",
        "minProperties": 1,
        "properties": {"b": {"type": "number"}, "a": {"type": "string"}},
        "required": ["a", "b"],
        "title": "First",
        "allOf": [{"minProperties": 2}],
    }


class TestReferences:
    @pytest.mark.parametrize(
        ("reference", "root"),
        [
            ("#/$defs/Count", {"$defs": {"Count": {"type": "integer", "minimum": 1}}}),
            ("#/definitions/Count", {"definitions": {"Count": {"type": "integer", "minimum": 1}}}),
            ("#/$defs/a~1b~0c", {"$defs": {"a/b~c": {"type": "integer", "minimum": 1}}}),
            ("#/$defs/a%20b", {"$defs": {"a b": {"type": "integer", "minimum": 1}}}),
            ("#/$defs/One/anyOf/0", {"$defs": {"One": {"anyOf": [{"type": "integer", "minimum": 1}]}}}),
            ("#/$defs/A", {"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"type": "integer", "minimum": 1}}}),
        ],
    )
    def test_become_what_they_refer_to(self, reference: str, root: JsonObject) -> None:
        assert property_of({"$ref": reference}, **root) == {"type": "integer", "minimum": 1}

    def test_are_replaced_at_any_depth_and_leave_no_definitions(self) -> None:
        parameters = {
            "$defs": {"Tag": {"type": "string"}, "Item": {"properties": {"tags": {"items": {"$ref": "#/$defs/Tag"}}}}},
            "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/Item"}}},
        }
        text = json.dumps(definition_of(parameters))
        assert "$ref" not in text
        assert "$defs" not in text
        converted = definition_of(parameters)["function"]["parameters"]["properties"]["items"]
        assert converted["items"] == {"properties": {"tags": {"items": {"type": "string"}}}}

    def test_may_be_the_whole_schema(self) -> None:
        arguments = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
        converted = definition_of({"$ref": "#/$defs/Arguments", "$defs": {"Arguments": arguments}})
        assert converted["function"]["parameters"] == arguments

    def test_to_a_recursive_type_are_expanded_once(self) -> None:
        node = {
            "type": "object",
            "title": "Node",
            "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
        }
        converted = property_of({"$ref": "#/$defs/Node"}, **{"$defs": {"Node": node}})
        assert converted["properties"]["children"]["items"] == {"type": "object", "title": "Node"}

    @pytest.mark.parametrize(
        "reference",
        ["#/$defs/Missing", "#/$defs/Number/type", "Node.json", "https://example.com/node", 7, "#/$defs/List/5"],
    )
    def test_that_lead_nowhere_are_an_error_that_names_them(self, reference: Any) -> None:
        definitions = {"Number": {"type": "number"}, "List": []}
        with pytest.raises(ValueError, match=str(reference).replace("$", r"\$")):
            property_of({"$ref": reference}, **{"$defs": definitions})

    def test_that_lead_only_to_themselves_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="only to itself"):
            property_of({"$ref": "#/$defs/A"}, **{"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}})

    def test_that_would_expand_without_bound_are_an_error(self) -> None:
        levels = {
            f"L{n}": {"properties": {"a": {"$ref": f"#/$defs/L{n + 1}"}, "b": {"$ref": f"#/$defs/L{n + 1}"}}}
            for n in range(40)
        }
        with pytest.raises(ValueError, match="20,000"):
            property_of({"$ref": "#/$defs/L0"}, **{"$defs": {**levels, "L40": {"type": "string"}}})


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ("text", "must be an object, got str"),
        ({"properties": []}, "properties must be an object, got list"),
        ({"properties": {"x": "text"}}, "parameter 'x' must be an object, got str"),
        ({"properties": {"x": {"anyOf": [None]}}}, "a schema in it must be an object, got NoneType"),
        ({"properties": {"x": {"type": "string", "enum": "ab"}}}, "properties.x.enum"),
        ({"properties": {}, "required": "a"}, "required"),
    ],
)
def test_a_schema_that_is_none_is_an_error_that_says_where(parameters: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        definition_of(parameters)


def test_alternatives_of_the_whole_schema_are_folded_into_one_object_as_providers_refuse_them_there() -> None:
    parameters = {
        "type": "object",
        "properties": {"kind": {"type": "string"}},
        "required": ["kind"],
        "anyOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"required": ["kind"]}],
    }
    assert definition_of(parameters)["function"]["parameters"] == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "kind": {"type": "string"}},
        "required": ["kind"],
    }


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Node(BaseModel):
    """A tree."""

    value: Annotated[int, Field(ge=0)]
    children: list["Node"] = []


def test_the_parameters_of_a_real_tool_all_come_through() -> None:
    server = FastMCP("tools")

    @server.tool()
    def build(
        tags: list[str],
        colour: Colour,
        size: Size,
        tree: Node,
        unit: Literal["m", "ft"] = "m",
        limit: Annotated[int | None, Field(description="How many.", ge=1)] = None,
        weights: dict[str, float] | None = None,
        anything: Any = None,
    ) -> str:
        return "built"

    (tool,) = MCPAgentLoop(server).get_default_tools()
    parameters = tool.model_dump(exclude_none=True)["function"]["parameters"]
    assert "$ref" not in json.dumps(parameters)
    assert parameters["required"] == ["tags", "colour", "size", "tree"]
    properties = parameters["properties"]
    assert properties["tags"] == {"type": "array", "items": {"type": "string"}}
    assert properties["colour"] == {"type": "string", "enum": ["red", "blue"]}
    assert properties["size"] == {"type": "integer", "enum": [1, 2]}
    assert properties["tree"]["properties"]["value"] == {"type": "integer", "minimum": 0}
    assert properties["unit"] == {"type": "string", "enum": ["m", "ft"], "default": "m"}
    assert (properties["limit"]["type"], properties["limit"]["description"]) == ("integer", "How many.")
    assert properties["limit"]["minimum"] == 1
    assert properties["weights"] == {"type": "object", "additionalProperties": {"type": "number"}}
    assert properties["anything"]["type"] == "string"


KEYWORDS = ["type", "anyOf", "oneOf", "allOf", "$ref", "enum", "const", "items", "properties", "required", "not"]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["#", "#/$defs/A", "string", "null"]))
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)),
    max_leaves=12,
)


@given(SCHEMAS, SCHEMAS)
def test_any_schema_is_converted_or_refused_with_a_reason(schema: Any, definition: Any) -> None:
    try:
        converted = property_of(schema, **{"$defs": {"A": definition}})
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either outcome will do
    else:
        assert isinstance(converted["type"], str)
        json.dumps(converted)
