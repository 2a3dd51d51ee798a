"""Calls from a rollout to its trainer: chat completions and the completion callback.

One client belongs to one rollout: its conversation, its counts, and its one result. It owns no connections; the channel
that it is handed carries the calls of many. See ``docs/protocol.md``, sections 4 and 5.
"""

from hashlib import sha256
from types import TracebackType
from typing import Any, Self

from osmosis_ai.rollout.core.base import ChatWatch
from osmosis_ai.rollout.core.exceptions import OsmosisProtocolError, OsmosisReplyError, OsmosisTrainerAbsentError
from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.messages import normalize_stop
from osmosis_ai.rollout.core.schemas import MessageDict, RolloutMetrics, RolloutResponse, RolloutStatus
from osmosis_ai.rollout.core.settings import RolloutClientSettings, get_settings
from osmosis_ai.rollout.core.text import excerpt
from osmosis_ai.rollout.core.transcript import Transcript
from osmosis_ai.rollout.core.watch import NO_WATCH
from osmosis_ai.rollout.wire.backoff import retry_after_seconds
from osmosis_ai.rollout.wire.channel import Reply, TrainerChannel
from osmosis_ai.rollout.wire.channels import shared_channels
from osmosis_ai.rollout.wire.chat import ChatBody, as_json, completion_in
from osmosis_ai.rollout.wire.finish_reasons import NotWholeError
from osmosis_ai.rollout.wire.paths import CHAT_PATH, COMPLETED_PATH
from osmosis_ai.rollout.wire.posting import Poster, UnusableReplyError, new_call_id
from osmosis_ai.rollout.wire.refusal import Then, is_page

__all__ = ["CompletionsResult", "OsmosisLLMClient"]

_OK = range(200, 201)
_SUCCESS = range(200, 300)
_STOPS = (str, list, tuple)


