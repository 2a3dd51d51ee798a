"""Helpers for chat messages: small, total functions over the dicts of the wire."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "count_messages_by_role",
    "get_message_content",
    "get_message_role",
    "is_assistant_message",
    "is_tool_message",
    "is_user_message",
    "normalize_stop",
    "parse_tool_calls",
]


SUMMARY_CHARACTERS = 100
# OpenAI's chat API, and its responses.
_TEXT_PARTS = ("text", "output_text", "input_text")


def parse_tool_calls(assistant_message: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls of a message; ``[]`` unless ``tool_calls`` is a list.

    ``function_call`` alone, as OpenAI had it before there were several, is one call, with an id made up for it.
    """
    tool_calls, legacy = assistant_message.get("tool_calls"), assistant_message.get("function_call")
    if not tool_calls and isinstance(legacy, dict):
        return [{"id": "call_0", "type": "function", "function": legacy}]
    return tool_calls if isinstance(tool_calls, list) else []


def normalize_stop(stop: Any) -> list[str] | None:
    """Stop sequences as the wire wants them.

    A string becomes a list of one, a list or tuple a list of strings without its nulls; anything else is ``None``.
    """
    if isinstance(stop, str):
        return [stop]
    if isinstance(stop, list | tuple):
        return [str(item) for item in stop if item is not None]
    return None


def get_message_content(message: dict[str, Any]) -> str:
    """The content of a message; ``""`` unless it is a string. For lists of parts see ``get_message_text``."""
    content = message.get("content")
    return content if isinstance(content, str) else ""


def get_message_text(message: dict[str, Any]) -> str:
    """The text of a message, that of a multimodal one included: its text parts, joined with nothing between.

    A part is a string, or an object of type ``text``, ``output_text``, ``input_text`` or none, whose ``text`` is one,
    or holds one as ``value``. Not in ``__all__``, whose names are those of the 0.2 line.
    """
    return "".join(_texts(message.get("content")))


def is_readable_reply(message: dict[str, Any]) -> bool:
    """Whether a model's message is one: it calls tools, or its content is null or has a text, which may be empty.

    A number, no parts at all, or parts of no known type are no empty answer: nobody knows what the model said.
    """
    content = message.get("content")
    return content is None or isinstance(content, str) or bool(_texts(content) or parse_tool_calls(message))


def _texts(content: Any) -> list[str]:
    parts = content if isinstance(content, list) else [content]
    return [text for part in parts if (text := _text_of(part)) is not None]


def _text_of(part: Any) -> str | None:
    if isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS:
        part = part.get("text")
        part = part.get("value") if isinstance(part, dict) else part
    return part if isinstance(part, str) else None


def summarize(messages: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """What a log tells of messages: of each its ``role`` and the first hundred characters of its text, ``content``."""
    return [
        {"role": get_message_role(message), "content": get_message_text(message)[:SUMMARY_CHARACTERS]}
        for message in messages
    ]


def get_message_role(message: dict[str, Any]) -> str:
    """The role of a message; ``"unknown"`` unless it is a string."""
    role = message.get("role")
    return role if isinstance(role, str) else "unknown"


def is_assistant_message(message: dict[str, Any]) -> bool:
    """Whether the model wrote the message."""
    return get_message_role(message) == "assistant"


def is_tool_message(message: dict[str, Any]) -> bool:
    """Whether the message answers a tool call."""
    return get_message_role(message) == "tool"


def is_user_message(message: dict[str, Any]) -> bool:
    """Whether the user wrote the message."""
    return get_message_role(message) == "user"


def count_messages_by_role(messages: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many messages each role has, in order of first appearance."""
    return dict(Counter(map(get_message_role, messages)))


def field_of(value: Any, name: str) -> Any:
    """A field of a model, or of a dict of the same shape; ``None`` where it is absent."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
