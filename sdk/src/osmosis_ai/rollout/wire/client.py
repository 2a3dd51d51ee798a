"""Calls from a rollout to its trainer: chat completions and the completion callback.

One client belongs to one rollout. Connections and the TLS context are shared between clients (``transport``); closing
a client leaves them open. See ``docs/protocol.md``, sections 4.3 and 5.2.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx
from pydantic_core import from_json, to_json, to_jsonable_python

from osmosis_ai.rollout.core.exceptions import (
    OsmosisProtocolError,
    OsmosisReplyError,
    OsmosisRolloutError,
    OsmosisTimeoutError,
    OsmosisTransportError,
    is_retryable_status,
)
from osmosis_ai.rollout.core.jsonable import copy_json
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.messages import normalize_stop
from osmosis_ai.rollout.core.schemas import (
    CompletionsRequest,
    MessageDict,
    RolloutMetrics,
    RolloutResponse,
    RolloutStatus,
    check_server_url,
)
from osmosis_ai.rollout.core.settings import RolloutClientSettings, get_settings
from osmosis_ai.rollout.core.text import described, excerpt
from osmosis_ai.rollout.core.transcript import Transcript
from osmosis_ai.rollout.wire.backoff import delay_seconds
from osmosis_ai.rollout.wire.refusal import error_of
from osmosis_ai.rollout.wire.trainer_http import TrainerHttpClient
from osmosis_ai.rollout.wire.transport import CALL_ID, new_call_id

if TYPE_CHECKING:
    from osmosis_ai.rollout.wire.http1 import Reply

logger = logging.getLogger(__name__)

__all__ = ["CompletionsResult", "OsmosisLLMClient"]

CONNECT_TIMEOUT_SECONDS = 10.0

_HEADER_TEXT = re.compile(r"[!-~]([ -~]*[!-~])?")

CHAT_PATH = "/v1/chat/completions"
COMPLETED_PATH = "/v1/rollout/completed"

# Ours, or known to the trainer already: never taken from the caller's sampling fields.
_NOT_SAMPLING_FIELDS = frozenset({"rollout_id", "tools"})

_HTTPX_CLIENT = httpx.AsyncClient


class OsmosisLLMClient:
    """The trainer, as one rollout sees it; an ``LLMClientProtocol``.

    Makes no connection until it is used. ``close`` may be called at any time and more than once; a later call opens a
    fresh HTTP client. Every attempt of one call carries the same ``Idempotency-Key`` header.

    Args:
        timeout_seconds: limit of one attempt, above 0; a whole call with its retries is limited by the setting
            ``call_deadline_seconds``.
        max_retries: attempts of a chat call after the first, 0 or more.
        complete_rollout_retries: the same for ``complete_rollout``.
        settings: defaults to ``get_settings().client``; fills in what is ``None``.

    Raises:
        ValueError: a time or a count is out of bounds.
    """

    def __init__(
        self,
        server_url: str,
        rollout_id: str,
        api_key: str | None = None,
        timeout_seconds: float | None = None,
        max_retries: int | None = None,
        complete_rollout_retries: int | None = None,
        settings: RolloutClientSettings | None = None,
    ) -> None:
        settings = settings or get_settings().client
        self.server_url = server_url.rstrip("/")
        self.rollout_id = rollout_id
        self.api_key = api_key
        self.timeout_seconds = settings.timeout_seconds if timeout_seconds is None else timeout_seconds
        self.max_retries = settings.max_retries if max_retries is None else max_retries
        self.complete_rollout_retries = (
            settings.complete_rollout_retries if complete_rollout_retries is None else complete_rollout_retries
        )
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be above 0, got {self.timeout_seconds}.")
        if self.max_retries < 0 or self.complete_rollout_retries < 0:
            raise ValueError(
                f"Retry counts must be 0 or more, got max_retries={self.max_retries}, "
                f"complete_rollout_retries={self.complete_rollout_retries}."
            )
        self.backing_off = False
        self.transcript = Transcript()
        """The conversation as the trainer knows it."""
        self._settings = settings
        self._client: httpx.AsyncClient | None = None
        self._sampling: dict[str, Any] | None = None
        self._chat_head = b""
        self._completion: bytes | None = None
        self._acknowledged = False
        self._llm_latency_ms = 0.0
        self._num_llm_calls = 0
        self._prompt_tokens = 0
        self._response_tokens = 0
        self._max_context_tokens = 0

    def __repr__(self) -> str:
        return f"OsmosisLLMClient(server_url={self.server_url!r}, rollout_id={self.rollout_id!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the HTTP client, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def chat_completions(
        self,
        messages: list[MessageDict],
        temperature: float | None = 1.0,
        top_p: float | None = 1.0,
        max_tokens: int | None = 512,
        stop: Any = None,
        logprobs: bool | None = True,
        **kwargs: Any,
    ) -> CompletionsResult:
        """Generate the next message of the conversation ``messages``.

        Every further sampling field (``top_k``, ``seed``, ``min_p``, ...) is sent as it is; a null one is left out, and
        a null one named in the signature means its default. ``tools`` and ``rollout_id`` are not sent from here: the
        trainer knows the tools from the init.

        Raises:
            pydantic.ValidationError: ``messages`` or a named field has the wrong type.
            OsmosisValidationError: the trainer refused (4xx), or answered something unusable (``OsmosisReplyError``).
            OsmosisServerError, OsmosisTimeoutError, OsmosisTransportError: the last failure, after all attempts.
            OsmosisProtocolError: the rollout's result was sent already, or the request cannot be written as JSON.
        """
        if self._completion is not None:
            raise OsmosisProtocolError(f"Rollout {self.rollout_id!r} is completed; no chat call may follow.")
        named = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            "stop": normalize_stop(stop),
            "logprobs": logprobs,
        }
        body = self._chat_body(messages, {**kwargs, **named})
        response, latency_ms = await self._post(CHAT_PATH, body, self.max_retries + 1, _is_ok, new_call_id())
        result = self._parse_reply(response)
        self._count(result, latency_ms)
        return result

    async def complete_rollout(
        self,
        status: str,
        final_messages: list[MessageDict],
        finish_reason: str = "stop",
        error_message: str | None = None,
        metrics: RolloutMetrics | None = None,
        reward: float | None = None,
        extra_fields: dict[str, Any] | None = None,
    ) -> None:
        """Post the rollout's terminal result; any 2xx is an acknowledgement.

        May be repeated with the same result until it is acknowledged.

        Raises:
            ValueError: ``status`` is no ``RolloutStatus``, or ``reward`` is not finite.
            OsmosisProtocolError: another result was sent before, this one was acknowledged, or it is not JSON.
            OsmosisValidationError, OsmosisServerError, OsmosisTimeoutError, OsmosisTransportError: as for chat.
        """
        response = RolloutResponse(
            rollout_id=self.rollout_id,
            status=RolloutStatus(status),
            final_messages=final_messages,
            finish_reason=finish_reason,
            error_message=error_message,
            reward=reward,
            metrics=metrics or self.get_metrics(),
            extra_fields=extra_fields or {},
        )
        if response.reward is not None and not abs(response.reward) < float("inf"):
            raise ValueError(f"reward must be a finite number, got {response.reward}.")
        await self.send_completion(_as_json(response.model_dump(exclude_none=True)), self.complete_rollout_retries + 1)

    async def send_completion(self, payload: bytes, attempts: int) -> None:
        """Post a terminal result that is ready for the wire, a JSON object, in at most ``attempts`` attempts.

        Raises:
            OsmosisRolloutError: as for ``complete_rollout``.
        """
        if self._acknowledged or self._completion not in (None, payload):
            raise OsmosisProtocolError(
                f"Rollout {self.rollout_id!r} has sent its result already; there is exactly one."
            )
        call_id = sha256(self.rollout_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self._completion = payload
        try:
            await self._post(COMPLETED_PATH, payload, attempts, _is_success, call_id)
        except OsmosisProtocolError:
            self._completion = None  # nothing went out
            raise
        self._acknowledged = True

    def get_metrics(self) -> RolloutMetrics:
        """Calls, latency and tokens so far, as a new object."""
        return RolloutMetrics(
            llm_latency_ms=self._llm_latency_ms,
            num_llm_calls=self._num_llm_calls,
            prompt_tokens=self._prompt_tokens,
            response_tokens=self._response_tokens,
            max_context_tokens=self._max_context_tokens,
        )

    async def _get_client(self) -> httpx.AsyncClient:
        if self._client is None:
            self._require_callable()
            headers = {"Content-Type": "application/json"}
            if self.api_key:
                headers["Authorization"] = f"Bearer {self.api_key}"
            timeout = httpx.Timeout(self.timeout_seconds, connect=min(CONNECT_TIMEOUT_SECONDS, self.timeout_seconds))
            limits = {
                "max_connections": self._settings.max_connections,
                "max_keepalive_connections": self._settings.max_keepalive_connections,
            }
            if httpx.AsyncClient is _HTTPX_CLIENT:
                self._client = TrainerHttpClient(headers=headers, timeout=timeout, **limits)
            else:  # somebody has put a client of their own there
                self._client = httpx.AsyncClient(headers=headers, timeout=timeout, limits=httpx.Limits(**limits))
        return self._client

    def _require_callable(self) -> None:
        try:
            _check_callable(self.server_url)
        except (ValueError, httpx.InvalidURL) as error:
            raise OsmosisTransportError(f"The trainer cannot be called: {error}.") from error
        if self.api_key and not _HEADER_TEXT.fullmatch(self.api_key):
            raise OsmosisTransportError("The trainer cannot be called: api_key is not printable ASCII.")

    def _chat_body(self, messages: list[MessageDict], fields: dict[str, Any]) -> bytes:
        if fields != self._sampling:
            self._chat_head = self._encode_sampling(fields)
            self._sampling = copy_json(fields)
        if not _are_messages(messages):
            messages = CompletionsRequest(messages=messages, rollout_id=self.rollout_id).messages
        self.transcript.takes_up(messages)
        try:
            return b"".join((self._chat_head, b',"messages":[', self.transcript.encoded(), b"]}"))
        except ValueError as error:
            raise _not_json(error) from error

    def _encode_sampling(self, fields: dict[str, Any]) -> bytes:
        """Everything of a chat call but its messages, as a JSON object that is not closed yet."""
        for name in _NOT_SAMPLING_FIELDS & fields.keys():
            logger.debug("Rollout %a: chat field %r is not sent.", self.rollout_id, name)
        sampling = {
            name: value for name, value in fields.items() if value is not None and name not in _NOT_SAMPLING_FIELDS
        }
        request = CompletionsRequest(messages=[], rollout_id=self.rollout_id, **sampling)
        named = request.model_dump(exclude={"messages"}, exclude_none=True)
        return _as_json({**sampling, **named})[:-1]

    async def _post(
        self, path: str, body: bytes, attempts: int, accepts: Callable[[int], bool], call_id: str
    ) -> "tuple[httpx.Response | Reply, float]":
        """POST until an accepted status; give the response and the latency of that attempt in milliseconds."""
        url = self.server_url + path
        started = time.monotonic()
        deadline = started + self._settings.call_deadline_seconds
        failure: OsmosisRolloutError | None = None
        for attempt in range(attempts):
            if failure is not None:
                delay = delay_seconds(self._settings, attempt, failure)
                if time.monotonic() + delay >= deadline:
                    break
                await self._back_off(delay)
            attempt_started = time.perf_counter()
            try:
                response = await self._send(url, body, call_id, deadline - time.monotonic())
            except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as error:
                where = f"POST {url}, attempt {attempt + 1} of {attempts}, {time.monotonic() - started:.1f} s"
                failure = self._failure_of(error, where)
                if isinstance(error, httpx.InvalidURL):
                    break
                continue
            if accepts(response.status_code):
                return response, (time.perf_counter() - attempt_started) * 1000
            where = f"POST {url}, attempt {attempt + 1} of {attempts}, {time.monotonic() - started:.1f} s"
            failure = error_of(response, where, self.api_key)
            if not is_retryable_status(response.status_code):
                break
        raise failure or OsmosisTransportError(f"No attempts made (POST {url}, {attempts} attempts allowed).")

    async def _send(self, url: str, body: bytes, call_id: str, limit_seconds: float) -> "httpx.Response | Reply":
        client = await self._get_client()
        if isinstance(client, TrainerHttpClient):
            reply = await client.post_encoded(url, body, call_id, limit_seconds)
            if reply is not None:
                return reply
        CALL_ID.set(call_id)
        async with asyncio.timeout(limit_seconds):
            return await client.post(url, json=from_json(body))

    def _failure_of(self, error: Exception, where: str) -> OsmosisRolloutError:
        failure: OsmosisRolloutError
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            failure = OsmosisTimeoutError(f"{excerpt(str(error) or type(error).__name__, self.api_key)} ({where})")
        else:
            failure = OsmosisTransportError(f"{excerpt(described(error), self.api_key)} ({where})")
        failure.__cause__ = error
        return failure

    async def _back_off(self, delay_seconds: float) -> None:
        self.backing_off = True
        try:
            await asyncio.sleep(delay_seconds)
        finally:
            self.backing_off = False

    def _parse_reply(self, response: "httpx.Response | Reply") -> CompletionsResult:
        try:
            body = response.json()
        except (ValueError, RecursionError) as error:
            raise self._bad_reply(response, "is not JSON") from error
        choices = body.get("choices") if isinstance(body, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise self._bad_reply(response, "has no choices[0].message")
        usage, finish_reason = body.get("usage"), choice.get("finish_reason")
        return CompletionsResult(
            message=message,
            token_ids=_list_or_empty(body.get("token_ids")),
            logprobs=_list_or_empty(body.get("logprobs")),
            usage={k: v for k, v in usage.items() if v is not None} if isinstance(usage, dict) else {},
            finish_reason=finish_reason if isinstance(finish_reason, str) and finish_reason else "stop",
        )

    def _bad_reply(self, response: "httpx.Response | Reply", problem: str) -> OsmosisReplyError:
        return OsmosisReplyError(
            f"The reply of POST {self.server_url}{CHAT_PATH} {problem}: {excerpt(response.text, self.api_key)}",
            response.status_code,
        )

    def _count(self, result: CompletionsResult, latency_ms: float) -> None:
        prompt_tokens = _token_count(result.usage, "prompt_tokens")
        self._llm_latency_ms += latency_ms
        self._num_llm_calls += 1
        self._prompt_tokens += prompt_tokens
        self._response_tokens += _token_count(result.usage, "completion_tokens")
        self._max_context_tokens = max(self._max_context_tokens, prompt_tokens)


@lru_cache(maxsize=1024)
def _check_callable(server_url: str) -> None:
    str(httpx.URL(check_server_url(server_url)).host)  # decoding the host finds malformed IDNA


def _is_ok(status: int) -> bool:
    return status == HTTPStatus.OK


def _is_success(status: int) -> bool:
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def _are_messages(messages: Any) -> bool:
    """Whether it is a list of objects already, so that nothing needs converting or refusing."""
    return (
        type(messages) is list
        and set(map(type, messages)) <= {dict}
        and set(map(type, chain.from_iterable(messages))) <= {str}
    )


def _as_json(payload: dict[str, Any]) -> bytes:
    """``payload`` as a JSON object (RFC 8259); the agent's own objects become what pydantic makes of them."""
    try:
        encoded = to_json(payload, inf_nan_mode="constants")
        if b"NaN" in encoded or b"Infinity" in encoded:  # as numbers, or just as words
            json.dumps(to_jsonable_python(payload), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(error) from error
    return encoded


def _not_json(error: Exception) -> OsmosisProtocolError:
    return OsmosisProtocolError(f"The request cannot be written as JSON: {error}")


def _list_or_empty(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _token_count(usage: dict[str, Any], name: str) -> int:
    count = usage.get(name)
    return int(count) if isinstance(count, int | float) and 0 <= count < float("inf") else 0
