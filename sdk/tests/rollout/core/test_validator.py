"""The validator: every code of the specification, and agreement with the schema the server sends."""

import json
import warnings
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.validation import Loop, found, parameters, tool, validate, validate_tools, without

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.core.toolbox import Toolbox
from osmosis_ai.rollout.core.validator import (
    AgentLoopValidationError,
    ValidationError,
    ValidationResult,
)


def test_a_good_loop_is_valid() -> None:
    class Good(RolloutAgentLoop):
        name = "good"

        def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
            return [OpenAIFunctionToolSchema.model_validate(tool())]

        async def run(self, ctx: Any) -> Any: ...

    result = validate(Good())
    assert result
    assert result == ValidationResult(valid=True, agent_name="good", tool_count=1)
    result.raise_if_invalid()


def test_no_tools_are_fine() -> None:
    assert validate(Loop([])) == ValidationResult(valid=True, agent_name="loop", tool_count=0)


class TestName:
    @pytest.mark.parametrize(
        ("name", "code", "agent_name"),
        [
            (None, "MISSING_NAME", None),
            (7, "INVALID_NAME_TYPE", None),
            ("", "EMPTY_NAME", ""),
            (" ", "EMPTY_NAME", " "),
        ],
    )
    def test_must_be_text_that_is_not_blank(self, name: Any, code: str, agent_name: str | None) -> None:
        loop = Loop()
        loop.name = name
        result = validate(loop)
        assert found(result.errors) == [(code, "name")]
        assert result.agent_name == agent_name
        assert not result

    def test_may_be_absent_or_fail_without_harm(self) -> None:
        class Nameless:
            run = Loop.run

            def get_tools(self, request: RolloutRequest) -> Any:
                return []

        class Failing(Loop):
            @property
            def name(self) -> str:
                raise RuntimeError("no name today")

        for loop in (Nameless(), Failing()):
            assert found(validate(loop).errors) == [("MISSING_NAME", "name")]


