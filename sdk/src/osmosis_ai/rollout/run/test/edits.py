"""The debugger's ``e`` command: what it changes, out of what was typed."""

import json
import re

from osmosis_ai.rollout.core.schemas import MessageDict

_NUMBERED = re.compile(r"(call|tool)\s+(\d+)\s+(.*)", re.DOTALL)


class EditError(Exception):
    """One sentence about what was typed."""


def parse_edit(text: str, reply: MessageDict, messages: list[MessageDict]) -> tuple[int | None, MessageDict]:
    """Understand ``TEXT``, ``call N JSON`` or ``tool N TEXT``; numbers count from 1, tools over all ``messages``.

    Gives the index of the tool result in ``messages``, ``None`` for the reply, and the message as it is to be.

    Raises:
        EditError: there is no such call or result, or the arguments are no JSON object.
    """
    numbered = _NUMBERED.fullmatch(text)
    if numbered is None:
        if not text:
            raise EditError("Edit what? e TEXT, e call N JSON, or e tool N TEXT.")
        kept = {key: value for key, value in reply.items() if key != "tool_calls"}
        return None, {**kept, "content": text}
    number, rest = int(numbered[2]), numbered[3]
    return (
        (None, _edited_call(reply, number, rest)) if numbered[1] == "call" else _edited_result(messages, number, rest)
    )


def _edited_call(reply: MessageDict, number: int, arguments: str) -> MessageDict:
    calls = list(reply.get("tool_calls") or [])
    if not 1 <= number <= len(calls):
        raise EditError(f"The reply has no tool call {number}: it has {len(calls)}.")
    try:
        is_object = isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise EditError("The arguments of a tool call are a JSON object.")
    call = calls[number - 1]
    calls[number - 1] = {**call, "function": {**call.get("function", {}), "arguments": arguments}}
    return {**reply, "tool_calls": calls}


def _edited_result(messages: list[MessageDict], number: int, content: str) -> tuple[int, MessageDict]:
    indices = [index for index, message in enumerate(messages) if message.get("role") == "tool"]
    if not 1 <= number <= len(indices):
        raise EditError(f"The conversation has no tool result {number}: it has {len(indices)}.")
    index = indices[number - 1]
    return index, {**messages[index], "content": content}
