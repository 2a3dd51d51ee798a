"""From the JSON Schema of an MCP tool to a tool definition that every model provider takes.

What a provider may refuse is resolved: references are replaced by what they refer to, and a parameter has exactly one
``type``. Everything else the tool's author stated stays.
"""

from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError

from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema

MAX_SCHEMA_NODES = 20_000

JsonSchema = dict[str, Any]

_DEFINITIONS = frozenset({"$defs", "definitions"})
_ALTERNATIVES = ("anyOf", "oneOf")
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "$comment"})
# Keywords whose value is not a schema, so that a "$ref" in it is data.
_DATA_KEYWORDS = frozenset({"const", "default", "enum", "example", "examples"})
_SCHEMA_MAPS = frozenset({"properties", "patternProperties", "dependentSchemas"})

_ANYTHING: JsonSchema = {"type": "string"}
_NOTHING: JsonSchema = {"type": "string", "not": {}}

_NUMBERS = {"integer", "number"}  # each integer is a number too
_VALUE_TYPES = ((bool, "boolean"), (int, "integer"), (float, "number"), (dict, "object"), (list, "array"))


def mcp_tool_to_openai(name: str, description: str | None, parameters: Any) -> OpenAIFunctionToolSchema:
    """The tool definition for an MCP tool.

    Each parameter gets one ``type``: that of the first alternative that is not null, ``number`` where that and
    ``integer`` are both offered, and ``string`` where nothing says otherwise. Alternatives of one type are all kept; of
    several, the first. A recursive type is expanded once.

    Args:
        description: defaults to ``Tool: <name>``.
        parameters: the tool's input schema, a JSON Schema of an object; ``None`` for no parameters.

    Raises:
        ValueError: the schema cannot be understood, in a sentence that says which part.
    """
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise ValueError(f"its input schema must be an object, got {type(parameters).__name__}")
    schema = _merge_all_of(_Expansion(parameters).of(parameters))
    for keyword in _ALTERNATIVES:  # which providers refuse here
        _fold_in_properties(schema, schema.pop(keyword, []))
    properties, required = schema.pop("properties", {}), schema.pop("required", [])
    if not isinstance(properties, dict):
        raise ValueError(f"its properties must be an object, got {type(properties).__name__}")
    definition = {
        "type": "function",
        "function": {
            "name": name,
            "description": description or f"Tool: {name}",
            "parameters": {
                **schema,
                "type": "object",
                "properties": {
                    key: _with_one_type(value, f"the schema of parameter {key!r}") for key, value in properties.items()
                },
                "required": required,
            },
        },
    }
    try:
        return OpenAIFunctionToolSchema.model_validate(definition)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{place}: {problem['msg']}") from error


