"""A rollout server whose every answer a test decides: real sockets, no SDK behind them but the listener."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from osmosis_ai.rollout.trainer.listener import Listener, bind_socket, url_of
from support.plain_http import PLAIN

JsonObject = dict[str, Any]

CHAT_PATH = "/v1/chat/completions"
COMPLETED_PATH = "/v1/rollout/completed"
QUESTION: list[JsonObject] = [{"role": "user", "content": "What is 1 + 2?"}]

ADD_TOOL: JsonObject = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    },
}


class Rollout:
    """What an agent of the scripted server has to work with."""

    def __init__(self, init: JsonObject, client: httpx.AsyncClient) -> None:
        self.init = init
        self.id = str(init["rollout_id"])
        self.authorization = b"Authorization", f"Bearer {init['api_key']}".encode()
        self._client = client

    async def send(
        self, path: str, content: bytes, headers: dict[str, str] | list[tuple[bytes, bytes]]
    ) -> httpx.Response:
        """Call the trainer back with anything."""
        return await self._client.post(f"{self.init['server_url']}{path}", content=content, headers=headers)

    async def post(self, path: str, body: JsonObject, call_id: str = "") -> httpx.Response:
        """Call the trainer back as the protocol wants it."""
        headers = [self.authorization]
        if call_id:
            headers.append((b"Idempotency-Key", call_id.encode()))
        return await self.send(path, json.dumps(body).encode(), headers)

    async def chat(self, messages: list[JsonObject], call_id: str = "", **fields: Any) -> httpx.Response:
        """One chat call."""
        return await self.post(CHAT_PATH, {"rollout_id": self.id, "messages": messages, **fields}, call_id)

    async def complete(self, status: str = "COMPLETED", **fields: Any) -> httpx.Response:
        """The terminal callback."""
        return await self.post(COMPLETED_PATH, {"rollout_id": self.id, "status": status, **fields})


Agent = Callable[[Rollout], Awaitable[object]]


async def succeed(rollout: Rollout) -> None:
    """An agent that is done at once, with reward 1."""
    await rollout.complete(reward=1.0, finish_reason="stop")


class ScriptedServer:
    """Runs ``agent`` for every init that gets a 202.

    ``answers`` are given to the first inits instead; a number is short for a reply of that status.
    """

    def __init__(self, agent: Agent = succeed, answers: list[Response | int] | None = None) -> None:
        self.agent = agent
        self.answers = list(answers or [])
        self.inits: list[JsonObject] = []
        self.bodies: list[bytes] = []
        self.keys: list[str | None] = []
        self.cancelled: list[str] = []
        """Ids, as they were told."""
        self.cancels_many = True
        self.reports_cancelled = True
        self.report_delay_seconds = 0.0
        self._accepted: dict[str, Rollout] = {}
        self.init_came = asyncio.Event()
        self._inits_go_on = asyncio.Event()
        self._inits_go_on.set()
        self._tasks: set[asyncio.Future[object]] = set()
        self._socket = bind_socket("127.0.0.1", 0)
        self.url = url_of("127.0.0.1", self._socket.getsockname()[1])
        routes = [
            Route("/health", self._health),
            Route("/v1/rollout/init", self._init, methods=["POST"]),
            Route("/v1/rollout/cancel", self._cancel, methods=["POST"]),
            Route("/v1/rollout/{id:path}/cancel", self._cancel_one, methods=["POST"]),
        ]
        self._listener = Listener(Starlette(routes=routes), self._socket)

    async def __aenter__(self) -> Self:
        self._client = httpx.AsyncClient(**PLAIN)
        await self._listener.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inits_go_on.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()
        await self._listener.__aexit__(exc_type, exc, traceback)

    async def agents(self) -> None:
        """Wait until every agent is done, and raise what one of them raised."""
        await asyncio.gather(*self._tasks)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    async def _init(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        self.keys.append(request.headers.get("authorization"))
        self.init_came.set()
        if not self._inits_go_on.is_set():
            await self._inits_go_on.wait()
            return Response("too late", 503)
        if self.answers:
            answer = self.answers.pop(0)
            return Response("no", answer) if isinstance(answer, int) else answer
        init = await request.json()
        self.inits.append(init)
        return self.accept(init)

    def hold_inits(self) -> None:
        """Answer no init until the end."""
        self._inits_go_on.clear()

    async def stop_listening(self) -> None:
        """Be gone, but for the agents."""
        await self._listener.__aexit__(None, None, None)

    async def _cancel_one(self, request: Request) -> Response:
        self._report_cancelled(request.path_params["id"])
        return JSONResponse({}, 202)

    async def _cancel(self, request: Request) -> Response:
        if not self.cancels_many:
            return JSONResponse({"detail": "Not Found"}, 404)
        ids = (await request.json())["ids"]
        for rollout_id in ids:
            self._report_cancelled(rollout_id)
        return JSONResponse({"cancelling": len(ids)}, 202)

    def _report_cancelled(self, rollout_id: str) -> None:
        self.cancelled.append(rollout_id)
        if self.reports_cancelled and (rollout := self._accepted.get(rollout_id)):
            self._tasks.add(asyncio.ensure_future(self._report(rollout)))

    async def _report(self, rollout: Rollout) -> None:
        await asyncio.sleep(self.report_delay_seconds)
        await rollout.complete("ERROR", extra_fields={"outcome": "cancelled"})

    def accept(self, init: JsonObject) -> Response:
        """Start the agent and give the 202."""
        rollout = self._accepted[init["rollout_id"]] = Rollout(init, self._client)
        self._tasks.add(asyncio.ensure_future(self.agent(rollout)))
        return JSONResponse({"rollout_id": init["rollout_id"], "tools": [ADD_TOOL]}, 202)
