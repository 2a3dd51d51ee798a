"""A model's reply as it goes back with the next call: in the shape of the protocol, with all that the provider added.

A reasoning model thinks anew in each turn unless ``reasoning_content``, or what its provider calls it, comes back to
it; some refuse the history without what they had signed.
"""

import json
from collections.abc import Container, Mapping
from typing import Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.messages import is_readable_reply
from osmosis_ai.rollout.core.schemas import MessageDict
from osmosis_ai.rollout.core.text import cut
from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure

CONTENT_FILTER = "content_filter"


def completion(
    message: Mapping[str, Any],
    finish_reason: Any,
    usage: Mapping[str, Any],
    sampled: Mapping[str, Any] | None = None,
) -> CompletionsResult:
    """One generated message with what it cost; a foreign ``usage`` is believed where it holds counts.

    ``sampled`` has the token fields, as ``sampled_fields`` gives them.

    Raises:
        ProviderError: the message was broken off, or its content cannot be read, so that it must not be scored.
    """
    if is_broken_off(finish_reason):
        raise ProviderError(
            f"The model's reply was broken off (finish_reason {finish_reason!r}).", failure=ProviderFailure.SERVER
        )
    if finish_reason == CONTENT_FILTER:
        raise ProviderError(
            "The provider's content filter has cut the model's reply off.", failure=ProviderFailure.REFUSED
        )
    cleaned = clean_message(message)
    if not is_readable_reply(cleaned):
        raise ProviderError(
            f"The content of the model's message is neither text nor null: {cut(repr(cleaned['content']), 100)}.",
            failure=ProviderFailure.MALFORMED_REPLY,
        )
    prompt_tokens, completion_tokens = (token_count(usage.get(f"{what}_tokens")) for what in ("prompt", "completion"))
    return CompletionsResult(
        message=cleaned,
        usage={
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": token_count(usage.get("total_tokens")) or prompt_tokens + completion_tokens,
        },
        finish_reason=consistent_finish_reason(finish_reason, bool(cleaned.get("tool_calls"))),
        **(sampled or {"token_ids": [], "logprobs": []}),
    )


def is_broken_off(finish_reason: Any) -> bool:
    """Whether no engine says so of a message that has ended."""
    from osmosis_ai.rollout.wire.finish_reasons import BROKEN_OFF  # brings httpx, which the commands do without

    return isinstance(finish_reason, str) and finish_reason.lower() in BROKEN_OFF


def clean_message(message: Mapping[str, Any]) -> MessageDict:
    """``message`` without nulls; ``content`` is there, null or not, beside tool calls."""
    cleaned: MessageDict = {"role": message.get("role") or "assistant", "content": message.get("content")}
    cleaned.update(_told(message, besides=(*cleaned, "tool_calls")))
    calls = message.get("tool_calls")
    if not calls and isinstance(legacy := cleaned.pop("function_call", None), Mapping):
        calls = [{"function": legacy}]  # as OpenAI had it before there were several
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
        "function": {
            "name": function.get("name") or "",
            "arguments": _arguments(function.get("arguments")),
            **_told(function, besides=("name", "arguments")),
        },
        **_told(call, besides=("id", "type", "function", "index")),
    }


def with_objects_as_arguments(messages: list[MessageDict]) -> list[MessageDict]:
    """``messages`` as every provider's wire can say them: most have no place for arguments that are no JSON object."""
    return [
        {**message, "tool_calls": [_with_an_object(call) for call in calls]}
        if isinstance(calls := message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _with_an_object(call: Any) -> Any:
    match call:
        case {"function": {"arguments": str(arguments)} as function}:
            try:
                is_object = isinstance(json.loads(arguments), dict)
            except (ValueError, RecursionError):
                is_object = False
            kept = arguments if is_object else json.dumps({"arguments": arguments})
            return {**call, "function": {**function, "arguments": kept}}
        case _:
            return call


def _told(given: Mapping[str, Any], besides: Container[str]) -> dict[str, Any]:
    """What a provider has put into ``given`` that is not nothing: OpenAI itself sends an empty ``annotations``."""
    return {key: value for key, value in given.items() if key not in besides and value not in (None, [], {})}


def _arguments(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments if arguments.strip() else "{}"
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
