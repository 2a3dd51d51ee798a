"""What a chat API answers in bytes: a ``chat.completion``, the same as a stream of chunks, or an error."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_JSON = {"Content-Type": "application/json"}
# What can be tried again, the chat function has tried again.
_FINAL = {"x-should-retry": "false"}


@dataclass(frozen=True, slots=True)
class Generated:
    """One message of a model, as the chat function gives it."""

    message: dict[str, Any]
    finish_reason: str = "stop"
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


class ApiError(Exception):
    """A call that gets an error in OpenAI's form: one sentence and a stable code."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def answer(self) -> Answer:
        """The HTTP response."""
        kind = "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        return Answer(self.status, _JSON | _FINAL, _encoded({"error": error}))


def completion(call_id: str, model: Any, generated: Generated) -> Answer:
    """The whole reply."""
    choice = {
        "index": 0,
        "message": _message(generated),
        "finish_reason": _finish_reason(generated),
        "logprobs": None,
    }
    body = {**_head(call_id, model, "chat.completion"), "choices": [choice], "usage": _usage(generated)}
    return Answer(HTTPStatus.OK, _JSON, _encoded(body))


def stream(call_id: str, model: Any, generated: Generated, *, with_usage: bool) -> Answer:
    """The whole reply as server-sent events."""
    head = _head(call_id, model, "chat.completion.chunk")
    events: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in _deltas(generated)
    ]
    if with_usage:
        events = [{**event, "usage": None} for event in events]
        events.append({**head, "choices": [], "usage": _usage(generated)})
    body = b"".join(b"data: %b\n\n" % _encoded(event) for event in events)
    return Answer(HTTPStatus.OK, {"Content-Type": "text/event-stream"}, body + b"data: [DONE]\n\n")


def _deltas(generated: Generated) -> Iterator[tuple[dict[str, Any], str | None]]:
    message = _message(generated)
    calls = message.pop("tool_calls", [])
    content = message.pop("content")
    yield {**message, "content": None if content is None else ""}, None
    if content:
        yield {"content": content}, None
    for index, call in enumerate(calls):
        yield {"tool_calls": [{"index": index, **call}]}, None
    yield {}, _finish_reason(generated)


def _head(call_id: str, model: Any, kind: str) -> dict[str, Any]:
    name = model if isinstance(model, str) else "policy"
    return {"id": call_id, "object": kind, "created": int(time.time()), "model": name}


def _message(generated: Generated) -> dict[str, Any]:
    """The message with all that typed clients insist on."""
    message = {**generated.message, "role": "assistant", "content": generated.message.get("content")}
    calls = message.pop("tool_calls", None)
    if isinstance(calls, list) and calls:
        message["tool_calls"] = [{"type": "function", **call} if isinstance(call, dict) else call for call in calls]
    return message


def _finish_reason(generated: Generated) -> str:
    reason = generated.finish_reason
    if reason in _FINISH_REASONS:
        return reason
    return "tool_calls" if generated.message.get("tool_calls") else "stop"


def _usage(generated: Generated) -> dict[str, int]:
    counts = [generated.usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, reply = (count if isinstance(count, int) else 0 for count in counts)
    return {"prompt_tokens": prompt, "completion_tokens": reply, "total_tokens": prompt + reply}


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
