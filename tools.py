"""The agent's tools. To make this agent yours, replace the four functions and the list in `TOOLS`.

A tool is stated once, as a function: the schema the model is given is read from its signature and docstring. It may
be `async def`; a plain function runs in a worker thread, so that a slow one holds up nothing else. To tell the model
that something cannot be done, raise `ToolExecutionError`; anything else a tool raises ends the rollout as an error.
"""

import asyncio
import inspect
import json
from collections.abc import Callable
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Annotated, Any, get_type_hints

from osmosis_ai.rollout.core.exceptions import ToolArgumentError, ToolExecutionError
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema
from osmosis_ai.rollout.core.tools import create_tool_error_result, create_tool_result, serialize_tool_result

MAX_DIGITS = 4_000  # before the decimal point, and in all
QUOTIENT_DIGITS = 16

# Computes exactly or raises: integers and decimals of up to MAX_DIGITS digits are never rounded.
EXACT = Context(prec=MAX_DIGITS, Emax=MAX_DIGITS - 1, Emin=0, traps=[InvalidOperation, Inexact, Overflow])


def add(a: Annotated[Decimal, "First number"], b: Annotated[Decimal, "Second number"]) -> Decimal:
    """Add two numbers: a + b."""
    return EXACT.add(a, b)


def subtract(a: Annotated[Decimal, "First number"], b: Annotated[Decimal, "Second number"]) -> Decimal:
    """Subtract the second number from the first: a - b."""
    return EXACT.subtract(a, b)


def multiply(a: Annotated[Decimal, "First number"], b: Annotated[Decimal, "Second number"]) -> Decimal:
    """Multiply two numbers: a * b."""
    return EXACT.multiply(a, b)


def divide(a: Annotated[Decimal, "First number"], b: Annotated[Decimal, "Second number"]) -> Decimal:
    """Divide the first number by the second: a / b."""
    if b == 0:
        raise ToolExecutionError("division by zero: b must not be 0")
    whole_digits = max(0, a.adjusted() - b.adjusted())
    return Context(prec=whole_digits + QUOTIENT_DIGITS).divide(a, b)


def to_decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError("a number")
    try:
        number = EXACT.create_decimal(str(value).strip() if isinstance(value, str | float) else value)
    except InvalidOperation:
        raise ValueError("a number") from None
    if not number.is_finite():
        raise ValueError("a finite number")
    return number


def to_integer(value: Any) -> int:
    number = to_decimal(value)
    if number != number.to_integral_value():
        raise ValueError("a whole number")
    return int(number)


def to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


# The types a parameter may have: its name in the schema, and what turns the model's value into it.
PARAMETER_TYPES: dict[type, tuple[str, Callable[[Any], Any]]] = {
    Decimal: ("number", to_decimal),
    float: ("number", lambda value: float(to_decimal(value))),
    int: ("integer", to_integer),
    str: ("string", to_text),
}


class Tool:
    """A function as the model sees it; its parameters are annotated `type` or `Annotated[type, "description"]`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function.__name__
        self.required: list[str] = []
        self.converters: dict[str, Callable[[Any], Any]] = {}
        properties = {}
        types = get_type_hints(function)
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            if types.get(name) not in PARAMETER_TYPES:
                known = ", ".join(kind.__name__ for kind in PARAMETER_TYPES)
                raise TypeError(f"Parameter {name} of tool {self.name} needs an annotation: one of {known}.")
            json_type, self.converters[name] = PARAMETER_TYPES[types[name]]
            [description] = getattr(parameter.annotation, "__metadata__", [None])
            properties[name] = {"type": json_type, "description": description}
            if parameter.default is parameter.empty:
                self.required.append(name)
        parameters = {"type": "object", "properties": properties, "required": self.required}
        schema = {"name": self.name, "description": inspect.getdoc(function) or self.name, "parameters": parameters}
        self.schema = OpenAIFunctionToolSchema.model_validate({"type": "function", "function": schema})

    async def run(self, arguments: dict[str, Any]) -> str:
        """Run the function and return its result as text; raise `ToolArgumentError` for arguments it cannot take."""
        missing = [name for name in self.required if name not in arguments]
        if missing or not arguments.keys() <= self.converters.keys():
            problem = f"{', '.join(missing)} missing" if missing else "another argument given"
            raise ToolArgumentError(f"{self.name} takes the arguments {', '.join(self.converters)}: {problem}")
        converted = {}
        for name, value in arguments.items():
            try:
                converted[name] = self.converters[name](value)
            except ValueError as expected:
                raise ToolArgumentError(f"argument {name} of {self.name} must be {expected}") from None
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(**converted)
        else:
            result = await asyncio.to_thread(self.function, **converted)
        if isinstance(result, Decimal):
            return f"{EXACT.normalize(result):zf}"
        return serialize_tool_result(result)


TOOLS = {tool.name: tool for tool in map(Tool, (add, subtract, multiply, divide))}


def decode_arguments(arguments: Any) -> dict[str, Any]:
    """The arguments of a call as a dict, every digit kept; models send JSON text, at times encoded twice."""
    exact = EXACT.create_decimal
    for _ in range(2):
        if isinstance(arguments, str | None):
            try:
                arguments = json.loads(arguments or "{}", parse_int=exact, parse_float=exact)
            except (ValueError, RecursionError):
                raise ToolArgumentError("the arguments are not valid JSON") from None
    if not isinstance(arguments, dict):
        raise ToolArgumentError("the arguments must be a JSON object")
    return arguments


async def call_tool(tool_call: Any) -> dict[str, str]:
    """Answer one tool call of the model with a tool message; a malformed call gets one that says what was wrong."""
    call = tool_call if isinstance(tool_call, dict) else {}
    call_id = call["id"] if isinstance(call.get("id"), str) else "unknown"
    function = call["function"] if isinstance(call.get("function"), dict) else {}
    name = function["name"] if isinstance(function.get("name"), str) else ""
    try:
        if name not in TOOLS:
            raise ToolExecutionError(f"no such tool; there are {', '.join(TOOLS)}")
        result = await TOOLS[name].run(decode_arguments(function.get("arguments")))
    except ToolExecutionError as error:
        return create_tool_error_result(call_id, str(error))
    except Inexact:
        return create_tool_error_result(call_id, f"overflow: a number has more than {MAX_DIGITS:,} digits")
    except Exception as error:
        raise ToolExecutionError(f"{name} failed: {error}", call_id, name) from error
    return create_tool_result(call_id, result)
