"""Arithmetic found in prose, as the list of two-operand steps that work it out.

Grammar: numbers with optional thousands commas and decimals; ``+ - * /`` and the signs for times, divided by and minus
of typeset text; the words plus, minus, times, "multiplied by", "divided by"; parentheses; unary minus, which binds
tightest. The expression may stand anywhere in the text. Of several, the one with the most operations counts, on a tie
the first.

Text is hostile: one pass, no recursion, time linear in the length of the text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Literal

__all__ = ["Operand", "Operator", "Step", "StepResult", "find_expression", "json_number"]


class Operator(Enum):
    """A binary operation; the value is also the usual name of the tool that computes it."""

    ADD = "add"
    SUBTRACT = "subtract"
    MULTIPLY = "multiply"
    DIVIDE = "divide"


@dataclass(frozen=True, slots=True)
class StepResult:
    """The operand that an earlier step computes: ``index`` in ``Expression.steps``."""

    index: int


Operand = str | StepResult
"""A number as JSON writes it, or the result of an earlier step."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation."""

    operator: Operator
    left: Operand
    right: Operand
    level: int
    """How many steps deep it depends on others: 0 needs none, *n* needs one of level *n* - 1."""


_Token = re.Match[str]
"""Its kind is the name of the group that matched."""

_TOKEN = re.compile(
    r"""
    (?P<number>   [0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)? | [0-9]+(?:\.[0-9]+)? | \.[0-9]+ )
  | (?P<power>    \*\*+ | //+ | [\^%] )
  | (?P<operator> [-+*/\xd7\xf7\u2212] | \b(?:plus|minus|times|multiplied\s{1,8}by|divided\s{1,8}by)\b )
  | (?P<open>     \( )
  | (?P<close>    \) )
  | (?P<other>    [^\W\d]\w* | \S | \n\s*\n )
    """,
    re.VERBOSE | re.IGNORECASE,
)

_OPERATOR_OF_WORD = {
    "+": Operator.ADD,
    "plus": Operator.ADD,
    "-": Operator.SUBTRACT,
    "\N{MINUS SIGN}": Operator.SUBTRACT,
    "minus": Operator.SUBTRACT,
    "*": Operator.MULTIPLY,
    "\N{MULTIPLICATION SIGN}": Operator.MULTIPLY,
    "times": Operator.MULTIPLY,
    "multiplied": Operator.MULTIPLY,
    "/": Operator.DIVIDE,
    "\N{DIVISION SIGN}": Operator.DIVIDE,
    "divided": Operator.DIVIDE,
}

_PRECEDENCE = {Operator.ADD: 1, Operator.SUBTRACT: 1, Operator.MULTIPLY: 2, Operator.DIVIDE: 2}


def find_expression(text: str) -> tuple[Step, ...]:
    """The steps of the arithmetic in ``text``, by level; none where no two numbers are connected by an operator.

    Those of one level can be computed at the same time; the last one is the answer. What looks like arithmetic outside
    the grammar (``2 ** 3``, ``20 %``, ``2(3 + 4)``) is passed over whole.
    """
    best: list[Step] = []
    for run in _runs(text):
        for candidate in _Parser().candidates(run):
            if len(candidate) > len(best):
                best = candidate
    return tuple(_ordered_by_level(best))


def _runs(text: str) -> Iterator[list[_Token]]:
    """Stretches of arithmetic tokens with balanced parentheses and nothing but spaces in between."""
    for is_arithmetic, tokens in groupby(_TOKEN.finditer(text), key=lambda token: token.lastgroup != "other"):
        if is_arithmetic:
            yield from _split_at_unmatched_parentheses(list(tokens))


def _split_at_unmatched_parentheses(run: list[_Token]) -> Iterator[list[_Token]]:
    unmatched: list[int] = []
    for position, token in enumerate(run):
        if token.lastgroup == "close" and unmatched and run[unmatched[-1]].lastgroup == "open":
            unmatched.pop()
        elif token.lastgroup in ("open", "close"):
            unmatched.append(position)
    start = 0
    for position in [*unmatched, len(run)]:
        if position > start:
            yield run[start:position]
        start = position + 1


_Pending = Operator | Literal["(", "negate"]


