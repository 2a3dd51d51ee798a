"""Stand-ins for a trainer, for tests of agents and servers.

A mock trainer answers chat calls by rule and keeps the completions it is sent. FastAPI is needed only when an app is
created, a test framework never.
"""

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.messages import get_message_content, is_tool_message, is_user_message
from osmosis_ai.rollout.core.schemas import (
    CompletionsChoice,
    CompletionsRequest,
    CompletionsResponse,
    CompletionUsage,
    MessageDict,
    RolloutResponse,
)
from osmosis_ai.rollout.wire.paths import CHAT_PATH, COMPLETED_PATH

if TYPE_CHECKING:
    import httpx
    import pytest
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

__all__ = [
    "RolloutCompletionTracker",
    "create_mock_trainer_app",
    "fake_prompt_token_ids",
    "fake_token_ids",
    "patch_httpx_for_mock_trainer",
]

MAX_STORED_COMPLETIONS = 10_000

ToolCallGenerator = Callable[[MessageDict], list[dict[str, Any]] | None]


def fake_token_ids(text: str) -> list[int]:
    """One token a character: ``0 .. len(text) - 1``."""
    return list(range(len(text)))


def fake_prompt_token_ids(messages: list[MessageDict]) -> list[int]:
    """Ten tokens a message, and at least ten: ``0 .. 10 * max(1, len(messages)) - 1``."""
    return list(range(10 * max(1, len(messages))))


