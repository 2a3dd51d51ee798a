"""Checks an agent loop before it is served.

A loop is valid when a server can answer an init request for it: each tool is put through the very schema the server
serialises with. The checks run in the order name, tools, run. What model providers refuse besides is one more check,
for those who run the agent against such a model.
"""

import functools
import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pydantic

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.blocking import blocking_calls
from osmosis_ai.rollout.core.messages import field_of
from osmosis_ai.rollout.core.schemas import (
    TOOL_NAME_IN_WORDS,
    TOOL_NAME_PATTERN,
    OpenAIFunctionToolSchema,
    RolloutRequest,
)
from osmosis_ai.rollout.core.text import UNREADABLE, text_of
from osmosis_ai.rollout.core.where import place_of, place_of_function

__all__ = ["AgentLoopValidationError", "ValidationError", "ValidationResult", "validate_agent_loop"]

BLOCKING_CALL = "BLOCKING_CALL"
_WARNINGS = frozenset(
    {
        BLOCKING_CALL,
        "UNKNOWN_TOOL_TYPE",
        "UNUSUAL_FUNCTION_NAME",
        "MISSING_FUNCTION_DESCRIPTION",
        "PARAMETERS_TYPE_NOT_OBJECT",
    }
)
# Reported of the whole tool; where pydantic reports them.
_MISSING = {"MISSING_TOOL_TYPE": ".type", "MISSING_FUNCTION": ".function"}


@dataclass
class ValidationError:
    """One finding, error or warning. It is a record, not an exception; pydantic's exception only shares the name.

    ``code`` is stable, ``field`` says where (``tools[0].function.name``), ``details`` is extra data for programs.
    """

    code: str
    message: str
    field: str | None = None
    details: dict[str, Any] | None = None

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"[{self.code}] {where}{self.message}"


