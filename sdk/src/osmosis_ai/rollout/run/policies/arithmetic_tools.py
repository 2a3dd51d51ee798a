"""How the arithmetic policy uses tools it has never seen: which one computes what, and which number it answered."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.run.policies.expression import NUMBER, Operator, json_number

__all__ = ["ArithmeticTool", "find_tools", "read_number"]

MAX_RESULT_CHARACTERS = 10_000

_NAMES: dict[Operator, frozenset[str]] = {
    Operator.ADD: frozenset({"add", "addition", "plus", "sum"}),
    Operator.SUBTRACT: frozenset({"difference", "minus", "sub", "subtract", "subtraction"}),
    Operator.MULTIPLY: frozenset({"mul", "multiplication", "multiply", "product", "times"}),
    Operator.DIVIDE: frozenset({"div", "divide", "division", "quotient"}),
}


@dataclass(frozen=True, slots=True)
class ArithmeticTool:
    """An offered function of two numbers. Its first two parameters are the operands, in order."""

    name: str
    parameters: tuple[str, str]
    takes_text: tuple[bool, bool]

    def arguments(self, left: str, right: str) -> str:
        """The JSON text of a call; the numbers keep every digit."""
        values = [
            json.dumps(number) if as_text else number
            for number, as_text in zip((left, right), self.takes_text, strict=True)
        ]
        pairs = zip(self.parameters, values, strict=True)
        return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in pairs) + "}"


def find_tools(offered: Iterable[Mapping[str, Any]]) -> dict[Operator, ArithmeticTool]:
    """The tool for each operation, as far as there is one: by its usual name first, then by a part of its name.

    ``add`` goes before ``plus`` goes before ``calculator_add``. Definitions in any other shape are passed over.
    """
    tools = [tool for definition in offered if (tool := _as_arithmetic_tool(definition)) is not None]
    found: dict[Operator, ArithmeticTool] = {}
    for operator, names in _NAMES.items():
        for fits in (
            lambda tool, operator=operator: tool.name == operator.value,
            lambda tool, names=names: tool.name.lower() in names,
            lambda tool, names=names: not names.isdisjoint(re.split(r"[^a-z]+", tool.name.lower())),
        ):
            match = next(filter(fits, tools), None)
            if match is not None:
                found.setdefault(operator, match)
    return found


def has_name_of_arithmetic(definition: Mapping[str, Any]) -> bool:
    """Whether a tool calls itself after an operation, whatever its parameters are."""
    function = definition.get("function")
    name = str(function.get("name")) if isinstance(function, Mapping) else ""
    return any(not names.isdisjoint(re.split(r"[^a-z]+", name.lower())) for names in _NAMES.values())


def _as_arithmetic_tool(definition: Mapping[str, Any]) -> ArithmeticTool | None:
    match definition:
        case {"function": {"name": str(name), "parameters": {"properties": dict(properties)}}} if len(properties) >= 2:
            first, second = list(properties)[:2]
            return ArithmeticTool(
                name=name,
                parameters=(first, second),
                takes_text=(_is_text(properties[first]), _is_text(properties[second])),
            )
        case _:
            return None


def _is_text(schema: object) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "string"


_NUMBER_IN_TEXT = re.compile(rf"(?<![\w.])(?=[-+\N{{MINUS SIGN}}]?\.?[0-9]){NUMBER.pattern}(?![\w])")


def read_number(answer: str) -> str | None:
    """The one number that a tool answered, as JSON writes it; ``None`` where there is none or more than one.

    Understands ``7``, ``1,234.50``, ``{"result": 7}``, ``The result is 7.`` and ``3 + 4 = 7``. An answer that begins
    with "error" or is a JSON object with a key ``error`` is no number.
    """
    text = answer.strip()
    if len(text) > MAX_RESULT_CHARACTERS or text.lower().startswith("error"):
        return None
    if text.startswith("{"):
        return _number_in_object(text)
    if (exact := json_number(text)) is not None:
        return exact
    matches = list(_NUMBER_IN_TEXT.finditer(text.rpartition("=")[2]))
    return json_number(matches[0].group()) if len(matches) == 1 else None


def _number_in_object(text: str) -> str | None:
    try:
        decoded = json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if "error" in decoded:
        return None
    numbers = [json_number(value) for value in decoded.values() if isinstance(value, str)]
    readable = [number for number in numbers if number is not None]
    return readable[0] if len(readable) == 1 else None
