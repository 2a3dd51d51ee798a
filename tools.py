"""The agent's tools. To make this agent yours, replace the functions and name them in `TOOLS`.

The model is told of a function's name, its docstring and its parameters. It may be `async def`; a plain function runs
in a thread. Raise `ToolExecutionError` to tell the model that something cannot be done; anything else that is raised
ends the rollout as an error. `EXACT` never rounds; where a number grows too long, the model is told.
"""

from decimal import Context, Decimal
from typing import Annotated

from osmosis_ai.rollout import EXACT, Toolbox, ToolExecutionError

QUOTIENT_DIGITS = 16  # beside those before its decimal point

First = Annotated[Decimal, "First number"]
Second = Annotated[Decimal, "Second number"]


def add(a: First, b: Second) -> Decimal:
    """Add two numbers: a + b."""
    return EXACT.add(a, b)


def subtract(a: First, b: Second) -> Decimal:
    """Subtract the second number from the first: a - b."""
    return EXACT.subtract(a, b)


def multiply(a: First, b: Second) -> Decimal:
    """Multiply two numbers: a * b."""
    return EXACT.multiply(a, b)


def divide(a: First, b: Second) -> Decimal:
    """Divide the first number by the second: a / b."""
    if b == 0:
        raise ToolExecutionError("division by zero: b must not be 0")
    whole_digits = max(0, a.adjusted() - b.adjusted())  # the position of a's first digit, less that of b's
    return Context(prec=whole_digits + QUOTIENT_DIGITS).divide(a, b)


TOOLS = Toolbox(add, subtract, multiply, divide)
