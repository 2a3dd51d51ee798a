"""When two messages of a conversation are the same to a trainer, and how a conversation may go on."""

import json
from collections.abc import Sequence
from typing import Any

from rollout_conformance.text import quoted

Message = dict[str, Any]


def is_same(one: Message, other: Message) -> bool:
    """Whether both stand for the same tokens: null, absent and empty are alike, all else counts."""
    return _plain(one) == _plain(other)


def _plain(message: Message) -> Message:
    return {name: value for name, value in message.items() if value is not None and value != [] and value != ""}


def difference(before: Sequence[Message], after: Sequence[Message]) -> str:
    """Where ``after`` does not go on from ``before``, and by what; an empty text if it does."""
    for index, message in enumerate(before):
        if index >= len(after) or not is_same(message, after[index]):
            return f"{quoted(after[index]) if index < len(after) else 'nothing'} at index {index}"
    return ""


def reply_in(body: bytes) -> list[Message]:
    """The message of a completion that the kit sent; none if it was malformed on purpose."""
    try:
        message = json.loads(body)["choices"][0]["message"]
    except (ValueError, LookupError, TypeError):
        return []
    return [message] if isinstance(message, dict) else []


def is_whole(body: bytes) -> bool:
    """Whether a completion that the kit sent may be gone on with, by its finish reason; one without says nothing."""
    try:
        choice = json.loads(body)["choices"][0]
        return choice.get("finish_reason", "stop") in ("stop", "tool_calls", "length", "function_call")
    except (ValueError, LookupError, TypeError, AttributeError):
        return True  # malformed on purpose, which is another matter


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
