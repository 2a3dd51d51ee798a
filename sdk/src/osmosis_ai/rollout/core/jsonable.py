"""Strict JSON (RFC 8259) out of whatever an agent or a tool produced."""

import json
import math
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any, TypeVar

from osmosis_ai.rollout.core.text import encodable, text_of

MAX_NESTING = 64
MAX_INTEGER_BITS = 4096
MAX_VALUES = 250_000

_STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_UNCHANGING = frozenset({str, int, float, bool, type(None)})
_Item = TypeVar("_Item")


def plain(value: Any) -> Any:
    """``value`` in JSON's terms, whatever it is, so that ``is_strict_json`` holds of the answer.

    Non-finite numbers and foreign objects become text; cycles, nesting beyond ``MAX_NESTING`` and what
    comes after the first ``MAX_VALUES`` values are cut; lone surrogates become ``?``. Nothing is raised.
    """
    return _Plain().of(value)


class _Plain:
    def __init__(self) -> None:
        self._values_left = MAX_VALUES
        self._parents: set[int] = set()

    def of(self, value: Any) -> Any:
        self._values_left -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return encodable(value, errors="replace")
        if isinstance(value, int):
            return int(value) if value.bit_length() <= MAX_INTEGER_BITS else "<integer too large>"
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, dict | list | tuple):
            return self._of_container(value)
        return encodable(text_of(value), errors="replace")

    def _of_container(self, value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Any:
        if id(value) in self._parents:
            return "<contains itself>"
        if len(self._parents) == MAX_NESTING:
            return "<nested too deep>"
        self._parents.add(id(value))
        try:
            if isinstance(value, dict):
                return {_key(key): self.of(item) for key, item in self._affordable(value.items())}
            return [self.of(item) for item in self._affordable(value)]
        except Exception:  # noqa: BLE001 - a foreign container may raise anything
            return f"<unreadable {type(value).__name__}>"
        finally:
            self._parents.discard(id(value))

    def _affordable(self, items: Iterable[_Item]) -> Iterator[_Item]:
        # Over the whole value: a list that holds another a thousand times is small until it is written.
        return takewhile(lambda _: self._values_left > 0, items)


def _key(key: Any) -> str:
    return encodable(text_of(key), errors="replace")


def strict_json(value: Any) -> bytes:
    """``value`` as strict JSON in UTF-8, in as few bytes as that takes.

    Raises:
        TypeError, ValueError, RecursionError: it cannot be written so.
    """
    return _STRICT.encode(value).encode()


def is_strict_json(value: Any) -> bool:
    """Whether ``value`` can be written as strict JSON in UTF-8, as it is."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def with_short_texts(value: Any, max_characters: int) -> Any:
    """A copy of a JSON value in which no text is longer than about ``max_characters``."""
    if isinstance(value, str) and len(value) > max_characters:
        return f"{value[:max_characters]}... [{len(value) - max_characters} characters left out]"
    if isinstance(value, dict):
        return {key: with_short_texts(item, max_characters) for key, item in value.items()}
    if isinstance(value, list):
        return [with_short_texts(item, max_characters) for item in value]
    return value


def copy_json(value: Any) -> Any:
    """A copy of a JSON value that shares nothing that can change."""
    if isinstance(value, dict):
        # The usual message, looked at in C. By their very types: an instance of a subclass may hold what can change.
        if _UNCHANGING.issuperset(map(type, value.values())):
            return dict(value)
        return {key: item if type(item) in _UNCHANGING else copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if type(item) in _UNCHANGING else copy_json(item) for item in value]
    return value
