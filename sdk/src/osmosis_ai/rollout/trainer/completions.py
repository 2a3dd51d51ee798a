"""``POST /v1/chat/completions``: chat calls of rollouts in flight, answered by a ``Completer``.

A call waits until the reply of its rollout's init is known, because that alone names the tools. Calls that carry the
same ``Idempotency-Key`` are one call: it is generated once and every repeat gets the same answer.
See ``docs/protocol.md``, section 4.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from itertools import count
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from osmosis_ai.rollout.core.llm_client import CompletionsResult, LLMClientProtocol
from osmosis_ai.rollout.core.sampled import put_sampled
from osmosis_ai.rollout.core.schemas import CompletionsRequest, MessageDict
from osmosis_ai.rollout.openai_api.answers import Generated, stream
from osmosis_ai.rollout.trainer.book import Rollout, RolloutBook
from osmosis_ai.rollout.trainer.callback_http import (
    CallbackRefusedError,
    Handler,
    check_key,
    json_response,
    read_json_object,
    validated,
)
from osmosis_ai.rollout.trainer.errors import CallRefusedError
from osmosis_ai.rollout.trainer.policy import failure_of_policy
from osmosis_ai.rollout.trainer.vocabulary import ChatCall, Completer, TrainerLimits
from osmosis_ai.rollout.trainer.weights import Weights
from osmosis_ai.rollout.wire.finish_reasons import WHOLE
from osmosis_ai.rollout.wire.posting import IDEMPOTENCY_HEADER

_PULL_PATH = re.compile(r"/rollout/([^/]+)/v1/chat/completions")
_OF_THE_CALL = frozenset({"messages", "tools", "model", "stream", "stream_options"})
_MODEL = "default"

logger = logging.getLogger(__name__)


class ToolAwareClient(LLMClientProtocol, Protocol):
    """An ``LLMClientProtocol`` that is told the tools beforehand, as ``ArithmeticPolicy`` is."""

    def set_tools(self, tools: Iterable[Mapping[str, Any]]) -> None:
        """Offer ``tools`` from now on."""
        ...


def completer_of(new_client: Callable[[], ToolAwareClient]) -> Completer:
    """A ``Completer`` that asks a client of its own for each call, so that calls cannot mix up their tools."""

    async def complete(call: ChatCall) -> CompletionsResult:
        client = new_client()
        client.set_tools(call.tools)
        return await client.chat_completions(call.messages, **call.sampling)

    return complete


class ChatEndpoint:
    """The route's handler."""

    def __init__(
        self, book: RolloutBook, complete: Completer, callback_key: str, limits: TrainerLimits, weights: Weights
    ) -> None:
        self._book = book
        self._weights = weights
        self._complete = complete
        self._callback_key = callback_key
        self._limits = limits
        self._numbers = count(1)

    async def handle(self, request: Request) -> Response:
        """Answer one chat call."""
        check_key(request, self._callback_key)
        body = await read_json_object(request, self._limits.max_body_bytes)
        chat = validated(CompletionsRequest, body)
        rollout = self._rollout(chat.rollout_id)
        await self._wait_for_tools(rollout)
        sampling = {name: value for name, value in body.items() if name not in ("messages", "rollout_id")}
        respond = partial(self._response, chat.model, says_tokens=body.get("return_token_ids") is True)
        return await self._answer(rollout, chat.messages, sampling, request.headers.get(IDEMPOTENCY_HEADER), respond)

    def of_path(self, path: str) -> Handler | None:
        """What answers the chat calls of 0.3, whose rollout stands in the path; ``None`` for another path."""
        found = _PULL_PATH.fullmatch(path)
        return None if found is None else partial(self._handle_pull, found[1])

    async def _handle_pull(self, rollout_id: str, request: Request) -> Response:
        check_key(request, self._callback_key)
        body = await read_json_object(request, self._limits.max_body_bytes)
        chat = validated(CompletionsRequest, {**body, "rollout_id": rollout_id, "model": _MODEL})
        rollout = self._rollout(chat.rollout_id)
        await self._wait_for_tools(rollout)
        tools = body.get("tools")
        rollout.tools = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        sampling = {name: value for name, value in body.items() if name not in _OF_THE_CALL and value is not None}
        respond = partial(self._response_of_pull, body)
        return await self._answer(rollout, chat.messages, sampling, request.headers.get(IDEMPOTENCY_HEADER), respond)

    def _response_of_pull(self, body: dict[str, Any], result: CompletionsResult) -> Response:
        model = body.get("model") if isinstance(body.get("model"), str) else _MODEL
        if body.get("stream") is not True:
            return self._response(str(model), result, says_tokens=body.get("return_token_ids") is True)
        options = body.get("stream_options")
        with_usage = isinstance(options, dict) and options.get("include_usage") is True
        generated = Generated(result.message, result.finish_reason, dict(result.usage))
        answer = stream(f"chatcmpl-{next(self._numbers)}", model, generated, with_usage=with_usage)
        return Response(answer.body, answer.status, answer.headers)

    def _rollout(self, rollout_id: str) -> Rollout:
        rollout = self._book.find(rollout_id)
        if rollout is not None and not rollout.ended.is_set():
            return rollout
        if rollout is not None or self._book.has_ended(rollout_id):
            raise _gone()
        raise CallbackRefusedError(
            HTTPStatus.NOT_FOUND, "unknown_rollout", "rollout_id: no rollout of this id was started here."
        )

    async def _wait_for_tools(self, rollout: Rollout) -> None:
        try:
            async with asyncio.timeout(self._limits.tools_wait_seconds):
                await rollout.tools_known_or_ended.wait()
        except TimeoutError:
            raise CallbackRefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "tools_unknown",
                "The reply to this rollout's init, which names its tools, has not arrived; try again.",
                {"Retry-After": "1"},
            ) from None
        if rollout.ended.is_set():
            raise _gone()

    async def _answer(
        self,
        rollout: Rollout,
        messages: list[MessageDict],
        sampling: dict[str, Any],
        call_id: str | None,
        respond: Callable[[CompletionsResult], Response],
    ) -> Response:
        call_id = call_id or f"call without a key {next(self._numbers)}"
        if call_id not in rollout.replies:
            await self._weights.wait()
            if rollout.ended.is_set():
                raise _gone()
        reply = rollout.replies.get(call_id)
        if reply is None:
            call = ChatCall(rollout.request.rollout_id, messages, rollout.tools, sampling, self._weights.begin())
            reply = rollout.replies[call_id] = asyncio.ensure_future(self._generate(rollout, call, respond))
            reply.add_done_callback(partial(self._generated, rollout, call_id))
        try:
            # A client that gives up and asks again must find the work still going on.
            return await asyncio.shield(reply)
        except asyncio.CancelledError:
            if reply.cancelled():  # and not this handler
                raise _gone() from None
            raise

    def _generated(self, rollout: Rollout, call_id: str, reply: "asyncio.Future[Response]") -> None:
        self._weights.end()
        if reply.cancelled() or reply.exception() is not None:
            del rollout.replies[call_id]  # a failure is no answer: whoever asks again is to have the call made again

    async def _generate(
        self, rollout: Rollout, call: ChatCall, respond: Callable[[CompletionsResult], Response]
    ) -> Response:
        rollout.note_messages(call.messages)
        try:
            result = await self._complete(call)
            # Before anything is noted: what cannot be sent is no turn, as the agent never has it.
            response = respond(_checked(result))
        except CallRefusedError as error:
            rollout.policy_failure = str(error)
            raise CallbackRefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "call_refused", str(error)) from error
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            rollout.policy_failure = problem = failure_of_policy(error)
            logger.error("The policy failed on a chat call of rollout %a.", call.rollout_id, exc_info=error)
            raise CallbackRefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, "policy_failed", problem) from error
        rollout.policy_failure = None
        if result.finish_reason not in WHOLE:
            return response  # the server takes it for no reply, and asks again: it is no turn of the rollout
        rollout.note_reply(call.messages, result.message)
        rollout.tokens.note(call.messages, result)
        rollout.weights_versions.append(call.weights_version)
        rollout.turns += 1
        rollout.tool_calls += len(result.tool_calls)
        return response

    def _response(self, model: str, result: CompletionsResult, *, says_tokens: bool) -> Response:
        reply: dict[str, Any] = {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [{"index": 0, "message": result.message, "finish_reason": result.finish_reason}],
            "usage": result.usage,
        }
        if says_tokens:
            put_sampled(reply, result)
        try:
            return json_response(reply)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"its reply is not JSON: {error}") from error


def _checked(result: CompletionsResult) -> CompletionsResult:
    if isinstance(result, CompletionsResult) and isinstance(result.message, dict):
        return result
    what = (
        f"one whose message is a {type(result.message).__name__}" if isinstance(result, CompletionsResult) else result
    )
    raise TypeError(f"it must give a CompletionsResult with a message, not {what!s:.60}")


def _is_being_cancelled() -> bool:
    """Whether this task was cancelled, and not something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _gone() -> CallbackRefusedError:
    return CallbackRefusedError(HTTPStatus.GONE, "rollout_ended", "rollout_id: this rollout has ended.")
