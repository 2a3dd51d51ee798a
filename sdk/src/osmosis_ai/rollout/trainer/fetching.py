"""The trainer's way to a server of 0.3: a rollout is started, and its result is asked for until it is there.

``InitDialect`` and ``StartDialect`` are the two ways to say one thing; what differs beyond them, the polls, is
``Fetcher``. See ``docs/protocol-0.3.md``.
"""

import asyncio
import json
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
from pydantic_core import from_json

from osmosis_ai.rollout.core.schemas import RolloutMetrics, RolloutResponse, RolloutStatus
from osmosis_ai.rollout.core.text import shortened
from osmosis_ai.rollout.trainer.book import Rollout, RolloutBook
from osmosis_ai.rollout.trainer.errors import InitRefusedError
from osmosis_ai.rollout.wire.channel import Reply
from osmosis_ai.rollout.wire.paths import START_PATH

LEASE_HEADER = "X-Osmosis-Rollout-Lease"
GROUND_TRUTH = "ground_truth"
MARGIN_SECONDS = 30.0
"""Beyond what a poll waits by the server's word."""
LONGEST_WAIT_SECONDS = 300.0
SOONEST_SECONDS = 0.1
"""Between two polls of a server that does not wait."""
AGAIN_SECONDS = 0.5

_ENDS = {"success": RolloutStatus.COMPLETED, "failure": RolloutStatus.ERROR, "cancelled": RolloutStatus.ERROR}
_OUTCOMES = {
    "timeout": "timeout",
    "lease_expired": "cancelled",
    "validation_error": "reward_error",
    "http_error": "llm_error",
    "internal_error": "interrupted",
}


class StartDialect:
    """An init as a start of 0.3."""

    path = START_PATH

    def __init__(self, callback_url: str) -> None:
        self._callback_url = callback_url

    def body(self, rollout: Rollout) -> bytes:
        """That of the start."""
        request = rollout.request
        metadata = dict(request.metadata)
        label = metadata.pop(GROUND_TRUTH, None)
        return json.dumps(
            {
                "rollout_id": request.rollout_id,
                "initial_messages": request.messages,
                "label": None if label is None else str(label),
                "metadata": metadata,
                "chat_completions_url": f"{self._callback_url}/rollout/{quote(request.rollout_id, safe='')}/v1",
                "llm_api_key": request.api_key,
                "extra_fields": {
                    "completion_params": request.completion_params,
                    "max_turns": request.max_turns,
                    "max_tokens_total": request.max_tokens_total,
                },
            }
        ).encode()

    def accepted(self, rollout: Rollout, response: Reply) -> None:
        """Note the lease of the 202; the tools come with each chat call."""
        try:
            body = response.json()
            token, wait = body["polling_lease_token"], float(body["result_wait_timeout_sec"])
            if not isinstance(token, str) or not token.isascii() or not token.isprintable():
                raise ValueError(token)
        except (ValueError, LookupError, TypeError, RecursionError):
            problem = f"The rollout server answered {response.status_code}, but the body has no polling lease."
            raise InitRefusedError(problem) from None
        rollout.lease = (token, min(max(wait, 0.0), LONGEST_WAIT_SECONDS))
        rollout.start([])
        rollout.waiting_for = "its result"


class Fetcher:
    """Polls one server, in the running event loop."""

    def __init__(self, server_url: str, server_api_key: str | None, book: RolloutBook, max_bytes: int) -> None:
        headers = {"Authorization": f"Bearer {server_api_key}"} if server_api_key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._http = httpx.AsyncClient(headers=headers, limits=limits, trust_env=False)
        self._server_url = server_url
        self._book = book
        self._max_bytes = max_bytes

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def fetch(self, rollout: Rollout) -> None:
        """Ask until ``rollout`` has ended; a server that no longer knows it makes it LOST."""
        if rollout.lease is None:
            return None
        token, wait_seconds = rollout.lease
        url = f"{self._server_url}{START_PATH}/{quote(rollout.request.rollout_id, safe='')}/result"
        while not rollout.ended.is_set():
            began_at = time.monotonic()
            try:
                status, content = await self._ask(url, token, wait_seconds + MARGIN_SECONDS)
            except (httpx.HTTPError, TimeoutError) as error:
                rollout.waiting_for = f"the server to be reachable again ({str(error) or type(error).__name__})"
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if status in (HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN, HTTPStatus.GONE):
                rollout.is_lost = True
                return rollout.abandon()
            if status != HTTPStatus.OK:
                rollout.waiting_for = (
                    f"its result (the server answered {status}: {shortened(content.decode(errors='replace'))})"
                )
                await asyncio.sleep(AGAIN_SECONDS)
            elif (result := result_in(rollout.request.rollout_id, content)) is not None:
                self._book.deliver(result, content)
                return None
            else:
                rollout.waiting_for = "its result"
                await asyncio.sleep(max(0.0, SOONEST_SECONDS - (time.monotonic() - began_at)))
        return None

    async def _ask(self, url: str, token: str, limit_seconds: float) -> tuple[int, bytes]:
        content = bytearray()
        async with (
            asyncio.timeout(limit_seconds),
            self._http.stream("GET", url, headers={LEASE_HEADER: token}, timeout=limit_seconds) as response,
        ):
            async for part in response.aiter_bytes():
                content += part
                if len(content) > self._max_bytes:
                    raise httpx.ReadError(f"the result is larger than {self._max_bytes} bytes")
        return response.status_code, bytes(content)


def result_in(rollout_id: str, content: bytes) -> RolloutResponse | None:
    """The result in a poll's 200, as one of 0.2; ``None`` for a rollout that goes on, or what is no answer."""
    try:
        body = from_json(content, allow_inf_nan=False)
        status = _ENDS.get(body["status"])
        if status is None or body["rollout_id"] != rollout_id:
            return None
        sample = body.get("sample") or {}
        extra: dict[str, Any] = dict(sample.get("extra_fields") or {})
        category = body.get("err_category")
        finish_reason = "stop" if status is RolloutStatus.COMPLETED else "error"
        if body["status"] == "cancelled":
            category, finish_reason = "lease_expired", "cancelled"
        completed = status is RolloutStatus.COMPLETED
        extra.setdefault("outcome", "success" if completed else _OUTCOMES.get(category or "", "agent_error"))
        known = {
            name: value for name, value in (sample.get("metrics") or {}).items() if name in RolloutMetrics.model_fields
        }
        return RolloutResponse(
            rollout_id=rollout_id,
            status=status,
            final_messages=list(sample.get("messages") or []),
            finish_reason=str(extra.get("finish_reason") or finish_reason),
            error_message=None if completed else str(body.get("err_message") or category or "no reason given"),
            reward=sample.get("reward") if completed else None,
            metrics=RolloutMetrics(**known),
            extra_fields=extra,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
