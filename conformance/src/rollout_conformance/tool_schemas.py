"""Whether an offered tool is a function schema as the OpenAI chat API takes it (``docs/protocol.md``, 3.2)."""

import re
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}


def problem_of(tool: Any) -> str:
    """What is wrong with a tool, or an empty text."""
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
        return "is no object with type 'function' and an object function"
    function = tool["function"]
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"has the name {name!r}, which is not 1 to 64 letters, digits, '_' or '-'"
    if not isinstance(function.get("description"), str):
        return f"{name} has no description, or one that is no text"
    if not isinstance(function.get("strict"), bool):
        return f"{name} has no strict, or one that is no boolean"
    return problem if (problem := _parameters_problem(function.get("parameters"))) == "" else f"{name} {problem}"


def _parameters_problem(parameters: Any) -> str:
    if not isinstance(parameters, dict) or parameters.get("type") != "object":
        return "has parameters that are no schema of type 'object'"
    properties = parameters.get("properties")
    if not isinstance(properties, dict) or not all(isinstance(schema, dict | bool) for schema in properties.values()):
        return "has properties that are no object of schemas"
    for name, schema in properties.items():
        kinds = schema.get("type") if isinstance(schema, dict) else None
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            if kind is not None and (not isinstance(kind, str) or kind not in _TYPES):
                return f"has a property {name!r} of the type {kind!r}, which JSON Schema does not have"
    required = parameters.get("required")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return "has a required that is no list of names"
    unknown = [name for name in required if name not in properties]
    return f"requires {unknown[0]!r}, which is not among its properties" if unknown else ""


def usable_tools(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that can be called."""
    return [tool for tool in tools if not problem_of(tool)]
