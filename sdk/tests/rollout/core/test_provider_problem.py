from types import SimpleNamespace
from typing import Any

import pytest
from support.rollouts import tool

from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema
from osmosis_ai.rollout.core.validator import provider_problem
from osmosis_ai.rollout.run.errors import ToolValidationError
from osmosis_ai.rollout.run.local_runner import TOOL_NAME_PATTERN, validate_tools


def of(name: Any, parameters: Any = None) -> Any:
    return SimpleNamespace(function=SimpleNamespace(name=name, parameters=parameters))


def test_good_tools_pass_as_objects_and_as_json() -> None:
    assert provider_problem([]) is None
    assert not provider_problem([tool("add"), OpenAIFunctionToolSchema.model_validate(tool("sub-tract_2")), of("_x")])


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (SimpleNamespace(function=None), "Tool 1: missing 'function' field"),
        ({}, "Tool 1: missing 'function' field"),
        (of(""), "Tool 1: function name is required"),
        (of(None), "Tool 1: function name is required"),
        (of(7), "Tool 1: function name must be text"),
        (of("  "), "whitespace only"),
        (of("1st"), "must start with letter/underscore"),
        (of("a.b"), "must start with letter/underscore"),
        (of("a b"), "must start with letter/underscore"),
        (of("add\n"), "must start with letter/underscore"),
        (of("a" * 65), "at most 64"),
        (of("good"), "the name 'good' is taken"),
        (of("x", SimpleNamespace(type="array")), "parameters.type must be 'object'"),
        (tool("x", parameters={"type": "string"}), "parameters.type must be 'object'"),
    ],
)
def test_the_first_bad_one_is_named(bad: Any, sentence: str) -> None:
    problem = provider_problem([of("good"), bad, of("!")])
    assert problem is not None
    assert sentence in problem
    with pytest.raises(ToolValidationError) as failure:
        validate_tools([of("good"), bad, of("!")])
    assert str(failure.value) == problem


def test_the_pattern_is_there_for_others() -> None:
    assert TOOL_NAME_PATTERN.match("add-2")
    assert not TOOL_NAME_PATTERN.match("2add")