@dataclass
class RolloutCompletionTracker:
    """The completions a mock trainer has received, to wait for; every method may be called from any thread."""

    event: threading.Event = field(default_factory=threading.Event)
    responses: list[dict[str, Any]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False, repr=False, compare=False)

    def record(self, response: dict[str, Any]) -> None:
        """Append a completion and wake up whoever waits."""
        with self._changed:
            self.responses.append(response)
            self.event.set()
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget the completions so far; ``event`` and ``responses`` stay the same objects."""
        with self._changed:
            self.responses.clear()
            self.event.clear()

    def wait(self, timeout: float = 5.0, count: int | None = None) -> bool:
        """Wait up to ``timeout`` seconds for ``event``, or with ``count`` for that many completions in ``responses``.

        Returns:
            Whether it came in time.
        """
        if count is None:
            return self.event.wait(timeout)
        with self._changed:
            return self._changed.wait_for(lambda: len(self.responses) >= count, timeout)


def create_mock_trainer_app(
    tracker: RolloutCompletionTracker | None = None,
    tool_call_generator: ToolCallGenerator | None = None,
    *,
    strict: bool = False,
) -> "FastAPI":
    """A FastAPI application that plays the trainer; it keeps the last 10,000 completions.

    Args:
        tracker: is told of every completion.
        tool_call_generator: takes the last message and returns the tool calls to answer with, or ``None``. Without one,
            a user message that contains a word such as "add" or "calculate" is answered with one call of ``add``.
        strict: answer as a model server does: such a word must stand alone ("address" is none), and the finish reason
            of a message with tool calls is ``tool_calls`` in place of ``stop``.

    Raises:
        ImportError: if FastAPI is not installed.
    """
    try:
        import fastapi
    except ImportError as error:
        raise ImportError(
            "FastAPI is required for the mock trainer; install the extra 'server': osmosis-ai[server]."
        ) from error

    app = fastapi.FastAPI(title="Mock Trainer Server")
    completions: OrderedDict[str, dict[str, Any]] = OrderedDict()

    @app.post(CHAT_PATH)
    async def chat_completions(request: CompletionsRequest) -> CompletionsResponse:
        return _answer(request, tool_call_generator, strict=strict)

    @app.post(COMPLETED_PATH)
    async def rollout_completed(response: RolloutResponse) -> dict[str, str]:
        completion = response.model_dump(mode="json", exclude_none=True)
        completions[response.rollout_id] = completion
        completions.move_to_end(response.rollout_id)
        if len(completions) > MAX_STORED_COMPLETIONS:
            completions.popitem(last=False)
        if tracker is not None:
            tracker.record(completion)
        return {"status": "ok"}

    @app.get(COMPLETED_PATH + "/{rollout_id:path}")
    async def get_completed(rollout_id: str) -> dict[str, Any]:
        return completions.get(rollout_id, {})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy", "service": "mock-trainer"}

    return app


_KEYWORDS = ("calculate", "add", "sum", "plus", "subtract", "multiply", "divide")
_KEYWORD = re.compile("|".join(_KEYWORDS))
_KEYWORD_ALONE = re.compile(rf"\b(?:{_KEYWORD.pattern})\b")


def _should_use_tools(last_message: MessageDict, *, strict: bool = False) -> bool:
    keyword = _KEYWORD_ALONE if strict else _KEYWORD
    return is_user_message(last_message) and bool(keyword.search(get_message_content(last_message).lower()))


def _add_call() -> dict[str, Any]:
    return {
        "id": "call_mock_add",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 5, "b": 3}'},
    }


def _tool_calls_for(
    last_message: MessageDict, generator: ToolCallGenerator | None, *, strict: bool
) -> list[dict[str, Any]]:
    if generator is not None:
        return generator(last_message) or []
    return [_add_call()] if _should_use_tools(last_message, strict=strict) else []


def _answer(request: CompletionsRequest, generator: ToolCallGenerator | None, *, strict: bool) -> CompletionsResponse:
    last_message = request.messages[-1] if request.messages else {"role": "user", "content": ""}
    tool_calls = _tool_calls_for(last_message, generator, strict=strict)
    if tool_calls:
        content = "I'll help you with that calculation."
    elif is_tool_message(last_message):
        content = "The calculation is complete."
    else:
        content = "OK."
    message: MessageDict = {"role": "assistant", "content": content}
    if tool_calls:
        message["tool_calls"] = tool_calls
    token_ids, prompt_token_ids = fake_token_ids(content), fake_prompt_token_ids(request.messages)
    return CompletionsResponse(
        id=request.rollout_id,
        created=int(time.time()),
        model=request.model,
        choices=[CompletionsChoice(message=message, finish_reason="tool_calls" if strict and tool_calls else "stop")],
        usage=CompletionUsage(
            prompt_tokens=len(prompt_token_ids),
            completion_tokens=len(token_ids),
            total_tokens=len(prompt_token_ids) + len(token_ids),
        ),
        token_ids=token_ids,
        prompt_token_ids=prompt_token_ids,
        logprobs=[0.0] * len(token_ids),
    )


# They describe the reply as it was on the wire, and a TestClient hands over the decoded body.
_HEADERS_OF_ENCODING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def patch_httpx_for_mock_trainer(client: "TestClient", monkeypatch: "pytest.MonkeyPatch") -> None:
    """Send what is posted to a trainer, on any host, to the mock trainer behind ``client``.

    Covers the SDK's calls, and of ``httpx.AsyncClient`` ``post``, and ``request`` with the method ``POST``, for URLs
    with one of the trainer's two paths; other calls go out as before. The caller gets the mock trainer's status,
    headers and body.
    """
    import asyncio

    import httpx

    from osmosis_ai.rollout.wire.channel import Reply
    from osmosis_ai.rollout.wire.channels import TrainerChannels

    original_post = httpx.AsyncClient.post
    original_request = httpx.AsyncClient.request

    async def forward(url: "httpx.URL | str", path: str, kwargs: dict[str, Any]) -> httpx.Response:
        reply = await asyncio.to_thread(client.post, path, **kwargs)
        headers = [
            (name, value) for name, value in reply.headers.multi_items() if name.lower() not in _HEADERS_OF_ENCODING
        ]
        return httpx.Response(
            reply.status_code,
            headers=headers,
            content=reply.content,
            request=httpx.Request("POST", str(url)),
        )

    async def carry(
        self: TrainerChannels,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        limit_seconds: float,
        *,
        only_status: bool = False,
    ) -> Reply:
        reply = await forward(url, _trainer_path(url) or url, {"content": body, "headers": dict(headers)})
        return Reply(reply.status_code, reply.content, reply.headers.raw)

    async def post(self: httpx.AsyncClient, url: "httpx.URL | str", **kwargs: Any) -> httpx.Response:
        path = _trainer_path(str(url))
        if path is None:
            return await original_post(self, url, **kwargs)
        return await forward(url, path, kwargs)

    async def request(self: httpx.AsyncClient, method: str, url: "httpx.URL | str", **kwargs: Any) -> httpx.Response:
        path = _trainer_path(str(url)) if method.upper() == "POST" else None
        if path is None:
            return await original_request(self, method, url, **kwargs)
        return await forward(url, path, kwargs)

    monkeypatch.setattr(TrainerChannels, "post", carry)
    monkeypatch.setattr(httpx.AsyncClient, "post", post)
    monkeypatch.setattr(httpx.AsyncClient, "request", request)


def _trainer_path(url: str) -> str | None:
    return next((path for path in (CHAT_PATH, COMPLETED_PATH) if path in url), None)
