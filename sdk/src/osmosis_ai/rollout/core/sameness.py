"""Whether a message that comes back is the one that went out: the equality of ``docs/protocol.md``, section 4.1.

Server and trainer ask the same function. What counts is what a model is shown: a null, an empty text and an empty list
are as good as nothing, text in parts is text, and a call's arguments are the value that they spell.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from osmosis_ai.rollout.core.messages import parse_tool_calls
from osmosis_ai.rollout.core.text import cut, encodable

MAX_VALUE_CHARACTERS = 60
_CHARACTERS_BEFORE_THE_DIFFERENCE = 15

# What a chat template writes of every message; anything else, such as `reasoning_content`, may be left out.
_KEPT = ("role", "content", "tool_calls", "tool_call_id", "name", "function_call")
_COMPARED_APART = frozenset({"content", "tool_calls"})


@dataclass(frozen=True, slots=True)
class Difference:
    """The first field in which two messages differ, such as ``tool_calls[0].function.name``, and both values."""

    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.field} was {_shown(self.old, self.new)} and is {_shown(self.new, self.old)}"


def difference(old: Mapping[str, Any], new: Any) -> Difference | None:
    """What of ``old`` is another in ``new``; ``None`` where they are the same message. Never raises."""
    try:
        return None if old == new else _difference(old, new)
    except RecursionError:
        return Difference("the message", "nested too deeply", "nested too deeply")


def shown(message: Mapping[str, Any]) -> bytes:
    """What of ``message`` a model is shown: the same bytes where `difference` finds none, but for what may be left out.

    Raises:
        TypeError: it is no JSON.
    """
    calls = [
        [call.get("id"), _mapping(call.get("function")).get("name"), _arguments(call)]
        if isinstance(call, Mapping)
        else call
        for call in parse_tool_calls(dict(message))
    ]
    others = [message.get(name) or None for name in _KEPT if name not in _COMPARED_APART]
    try:
        return json.dumps([_content(message.get("content")), calls, others], sort_keys=True).encode() + b"\n"
    except RecursionError:
        return b"nested too deeply\n"


def _arguments(call: Mapping[str, Any]) -> Any:
    arguments = _mapping(call.get("function")).get("arguments")
    try:
        return _plain(_decoded(arguments))
    except RecursionError:
        return arguments


def shows_anything(message: Mapping[str, Any]) -> bool:
    """Whether ``message`` has a text, or calls a tool."""
    return bool(_content(message.get("content")) or parse_tool_calls(dict(message)))


def unshown(message: Mapping[str, Any]) -> frozenset[str]:
    """The fields of ``message`` that may be left out where it comes back, such as ``reasoning_content``."""
    return frozenset(name for name, value in message.items() if value and name not in _KEPT)


def _difference(old: Mapping[str, Any], new: Any) -> Difference | None:
    if not isinstance(new, Mapping) or not isinstance(old, Mapping):
        return Difference("the message", old, new)
    if (text := _content(old.get("content"))) != (other := _content(new.get("content"))):
        return Difference("content", text, other)
    if found := _difference_of_calls(parse_tool_calls(dict(old)), parse_tool_calls(dict(new))):
        return found
    for name in dict.fromkeys([*_KEPT, *new]):
        if name in _COMPARED_APART:
            continue
        before, after = old.get(name), new.get(name)
        if before != after and (before or after) and (name in _KEPT or after):
            return Difference(name, before, after)
    return None


def _difference_of_calls(old: Sequence[Any], new: Sequence[Any]) -> Difference | None:
    for number, (before, after) in enumerate(zip_longest(old, new)):
        place = f"tool_calls[{number}]"
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            if before != after:
                return Difference(place, before, after)
            continue
        called, calls = _mapping(before.get("function")), _mapping(after.get("function"))
        for field, one, other in (
            ("id", before.get("id"), after.get("id")),
            ("function.name", called.get("name"), calls.get("name")),
        ):
            if one != other:
                return Difference(f"{place}.{field}", one, other)
        one, other = called.get("arguments"), calls.get("arguments")
        if one != other and not _is_same_json(_decoded(one), _decoded(other)):
            return Difference(f"{place}.function.arguments", one, other)
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _content(value: Any) -> Any:
    """A message's content, text in parts as text; nothing at all is an empty text."""
    if isinstance(value, list) and all(
        isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in value
    ):
        return "".join(part["text"] for part in value)
    return value or ""


def _decoded(arguments: Any) -> Any:
    """The value that a call's arguments spell; what is no JSON is a text. No arguments are an empty object."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments


def _is_same_json(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same_json, one, other))
    # In Python `true` is 1; 1 and 1.0 are one number in JSON.
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def _plain(value: Any) -> Any:
    """``value`` with one spelling for each number of JSON."""
    if isinstance(value, dict):
        return {key: _plain(of_key) for key, of_key in value.items()}
    if isinstance(value, list):
        return list(map(_plain, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: Any, other: Any) -> str:
    """An excerpt of ``value`` around the place where ``other`` differs."""
    if value is None:
        return "absent"
    text, beside = _text(value), _text(other)
    common = next((at for at, (a, b) in enumerate(zip(text, beside, strict=False)) if a != b), len(beside))
    start = max(0, min(common, len(text)) - _CHARACTERS_BEFORE_THE_DIFFERENCE)
    if start:
        text = "..." + text[start:]
    return repr(cut(text, MAX_VALUE_CHARACTERS))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return encodable(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__
