"""Checks an agent loop before it is served.

A loop is valid when a server can answer an init request for it: each tool is put through the very schema the server
serialises with. The checks run in the order name, tools, run.
"""

import functools
import inspect
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pydantic

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutRequest

__all__ = ["AgentLoopValidationError", "ValidationError", "ValidationResult", "validate_agent_loop"]

# What every model provider takes as the name of a function.
_USUAL_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_Location = tuple[str | int, ...]


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
    findings = _Findings()
    agent_name = _check_name(agent_loop, findings)
    tool_count = _check_tools(agent_loop, request or _sample_request(), findings)
    _check_run(agent_loop, findings)
    return ValidationResult(
        valid=not findings.errors,
        errors=findings.errors,
        warnings=findings.warnings,
        agent_name=agent_name,
        tool_count=tool_count,
    )


@dataclass
class _Findings:
    errors: list[ValidationError] = field(default_factory=list)
    warnings: list[ValidationError] = field(default_factory=list)

    def error(self, code: str, message: str, field: str, details: dict[str, Any] | None = None) -> None:
        self.errors.append(ValidationError(code, message, field, details))

    def warning(self, code: str, message: str, field: str) -> None:
        self.warnings.append(ValidationError(code, message, field))


def _sample_request() -> RolloutRequest:
    request = RolloutRequest(
        rollout_id="validation-test-rollout",
        server_url="http://localhost:8080",
        messages=[{"role": "user", "content": "Validation request."}],
        completion_params={"temperature": 1.0, "max_tokens": 512},
    )
    request.metadata = {"_validation": True}  # assigned, so that a small metadata limit does not refuse it
    return request


def _check_name(agent_loop: RolloutAgentLoop, findings: _Findings) -> str | None:
    name = _attribute(agent_loop, "name")
    if name is None:
        findings.error("MISSING_NAME", "The agent loop has no name; set the class attribute 'name'.", "name")
        return None
    if not isinstance(name, str):
        findings.error("INVALID_NAME_TYPE", f"The name must be a str, got {_type_name(name)}.", "name")
        return None
    if not name.strip():
        findings.error("EMPTY_NAME", "The name is blank; give the agent loop one.", "name")
    return name


def _check_tools(agent_loop: RolloutAgentLoop, request: RolloutRequest, findings: _Findings) -> int:
    try:
        tools: Any = agent_loop.get_tools(request)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the author's code may raise anything, SystemExit included
        kind, message = type(error).__name__, _message(error)
        findings.error(
            "GET_TOOLS_EXCEPTION",
            f"get_tools raised {kind}: {message}",
            "get_tools",
            {"exception_type": kind, "exception_message": message},
        )
        return 0
    if tools is None:
        findings.error(
            "GET_TOOLS_RETURNS_NONE",
            "get_tools returned None; return a list, empty if there are no tools.",
            "get_tools",
        )
        return 0
    if not isinstance(tools, list):
        findings.error("GET_TOOLS_INVALID_TYPE", _why_no_list(tools), "get_tools")
        return 0
    _check_each_tool(tools, findings)
    return len(tools)


def check_tools(tools: Any) -> list[ValidationError]:
    """What keeps ``tools``, as ``get_tools`` returned them, from being served; ``[]`` if nothing does."""
    findings = _Findings()
    if isinstance(tools, list):
        _check_each_tool(tools, findings)
    else:
        findings.error("GET_TOOLS_INVALID_TYPE", _why_no_list(tools), "get_tools")
    return findings.errors


def _check_each_tool(tools: list[Any], findings: _Findings) -> None:
    first_with_name: dict[str, int] = {}
    for index, tool in enumerate(tools):
        check = _ToolCheck(index, findings)
        name = check.run(tool)
        if name is not None and (first := first_with_name.setdefault(name, index)) != index:
            findings.error(
                "DUPLICATE_TOOL_NAME",
                f"The name {_short(name)} is taken by tools[{first}]; each tool needs its own.",
                f"tools[{index}].function.name",
            )


def _why_no_list(tools: Any) -> str:
    if inspect.iscoroutine(tools):
        tools.close()
    if inspect.isawaitable(tools):
        return "get_tools must be a plain function: define it with 'def', not 'async def', and return a list."
    return f"get_tools must return a list, got {_type_name(tools)}."