class AgentLoopValidationError(Exception):
    """The agent loop cannot be served; ``errors`` lists why, ``[]`` where that is not known."""

    def __init__(self, message: str, errors: list[ValidationError] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []


@dataclass
class ValidationResult:
    """What `validate_agent_loop` found; true when the loop is valid. Warnings do not make it invalid."""

    valid: bool
    errors: list[ValidationError] = field(default_factory=list)
    warnings: list[ValidationError] = field(default_factory=list)
    agent_name: str | None = None
    tool_count: int = 0
    tools_at: str | None = None
    """Where ``get_tools`` is written, if an error is about a tool."""

    def __bool__(self) -> bool:
        return self.valid

    def raise_if_invalid(self) -> None:
        """Do nothing for a valid loop.

        Raises:
            AgentLoopValidationError: for an invalid one, with the number of errors and each of them on its own line.
        """
        if not self.valid:
            lines = [f"Agent loop validation failed with {len(self.errors)} error(s):", *map(str, self.errors)]
            raise AgentLoopValidationError("\n  - ".join(lines), self.errors)


def validate_agent_loop(agent_loop: RolloutAgentLoop, *, request: RolloutRequest | None = None) -> ValidationResult:
    """Check the name, the tools and the ``run`` method of ``agent_loop``.

    ``get_tools`` is called once, with ``request``; give one when the loop reads its metadata. The default is a request
    with id ``validation-test-rollout`` and metadata ``{"_validation": true}``. An invalid loop raises nothing here,
    whatever its code raises; only ``KeyboardInterrupt`` passes.
    """
    name = _attribute(agent_loop, "name")
    tools, problem = _tools_of(agent_loop, request or _sample_request())
    findings = [
        *_check_name(name),
        *([problem] if problem else _check_tools(tools, agent_loop.get_tools)),
        *_check_run(agent_loop),
    ]
    findings += [ValidationError(BLOCKING_CALL, text, place) for place, text in blocking_calls(agent_loop)]
    errors = [finding for finding in findings if finding.code not in _WARNINGS]
    warnings = [finding for finding in findings if finding.code in _WARNINGS]
    agent_name = name if isinstance(name, str) else None
    of_tools = any((finding.field or "").startswith("tools[") for finding in errors)
    tools_at = place_of_function(agent_loop.get_tools) if of_tools else None
    tool_count = len(tools) if isinstance(tools, list) else 0
    return ValidationResult(not errors, errors, warnings, agent_name, tool_count, tools_at)


def check_tools(tools: Any, get_tools: Any = None) -> list[ValidationError]:
    """What keeps ``tools``, as ``get_tools`` returned them, from being served; ``[]`` if nothing does."""
    return [finding for finding in _check_tools(tools, get_tools) if finding.code not in _WARNINGS]


def provider_problem(tools: Sequence[Any]) -> str | None:
    """The first thing that keeps model providers from taking ``tools``, schema objects or their JSON; ``None``: none.

    Stricter than a server, which offers what trainers may well understand.
    """
    names: set[str] = set()
    for index, tool in enumerate(tools):
        function = field_of(tool, "function")
        if not function:
            return f"Tool {index}: missing 'function' field"
        name, parameters = field_of(function, "name"), field_of(function, "parameters")
        if not name:
            return f"Tool {index}: function name is required"
        if not isinstance(name, str):
            return f"Tool {index}: function name must be text, not {type(name).__name__}"
        if not name.strip():
            return f"Tool {index}: function name cannot be empty or whitespace only"
        if not TOOL_NAME_PATTERN.match(name):
            return (
                f"Tool {index}: invalid function name {name!r}: it must start with letter/underscore and hold at most"
                " 64 letters, digits, underscores and hyphens"
            )
        if name in names:
            return f"Tool {index}: the name '{name}' is taken by an earlier tool"
        if parameters and field_of(parameters, "type") != "object":
            return f"Tool {index} ('{name}'): parameters.type must be 'object'"
        names.add(name)
    return None


def _sample_request() -> RolloutRequest:
    request = RolloutRequest(
        rollout_id="validation-test-rollout",
        server_url="http://localhost:8080",
        messages=[{"role": "user", "content": "Validation request."}],
        completion_params={"temperature": 1.0, "max_tokens": 512},
    )
    request.metadata = {"_validation": True}  # assigned, so that a small metadata limit does not refuse it
    return request


def _check_name(name: Any) -> Iterator[ValidationError]:
    if name is None:
        yield ValidationError("MISSING_NAME", "The agent loop has no name; set the class attribute 'name'.", "name")
    elif not isinstance(name, str):
        yield ValidationError("INVALID_NAME_TYPE", f"The name must be a str, got {type(name).__name__}.", "name")
    elif not name.strip():
        yield ValidationError("EMPTY_NAME", "The name is blank; give the agent loop one.", "name")


def _tools_of(agent_loop: RolloutAgentLoop, request: RolloutRequest) -> tuple[Any, ValidationError | None]:
    try:
        tools: Any = agent_loop.get_tools(request)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the author's code may raise anything, SystemExit included
        kind, text = type(error).__name__, text_of(error, UNREADABLE)
        details = {"exception_type": kind, "exception_message": text}
        place = place_of(error)
        message = f"get_tools raised {kind}: {text}{f' ({place})' if place else ''}"
        return None, ValidationError("GET_TOOLS_EXCEPTION", message, "get_tools", details)
    if tools is None:
        message = f"get_tools returned None{_at(agent_loop.get_tools)}; return a list, empty if there are no tools."
        return None, ValidationError("GET_TOOLS_RETURNS_NONE", message, "get_tools")
    return tools, None


def _check_tools(tools: Any, get_tools: Any) -> Iterator[ValidationError]:
    if not isinstance(tools, list):
        at = _at(get_tools)
        remedy = "return its schemas" if hasattr(tools, "schemas") else "return one, as in 'return TOOLS.schemas'"
        message = f"get_tools must return a list, got {type(tools).__name__}{at}: {remedy}."
        if inspect.isawaitable(tools):
            message = "get_tools must be a plain function: define it with 'def', not 'async def', and return a list."
        if inspect.iscoroutine(tools):
            tools.close()  # or Python warns that nobody awaited it
        yield ValidationError("GET_TOOLS_INVALID_TYPE", message, "get_tools")
        return
    first_with_name: dict[str, int] = {}
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if not isinstance(tool, OpenAIFunctionToolSchema | dict):
            message = f"A tool must be an OpenAIFunctionToolSchema or a dict, got {type(tool).__name__}."
            yield ValidationError("INVALID_TOOL_TYPE", message, path)
            continue
        try:
            # Dumped, because a schema object may have been changed since it was validated.
            definition = tool if isinstance(tool, dict) else tool.model_dump(exclude_none=True, warnings=False)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            yield _cannot_be_sent(error, path)
            continue
        reported = list(_check_definition(definition, path))
        yield from reported
        yield from _check_schema(definition, path, reported)
        name = field_of(definition.get("function"), "name")
        if isinstance(name, str) and name.strip() and (first := first_with_name.setdefault(name, index)) != index:
            message = f"The name {_short(name)} is taken by tools[{first}]; each tool needs its own."
            yield ValidationError("DUPLICATE_TOOL_NAME", message, f"{path}.function.name")


def _check_definition(definition: dict[Any, Any], path: str) -> Iterator[ValidationError]:
    """What has a code of its own."""
    if "type" not in definition:
        yield ValidationError("MISSING_TOOL_TYPE", "The tool has no type; set it to 'function'.", path)
    elif definition["type"] != "function":
        message = f"The type is {_short(definition['type'])}; providers know only 'function'."
        yield ValidationError("UNKNOWN_TOOL_TYPE", message, f"{path}.type")
    function, at = definition.get("function"), f"{path}.function"
    if "function" not in definition:
        yield ValidationError("MISSING_FUNCTION", "The tool has no function.", path)
    elif not isinstance(function, dict):
        message = f"The function must be a dict, got {type(function).__name__}."
        yield ValidationError("INVALID_FUNCTION_TYPE", message, at)
    else:
        yield from _check_function(function, at)


def _check_function(function: dict[Any, Any], path: str) -> Iterator[ValidationError]:
    name = function.get("name")
    if "name" not in function:
        yield ValidationError("MISSING_FUNCTION_NAME", "The function has no name.", f"{path}.name")
    elif not isinstance(name, str) or not name.strip():
        message = f"The function name must be a str that is not blank, got {_short(name)}."
        yield ValidationError("INVALID_FUNCTION_NAME", message, f"{path}.name")
    elif not TOOL_NAME_PATTERN.match(name):
        message = f"Many providers refuse the name {_short(name)}: write {TOOL_NAME_IN_WORDS}."
        yield ValidationError("UNUSUAL_FUNCTION_NAME", message, f"{path}.name")
    if (function.get("description") or name) == name:  # a `Toolbox` gives the name for a docstring that is not there
        message = "The function has no description; tell the model what it does, in a docstring."
        yield ValidationError("MISSING_FUNCTION_DESCRIPTION", message, f"{path}.description")
    parameters = function.get("parameters", {"type": "object"})
    if not isinstance(parameters, dict):
        message = f"The parameters must be a dict, got {type(parameters).__name__}."
        yield ValidationError("INVALID_PARAMETERS_TYPE", message, f"{path}.parameters")
    elif parameters.get("type") != "object":
        message = "The type of the parameters is not 'object'; providers know nothing else."
        yield ValidationError("PARAMETERS_TYPE_NOT_OBJECT", message, f"{path}.parameters.type")


def _check_schema(definition: dict[Any, Any], path: str, reported: list[ValidationError]) -> Iterator[ValidationError]:
    """Put the tool through the server's own schema, and through what writes it; what was reported is not again."""
    try:
        schema = OpenAIFunctionToolSchema.model_validate(definition)
        content = schema.model_dump(mode="json", exclude_none=True, warnings=False)
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
        # pydantic would write a number that is not finite as null.
        json.dumps(schema.model_dump(exclude_none=True, warnings=False), allow_nan=False, default=str)
    except pydantic.ValidationError as error:
        known = tuple(
            f"{finding.field}{_MISSING.get(finding.code, '')}" for finding in reported if finding.code not in _WARNINGS
        )
        for problem in error.errors(include_url=False, include_context=False, include_input=False):
            place = path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
            if not f"{place}.".startswith(tuple(f"{each}." for each in known)):
                yield ValidationError("INVALID_TOOL_SCHEMA", f"{problem['msg']}.", place, {"type": problem["type"]})
    except (ValueError, TypeError, RecursionError) as error:
        yield _cannot_be_sent(error, path)


def _cannot_be_sent(error: Exception, path: str) -> ValidationError:
    message = f"The tool cannot be sent as JSON: {type(error).__name__}: {text_of(error, UNREADABLE)}"
    return ValidationError("INVALID_TOOL_SCHEMA", message, path)


def _check_run(agent_loop: RolloutAgentLoop) -> Iterator[ValidationError]:
    run = _attribute(agent_loop, "run")
    if run is None:
        message = "The agent loop has no run method; define 'async def run(self, ctx)'."
        yield ValidationError("MISSING_RUN_METHOD", message, "run")
    elif not callable(run):
        yield ValidationError("RUN_NOT_CALLABLE", f"run must be a method, got {type(run).__name__}.", "run")
    elif not any(map(inspect.iscoroutinefunction, _layers(run))):
        remedy = "define it with 'async def'"
        if any(map(inspect.isasyncgenfunction, _layers(run))):
            remedy += ", and end it with 'return ctx.complete(...)', without yield"
        message = f"run must be a coroutine function; {remedy}{_at(run)}."
        yield ValidationError("RUN_NOT_ASYNC", message, "run")


def _layers(function: Any) -> Iterator[Any]:
    """``function`` and what it wraps, from the outside in, each with its ``__call__``."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        if callable(function):
            yield type(function).__call__
        function = function.func if isinstance(function, functools.partial) else getattr(function, "__wrapped__", None)


def _at(function: Any) -> str:
    place = place_of_function(function)
    return f" ({place})" if place else ""


def _attribute(agent_loop: RolloutAgentLoop, name: str) -> Any:
    with suppress(Exception):  # a property that fails offers nothing
        return getattr(agent_loop, name, None)
    return None


def _short(value: Any) -> str:
    with suppress(Exception):
        return repr(value)[:80]
    return type(value).__name__
