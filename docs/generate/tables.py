"""Tables of ``protocol.md``, and the places in a page that hold generated text.

Such a place is ``<!-- generated: NAME -->`` to ``<!-- end -->``, each alone on its line.
"""

import re
from typing import Any

from docs.generate import pull_schemas, schemas

PLACE = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

_PLURALS = {"string": "strings", "object": "objects", "integer": "integers", "number": "numbers"}


def fill(page: str, parts: dict[str, str]) -> str:
    """``page`` with its places filled.

    Raises:
        ValueError: a part has no place in the page, or a place no part.
    """
    places = [match["name"] for match in PLACE.finditer(page)]
    if sorted(places) != sorted(parts):
        raise ValueError(f"The places of the page are {sorted(places)}, the parts {sorted(parts)}.")
    return PLACE.sub(lambda match: f"{match[1]}\n{parts[match['name']]}\n{match[3]}", page)


def tables() -> dict[str, str]:
    """A table of fields for each message, and one of the error codes."""
    return {**{name: fields(schemas.schema(name)) for name in schemas.MESSAGES}, "error-codes": _codes()}


def pull_tables() -> dict[str, str]:
    """The same of ``protocol-0.3.md``."""
    return {name: fields(pull_schemas.schema(name)) for name in pull_schemas.MESSAGES}


def fields(schema: dict[str, Any]) -> str:
    """The table of fields of a message."""
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, about in schema["properties"].items():
        given = f"`{_json(about['default'])}`" if about.get("default") not in (None, {}) else None
        if name in schema.get("required", ()):
            default = f"always there; {given}" if given else "required"
        else:
            default = given or ("`{}`" if about.get("default") == {} else "absent")
        lines.append(f"| `{name}` | {type_of(about, schema)} | {default} | {about['description']} |")
    return "\n".join(lines) + "\n"


def _codes() -> str:
    lines = ["| status | `code` | when |", "|---|---|---|"]
    lines += [f"| {status.value} | `{code}` | {when} |" for code, (status, when) in schemas.ERROR_CODES.items()]
    return "\n".join(lines) + "\n"


def type_of(about: dict[str, Any], schema: dict[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(type_of(part, schema) for part in about["anyOf"])
    if "$ref" in about:
        target = schema["$defs"][about["$ref"].rpartition("/")[2]]
        return type_of({**target, **{k: v for k, v in about.items() if k != "$ref"}}, schema)
    if "const" in about:
        return f"`{about['const']}`"
    if "enum" in about and len(about["enum"]) <= 7:
        return ", ".join(f"`{value}`" for value in about["enum"])
    kind: str = about.get("type", "any")
    if kind == "array":
        return f"list of {_plural(about.get('items', {}), schema)}"
    return f"{kind}{_bounds(about)}"


def _plural(items: dict[str, Any], schema: dict[str, Any]) -> str:
    kind = type_of(items, schema)
    return _PLURALS.get(kind, kind)


def _bounds(about: dict[str, Any]) -> str:
    low, high = about.get("minLength"), about.get("maxLength")
    if high is not None:
        return f" of {low} to {high} characters" if low is not None else f" of at most {high} characters"
    low, high = about.get("minimum"), about.get("maximum")
    if high is not None:
        return f", {low} to {high}"
    return f", {low} or more" if low is not None else ""


def _json(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