class _Expansion:
    """Copies a schema with every reference replaced by its target."""

    def __init__(self, root: JsonSchema) -> None:
        self._root = root
        self._open_references: list[str] = []
        self._nodes_left = MAX_SCHEMA_NODES

    def of(self, schema: Any) -> Any:
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise ValueError(f"its input schema has more than {MAX_SCHEMA_NODES:,} parts")
        if isinstance(schema, list):
            return [self.of(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        expanded = {}
        for key, value in schema.items():
            if key in _DATA_KEYWORDS:
                expanded[key] = value
            elif key in _SCHEMA_MAPS and isinstance(value, dict):  # its keys are names, not keywords
                expanded[key] = {name: self.of(item) for name, item in value.items()}
            elif key not in _DEFINITIONS:
                expanded[key] = self.of(value)
        reference = expanded.pop("$ref", None)
        if reference is not None:
            # What stands beside a reference is said of this very place, so it comes first.
            expanded = {**self._target(reference), **expanded}
        if expanded.get("type") == "array":
            expanded.setdefault("items", {})  # says nothing, but hosted APIs insist on it
        return expanded

    def _target(self, reference: Any) -> JsonSchema:
        target = self._look_up(reference)
        if reference in self._open_references:
            return self._outline(reference, target)
        self._open_references.append(reference)
        expanded = self.of(target)
        self._open_references.pop()
        if isinstance(expanded, bool):
            return {} if expanded else {"not": {}}
        return dict(expanded)

    def _outline(self, reference: str, target: Any) -> JsonSchema:
        """What is left of a recursive type where it contains itself."""
        seen = {reference}
        while isinstance(target, dict) and "$ref" in target:
            reference = target["$ref"]
            if reference in seen:
                raise ValueError(f"the reference {reference!r} leads only to itself")
            seen.add(reference)
            target = self._look_up(reference)
        outline = {key: target[key] for key in ("type", "title", "description") if key in target}
        return {"type": "object", **outline}

    def _look_up(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise ValueError(f"the reference {reference!r} does not point into the schema")
        target: Any = self._root
        for part in reference.split("/")[1:]:
            step = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and step in target:
                target = target[step]
            elif isinstance(target, list) and step.isdecimal() and int(step) < len(target):
                target = target[int(step)]
            else:
                raise ValueError(f"the reference {reference!r} points to nothing")
        if not isinstance(target, dict | bool):
            raise ValueError(f"the reference {reference!r} does not point to a schema")
        return target


def _with_one_type(schema: Any, where: str = "a schema in it") -> JsonSchema:
    """``schema`` with its ``type`` a single name; ``type`` comes first."""
    if isinstance(schema, bool):
        return dict(_ANYTHING if schema else _NOTHING)
    if not isinstance(schema, dict):
        raise ValueError(f"{where} must be an object, got {type(schema).__name__}")
    schema = _merge_all_of(schema)
    for keyword in _ALTERNATIVES:
        members = schema.get(keyword)
        if isinstance(members, list) and members:
            schema = _choose(schema, keyword, members)
    if "const" in schema:
        schema.setdefault("enum", [schema["const"]])
    return {"type": _type_of(schema), **{key: value for key, value in schema.items() if key != "type"}}


def _choose(schema: JsonSchema, keyword: str, members: list[Any]) -> JsonSchema:
    rest = {key: value for key, value in schema.items() if key != keyword}
    offered = [_with_one_type(member) for member in members if not _is_null(member)]
    if len(offered) < len(members) and rest.get("default", ...) is None:
        del rest["default"]  # null is no longer among the values; leaving the parameter out means the same
    if not offered:
        return {**_ANYTHING, **rest}
    distinct = [member for index, member in enumerate(offered) if member not in offered[:index]]
    kinds = {member["type"] for member in distinct}
    if kinds == _NUMBERS and any(member == {"type": "number"} for member in distinct):
        return {"type": "number", **rest}  # int | float says no more
    if len(distinct) > 1 and (len(kinds) == 1 or kinds == _NUMBERS):
        return {"type": "number" if kinds == _NUMBERS else distinct[0]["type"], **rest, keyword: distinct}
    return {**distinct[0], **rest}


def _is_null(schema: Any) -> bool:
    return isinstance(schema, dict) and (
        schema.get("type") == "null" or schema.get("const", ...) is None or schema.get("enum") == [None]
    )


def _type_of(schema: JsonSchema) -> str:
    stated = schema.get("type")
    if isinstance(stated, str):
        return stated
    if isinstance(stated, list):
        kinds = [kind for kind in stated if isinstance(kind, str) and kind != "null"] or ["string"]
        return "number" if kinds[0] in _NUMBERS and "number" in kinds else kinds[0]
    values = schema.get("enum")
    if isinstance(values, list):
        found = {_type_of_value(value) for value in values if value is not None}
        if len(found) == 1:
            return found.pop()
        if found == _NUMBERS:
            return "number"
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _type_of_value(value: Any) -> str:
    return next((name for kind, name in _VALUE_TYPES if isinstance(value, kind)), "string")


def _merge_all_of(schema: JsonSchema) -> JsonSchema:
    """``schema`` and the members of its ``allOf`` as one; only what they disagree on stays in ``allOf``."""
    merged = dict(schema)
    members = merged.pop("allOf", [])
    parts = [part for part in members if isinstance(part, dict)] if isinstance(members, list) else []
    disputed = [left for part in parts if (left := _add_keywords(merged, _merge_all_of(part)))]
    return {**merged, "allOf": disputed} if disputed else merged


def _add_keywords(merged: JsonSchema, member: JsonSchema) -> JsonSchema:
    left = {}
    for key, value in member.items():
        if key not in merged:
            merged[key] = value
        elif key == "properties" and isinstance(value, dict) and isinstance(merged[key], dict):
            merged[key] = {**value, **merged[key]}
        elif key == "required" and isinstance(value, list) and isinstance(merged[key], list):
            merged[key] = [*merged[key], *(name for name in value if name not in merged[key])]
        elif merged[key] != value and key not in _ANNOTATIONS:
            left[key] = value
    return left


def _fold_in_properties(schema: JsonSchema, members: Any) -> None:
    """Offer the properties of all members; what one of them requires, another may not know."""
    for member in members if isinstance(members, list) else []:
        if isinstance(member, dict) and isinstance(member.get("properties"), dict):
            schema["properties"] = {**member["properties"], **schema.get("properties", {})}
