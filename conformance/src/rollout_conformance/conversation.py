"""When two messages of a conversation are the same to a trainer, and how a conversation may go on."""

from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]


def is_same(one: Message, other: Message) -> bool:
    """Whether both stand for the same tokens: null, absent and empty are alike, all else counts."""
    return _plain(one) == _plain(other)


def _plain(message: Message) -> Message:
    return {name: value for name, value in message.items() if value is not None and value != [] and value != ""}


def first_difference(before: Sequence[Message], after: Sequence[Message]) -> int | None:
    """The index at which ``after`` does not go on from ``before``; ``None`` if it does."""
    for index, message in enumerate(before):
        if index >= len(after) or not is_same(message, after[index]):
            return index
    return None


def call_ids(message: Message) -> list[str]:
    """The ids of a message's tool calls."""
    calls = message.get("tool_calls")
    return [str(call.get("id")) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def answered_ids(messages: Sequence[Message]) -> list[str]:
    """The ids that the tool messages at the start of ``messages`` answer."""
    ids = []
    for message in messages:
        if message.get("role") != "tool":
            break
        ids.append(str(message.get("tool_call_id")))
    return ids
