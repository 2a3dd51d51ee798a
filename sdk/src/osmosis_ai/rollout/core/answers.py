"""Final answers: what follows the last ``####`` (the convention of GSM8K, arXiv:2110.14168), and whether it is right.

Whatever the texts, reading and comparing them never raises and takes linear time. Only an answer can be wrong: a ground
truth that cannot be compared makes no answer wrong.
"""

import math
import re
import unicodedata
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any

from osmosis_ai.rollout.core.numbers.notation import LEAD, TIDY, is_whole
from osmosis_ai.rollout.core.numbers.reading import number_in

MARK = "####"

# Digits enough for any tolerance; nothing is out of range, so that no comparison raises.
_COMPARISON = Context(prec=40, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])

_DRESS = re.compile(
    r"\\(?:boxed|fbox|text|textbf|mathbf|mathrm|left|right)(?![a-zA-Z])|\\[()\[\],;:! ]|[`$\u200b\u2060\ufeff]"
    r"|(?<![\w)}\]])\*\*|\*\*(?![\w({\[\\+-])"  # bold, and no power
)
_LEAD = re.compile(rf"[\s*_]*+{LEAD}", re.VERBOSE)
_FRACTION = re.compile(r"\\[cdt]frac(?![a-zA-Z])")
_POWER = re.compile("\\^\\{(\\w+)\\}|([\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+)")
_TOKENS = re.compile(r"\w+|[^\w\s]")
_BEFORE = frozenset(".,;:?\"'\u2018\u2019\u201c\u201d{}")
_BEHIND = frozenset(".,;:?{}")
_PAIRS = ('"\u201c\u201d\u201e', "'\u2018\u2019", "*")
"""What is dress where it is on both sides: behind a word alone it may be a prime or a star."""
_VARIABLE = re.compile("([a-z]) = ")
_FACTORIAL = re.compile(r"(?:[\s$]|\\\()*+([0-9]{1,3})!(?:[\s$.]|\\\))*+")
_BOXED = "\\boxed{"
_PROSE = re.compile(r"\s*+(?=[^0-9]*+[0-9])[A-Z][\w,'$]*+(?:[^\S\n]++[^\s]++){2,}+(?<=\.)\s*+")
"""A sentence with a number somewhere in it: who answers with the number is not wrong."""
_OF_A_CHOICE = {("(", ")"), ("[", "]"), ("", ")")}


def final_number(text: Any) -> Decimal | None:
    """The number after the last ``####``, every digit of it; ``None`` where there is no mark, or not one number.

    Thousands separators, currency and percent signs, Markdown, LaTeX, quotes and units around it are read over, so that
    ``"#### **$1,234.50** a day"`` is 1234.50. Work that is left undone is no number: ``36/2`` is none, ``35/2`` is one.
    What is no text has no final number.
    """
    return number_in(text.rpartition(MARK)[2], is_done=True) if isinstance(text, str) and MARK in text else None


def read_number(value: Any) -> Decimal | None:
    """The number that a ground truth is: an ``int``, ``float`` or ``Decimal``, or a text as ``final_number`` reads it.

    A text needs no ``####``, and may be ``36/2``, or a factorial: without a ``####`` before it ``5!`` is 120, not 5
    with emphasis, as it is in an answer. A ``float`` is the shortest number that is written so.
    ``None`` for anything else, for NaN and infinities, and for booleans.
    """
    if isinstance(value, str):
        if whole := _FACTORIAL.fullmatch(value.translate(TIDY)):
            return Decimal(math.factorial(int(whole[1])))
        return number_in(_answer_of(value))
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return number if number.is_finite() else None


def is_close(number: Decimal, truth: Decimal, tolerance: Decimal | float) -> bool:
    """Whether ``number`` is off ``truth`` by at most ``tolerance``: absolute, or relative to ``truth``.

    Relative where ``truth`` is above 1, or below ``tolerance`` itself, which any small number would be close to.
    """
    difference = _COMPARISON.subtract(number, truth).copy_abs()
    bound, size = Decimal(str(tolerance)), truth.copy_abs()
    return difference <= _COMPARISON.multiply(bound, size if size < bound and size else max(Decimal(1), size))


def is_comparable(ground_truth: Any) -> bool:
    """Whether ``is_right`` can compare it: a finite number, a bool, or a text.

    No text is one that is only punctuation, or a sentence such as "It is 18.", of which nobody says what the answer is.
    """
    return read_number(ground_truth) is not None or bool(_plain_truth(ground_truth))


