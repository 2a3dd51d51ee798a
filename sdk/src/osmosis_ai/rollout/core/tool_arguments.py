"""What a model wrote as the arguments of a call, made into what the tool's schema asks for.

Models send numbers as text, encode arguments twice, and write ``true`` where a number belongs. The first two are put
right here, the last is refused, each before the tool's own validation sees the value. Every digit is kept: JSON numbers
are read as ``Decimal`` and become ``int`` or ``float`` only where the schema, or the lack of one, says so. What a model
writes is untrusted: nothing here takes more than linear time, and no number has more than ``MAX_DIGITS`` digits.
"""

import json
from collections.abc import Iterable, Mapping
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


def fit(value: Any, schema: JsonSchema, path: Path = ()) -> Any:
    """A decoded value as the schema wants it.

    Args:
        schema: of the value, without ``$ref``.
        path: of the value, for the error.

    Raises:
        UnfitError: it cannot be.
        decimal.Inexact: a number has more than ``MAX_DIGITS`` digits.
    """
    if "anyOf" in schema:
        return _fit_any(value, schema["anyOf"], path)
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
            return [fit(item, items, (*path, index)) for index, item in enumerate(_decoded(value, list, path))]
        case "object":
            return _fit_object(_decoded(value, dict, path), schema, path)
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


def _fit_any(value: Any, choices: Iterable[JsonSchema], path: Path) -> Any:
    """By the first choice that fits, those first that need no forgiveness: "5" is a text where a text may be."""
    problems = []
    for choice in sorted(choices, key=lambda choice: not _is_natural(value, choice)):
        try:
            return fit(value, choice, path)
        except UnfitError as unfit:
            problems.append(unfit)
    for problem in problems:
        if problem.path != path:  # right in kind, but wrong within
            raise problem
    raise UnfitError(" or ".join(dict.fromkeys(problem.expected for problem in problems)), path)


def _is_natural(value: Any, schema: JsonSchema) -> bool:
    kind = _NATURAL.get(str(schema.get("type")))
    return kind is not None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _fit_enum(value: Any, schema: JsonSchema, path: Path) -> Any:
    choices = schema["enum"]
    fitted = fit(value, {"type": schema["type"]}, path) if "type" in schema else plain(value, path)
    if not any(fitted == choice and isinstance(fitted, bool) == isinstance(choice, bool) for choice in choices):
        raise UnfitError("one of " + ", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices), path)
    return fitted


def _fit_object(value: dict[str, Any], schema: JsonSchema, path: Path) -> dict[str, Any]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties")
    missing = [name for name in schema.get("required", ()) if name not in value]
    stray = [name for name in value if name not in properties] if others is False else []
    if missing or stray:
        problem = f"{', '.join(missing)} missing" if missing else "another field given"
        raise UnfitError(f"an object of {', '.join(properties)}: {problem}", path)
    rest = others if isinstance(others, dict) else {}
    return {name: fit(item, properties.get(name, rest), (*path, name)) for name, item in value.items()}


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
