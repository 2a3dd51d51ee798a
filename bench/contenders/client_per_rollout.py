"""Contender (c): FastAPI, and for each rollout an httpx client of its own, with its own connections and TLS context."""

import asyncio
from typing import Any

import httpx

from bench.contenders.validated import fastapi_app
from bench.contenders.work import Message, converse

TIMEOUT_SECONDS = 300.0

_running: set[asyncio.Task[None]] = set()


def _start(init: dict[str, Any]) -> None:
    task = asyncio.create_task(_run(init))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _run(init: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {init['api_key']}"}
    async with httpx.AsyncClient(base_url=init["server_url"], headers=headers, timeout=TIMEOUT_SECONDS) as client:

        async def post(path: str, body: dict[str, Any]) -> httpx.Response:
            return (await client.post(path, json=body)).raise_for_status()

        async def chat(messages: list[Message]) -> Message:
            body = {"rollout_id": init["rollout_id"], "messages": messages, **init["completion_params"]}
            reply: Message = (await post("/v1/chat/completions", body)).json()["choices"][0]["message"]
            return reply

        messages = await converse(init["messages"], init["max_turns"], chat)
        result = {
            "rollout_id": init["rollout_id"],
            "status": "COMPLETED",
            "final_messages": messages,
            "finish_reason": "stop",
            "reward": 1.0,
        }
        await post("/v1/rollout/completed", result)


app = fastapi_app(_start)
