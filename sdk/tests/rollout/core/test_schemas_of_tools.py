"""The schemas of tools, of their calls and of their answers."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from osmosis_ai.rollout.core.schemas import (
    InitResponse,
    OpenAIFunctionCallSchema,
    OpenAIFunctionParametersSchema,
    OpenAIFunctionParsedSchema,
    OpenAIFunctionPropertySchema,
    OpenAIFunctionSchema,
    OpenAIFunctionToolCall,
    OpenAIFunctionToolSchema,
    ToolResponse,
)

CONVERT: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "convert",
        "description": "Convert a weight between units",
        "parameters": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "unit": {"type": "string", "description": "target unit", "enum": ["g", "kg"]},
            },
            "required": ["value", "unit"],
        },
        "strict": False,
    },
}


class TestToolSchemas:
    def test_a_definition_survives_a_round_trip_without_nulls(self) -> None:
        assert OpenAIFunctionToolSchema.model_validate(CONVERT).model_dump(exclude_none=True) == CONVERT

    def test_every_keyword_of_json_schema_survives_at_every_level(self) -> None:
        rich = {
            "type": "function",
            "x-origin": "test",
            "function": {
                "name": "plan",
                "description": "Plan",
                "strict": True,
                "parameters": {
                    "type": "object",
                    "additionalProperties": False,
                    "$defs": {"step": {"type": "object"}},
                    "properties": {
                        "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1},
                        "where": {"type": "object", "properties": {"x": {"type": "number", "maximum": 3}}},
                        "level": {"type": ["integer", "null"], "default": None, "enum": [1, 2, None]},
                        "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                        "mode": {"const": "fast"},
                        "when": {"type": "string", "format": "date", "examples": [None, "2026-01-02"]},
                    },
                    "required": [],
                },
            },
        }
        dumped = OpenAIFunctionToolSchema.model_validate(rich).model_dump(exclude_none=True)
        assert dumped == rich
        assert json.loads(OpenAIFunctionToolSchema.model_validate(rich).model_dump_json(exclude_none=True)) == rich

    def test_nulls_that_say_nothing_do_not_reach_a_provider(self) -> None:
        nulls = OpenAIFunctionPropertySchema.model_validate({"type": "string", "description": None, "enum": None})
        assert nulls.model_dump(exclude_none=True) == {"type": "string"}
        whole = InitResponse(rollout_id="r", tools=[OpenAIFunctionToolSchema.model_validate(CONVERT)])
        assert whole.model_dump(exclude_none=True) == {"rollout_id": "r", "tools": [CONVERT]}

    @pytest.mark.parametrize("structural", ["anyOf", "oneOf", "allOf", "$ref", "const", "enum", "not", "if"])
    def test_a_property_may_leave_out_its_type_where_another_keyword_stands_for_it(self, structural: str) -> None:
        value: Any = [{"type": "string"}] if structural in ("anyOf", "oneOf", "allOf", "enum") else {}
        assert OpenAIFunctionPropertySchema.model_validate({structural: value}).type is None

    @pytest.mark.parametrize(
        "broken",
        [{}, {"description": "no type"}, {"type": None}, {"type": 3}, {"type": [1]}, {"enum": "a"}, None, True],
    )
    def test_any_other_property_without_a_type_is_refused(self, broken: Any) -> None:
        with pytest.raises(ValidationError):
            OpenAIFunctionPropertySchema.model_validate(broken)

    @pytest.mark.parametrize("missing", ["type", "properties", "required"])
    def test_parameters_are_an_object_schema_in_full(self, missing: str) -> None:
        parameters = {"type": "object", "properties": {}, "required": []}
        del parameters[missing]
        with pytest.raises(ValidationError, match=missing):
            OpenAIFunctionParametersSchema.model_validate(parameters)

    def test_two_definitions_do_not_share_their_default_parameters(self) -> None:
        one, other = (OpenAIFunctionSchema(name=name, description="") for name in "ab")
        one.parameters.required.append("x")
        assert other.parameters.required == []

    def test_any_kind_of_tool_is_accepted(self) -> None:
        assert OpenAIFunctionToolSchema.model_validate({**CONVERT, "type": "retrieval"}).type == "retrieval"


class TestToolCalls:
    @pytest.mark.parametrize(
        ("arguments", "decoded", "failed"),
        [
            ('{"a": 5}', {"a": 5}, False),
            ("{}", {}, False),
            ("", {}, True),
            ("{", {}, True),
            ("[1]", {}, True),
            ("null", {}, True),
            ('"{}"', {}, True),
            ("[" * 100_000, {}, True),
            ('{"a": ' + "9" * 5000 + "}", {}, True),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_arguments_are_decoded_and_a_flag_says_if_they_are_no_object(
        self, arguments: str, decoded: dict[str, Any], failed: bool
    ) -> None:
        parsed = OpenAIFunctionParsedSchema(name="add", arguments=arguments)
        call, flag = OpenAIFunctionCallSchema.from_openai_function_parsed_schema(parsed)
        assert (call.name, call.arguments, flag) == ("add", decoded, failed)

    @given(st.text())
    def test_no_text_makes_decoding_raise(self, arguments: str) -> None:
        parsed = OpenAIFunctionParsedSchema(name="add", arguments=arguments)
        OpenAIFunctionCallSchema.from_openai_function_parsed_schema(parsed)

    def test_a_call_is_of_type_function(self) -> None:
        with pytest.raises(ValidationError):
            OpenAIFunctionToolCall.model_validate(
                {"id": "c", "type": "retrieval", "function": {"name": "add", "arguments": {}}}
            )


class TestToolResponse:
    @pytest.mark.parametrize(
        ("fields", "empty", "text_only"),
        [
            ({}, True, False),
            ({"text": ""}, True, False),
            ({"image": [], "video": []}, True, False),
            ({"text": "a"}, False, True),
            ({"text": "a", "image": []}, False, True),
            ({"text": "a", "image": [1]}, False, False),
            ({"video": [1]}, False, False),
        ],
    )
    def test_it_knows_what_it_holds(self, fields: dict[str, Any], empty: bool, text_only: bool) -> None:
        response = ToolResponse(**fields)
        assert (response.is_empty(), response.is_text_only()) == (empty, text_only)

    @pytest.mark.parametrize("kind", ["image", "video"])
    @pytest.mark.parametrize("value", ["a.png", b"", 3, {"a": 1}, ("a",)])
    def test_pictures_come_in_lists(self, kind: str, value: Any) -> None:
        with pytest.raises(ValidationError, match=f"{kind} must be a list"):
            ToolResponse.model_validate({kind: value})

    @pytest.mark.parametrize("nonsense", [None, 3, "text", []])
    def test_what_is_no_mapping_is_an_ordinary_validation_error(self, nonsense: Any) -> None:
        with pytest.raises(ValidationError):
            ToolResponse.model_validate(nonsense)
