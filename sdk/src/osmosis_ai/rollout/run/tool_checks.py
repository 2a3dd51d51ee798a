"""Whether model providers accept a list of tools."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from osmosis_ai.rollout.run.errors import ToolValidationError

__all__ = ["TOOL_NAME_PATTERN", "validate_tools"]

TOOL_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z")


def validate_tools(tools: Sequence[Any]) -> None:
    """Check the names and parameters of ``tools``, schema objects or their JSON.

    Raises:
        ToolValidationError: for the first problem, with the tool's position from 0.
    """
    names: set[str] = set()
    for index, tool in enumerate(tools):
        function = _field(tool, "function")
        if not function:
            raise ToolValidationError(f"Tool {index}: missing 'function' field")
        name = _field(function, "name")
        _check_name(name, index)
        if name in names:
            raise ToolValidationError(f"Tool {index}: the name '{name}' is taken by an earlier tool")
        names.add(name)
        parameters = _field(function, "parameters")
        if parameters and _field(parameters, "type") != "object":
            raise ToolValidationError(f"Tool {index} ('{name}'): parameters.type must be 'object'")


def _check_name(name: Any, index: int) -> None:
    if not name:
        raise ToolValidationError(f"Tool {index}: function name is required")
    if not isinstance(name, str):
        raise ToolValidationError(f"Tool {index}: function name must be text, not {type(name).__name__}")
    if not name.strip():
        raise ToolValidationError(f"Tool {index}: function name cannot be empty or whitespace only")
    if not TOOL_NAME_PATTERN.match(name):
        raise ToolValidationError(
            f"Tool {index}: invalid function name {name!r}: it must start with letter/underscore and hold at most 64"
            " letters, digits, underscores and hyphens"
        )


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
