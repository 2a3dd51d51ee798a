"""What the small server speaks of: a rollout, a refusal, and the failure of a chat call."""

import time
from contextvars import ContextVar
from typing import Any

from starlette.responses import JSONResponse

Json = dict[str, Any]
FIRST_DELAY_SECONDS = 0.06
MAX_REFUSAL_BYTES = 16 * 1024
LAST_DELAY_SECONDS = 0.5
GROWTH = 3
"""Of each delay, so that a busy machine does not hide it."""
ATTEMPTS = 4
CALL_SECONDS = 1200
"""A Retry-After that is longer is the server's own delay."""
PATIENCE = 50
WHOLE = ("stop", "tool_calls", "length", "function_call")

TRACE: ContextVar[dict[str, str]] = ContextVar("TRACE", default={})  # noqa: B039 - nobody changes it
"""The trace context of the init that the current task runs for."""


class Refusal(Exception):  # noqa: N818 - an answer
    """A request that is not taken."""

    def __init__(self, status: int, detail: str, code: str = "", **headers: str) -> None:
        super().__init__(detail)
        body = {"detail": detail} | ({"code": code} if code else {})
        self.answer = JSONResponse(body, status, {name.replace("_", "-"): v for name, v in headers.items()})


class RunTimeout(Exception):  # noqa: N818 - an end
    """The run has met its limit."""


class ChatError(Exception):
    """No completion could be had."""


class Rollout:
    """An accepted init and what has come of it."""

    def __init__(self, init: Json, fingerprint: str) -> None:
        self.init = init
        self.fingerprint = fingerprint
        self.url: str = init["server_url"].rstrip("/")
        self.reply: bytes = b""
        self.messages: list[Json] = list(init["messages"])
        self.metrics: Json = dict.fromkeys(
            ("num_llm_calls", "num_tool_calls", "prompt_tokens", "response_tokens", "max_context_tokens"), 0
        )
        self.context_tokens = 0
        self.finish_reason = "stop"
        self.attempts = self.aborts = 0
        self.told_seconds = 0.0
        self.offers = 0
        self.last_error: str | None = None
        self.llm_ms = 0.0
        self.tool_ms = 0.0
        self.began = time.monotonic()
        self.paused_seconds = 0.0
        self.paused_since: float | None = None
        self.accepted_at = time.time()
        self.finished_at: float | None = None
        self.settled_at: float | None = None
        self.state = "running"
        self.is_cancelled = False
        self.result: Json = {}
