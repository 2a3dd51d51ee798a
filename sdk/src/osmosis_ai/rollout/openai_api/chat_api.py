"""OpenAI's chat API over a function that generates one message. One event loop.

A call that a client repeats (an SDK's own retry, the same body while the first is under way, or after an answer that
never arrived) is one call of the function. A client that hangs up does not end the call: its retry finds it. What
nobody waits for any more is cancelled by the next call, and by ``close``.
"""

import asyncio
import contextvars
import json
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from osmosis_ai.rollout.openai_api.answers import Answer, ApiError, Generated, completion, stream

ChatFunction = Callable[[list[dict[str, Any]], dict[str, Any]], Awaitable[Generated]]
"""Takes the messages and the other fields of a call. Raises ``ApiError`` for what the client is to be told."""

_CHAT = "/chat/completions"
_RETRY_HEADER = "x-stainless-retry-count"
_OTHER_APIS = {
    "/responses": "The Responses API",
    "/completions": "The legacy completions API",
    "/embeddings": "The embeddings API",
}


class _Call:
    def __init__(self, key: bytes, task: "asyncio.Task[Generated]") -> None:
        self.key = key
        self.task = task
        self.waiting = 0
        self.is_answered = False

    def takes(self, key: bytes, *, is_retry: bool) -> bool:
        """Whether a call with ``key`` is this one once more."""
        if key != self.key or self.task.cancelled() or (self.task.done() and self.task.exception() is not None):
            return False
        return is_retry or not self.is_answered


class ChatApi:
    """The API of one rollout; made in a running event loop, whose context of that moment the calls have."""

    def __init__(self, chat: ChatFunction) -> None:
        self._chat = chat
        self._context = contextvars.copy_context()
        self._newest: _Call | None = None
        self._tasks: set[asyncio.Task[Generated]] = set()
        self._count = 0
        self._is_closed = False

    async def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The response to one request; anything but a cancellation is told in it."""
        try:
            return await self._answer(method, path, headers, body)
        except ApiError as error:
            return error.answer()
        except Exception as error:  # noqa: BLE001 - whatever failed, its client speaks HTTP
            return ApiError(
                HTTPStatus.INTERNAL_SERVER_ERROR, "chat_failed", f"{type(error).__name__}: {error}"
            ).answer()

    def lose(self) -> None:
        """The newest answer did not arrive: the same call again gets it."""
        if self._newest is not None:
            self._newest.is_answered = False

    def close(self) -> None:
        """Answer nothing any more; what is under way is cancelled."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    async def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if not path.endswith(_CHAT):
            api = next((name for end, name in _OTHER_APIS.items() if path.endswith(end)), "This path")
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                "not_served",
                f"{api} is not served to an agent: a rollout is made of chat calls, POST {_CHAT}.",
            )
        if method != "POST":
            raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", f"{_CHAT} is called by POST.")
        fields = _fields_of(body)
        generated = await self._generated(body, fields, is_retry=headers.get(_RETRY_HEADER, "0") != "0")
        self._count += 1
        call_id, model = f"chatcmpl-{self._count}", fields.get("model")
        if not fields.get("stream"):
            return completion(call_id, model, generated)
        options = fields.get("stream_options")
        return stream(
            call_id, model, generated, with_usage=isinstance(options, dict) and bool(options.get("include_usage"))
        )

    async def _generated(self, body: bytes, fields: dict[str, Any], *, is_retry: bool) -> Generated:
        call = self._call(body, fields, is_retry=is_retry)
        call.waiting += 1
        try:
            # Of a client that hangs up or runs out of time only the waiting is cancelled.
            generated = await asyncio.shield(call.task)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call.task.cancelled() and not (task is not None and task.cancelling()):
                raise _ended() from None
            raise
        finally:
            call.waiting -= 1
        call.is_answered = True
        return generated

    def _call(self, body: bytes, fields: dict[str, Any], *, is_retry: bool) -> _Call:
        if self._is_closed:
            raise _ended()
        key, newest = sha256(body).digest(), self._newest
        if newest is not None:
            if newest.takes(key, is_retry=is_retry):
                return newest
            if not newest.waiting:
                newest.task.cancel()
        others = {name: value for name, value in fields.items() if name != "messages"}
        coroutine = self._generate(fields["messages"], others)
        task = asyncio.get_running_loop().create_task(coroutine, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        self._newest = _Call(key, task)
        return self._newest

    async def _generate(self, messages: list[dict[str, Any]], fields: dict[str, Any]) -> Generated:
        return await self._chat(messages, fields)

    def _forget(self, task: "asyncio.Task[Generated]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at here, for a client that has gone looks no more


def _fields_of(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_json", "The body is not JSON.") from None
    messages = fields.get("messages") if isinstance(fields, dict) else None
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_body", "messages must be a list of message objects.")
    if fields.get("n") not in (None, 1):
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_body", "n must be 1: a rollout is one conversation.")
    return dict(fields)


def _ended() -> ApiError:
    return ApiError(HTTPStatus.GONE, "rollout_ended", "This rollout has ended; its chat calls are no longer answered.")