class _Parser:
    """Dijkstra's shunting-yard over one run; starts afresh behind every syntax error."""

    def __init__(self) -> None:
        self._found: list[list[Step]] = []
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._steps: list[Step] = []
        self._operands: list[Operand] = []
        self._pending: list[_Pending] = []
        self._open_parentheses = 0
        self._expects_operand = True

    def candidates(self, run: list[_Token]) -> list[list[Step]]:
        """The steps of every complete expression, in dependency order; none if ``run`` goes beyond the grammar."""
        for position, token in enumerate(run):
            if not self._expects_operand and _goes_beyond_the_grammar(run, position):
                return []
            if not self._takes(token):
                self._finish_expression()
                self._takes(token)
        self._finish_expression()
        return self._found

    def _takes(self, token: _Token) -> bool:
        match token.lastgroup:
            case "number" if self._expects_operand:
                self._complete_operand(json_number(token.group()) or "0")
            case "open" if self._expects_operand:
                self._pending.append("(")
                self._open_parentheses += 1
            case "operator" if not self._expects_operand:
                operator = _operator_of(token)
                self._reduce_while_binding_at_least(_PRECEDENCE[operator])
                self._pending.append(operator)
                self._expects_operand = True
            case "operator" if _operator_of(token) is Operator.SUBTRACT:
                self._pending.append("negate")
            case "close" if not self._expects_operand and self._open_parentheses:
                self._reduce_while_binding_at_least(0)
                self._pending.pop()
                self._open_parentheses -= 1
                self._complete_operand(self._operands.pop())
            case _:
                return False
        return True

    def _complete_operand(self, operand: Operand) -> None:
        negative = False
        while self._pending and self._pending[-1] == "negate":
            self._pending.pop()
            negative = not negative
        self._operands.append(self._negated(operand) if negative else operand)
        self._expects_operand = False

    def _negated(self, operand: Operand) -> Operand:
        if isinstance(operand, StepResult):
            return self._add_step(Operator.SUBTRACT, "0", operand)
        if operand.strip("0.") == "":
            return operand
        return operand.removeprefix("-") if operand.startswith("-") else f"-{operand}"

    def _reduce_while_binding_at_least(self, precedence: int) -> None:
        while self._pending and isinstance(operator := self._pending[-1], Operator):
            if _PRECEDENCE[operator] < precedence:
                return
            self._pending.pop()
            right, left = self._operands.pop(), self._operands.pop()
            self._operands.append(self._add_step(operator, left, right))

    def _add_step(self, operator: Operator, left: Operand, right: Operand) -> StepResult:
        level = max(self._level_above(left), self._level_above(right))
        self._steps.append(Step(operator, left, right, level))
        return StepResult(len(self._steps) - 1)

    def _level_above(self, operand: Operand) -> int:
        return self._steps[operand.index].level + 1 if isinstance(operand, StepResult) else 0

    def _finish_expression(self) -> None:
        if self._expects_operand:
            while self._pending and self._pending[-1] == "negate":
                self._pending.pop()
            if self._pending and isinstance(self._pending[-1], Operator):
                self._pending.pop()
        if not self._open_parentheses:
            self._reduce_while_binding_at_least(0)
            if self._steps:
                self._found.append(self._steps)
        self._start_afresh()


def _operator_of(token: _Token) -> Operator:
    return _OPERATOR_OF_WORD[token.group().split()[0].lower()]


def _goes_beyond_the_grammar(run: list[_Token], position: int) -> bool:
    """Whether the token behind an operand makes it a power, a remainder, a percentage or an implied product."""
    token = run[position]
    if token.lastgroup == "power":
        following = [later.lastgroup for later in run[position + 1 : position + 3]]
        after_sign = following[1:] if following[:1] == ["operator"] else following
        # Stars without an operand behind them are Markdown's.
        return after_sign[:1] in (["number"], ["open"]) or not token.group().startswith("*")
    return token.lastgroup in ("number", "open") and token.start() == run[position - 1].end()


NUMBER = re.compile(
    r"(?P<sign>[-+\N{MINUS SIGN}]?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]*)"
    r"(?:\.(?P<fraction>[0-9]*))?"
    r"(?P<exponent>[eE][-+]?[0-9]+)?"
)


def json_number(text: str) -> str | None:
    """A number as JSON writes it, every digit kept; ``None`` where ``text`` is none."""
    match = NUMBER.fullmatch(text)
    if match is None or not (match["whole"] or match["fraction"]):
        return None
    sign = "-" if match["sign"] in ("-", "\N{MINUS SIGN}") else ""
    whole = match["whole"].replace(",", "").lstrip("0") or "0"
    fraction = f".{match['fraction']}" if match["fraction"] else ""
    return f"{sign}{whole}{fraction}{match['exponent'] or ''}"


def _ordered_by_level(steps: list[Step]) -> Iterator[Step]:
    order = sorted(range(len(steps)), key=lambda index: steps[index].level)
    new_index = {old: new for new, old in enumerate(order)}

    def moved(operand: Operand) -> Operand:
        return StepResult(new_index[operand.index]) if isinstance(operand, StepResult) else operand

    for old in order:
        step = steps[old]
        yield Step(step.operator, moved(step.left), moved(step.right), step.level)