class TestGetTools:
    @pytest.mark.parametrize(
        "error", [ValueError("no metadata"), SystemExit("no metadata"), RecursionError("no metadata")]
    )
    def test_whatever_it_raises_is_reported(self, error: BaseException) -> None:
        class Raising(Loop):
            def get_tools(self, request: RolloutRequest) -> Any:
                raise error

        (finding,) = validate(Raising()).errors
        kind = type(error).__name__
        assert (finding.code, finding.field) == ("GET_TOOLS_EXCEPTION", "get_tools")
        assert f"{kind}: no metadata" in finding.message
        assert finding.details == {"exception_type": kind, "exception_message": "no metadata"}

    def test_an_error_that_cannot_be_printed_is_reported(self) -> None:
        class UnprintableError(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        class Raising(Loop):
            def get_tools(self, request: RolloutRequest) -> Any:
                raise UnprintableError

        assert found(validate(Raising()).errors) == [("GET_TOOLS_EXCEPTION", "get_tools")]

    def test_an_interrupt_passes(self) -> None:
        class Interrupted(Loop):
            def get_tools(self, request: RolloutRequest) -> Any:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            validate(Interrupted())

    @pytest.mark.parametrize(
        ("returned", "code"),
        [(None, "GET_TOOLS_RETURNS_NONE"), ({}, "GET_TOOLS_INVALID_TYPE"), ("tools", "GET_TOOLS_INVALID_TYPE")],
    )
    def test_must_return_a_list(self, returned: Any, code: str) -> None:
        result = validate(Loop(returned))
        assert found(result.errors) == [(code, "get_tools")]
        assert result.tool_count == 0

    def test_a_tuple_is_no_list(self) -> None:
        loop = Loop()
        loop.tools = (tool(),)
        (finding,) = validate(loop).errors
        assert finding.code == "GET_TOOLS_INVALID_TYPE"
        assert "got tuple" in finding.message

    def test_a_coroutine_function_is_told_apart_and_leaves_no_warning(self) -> None:
        class Async(Loop):
            async def get_tools(self, request: RolloutRequest) -> Any:
                return [tool()]

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (finding,) = validate(Async()).errors
        assert finding.code == "GET_TOOLS_INVALID_TYPE"
        assert "plain function" in finding.message

    def test_is_called_once_with_the_given_request(self) -> None:
        requests = []

        class Recording(Loop):
            def get_tools(self, request: RolloutRequest) -> Any:
                requests.append(request)
                return [tool(name=request.metadata["tool"])]

        sample = RolloutRequest(
            rollout_id="sample",
            server_url="http://localhost",
            messages=[],
            completion_params={},
            metadata={"tool": "search"},
        )
        assert validate(Recording(), sample).valid
        assert len(requests) == 1
        assert requests[0] is sample

    def test_is_called_with_a_plain_request_by_default(self) -> None:
        class Recording(Loop):
            def get_tools(self, request: RolloutRequest) -> Any:
                self.request = request
                return []

        loop = Recording()
        validate(loop)
        assert loop.request.rollout_id == "validation-test-rollout"
        assert loop.request.server_url == "http://localhost:8080"
        assert loop.request.metadata == {"_validation": True}
        assert [message["role"] for message in loop.request.messages] == ["user"]
        assert set(loop.request.completion_params) == {"temperature", "max_tokens"}


class TestTools:
    @pytest.mark.parametrize(
        ("broken", "errors", "warned"),
        [
            ("text", [("INVALID_TOOL_TYPE", "")], []),
            (without(tool(), "type"), [("MISSING_TOOL_TYPE", "")], []),
            ({**tool(), "type": "web_search"}, [], [("UNKNOWN_TOOL_TYPE", ".type")]),
            ({"type": "function"}, [("MISSING_FUNCTION", "")], []),
            ({}, [("MISSING_TOOL_TYPE", ""), ("MISSING_FUNCTION", "")], []),
            ({"type": "function", "function": "add"}, [("INVALID_FUNCTION_TYPE", ".function")], []),
            (without(tool(), "function", "name"), [("MISSING_FUNCTION_NAME", ".function.name")], []),
            (tool(name=" "), [("INVALID_FUNCTION_NAME", ".function.name")], []),
            (tool(name=7), [("INVALID_FUNCTION_NAME", ".function.name")], []),
            (tool(name="add numbers"), [], [("UNUSUAL_FUNCTION_NAME", ".function.name")]),
            (tool(name="add\n"), [], [("UNUSUAL_FUNCTION_NAME", ".function.name")]),
            (tool(name="a" * 65), [], [("UNUSUAL_FUNCTION_NAME", ".function.name")]),
            (tool(name="1st"), [], [("UNUSUAL_FUNCTION_NAME", ".function.name")]),
            (
                without(tool(), "function", "description"),
                [("INVALID_TOOL_SCHEMA", ".function.description")],
                [("MISSING_FUNCTION_DESCRIPTION", ".function.description")],
            ),
            (tool(description=7), [("INVALID_TOOL_SCHEMA", ".function.description")], []),
            (tool(parameters=[]), [("INVALID_PARAMETERS_TYPE", ".function.parameters")], []),
            (
                tool(parameters={**parameters(), "type": "array"}),
                [],
                [("PARAMETERS_TYPE_NOT_OBJECT", ".function.parameters.type")],
            ),
            (
                tool(parameters={"type": "object"}),
                [
                    ("INVALID_TOOL_SCHEMA", ".function.parameters.properties"),
                    ("INVALID_TOOL_SCHEMA", ".function.parameters.required"),
                ],
                [],
            ),
            (
                tool(parameters=parameters(a={"description": "untyped"})),
                [("INVALID_TOOL_SCHEMA", ".function.parameters.properties.a")],
                [],
            ),
            (
                tool(parameters={**parameters(), "required": ["a", 7]}),
                [("INVALID_TOOL_SCHEMA", ".function.parameters.required[1]")],
                [],
            ),
            (tool(parameters=parameters(a={"type": "string", "default": object()})), [("INVALID_TOOL_SCHEMA", "")], []),
            (tool(description="\ud800"), [("INVALID_TOOL_SCHEMA", "")], []),
        ],
    )
    def test_each_mistake_has_its_code_and_place(
        self, broken: Any, errors: list[tuple[str, str]], warned: list[tuple[str, str]]
    ) -> None:
        result = validate_tools(tool(name="first"), broken)
        assert found(result.errors) == [(code, f"tools[1]{place}") for code, place in errors]
        assert found(result.warnings) == [(code, f"tools[1]{place}") for code, place in warned]
        assert result.valid is not bool(errors)
        assert result.tool_count == 2

    def test_full_json_schema_is_accepted(self) -> None:
        nested = {
            "a": {"type": ["integer", "null"], "enum": [1, 2, None], "minimum": 0},
            "b": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string"}}}},
            "d": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        }
        result = validate_tools(tool(parameters={**parameters(**nested), "additionalProperties": False}))
        assert (result.errors, result.warnings) == ([], [])

    def test_a_tool_without_parameters_is_fine(self) -> None:
        assert validate_tools(without(tool(), "function", "parameters")).valid

    def test_a_function_without_a_docstring_is_told(self) -> None:
        def search(words: str) -> str:
            return words

        result = validate_tools(*Toolbox(search).schemas)
        assert result.valid
        assert found(result.warnings) == [("MISSING_FUNCTION_DESCRIPTION", "tools[0].function.description")]

    def test_a_name_taken_twice_is_an_error(self) -> None:
        result = validate_tools(tool(), tool(name="sub"), OpenAIFunctionToolSchema.model_validate(tool()))
        assert found(result.errors) == [("DUPLICATE_TOOL_NAME", "tools[2].function.name")]
        assert "tools[0]" in result.errors[0].message

    def test_schema_objects_are_checked_like_dicts(self) -> None:
        blank = OpenAIFunctionToolSchema.model_validate(tool(name=" "))
        odd = OpenAIFunctionToolSchema.model_validate({**tool(name="odd name"), "type": "custom"})
        changed = OpenAIFunctionToolSchema.model_validate(tool(name="changed"))
        changed.function.parameters.required = "all"  # type: ignore[assignment]  # models do not check assignment
        result = validate_tools(blank, odd, changed)
        assert found(result.errors) == [
            ("INVALID_FUNCTION_NAME", "tools[0].function.name"),
            ("INVALID_TOOL_SCHEMA", "tools[2].function.parameters.required"),
        ]
        assert found(result.warnings) == [
            ("UNKNOWN_TOOL_TYPE", "tools[1].type"),
            ("UNUSUAL_FUNCTION_NAME", "tools[1].function.name"),
        ]

    def test_a_half_built_schema_object_is_an_error(self) -> None:
        half_built = OpenAIFunctionToolSchema.model_validate(tool())
        del half_built.function
        result = validate_tools(half_built)
        assert found(result.errors) == [("MISSING_FUNCTION", "tools[0]")]

    def test_a_tool_that_contains_itself_is_an_error(self) -> None:
        endless: dict[str, Any] = {"type": "object"}
        endless["default"] = endless
        assert not validate_tools(tool(parameters=parameters(a=endless))).valid

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("object"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
    parameter_values = json_values | st.fixed_dictionaries(
        {"type": st.just("object") | json_values},
        optional={
            "properties": st.dictionaries(
                st.text(max_size=3), st.fixed_dictionaries({}, optional={"type": json_values, "enum": json_values})
            ),
            "required": json_values | st.lists(st.text(max_size=3)),
        },
    )
    functions = st.fixed_dictionaries(
        {"name": st.just("add")},
        optional={"description": st.just("Adds.") | json_values, "parameters": parameter_values, "strict": json_values},
    )

    @given(st.fixed_dictionaries({"type": st.just("function"), "function": functions | json_values}))
    def test_valid_means_that_the_server_can_send_it(self, definition: dict[str, Any]) -> None:
        assert validate_tools(definition).valid is can_be_sent(definition)


def can_be_sent(definition: dict[str, Any]) -> bool:
    try:
        dumped = OpenAIFunctionToolSchema.model_validate(definition).model_dump(mode="json", exclude_none=True)
        json.dumps(dumped, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


class TestReport:
    def test_all_errors_are_collected_in_order(self) -> None:
        result = validate(object())
        assert [error.code for error in result.errors] == ["MISSING_NAME", "GET_TOOLS_EXCEPTION", "MISSING_RUN_METHOD"]

    def test_the_exception_counts_and_lists_them(self) -> None:
        result = validate(object())
        with pytest.raises(AgentLoopValidationError, match=r"3 error\(s\)") as caught:
            result.raise_if_invalid()
        assert all(str(error) in str(caught.value) for error in result.errors)
        assert caught.value.errors == result.errors

    def test_the_exception_can_be_made_from_a_message(self) -> None:
        assert AgentLoopValidationError("broken").errors == []

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (ValidationError("CODE", "Wrong.", "tools[0]"), "[CODE] tools[0]: Wrong."),
            (ValidationError("CODE", "Wrong."), "[CODE] Wrong."),
            (ValidationError("CODE", "Wrong.", ""), "[CODE] Wrong."),
        ],
    )
    def test_a_finding_reads_code_place_message(self, error: ValidationError, text: str) -> None:
        assert str(error) == text
