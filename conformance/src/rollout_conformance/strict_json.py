"""JSON as RFC 8259 has it, and when two documents are the same."""

import json
from collections.abc import Sequence
from itertools import takewhile
from operator import eq
from typing import Any, NoReturn

from rollout_conformance.text import quoted

LONG_CHARACTERS = 100
MAX_CODE_POINTS = 4


def parse_object(body: bytes) -> dict[str, Any]:
    """The object in ``body``.

    Raises:
        ValueError: not UTF-8, not JSON (``NaN`` and ``Infinity`` are not), or no object; the text says which.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise ValueError("a body that is not UTF-8") from None
    except RecursionError:
        raise ValueError("a body nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("a body that is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"JSON that is no object but a {type(value).__name__}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"a body with {constant}, which JSON does not have")


def is_same_document(one: bytes, other: bytes) -> bool:
    """Whether both are the same bytes, or the same JSON value with keys in another order."""
    if one == other:
        return True
    # A server may encode anew for each delivery; what counts is what the trainer reads.
    try:
        return is_same_json(parse_object(one), parse_object(other))
    except (ValueError, RecursionError):
        return False


def is_same_json(one: Any, other: Any) -> bool:
    """Whether both are one JSON value: 1 and 1.0 are, ``true`` and 1 are not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same_json(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same_json, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def is_number(value: Any) -> bool:
    """Whether it is a JSON number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def first_difference(one: bytes, other: bytes) -> str:
    """Where two documents first differ, and what each has there: ``final_messages[2].content 'a', then 'b'``."""
    try:
        found = _difference("", parse_object(one), parse_object(other))
    except ValueError:
        found = ""
    if found:
        return found
    at = _alike(one, other)
    around = slice(max(0, at - 10), at + 30)
    return f"byte {at}: {quoted(one[around])}, then {quoted(other[around])}"


def _difference(path: str, one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in [*one, *(name for name in other if name not in one)]:
            inner = f"{path}.{name}" if path else str(name)
            if name not in one or name not in other:
                has = ["nothing" if name not in side else quoted(side[name]) for side in (one, other)]
                return f"{inner} {has[0]}, then {has[1]}"
            if found := _difference(inner, one[name], other[name]):
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list) and one and other:
        for index, (a, b) in enumerate(zip(one, other, strict=False)):
            if found := _difference(f"{path}[{index}]", a, b):
                return found
        return "" if len(one) == len(other) else f"{path} of {len(one)} items, then {len(other)}"
    if type(one) is type(other) and one == other:
        return ""
    is_text = isinstance(one, str) and isinstance(other, str)
    return f"{path} {difference_of_texts(one, other) if is_text else f'{quoted(one)}, then {quoted(other)}'}"


def difference_of_texts(one: str, other: str) -> str:
    """What each has where two texts differ, and by code point where that may not be seen."""
    at = _alike(one, other)
    is_long = max(len(one), len(other)) > LONG_CHARACTERS
    start = max(0, at - 20) if is_long else 0
    around = slice(start, at + 60 if is_long else None)
    where = f"from character {start}: " if is_long else ""
    return f"{where}{quoted(one[around])}, then {quoted(other[around])}{_code_points(one[at:], other[at:], at)}"


def _alike(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items both begin with."""
    return sum(takewhile(bool, map(eq, one, other)))


def _code_points(one: str, other: str, at: int) -> str:
    alike = _alike(one[::-1], other[::-1])
    parts = [side[: len(side) - alike] for side in (one, other)]
    # Anything else may look like another, or like nothing: a letter and its accent, a mark without width, a space.
    if all(part.isascii() and part.isprintable() and not part.isspace() for part in parts):
        return ""
    told = [" ".join(f"U+{ord(character):04X}" for character in part[:MAX_CODE_POINTS]) or "nothing" for part in parts]
    return f"; at character {at}: {told[0]}, then {told[1]}"
