"""What a model wrote as the arguments of a call, made into what the tool's schema asks for.

Models send numbers as text, encode arguments twice, and write ``true`` where a number belongs. The first two are put
right here, the last is refused, each before the tool's own validation sees the value. Every digit is kept: JSON numbers
are read as ``Decimal`` and become ``int`` or ``float`` only where the schema, or the lack of one, says so. What a model
writes is untrusted: nothing here takes more than linear time, and no number has more than ``MAX_DIGITS`` digits.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Any, TypeAlias

from osmosis_ai.rollout.core.exceptions import ToolArgumentError

MAX_DIGITS = 4_000

EXACT = Context(prec=MAX_DIGITS, Emax=MAX_DIGITS - 1, Emin=0, traps=[InvalidOperation, Inexact, Overflow])
"""Decimal arithmetic that never rounds: ``EXACT.add(a, b)`` is exact, or raises ``decimal.Inexact``.

The limit is ``MAX_DIGITS`` digits before the point, and in all. A tool of a ``Toolbox`` may let the exception pass: the
model is told that a number is too long.
"""

TOO_LONG = f"overflow: a number has more than {MAX_DIGITS:,} digits"

MAX_EXPONENT = 400
"""Of a whole number, as in ``1e400``: six characters that would become thousands of digits, in quadratic time."""

MAX_PATH_CHARACTERS = 200

DECIMAL = "x-decimal"
"""The mark of a number that stays a ``Decimal``, in schemas that no model sees."""

JsonSchema: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str | int, ...]


class UnfitError(ValueError):
    """The value at ``path`` is not what is asked for: ``expected`` (as in "must be a number"), else ``problem``."""

    def __init__(self, expected: str, path: Path = (), problem: str | None = None) -> None:
        super().__init__(problem or expected)
        self.expected = expected
        self.path = path
        self.problem = problem

    def sentence(self, tool_name: str) -> str:
        """For the model."""
        where = f"argument {'.'.join(map(str, self.path))[:MAX_PATH_CHARACTERS]} of {tool_name}"
        return f"{where}: {self.problem}" if self.problem is not None else f"{where} must be {self.expected}"


def decode_arguments(arguments: Any) -> dict[str, Any]:
    """The arguments of a call as a dict, numbers as ``Decimal``; none where they are absent or empty.

    Args:
        arguments: JSON text, also encoded twice, or a dict, which is given back as it is.

    Raises:
        ToolArgumentError: they are no JSON object.
        decimal.Inexact: a number has more than ``MAX_DIGITS`` digits.
    """
    for _ in range(2):
        if isinstance(arguments, str | None):
            try:
                arguments = _loads(arguments or "{}")
            except (ValueError, RecursionError):
                raise ToolArgumentError("the arguments are not valid JSON") from None
    if not isinstance(arguments, dict):
        raise ToolArgumentError("the arguments must be a JSON object")
    return arguments


def _loads(text: str) -> Any:
    return json.loads(text, parse_int=EXACT.create_decimal, parse_float=EXACT.create_decimal)


def plain(value: Any, path: Path = ()) -> Any:
    """A decoded value with ``int`` and ``float`` for ``Decimal``: where no schema says which number it is.

    Raises:
        UnfitError: a number is NaN, infinite, or beyond a float.
    """
    if isinstance(value, Decimal) and value.as_tuple().exponent == 0:
        return int(value)
    if isinstance(value, float | Decimal):
        return _float(_number(value, path), path)
    if isinstance(value, dict):
        return {key: plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, (*path, index)) for index, item in enumerate(value)]
    return value


def fit(value: Any, schema: JsonSchema, path: Path = (), *, as_written: bool = False) -> Any:
    """A decoded value as the schema wants it.

    Args:
        schema: of the value, without ``$ref``.
        path: of the value, for the error.
        as_written: forgive nothing: a text is no number, and no ``float`` is what has no point or loses digits.

    Raises:
        UnfitError: it cannot be.
        decimal.Inexact: a number has more than ``MAX_DIGITS`` digits.
    """
    if "anyOf" in schema:
        return _fit_any(value, schema["anyOf"], path, as_written)
    if as_written and not _is_as_written(value, schema):
        raise UnfitError("another type", path)
    if "enum" in schema:
        return _fit_enum(value, schema, path)
    match schema.get("type"):
        case "number":
            number = _number(value, path)
            return number if DECIMAL in schema else _float(number, path)
        case "integer":
            return _integer(value, path)
        case "boolean":
            return _boolean(value, path)
        case "string" if not isinstance(value, str):
            raise UnfitError("a text", path)
        case "null" if value is not None:
            raise UnfitError("null", path)
        case "array":
            items = schema.get("items", {})
            listed = enumerate(_decoded(value, list, path))
            return [fit(item, items, (*path, index), as_written=as_written) for index, item in listed]
        case "object":
            return _fit_object(_decoded(value, dict, path), schema, path, as_written)
    return plain(value, path)


_NATURAL: Mapping[str, Any] = {
    "string": str,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
    "integer": (int, float, Decimal),
    "number": (int, float, Decimal),
}


def _fit_any(value: Any, choices: Sequence[JsonSchema], path: Path, as_written: bool) -> Any:
    """By the first choice that fits, those first that need no forgiveness: "5" is a text where a text may be.

    Also within: ``["5"]`` is a list of texts where one may be, and 5 a whole number before it is a ``float``.
    """
    for choice in choices:
        with suppress(UnfitError):
            return fit(value, choice, path, as_written=True)
    if as_written:
        raise UnfitError("another type", path)
    problems = []
    for choice in sorted(choices, key=lambda choice: _likeness(value, choice), reverse=True):
        try:
            return fit(value, choice, path)
        except UnfitError as unfit:
            problems.append(unfit)
    within = next((problem.path for problem in problems if problem.path != path), path)  # right in kind, wrong there
    raise UnfitError(" or ".join(dict.fromkeys(each.expected for each in problems if each.path == within)), within)


def _likeness(value: Any, choice: JsonSchema) -> tuple[bool, int, int]:
    """How much the value looks like that choice: in kind, in what names it (``kind: Literal["dog"]``), in its names."""
    if not isinstance(value, dict) or choice.get("type") != "object":
        return _is_natural(value, choice), 0, 0
    fields = choice.get("properties", {})
    named = sum(value.get(name) in field["enum"] for name, field in fields.items() if "enum" in field)
    return True, named, len(fields.keys() & value.keys())


def _is_natural(value: Any, schema: JsonSchema) -> bool:
    kind = _NATURAL.get(str(schema.get("type")))
    return kind is not None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _is_as_written(value: Any, schema: JsonSchema) -> bool:
    if not _is_natural(value, schema):
        return "type" not in schema
    if DECIMAL in schema or not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        return True
    is_whole = value.as_tuple().exponent == 0 if isinstance(value, Decimal) else isinstance(value, int)
    if schema["type"] == "integer":
        return is_whole
    return not is_whole and (isinstance(value, float) or Decimal(repr(float(value))) == value)


def _fit_enum(value: Any, schema: JsonSchema, path: Path) -> Any:
    choices = schema["enum"]
    fitted = fit(value, {"type": schema["type"]}, path) if "type" in schema else plain(value, path)
    if not any(fitted == choice and isinstance(fitted, bool) == isinstance(choice, bool) for choice in choices):
        raise UnfitError("one of " + ", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices), path)
    return fitted


def _fit_object(value: dict[str, Any], schema: JsonSchema, path: Path, as_written: bool) -> dict[str, Any]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties")
    missing = [name for name in schema.get("required", ()) if name not in value]
    stray = [name for name in value if name not in properties] if others is False else []
    if missing or stray:
        problem = f"{', '.join(missing)} missing" if missing else "another field given"
        raise UnfitError(f"an object of {', '.join(properties)}: {problem}", path)
    rest = others if isinstance(others, dict) else {}
    return {
        name: fit(item, properties.get(name, rest), (*path, name), as_written=as_written)
        for name, item in value.items()
    }


def _decoded(value: Any, kind: type, path: Path) -> Any:
    """A list or an object, which models at times encode once more."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = _loads(value)
    if not isinstance(value, kind):
        raise UnfitError("a list" if kind is list else "an object", path)
    return value


def _number(value: Any, path: Path) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise UnfitError("a number", path)
    try:
        number = EXACT.create_decimal(str(value).strip() if isinstance(value, str | float) else value)
    except InvalidOperation:
        raise UnfitError("a number", path) from None
    if not number.is_finite():
        raise UnfitError("a finite number", path)
    return number


def _float(number: Decimal, path: Path) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise UnfitError("a number that a float can hold, below 1.8e308", path)
    return value


def _integer(value: Any, path: Path) -> int:
    number = _number(value, path)
    if number != number.to_integral_value():
        raise UnfitError("a whole number", path)
    if int(number.as_tuple().exponent) > MAX_EXPONENT:
        raise UnfitError("a whole number without so large an exponent", path)
    return int(number)


def _boolean(value: Any, path: Path) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise UnfitError("true or false", path)
