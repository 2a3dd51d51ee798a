"""Arithmetic problems in words, by level, as rows of the project's dataset format.

Which problems are held out is decided by the numbers alone: a hash of the expression sends one in five to the held-out
side, for every seed and every wording. So no problem is both trained on and measured on. A second held-out set puts
held-out problems into wordings that no training row has.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

SYSTEM_PROMPT = "Use the tools add, subtract, multiply and divide. Answer with #### and the number."
HELD_OUT_SHARE = 5
HELD_OUT_SEED = 20260101


class Level(Enum):
    """How hard the problems are."""

    ONE_STEP = "one-step"
    """One operation on whole numbers below 100, in words."""
    TWO_STEP = "two-step"
    """One operation on the result of another."""
    DECIMALS = "decimals"
    """One operation on numbers with one decimal."""


class Wordings(Enum):
    """Which of the wordings are used."""

    TRAINED = 0
    HELD_OUT = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, as text, with its answer; ``key`` is the same for the same numbers in other words."""

    key: str
    text: str
    answer: Decimal

    @property
    def is_held_out(self) -> bool:
        """Whether these numbers are for measuring only."""
        return hashlib.sha256(self.key.encode()).digest()[0] % HELD_OUT_SHARE == 0

    def row(self, level: Level) -> dict[str, Any]:
        """A row of a dataset."""
        return {
            "system_prompt": SYSTEM_PROMPT,
            "user_prompt": self.text,
            "ground_truth": f"{self.answer.normalize():f}",
            "level": level.value,
            "expression": self.key,
        }


# Of each operation: wordings that are trained on, and wordings that never are.
_WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "+": (
        ("What is {a} plus {b}?", "Add {a} and {b}.", "What is the sum of {a} and {b}?", "Increase {a} by {b}."),
        ("How much do {a} and {b} make together?", "Put {b} on top of {a}."),
    ),
    "-": (
        (
            "What is {a} minus {b}?",
            "Take {b} away from {a}.",
            "Subtract {b} from {a}.",
            "What is {a} less {b}?",
        ),
        ("Starting at {a}, go down by {b}.", "How much is left of {a} when {b} are gone?"),
    ),
    "*": (
        (
            "What is {a} times {b}?",
            "Multiply {a} by {b}.",
            "What is the product of {a} and {b}?",
            "How much is {b} times {a}?",
        ),
        ("There are {a} boxes of {b} pens. How many pens?", "What do {a} lots of {b} come to?"),
    ),
    "/": (
        (
            "What is {a} divided by {b}?",
            "Divide {a} by {b}.",
            "How many times does {b} go into {a}?",
            "Split {a} into {b} equal parts.",
        ),
        ("Share {a} among {b} people. How many does each get?", "What is one part of {a} cut into {b}?"),
    ),
}
# A second operation on the result of the first.
_SECOND_STEPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "+": (("Then add {b}.", "Now increase the result by {b}."), ("Put {b} on top of that.",)),
    "-": (("Then subtract {b}.", "Now take {b} away."), ("Go down by {b} from there.",)),
    "*": (("Then multiply by {b}.", "Now take the result times {b}."), ("What do {b} lots of that come to?",)),
}
COMPUTE: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def problems(level: Level, wordings: Wordings, seed: int) -> Iterator[Problem]:
    """An endless stream of problems; the same for the same arguments."""
    source = random.Random(f"{level.value}/{wordings.name}/{seed}")  # noqa: S311 - problems, not secrets
    while True:
        operation = source.choice("+-*/")
        a, b = _numbers(source, operation, level)
        answer = COMPUTE[operation](a, b)
        text = source.choice(_WORDINGS[operation][wordings.value]).format(a=a, b=b)
        key = f"{a} {operation} {b}"
        if level is Level.TWO_STEP:
            second = source.choice("+-*")
            c = Decimal(source.randint(2, 9 if second == "*" else 50))
            text = f"{text} {source.choice(_SECOND_STEPS[second][wordings.value]).format(b=c)}"
            key = f"({key}) {second} {c}"
            answer = COMPUTE[second](answer, c)
        yield Problem(key, text, answer)


def _numbers(source: random.Random, operation: str, level: Level) -> tuple[Decimal, Decimal]:
    if operation == "/":
        divisor, quotient = source.randint(2, 9), source.randint(3, 19)
        a, b = Decimal(divisor * quotient), Decimal(divisor)
    elif operation == "*":
        a, b = Decimal(source.randint(11, 99)), Decimal(source.randint(3, 19))
    else:
        a, b = sorted((Decimal(source.randint(11, 99)), Decimal(source.randint(11, 99))), reverse=True)
    if level is not Level.DECIMALS:
        return a, b
    a += Decimal(source.randint(1, 9)) / 10
    if operation == "/":
        # The quotient must have an end: a is given one decimal more than the divisor takes away.
        return (a * b).normalize() + 0, b
    return a, b + Decimal(source.randint(1, 9)) / 10


def training_rows(level: Level, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows to train on: trained wordings, no held-out numbers, no row twice."""
    return _rows(level, Wordings.TRAINED, count, seed, held_out=False)


def held_out_rows(level: Level, count: int, wordings: Wordings) -> list[dict[str, Any]]:
    """Rows to measure on, the same for every seed of training."""
    return _rows(level, wordings, count, HELD_OUT_SEED, held_out=True)


def _rows(level: Level, wordings: Wordings, count: int, seed: int, *, held_out: bool) -> list[dict[str, Any]]:
    texts: set[str] = set()
    rows: list[dict[str, Any]] = []
    for problem in problems(level, wordings, seed):
        if problem.is_held_out == held_out and problem.text not in texts:
            texts.add(problem.text)
            rows.append(problem.row(level))
        if len(rows) == count:
            break
    return rows


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a dataset as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def worked_examples(level: Level) -> list[dict[str, Any]]:
    """Two solved problems as real chat turns, which the trainer puts between the system prompt and the problem.

    Described in the system prompt alone, the start model does not once produce a call.
    """
    first = _example("What is 25 plus 17?", [("add", "25", "17", "42")], "e1")
    if level is Level.TWO_STEP:
        steps = [("multiply", "12", "3", "36"), ("add", "36", "20", "56")]
        return first + _example("What is 12 times 3? Then add 20.", steps, "e2")
    if level is Level.DECIMALS:
        return first + _example("Take 1.5 away from 5.9.", [("subtract", "5.9", "1.5", "4.4")], "e2")
    return first + _example("Take 18 away from 59.", [("subtract", "59", "18", "41")], "e2")


def _example(question: str, steps: list[tuple[str, str, str, str]], call_id: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    for number, (name, a, b, result) in enumerate(steps):
        function = {"name": name, "arguments": f'{{"a": {a}, "b": {b}}}'}
        call = {"id": f"{call_id}_{number}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    messages.append({"role": "assistant", "content": f"#### {steps[-1][3]}"})
    return messages
