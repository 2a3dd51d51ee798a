"""What the server's tests share: agents to serve, inits to send, and a stand-in for the client to the trainer."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from fastapi import FastAPI

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext
from osmosis_ai.rollout.core.schemas import RolloutMetrics, RolloutRequest
from osmosis_ai.rollout.core.settings import RolloutSettings
from osmosis_ai.rollout.core.transcript import Transcript

JsonObject = dict[str, Any]
Answer = TypeVar("Answer")

INIT = "/v1/rollout/init"
DEADLINE_SECONDS = 60.0
NO_TRAINER = "http://127.0.0.1:9"
RESULT_FIELDS = ("status", "final_messages", "finish_reason", "error_message", "reward")


async def complete_at_once(ctx: RolloutContext) -> Any:
    """The shortest agent: no chat, no tools."""
    return ctx.complete(list(ctx.request.messages))


async def chat_once(ctx: RolloutContext) -> Any:
    """One chat call, then done with reward 1."""
    messages = list(ctx.request.messages)
    reply = await ctx.chat(messages, **ctx.request.completion_params)
    messages.append(reply.message)
    return ctx.complete(messages, reward=1.0)


def raising(error: BaseException) -> Callable[[RolloutContext], Awaitable[Any]]:
    """An agent that fails with ``error``."""

    async def run(ctx: RolloutContext) -> Any:
        raise error

    return run


class ScriptedAgent(RolloutAgentLoop):
    """Runs what it is given, and offers what it is given: a list, or a function of the request."""

    name = "scripted"

    def __init__(
        self,
        run: Callable[[RolloutContext], Awaitable[Any]] = complete_at_once,
        tools: Any = (),
    ) -> None:
        self.script = run
        self.tools = tools
        self.tool_requests: list[RolloutRequest] = []
        self.runs: list[RolloutContext] = []

    def get_tools(self, request: RolloutRequest) -> Any:
        self.tool_requests.append(request)
        if callable(self.tools):
            return self.tools(request)
        return list(self.tools) if isinstance(self.tools, tuple) else self.tools

    async def run(self, ctx: RolloutContext) -> Any:
        self.runs.append(ctx)
        return await self.script(ctx)


def init_body(rollout_id: str = "rollout-1", **fields: Any) -> JsonObject:
    """A body for init, with ``fields`` in place of the defaults."""
    return {
        "rollout_id": rollout_id,
        "server_url": NO_TRAINER,
        "messages": [{"role": "user", "content": "What is 2 + 2?"}],
        "completion_params": {"temperature": 0.5},
        **fields,
    }


@cache
def settings_without_an_environment() -> RolloutSettings:
    """Read once: milliseconds of thousands of tests. For others to copy."""
    import pytest  # not for the processes that serve one of these agents

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("OSMOSIS_")]:
            patch.delenv(name)
        patch.setenv("OSMOSIS_NO_DOTENV", "1")
        return RolloutSettings()


def settings_of(*, client: JsonObject | None = None, server: JsonObject | None = None) -> RolloutSettings:
    """Settings with these values, beyond their bounds too: what takes seconds in life takes less in a test."""
    base = settings_without_an_environment()
    parts = {
        "client": base.client.model_copy(update=client or {}),
        "server": base.server.model_copy(update=server or {}),
    }
    return base.model_copy(update=parts, deep=True)


def tool(name: str = "add", **function: Any) -> JsonObject:
    """A complete tool definition, with ``function`` in place of the defaults."""
    parameters = {"type": "object", "properties": {}, "required": []}
    return {
        "type": "function",
        "function": {"name": name, "description": "Adds.", "parameters": parameters, **function},
    }


def client_of(app: FastAPI, *, raise_app_exceptions: bool = True) -> httpx.AsyncClient:
    """A client in this process, which runs no lifespan."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=raise_app_exceptions)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@asynccontextmanager
async def lifespan_of(app: FastAPI) -> AsyncIterator[None]:
    """Startup and shutdown of ``app``, as an ASGI server runs them."""
    async with app.router.lifespan_context(app):
        yield


class StandInClient:
    """A client to the trainer that takes results; constructed with keywords, and no more than the server uses."""

    def __init__(self, made: "StandInClients", **fields: Any) -> None:
        self.fields = fields
        self.completions: list[JsonObject] = []
        self.transcript = Transcript()
        self.finds_nobody = False
        self.entered = self.left = 0
        self._made = made

    async def __aenter__(self) -> Self:
        self.entered += 1
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.left += 1

    async def send_completion(self, payload: bytes, attempts: int) -> None:
        sent = json.loads(payload)
        fields = {name: sent.get(name) for name in RESULT_FIELDS}
        fields["metrics"] = RolloutMetrics(**sent["metrics"]) if "metrics" in sent else None
        self.completions.append(fields)
        failure = self._made.failures.pop(0) if self._made.failures else None
        if failure is not None:
            raise failure
        self._made.results.put_nowait((self, fields))

    def get_metrics(self) -> RolloutMetrics:
        return RolloutMetrics(num_llm_calls=3, prompt_tokens=30)


class StandInClients:
    """In the place of ``OsmosisLLMClient``; ``failures`` are raised by the first calls of ``send_completion``."""

    def __init__(self) -> None:
        self.made: list[StandInClient] = []
        self.failures: list[Exception] = []
        self.results: asyncio.Queue[tuple[StandInClient, JsonObject]] = asyncio.Queue()

    def __call__(self, **fields: Any) -> StandInClient:
        client = StandInClient(self, **fields)
        self.made.append(client)
        return client

    async def result(self) -> tuple[StandInClient, JsonObject]:
        """The next result that was taken, once it has come, and the client it came through."""
        return await asyncio.wait_for(self.results.get(), DEADLINE_SECONDS)


async def eventually(ask: Callable[[], Awaitable[Answer]], accepts: Callable[[Answer], bool]) -> Answer:
    """Ask until an answer is acceptable, and give it."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not accepts(answer := await ask()):  # noqa: ASYNC110 - as in `until`
            await asyncio.sleep(0.001)
        return answer


async def until(condition: Callable[[], Any]) -> None:
    """Let the event loop run until ``condition`` holds."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.001)


async def post_init(app: FastAPI, body: JsonObject | None = None, **headers: Any) -> httpx.Response:
    """The reply of ``app`` to an init."""
    async with client_of(app) as client:
        return await client.post(INIT, json=body or init_body(), headers=headers)


async def health(app: FastAPI) -> JsonObject:
    """What ``app`` says of itself."""
    async with client_of(app) as client:
        status: JsonObject = (await client.get("/health")).json()
        return status


async def until_counts(app: FastAPI, *, active: int, completed: int) -> None:
    """Wait until the health of ``app`` shows these numbers of rollouts."""
    await eventually(
        lambda: health(app),
        lambda status: (status["active_rollouts"], status["completed_rollouts"]) == (active, completed),
    )


class Gate:
    """An agent that waits: ``running`` counts those inside, ``open`` lets all of them go on."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self._open = asyncio.Event()

    async def __call__(self, ctx: RolloutContext) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        await self._open.wait()
        await asyncio.sleep(0)
        self.running -= 1
        return ctx.complete([])

    def open(self) -> None:
        self._open.set()
