"""When two messages of a conversation are the same to a trainer, and how a conversation may go on."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

from rollout_conformance.strict_json import first_difference, is_same_json
from rollout_conformance.text import quoted

Message = dict[str, Any]


SHOWN = ("role", "content", "tool_calls", "tool_call_id", "name", "function_call")
"""The fields that a model is shown: they must come back."""


def is_same(one: Message, other: Message) -> bool:
    """Whether both show a model the same: the equality of the protocol, section 4.1.

    Null, absent and empty are alike, text in parts is text, arguments are the value that they spell; fields that no
    model is shown do not count.
    """
    return all(is_same_json(_shown(one, name), _shown(other, name)) for name in SHOWN)


def _shown(message: Message, name: str) -> Any:
    value = message.get(name)
    if name == "content" and isinstance(value, list) and all(_is_text_part(part) for part in value):
        value = "".join(part["text"] for part in value)
    if name == "tool_calls" and isinstance(value, list):
        value = [_called(call) for call in value]
    return None if value in ("", []) else value


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _called(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments, parse_constant=str)  # NaN is not even itself
    return [call.get("id"), function.get("name"), arguments]


def added_field(before: Message, after: Message) -> str:
    """The first field of ``after`` that no model is shown, and that ``before`` did not have, or not so."""
    return next(
        (
            name
            for name, value in after.items()
            if name not in SHOWN and value not in (None, "", []) and not is_same_json(before.get(name), value)
        ),
        "",
    )


def difference(before: Sequence[Message], after: Sequence[Message]) -> str:
    """Where ``after`` does not go on from ``before``, and by what; an empty text if it does."""
    for index, message in enumerate(before):
        if index >= len(after):
            return f"nothing at index {index}"
        if not is_same(message, after[index]):
            one, other = (json.dumps({name: _shown(side, name) for name in SHOWN}) for side in (message, after[index]))
            where = first_difference(one.encode(), other.encode())
            return f"{quoted(after[index])} at index {index}, which differs at {where}"
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
