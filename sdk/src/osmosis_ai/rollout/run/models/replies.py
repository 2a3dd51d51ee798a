"""A model's reply as every server can be sent it back: standard keys only, whatever the provider added."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from osmosis_ai.rollout.core.schemas import MessageDict

_KEPT_WHERE_SET = ("name", "refusal", "function_call")


@dataclass(frozen=True, slots=True)
class Reply:
    """One generated message with what it cost."""

    message: MessageDict
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: float | None = None


def clean_message(message: Mapping[str, Any]) -> MessageDict:
    """``message`` with the keys of the protocol only; ``content`` is there, null or not, beside tool calls."""
    cleaned: MessageDict = {"role": message.get("role") or "assistant", "content": message.get("content")}
    cleaned.update({key: message[key] for key in _KEPT_WHERE_SET if message.get(key) is not None})
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        cleaned["tool_calls"] = [_clean_call(call, number) for number, call in enumerate(calls)]
    elif cleaned["content"] is None:
        cleaned["content"] = ""
    return cleaned


def _clean_call(call: Any, number: int) -> dict[str, Any]:
    call = call if isinstance(call, Mapping) else {}
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    return {
        "id": call.get("id") or f"call_{number}",
        "type": "function",
        "function": {"name": function.get("name") or "", "arguments": _arguments(function.get("arguments"))},
    }


def _arguments(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return "{}" if arguments is None else json.dumps(arguments)


def consistent_finish_reason(finish_reason: Any, has_tool_calls: bool) -> str:
    """What the server should have said: some say ``stop`` with tool calls, or ``tool_calls`` without any."""
    given = finish_reason if isinstance(finish_reason, str) and finish_reason else "stop"
    if has_tool_calls:
        return "tool_calls" if given in ("stop", "function_call") else given
    return "stop" if given in ("tool_calls", "function_call") else given


def token_count(value: Any) -> int:
    """A count out of a foreign ``usage``; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