class OsmosisLLMClient:
    """The trainer, as one rollout sees it; an ``LLMClientProtocol``.

    Makes no connection until it is used. Every attempt of one call carries the same ``Idempotency-Key`` header; a reply
    that is not whole is asked for again as another call.

    Args:
        timeout_seconds: limit of one attempt, above 0; a whole call with its retries is limited by the setting
            ``call_deadline_seconds``.
        max_retries: attempts of a chat call after the first, 0 or more. Where neither this nor the setting is given,
            3, and attempts that meet a pause of the trainer (429, 502, 503, 504, a proxy's 404, no connection, an
            aborted reply) do not count.
        complete_rollout_retries: the same for ``complete_rollout``.
        settings: defaults to ``get_settings().client``; fills in what is ``None``.
        channel: carries the calls; defaults to connections that all such clients of the process share.

    Raises:
        ValueError: a time or a count is out of bounds.
    """

    chat_path = CHAT_PATH
    """Of the chat calls, below ``server_url``."""

    def __init__(
        self,
        server_url: str,
        rollout_id: str,
        api_key: str | None = None,
        timeout_seconds: float | None = None,
        max_retries: int | None = None,
        complete_rollout_retries: int | None = None,
        settings: RolloutClientSettings | None = None,
        *,
        channel: TrainerChannel | None = None,
    ) -> None:
        settings = settings or get_settings().client
        self.server_url = server_url.rstrip("/")
        self.rollout_id = rollout_id
        self.api_key = api_key
        self.timeout_seconds = settings.timeout_seconds if timeout_seconds is None else timeout_seconds
        self.max_retries = settings.max_retries if max_retries is None else max_retries
        self._patient = max_retries is None and "max_retries" not in settings.model_fields_set
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
        self.transcript = Transcript()
        """The conversation as the trainer knows it."""
        self.watcher: ChatWatch = NO_WATCH
        """Told while a chat call waits for a trainer that pauses."""
        if channel is None:
            channel = shared_channels(settings.max_connections, settings.max_keepalive_connections)
        self._poster = Poster(channel, self.server_url, api_key, self.timeout_seconds, settings)
        self._chat = ChatBody(rollout_id, self.transcript)
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
        """End the client's use, at any time and more than once; connections stay open, as they are the channel's."""

    @property
    def finds_nobody(self) -> bool:
        """Whether a call waits before its next attempt, as the last one got no answer."""
        return self._poster.finds_nobody

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
            OsmosisValidationError: the trainer refused (4xx), or answered something unusable (``OsmosisReplyError``), a
                message that is not whole included.
            OsmosisServerError, OsmosisTimeoutError, OsmosisTransportError: the last failure, after all attempts.
            OsmosisProtocolError: the rollout's result was sent already, or the request cannot be written as JSON.
        """
        if self._completion is not None:
            raise OsmosisProtocolError(f"Rollout {self.rollout_id!r} is completed; no chat call may follow.")
        fields = {
            **kwargs,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            # Only what can be a stop is brought into its form; anything else must not vanish, but be refused.
            "stop": normalize_stop(stop) if isinstance(stop, _STOPS) else stop,
            "logprobs": logprobs,
        }
        body = self._chat.encoded(messages, fields)
        result, latency_ms = await self._poster.post(
            self.chat_path,
            body,
            self.max_retries + 1,
            _OK,
            new_call_id(),
            self._completion_in,
            patient=self._patient,
            watch=self.watcher,
        )
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
        """Post the rollout's terminal result; any 2xx is an acknowledgement, unless it is a page of HTML.

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
        await self.send_completion(as_json(response.model_dump(exclude_none=True)), self.complete_rollout_retries + 1)

    async def send_completion(self, payload: bytes, attempts: int) -> None:
        """Post a terminal result that is ready for the wire, a JSON object, in at most ``attempts`` attempts.

        Raises:
            OsmosisRolloutError: as for ``complete_rollout``.
        """
        if self._acknowledged or self._completion not in (None, payload):
            raise OsmosisProtocolError(
                f"Rollout {self.rollout_id!r} has sent its result already; there is exactly one."
            )
        # From the rollout id alone: a result that another process delivers again must be known by the same key.
        call_id = sha256(self.rollout_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self._completion = payload  # before it is sent: an attempt without an answer may have arrived all the same
        await self._poster.post(
            COMPLETED_PATH, payload, attempts, _SUCCESS, call_id, self._acknowledge, only_status=True
        )
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

    def _acknowledge(self, reply: Reply) -> None:
        """Of an acknowledgement the status is all. But a portal, or a proxy that wants a login, has a page for all."""
        if reply.content and is_page(reply):
            message = (
                f"Somebody else answers in the trainer's place, with a page: {excerpt(reply.beginning, self.api_key)}"
                f" (HTTP {reply.status_code}, POST {self.server_url}{COMPLETED_PATH})"
            )
            failure = OsmosisTrainerAbsentError(message, reply.status_code)
            raise UnusableReplyError(failure, Then.COUNT, is_answered=False)

    def _completion_in(self, reply: Reply) -> CompletionsResult:
        try:
            return completion_in(reply)
        except ValueError as error:
            text = excerpt(reply.beginning, self.api_key)
            message = f"The reply of POST {self.server_url}{self.chat_path} {error}: {text}"
            failure = OsmosisReplyError(message, reply.status_code)
            failure.retry_after_seconds = retry_after_seconds(reply.headers.get("retry-after", ""))
            failure.__cause__ = error
            then = error.then if isinstance(error, NotWholeError) else Then.GIVE_UP
            raise UnusableReplyError(failure, then) from error

    def _count(self, result: CompletionsResult, latency_ms: float) -> None:
        prompt_tokens = _token_count(result.usage, "prompt_tokens")
        self._llm_latency_ms += latency_ms
        self._num_llm_calls += 1
        self._prompt_tokens += prompt_tokens
        self._response_tokens += _token_count(result.usage, "completion_tokens")
        if prompt_tokens > self._max_context_tokens:
            self._max_context_tokens = prompt_tokens


def _token_count(usage: dict[str, Any], name: str) -> int:
    count = usage.get(name)
    if type(count) is int:
        return count if count > 0 else 0
    return int(count) if isinstance(count, float) and 0 <= count < float("inf") else 0
