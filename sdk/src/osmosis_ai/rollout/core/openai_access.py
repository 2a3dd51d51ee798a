"""A rollout's chat calls for whoever speaks OpenAI's API: ``RolloutContext.openai_client`` and its like.

The model samples as the request says, whatever a framework would choose; what shapes the answer (``stop``,
``tool_choice``, ``response_format``, and fields unknown here) passes, unless the request says otherwise. The tools are
those of the 202. A framework calls its own tools: what is known of a call is that it was asked for, and that its result
is in the conversation; its time is that of the turn. See ``docs/frameworks.md``.
"""

import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from osmosis_ai.rollout.core.exceptions import OsmosisRolloutError
from osmosis_ai.rollout.core.messages import field_of, is_tool_message
from osmosis_ai.rollout.core.schemas import MessageDict, OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.core.watch import CURRENT_WATCH, ToolOutcome, names_of
from osmosis_ai.rollout.openai_api.answers import ApiError, Generated
from osmosis_ai.rollout.openai_api.chat_api import ChatApi
from osmosis_ai.rollout.openai_api.client import client_for
from osmosis_ai.rollout.openai_api.endpoint import Address, Endpoint

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from osmosis_ai.rollout.core.llm_client import CompletionsResult

logger = logging.getLogger(__name__)

# The request's to choose, or of no meaning to a trainer.
_NOT_PASSED = frozenset(
    {
        *("model", "tools", "functions", "stream", "stream_options", "n", "user", "store", "metadata", "modalities"),
        *("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "frequency_penalty"),
        *("presence_penalty", "logit_bias", "logprobs", "top_logprobs", "reasoning_effort", "verbosity"),
        *("service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    }
)


class Rollout(Protocol):
    """What is needed of a ``RolloutContext``."""

    request: RolloutRequest
    tools: list[OpenAIFunctionToolSchema]
    _num_tool_calls: int

    async def chat(self, messages: list[MessageDict], **kwargs: Any) -> "CompletionsResult":
        """Generate the next message."""

    def record_tool_call(self, latency_ms: float = 0.0) -> None:
        """Count one tool call."""


class OpenAIAccess:
    """One rollout's; made when it is first asked for."""

    def __init__(self, ctx: Rollout) -> None:
        self._ctx = ctx
        self._api = ChatApi(self._chat)
        self._client: AsyncOpenAI | None = None
        self._address: Address | None = None
        self._offered = names_of(ctx.tools)
        self._strange: set[str] = set()
        self._tool_turn: _ToolTurn | None = None

    def client(self) -> "AsyncOpenAI":
        """The rollout's client, the same each time."""
        if self._client is None:
            self._client = client_for(self._api)
        return self._client

    def address(self) -> Address:
        """Where the rollout's chat calls are served."""
        if self._address is None:
            self._address = Endpoint.open(self._api)
        return self._address

    def close(self) -> None:
        """End all that was lent out."""
        self._api.close()
        if self._address is not None:
            Endpoint.close(self._address)
            self._address = None

    async def _chat(self, messages: list[MessageDict], fields: dict[str, Any]) -> Generated:
        ctx = self._ctx
        if self._tool_turn is not None:
            self._tool_turn.ends(messages)
            self._tool_turn = None
        self._look_at(fields.get("tools"))
        passed = {name: value for name, value in fields.items() if name not in _NOT_PASSED}
        try:
            reply = await ctx.chat(messages, **{**passed, **ctx.request.completion_params})
        except OsmosisRolloutError as error:
            status = getattr(error, "status_code", 0)
            is_refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
            answered = HTTPStatus.BAD_REQUEST if is_refused else HTTPStatus.BAD_GATEWAY
            raise ApiError(answered, error.code, str(error)) from error
        if calls := reply.tool_calls:
            self._tool_turn = _ToolTurn(ctx, len(messages), calls)
        return Generated(reply.message, reply.finish_reason, reply.usage)

    def _look_at(self, tools: Any) -> None:
        named = names_of(tools if isinstance(tools, list) else [])
        if strange := named - self._offered - self._strange:
            self._strange |= strange
            logger.warning(
                "Rollout %a: the agent offers tools that get_tools did not name, and the trainer does not know: %a.",
                self._ctx.request.rollout_id,
                sorted(strange),
            )


class _ToolTurn:
    """The tool calls of a reply, until the conversation has their results."""

    def __init__(self, ctx: Rollout, sent_count: int, calls: list[Any]) -> None:
        self._ctx = ctx
        self._sent_count = sent_count
        self._counted_before = ctx._num_tool_calls
        self._started = time.monotonic()
        self._watch = CURRENT_WATCH.get()
        named = [(str(field_of(call, "id")), str(field_of(field_of(call, "function"), "name"))) for call in calls]
        self._marks = [(call_id, self._watch.tool_begins(name, call_id)) for call_id, name in named]

    def ends(self, messages: list[MessageDict]) -> None:
        """Count what was answered, unless the agent's own tools did (``Toolbox``)."""
        if self._ctx._num_tool_calls != self._counted_before:
            return
        results = {message.get("tool_call_id") for message in messages[self._sent_count :] if is_tool_message(message)}
        answered = [mark for call_id, mark in reversed(self._marks) if call_id in results]
        for mark in answered:
            self._watch.tool_ends(mark, ToolOutcome.OK)
            self._ctx.record_tool_call((time.monotonic() - self._started) * 1000 / len(answered))
