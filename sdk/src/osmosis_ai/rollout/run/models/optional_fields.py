"""What a provider's reply may leave out and LiteLLM reads all the same: put in before it looks.

Only fields that say nothing of the message. A reply that has its message is whole, and no row fails for the rest.
"""

from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import httpx

# By the class of LiteLLM that reads the replies.
_OPTIONAL: Final[dict[str, dict[str, Any]]] = {
    "GroqChatConfig": {"service_tier": "auto", "choices": []},
    "AnthropicConfig": {"model": "", "stop_reason": "end_turn", "usage": {"input_tokens": 0, "output_tokens": 0}},
}


@cache
def fill_in_for(litellm: Any) -> None:
    """Have ``litellm``, the module, read each reply with the optional fields that it lacks, or has as null."""
    for name, fields in _OPTIONAL.items():
        reader = getattr(litellm, name, None)
        if reader is not None:
            reader.transform_response = _reading_filled(reader.transform_response, fields)


def _reading_filled(transform_response: Any, fields: dict[str, Any]) -> Any:
    @wraps(transform_response)
    def transform_filled(*args: Any, raw_response: "httpx.Response", **kwargs: Any) -> Any:
        return transform_response(*args, raw_response=_filled(raw_response, fields), **kwargs)

    return transform_filled


def _filled(reply: "httpx.Response", fields: dict[str, Any]) -> "httpx.Response":
    import httpx

    try:
        body = reply.json()
    except (ValueError, RecursionError):
        return reply  # LiteLLM says what is wrong with it
    if not isinstance(body, dict):
        return reply
    if "choices" in fields and not _has_message(body):
        body["choices"] = None  # LiteLLM would make an empty message up
    missing = {name: value for name, value in fields.items() if body.get(name) is None}
    headers = [(name, value) for name, value in reply.headers.items() if name.lower() not in _OF_THE_BYTES]
    return httpx.Response(reply.status_code, headers=headers, json={**body, **missing}) if missing else reply


def _has_message(body: dict[str, Any]) -> bool:
    match body:
        case {"choices": [{"message": dict()}, *_]}:
            return True
        case _:
            return False


_OF_THE_BYTES = frozenset({"content-encoding", "content-length", "transfer-encoding"})
