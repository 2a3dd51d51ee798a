"""The tools of all four agents: ordinary functions, which each framework takes as they are; and their reward."""

from typing import Any

from osmosis_ai.rollout import get_message_content
from rewards import compute_reward


def add(a: int | float, b: int | float) -> int | float:
    """Add two numbers: a + b."""
    return a + b


def subtract(a: int | float, b: int | float) -> int | float:
    """Subtract the second number from the first: a - b."""
    return a - b


def multiply(a: int | float, b: int | float) -> int | float:
    """Multiply two numbers: a * b."""
    return a * b


def divide(a: int | float, b: int | float) -> int | float:
    """Divide the first number by the second: a / b."""
    return a / b


FUNCTIONS = [add, subtract, multiply, divide]


def reward_of(messages: list[dict[str, Any]], metadata: dict[str, Any]) -> float | None:
    """1.0 if the last message has the right answer."""
    return compute_reward(get_message_content(messages[-1]), metadata.get("ground_truth", ""))
