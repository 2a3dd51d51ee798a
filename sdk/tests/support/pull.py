"""A trainer of 0.3 within the process, and agents for it: starts, polls with the lease, results."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.server.app import create_app
from support.rollouts import NO_TRAINER, ScriptedAgent, client_of, settings_of, tool

LEASE = "X-Osmosis-Rollout-Lease"
JsonObject = dict[str, Any]


def start_body(rollout_id: str = "rollout-1", **fields: Any) -> JsonObject:
    return {
        "rollout_id": rollout_id,
        "initial_messages": [{"role": "user", "content": "What is 2 + 2?"}],
        "chat_completions_url": f"{NO_TRAINER}/v1",
        **fields,
    }


class Caller:
    """A trainer of 0.3 that does by hand what a client does."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.tokens: dict[str, str] = {}

    async def start(self, rollout_id: str = "rollout-1", **fields: Any) -> httpx.Response:
        response = await self.http.post("/rollout", json=start_body(rollout_id, **fields))
        if response.status_code == 202:
            self.tokens[rollout_id] = response.json()["polling_lease_token"]
        return response

    async def poll(self, rollout_id: str = "rollout-1", token: str | bytes | None = None) -> httpx.Response:
        given = token or self.tokens.get(rollout_id, "none")
        headers = [(LEASE.encode(), given if isinstance(given, bytes) else given.encode())]
        return await self.http.get(f"/rollout/{rollout_id}/result", headers=headers)

    async def result(self, rollout_id: str = "rollout-1") -> JsonObject:
        while True:
            response = await self.poll(rollout_id)
            assert response.status_code == 200, response.text
            body: JsonObject = response.json()
            if body["status"] in ("success", "failure", "cancelled"):
                return body

    async def run(self, rollout_id: str = "rollout-1", **fields: Any) -> JsonObject:
        assert (await self.start(rollout_id, **fields)).status_code == 202
        return await self.result(rollout_id)


@asynccontextmanager
async def calling(app: FastAPI, **headers: str) -> AsyncIterator[Caller]:
    async with client_of(app) as http:
        http.headers.update(headers)
        yield Caller(http)


def app_of(run: Any = None, *, server: JsonObject | None = None, **options: Any) -> FastAPI:
    agent = ScriptedAgent(run or answer, tools=[tool()])
    quick = {"poll_wait_seconds": 0.05, **(server or {})}
    return create_app(agent, settings=settings_of(server=quick), **options)


async def answer(ctx: RolloutContext) -> Any:
    """Right if the ground truth is 4."""
    messages = [*ctx.request.messages, {"role": "assistant", "content": "4"}]
    return ctx.complete(messages, reward=float(ctx.request.metadata.get("ground_truth", "4") == "4"))


async def hang(ctx: RolloutContext) -> Any:
    await asyncio.Event().wait()
