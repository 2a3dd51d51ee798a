"""``--serve``: a trained model at ``/v1/chat/completions``, for ``osmosis test --base-url`` and any OpenAI client."""

import itertools
import time
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from osmosis_ai.rollout.trainer import CallRefusedError, ChatCall
from training.chat import ChatFormat
from training.config import TrainingConfig
from training.engine import Engine
from training.policy import Policy, TokenBudget
from training.weights import load_model, number_type

HOST = "127.0.0.1"
MAX_BODY_BYTES = 16 * 1024 * 1024


class ChatApp:
    """Each call stands alone: it is given a rollout id of its own, so nothing of an earlier call is reused."""

    def __init__(self, policy: Policy, examples: list[dict[str, Any]]) -> None:
        self._policy = policy
        self._examples = examples
        self._numbers = itertools.count(1)

    def app(self) -> Starlette:
        """The routes."""
        return Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        try:
            body = await request.json()
            messages = [dict(message) for message in body["messages"]]
            tools = [dict(tool) for tool in body.get("tools") or []]
        except (ValueError, KeyError, TypeError):
            return _problem("The body must be a JSON object with a list of messages.")
        if body.get("stream"):
            return _problem("stream: answers are sent whole.")
        rollout_id = f"serve-{next(self._numbers)}"
        sampling = {name: value for name, value in body.items() if name not in ("messages", "tools")}
        try:
            result = await self._policy.complete(ChatCall(rollout_id, self._with_examples(messages), tools, sampling))
        except CallRefusedError as error:
            return _problem(str(error))
        finally:
            self._policy.take(rollout_id)
        return JSONResponse(
            {
                "id": rollout_id,
                "object": "chat.completion",
                "created": int(time.time()),
                "model": str(body.get("model", "")),
                "choices": [{"index": 0, "message": result.message, "finish_reason": result.finish_reason}],
                "usage": result.usage,
            }
        )

    def _with_examples(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The worked examples where training had them: behind the system prompt."""
        head = 1 if messages and messages[0].get("role") == "system" else 0
        return [*messages[:head], *self._examples, *messages[head:]]


def _problem(text: str) -> Response:
    return JSONResponse({"error": {"message": text, "type": "invalid_request_error"}}, 400)


async def serve_model(config: TrainingConfig, examples: list[dict[str, Any]], folder: Path, port: int) -> None:
    """Serve until told to stop.

    Raises:
        TrainingError: if ``folder`` is no model folder.
    """
    device = torch.device(config.device)
    dtype, why = number_type(config.dtype, device)
    print(why)  # noqa: T201 - a command's output
    model = load_model(str(folder), config.model_cache, device, dtype)
    chat = ChatFormat(model.tokenizer, config.tool_prompt)
    engine = Engine(model.decoder, model.weights, chat, rows=config.concurrency, max_length=config.context)
    policy = Policy(engine, chat, TokenBudget(turn=config.max_tokens_turn))
    try:
        app = ChatApp(policy, examples).app()
        await uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_level="info")).serve()
    finally:
        engine.close()