def is_right(answer: Any, ground_truth: Any, tolerance: Decimal | float = 1e-7) -> bool | None:
    """Whether what follows the last ``####`` of ``answer`` is ``ground_truth``; ``None`` if that cannot be compared.

    Numbers and fractions are compared as numbers: two whole ones exactly, others within ``tolerance`` (see
    ``is_close``). Any other ground truth is a text, compared without regard to case, spaces, Markdown and LaTeX around
    it. An answer without a mark is wrong.
    """
    truth = read_number(ground_truth)
    # A truth such as "36/2" is right in its own words.
    text = "" if truth is not None and _is_done(ground_truth, truth) else _plain_truth(ground_truth)
    if truth is None and not text:
        return None
    if not isinstance(answer, str) or MARK not in answer:
        return False
    given = answer.rpartition(MARK)[2].strip()
    lines = given, given.partition("\n")[0]
    if text and text in (*map(_plain, lines), *(_plain(_LEAD.sub("", line, count=1)) for line in lines)):
        return True
    if truth is not None and (number := final_number(answer)) is not None:
        if _is_of_another_variable(given, ground_truth):
            return False
        return number == truth if is_whole(number) and is_whole(truth) else is_close(number, truth, tolerance)
    return False


def _is_done(ground_truth: Any, number: Decimal) -> bool:
    """Whether an answer in the words of the ground truth is that ``number``."""
    return not isinstance(ground_truth, str) or final_number(MARK + ground_truth) == number


def _plain_truth(ground_truth: Any) -> str:
    if isinstance(ground_truth, str):
        text = _answer_of(ground_truth)
        return "" if _PROSE.fullmatch(text) else _plain(text)
    return str(ground_truth).lower() if isinstance(ground_truth, bool) else ""


def _answer_of(ground_truth: str) -> str:
    """What is to be compared: it follows the last ``####``, or is in the last ``\\boxed``, as in MATH's solutions."""
    if MARK in ground_truth or (boxed := ground_truth.rfind(_BOXED)) < 0:
        return ground_truth.rpartition(MARK)[2]
    depth = 1
    for end, character in enumerate(ground_truth[boxed + len(_BOXED) :], start=boxed + len(_BOXED)):
        depth += (character == "{") - (character == "}")
        if not depth:
            return ground_truth[boxed + len(_BOXED) : end]
    return ground_truth


def _plain(text: str) -> str:
    """``text`` as it is compared: its words and signs, without what is only dress; empty if it is only punctuation."""
    text = _FRACTION.sub(r"\\frac", _DRESS.sub("", text.translate(TIDY)))
    text = _POWER.sub(lambda power: "^" + (power[1] or power[2]), text)
    tokens = _TOKENS.findall(unicodedata.normalize("NFKC", text).casefold())
    tokens = _undressed(tokens)
    if not any(unicodedata.category(character)[0] in "LNS" for token in tokens for character in token):
        return ""
    if len(tokens) in (2, 3) and (tokens[0] if len(tokens) == 3 else "", tokens[-1]) in _OF_A_CHOICE:
        tokens = tokens[-2:-1]  # "(B)" and "B)" choose B
    return " ".join(tokens)


def _undressed(tokens: list[str]) -> list[str]:
    """``tokens`` without the marks around them that mean nothing there."""
    start, end = 0, len(tokens)
    while start < end:
        first, last = tokens[start], tokens[end - 1]
        before_last = tokens[end - 2] if end - start > 1 else ""
        if last in _BEHIND or (last == "!" and len(before_last) > 1 and before_last.isalpha()):
            end -= 1
        elif end - start > 1 and any(first in pair and last in pair for pair in _PAIRS):
            start, end = start + 1, end - 1
        elif first in _BEFORE and not (first == "." and before_last and tokens[start + 1][0].isdigit()):
            start += 1
        else:
            break
    return tokens[start:end]


def _is_of_another_variable(given: str, ground_truth: Any) -> bool:
    """Whether the answer is y's, and the truth x's."""
    if not isinstance(ground_truth, str) or "=" not in given or "=" not in ground_truth:
        return False
    names = [_VARIABLE.match(text) for text in (_plain(given), _plain_truth(ground_truth))]
    return None not in names and len({name[1] for name in names if name}) > 1
