"""Arguments made from a JSON schema: the plainest value that it allows, as far as it can be told without solving it."""

from typing import Any

MAX_DEPTH = 8
MAX_NUMBER = 1e15
"""Bounds beyond it, and what is not a number, are passed over."""
_OF_FORMAT = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "ipv4": "192.0.2.1",
}


def arguments_for(schema: Any) -> dict[str, Any]:
    """An object for a tool's ``parameters``: its required properties, or all of them if none is required."""
    root = schema if isinstance(schema, dict) else {}
    made = _value(root, root, 0)
    return made if isinstance(made, dict) else {}


def _value(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return "text"
    schema = _resolved(schema, root)
    for given in ("const", "default"):
        if schema.get(given) is not None:
            return schema[given]
    for choices in ("enum", "examples"):
        if isinstance(schema.get(choices), list) and schema[choices]:
            return schema[choices][0]
    for branches in ("anyOf", "oneOf"):
        if isinstance(schema.get(branches), list) and schema[branches]:
            best = next((branch for branch in schema[branches] if branch != {"type": "null"}), schema[branches][0])
            return _value(best, root, depth + 1)
    return _of_type(_type_of(schema), schema, root, depth)


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    merged = dict(schema)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = root
        for step in reference[2:].split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        merged = {**target, **merged} if isinstance(target, dict) else merged
    parts = schema.get("allOf")
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            properties = {**_mapping(part.get("properties")), **_mapping(merged.get("properties"))}
            required = [*_names(merged.get("required")), *_names(part.get("required"))]
            merged = {**part, **merged, "properties": properties, "required": required}
    return merged


def _type_of(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in _names(kind) if name != "null"), "null")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def _of_type(kind: str, schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "array":
        return [_value(schema.get("items", {}), root, depth + 1)] * max(1, _whole(schema.get("minItems"), 1))
    if kind == "object":
        properties = _mapping(schema.get("properties"))
        wanted = [name for name in _names(schema.get("required")) or properties if name in properties]
        return {name: _value(properties[name], root, depth + 1) for name in wanted}
    if kind == "boolean":
        return True
    return None if kind == "null" else _text(schema)


def _text(schema: dict[str, Any]) -> str:
    text = _OF_FORMAT.get(str(schema.get("format")), "text")
    return text.ljust(_whole(schema.get("minLength"), 0), "x")[: _whole(schema.get("maxLength"), len(text) + 1_000)]


def _number(schema: dict[str, Any], *, whole: bool) -> float:
    step = _finite(schema, "multipleOf") or 1
    lowest = _finite(schema, "minimum", "exclusiveMinimum")
    highest = _finite(schema, "maximum", "exclusiveMaximum")
    value = 2 if lowest is None else max(2, lowest + step)
    if highest is not None and value > highest:
        value = highest if _finite(schema, "maximum") is not None else highest - step
    if whole:
        return int(value)
    # A number has a fraction where it may: who reads an integer fails by that.
    return value + 0.5 if highest is None and "multipleOf" not in schema else value


def _finite(schema: dict[str, Any], *keywords: str) -> float | None:
    """The number under the first of ``keywords`` that has one."""
    for keyword in keywords:
        value = schema.get(keyword)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER:
            return value
    return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and 0 <= value <= 1_000_000 else otherwise