class _ToolCheck:
    """Checks one tool: first what has a code of its own, then the rest of the server's schema."""

    def __init__(self, index: int, findings: _Findings) -> None:
        self.path = f"tools[{index}]"
        self.findings = findings
        self.reported: list[_Location] = []

    def run(self, tool: Any) -> str | None:
        """Report what is wrong with ``tool``; return its name if that is usable."""
        if not isinstance(tool, OpenAIFunctionToolSchema | dict):
            self.findings.error(
                "INVALID_TOOL_TYPE",
                f"A tool must be an OpenAIFunctionToolSchema or a dict, got {_type_name(tool)}.",
                self.path,
            )
            return None
        try:
            # Dumped, because a schema object may have been changed since it was validated.
            definition = tool if isinstance(tool, dict) else tool.model_dump(exclude_none=True, warnings=False)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            self._not_encodable(error)
            return None
        name = self._check_definition(definition)
        self._check_schema(definition)
        return name

    def _check_definition(self, tool: dict[Any, Any]) -> str | None:
        if "type" not in tool:
            self._error("MISSING_TOOL_TYPE", "The tool has no type; set it to 'function'.", "", ("type",))
        elif tool["type"] != "function":
            message = f"The type is {_short(tool['type'])}; providers know only 'function'."
            self.findings.warning("UNKNOWN_TOOL_TYPE", message, f"{self.path}.type")
        if "function" not in tool:
            self._error("MISSING_FUNCTION", "The tool has no function.", "", ("function",))
            return None
        function = tool["function"]
        if not isinstance(function, dict):
            message = f"The function must be a dict, got {_type_name(function)}."
            self._error("INVALID_FUNCTION_TYPE", message, ".function", ("function",))
            return None
        name = self._check_function_name(function)
        if "description" not in function:
            message = "The function has no description; tell the model what it does."
            self.findings.warning("MISSING_FUNCTION_DESCRIPTION", message, f"{self.path}.function.description")
        if "parameters" in function:
            self._check_parameters(function["parameters"])
        return name

    def _check_function_name(self, function: dict[Any, Any]) -> str | None:
        place, location = ".function.name", ("function", "name")
        if "name" not in function:
            self._error("MISSING_FUNCTION_NAME", "The function has no name.", place, location)
            return None
        name = function["name"]
        if not isinstance(name, str) or not name.strip():
            message = f"The function name must be a str that is not blank, got {_short(name)}."
            self._error("INVALID_FUNCTION_NAME", message, place, location)
            return None
        if not _USUAL_FUNCTION_NAME.fullmatch(name):
            message = f"The name {_short(name)} is not 1 to 64 of A-Z, a-z, 0-9, '_' and '-'; many providers refuse it."
            self.findings.warning("UNUSUAL_FUNCTION_NAME", message, self.path + place)
        return name

    def _check_parameters(self, parameters: Any) -> None:
        place = ".function.parameters"
        if not isinstance(parameters, dict):
            message = f"The parameters must be a dict, got {_type_name(parameters)}."
            self._error("INVALID_PARAMETERS_TYPE", message, place, ("function", "parameters"))
        elif parameters.get("type") != "object":
            message = "The type of the parameters is not 'object'; providers know nothing else."
            self.findings.warning("PARAMETERS_TYPE_NOT_OBJECT", message, f"{self.path}{place}.type")

    def _check_schema(self, definition: dict[Any, Any]) -> None:
        try:
            schema = OpenAIFunctionToolSchema.model_validate(definition)
            content = schema.model_dump(mode="json", exclude_none=True, warnings=False)
            json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
            # pydantic would write a number that is not finite as null.
            json.dumps(schema.model_dump(exclude_none=True, warnings=False), allow_nan=False, default=str)
        except pydantic.ValidationError as error:
            for problem in error.errors(include_url=False, include_context=False, include_input=False):
                self._schema_error(problem["loc"], problem["msg"], problem["type"])
        except (ValueError, TypeError, RecursionError) as error:
            self._not_encodable(error)

    def _schema_error(self, location: _Location, message: str, kind: str) -> None:
        if any(location[: len(known)] == known for known in self.reported):
            return
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
        self._error("INVALID_TOOL_SCHEMA", f"{message}.", place, details={"type": kind})

    def _not_encodable(self, error: Exception) -> None:
        message = f"The tool cannot be sent as JSON: {type(error).__name__}: {_message(error)}"
        self._error("INVALID_TOOL_SCHEMA", message, "")

    def _error(
        self,
        code: str,
        message: str,
        place: str,
        covers: _Location | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        if covers is not None:
            self.reported.append(covers)
        self.findings.error(code, message, self.path + place, details)


def _check_run(agent_loop: RolloutAgentLoop, findings: _Findings) -> None:
    run = _attribute(agent_loop, "run")
    if run is None:
        findings.error(
            "MISSING_RUN_METHOD", "The agent loop has no run method; define 'async def run(self, ctx)'.", "run"
        )
    elif not callable(run):
        findings.error("RUN_NOT_CALLABLE", f"run must be a method, got {_type_name(run)}.", "run")
    elif not any(map(inspect.iscoroutinefunction, _layers(run))):
        findings.error("RUN_NOT_ASYNC", "run must be a coroutine function; define it with 'async def'.", "run")


def _layers(function: Any) -> Iterator[Any]:
    """``function`` and what it wraps, from the outside in, each with its ``__call__``."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        seen.add(id(function))
        yield function
        if callable(function):
            yield type(function).__call__
        function = function.func if isinstance(function, functools.partial) else getattr(function, "__wrapped__", None)


def _attribute(agent_loop: RolloutAgentLoop, name: str) -> Any:
    with suppress(Exception):  # a property that fails offers nothing
        return getattr(agent_loop, name, None)
    return None


def _message(error: BaseException) -> str:
    with suppress(Exception):
        return str(error)
    return "(its text cannot be read)"


def _type_name(value: Any) -> str:
    return type(value).__name__


def _short(value: Any) -> str:
    with suppress(Exception):
        return repr(value)[:80]
    return _type_name(value)
