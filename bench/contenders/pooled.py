"""A rollout over one aiohttp session for the whole process: keep-alive connections, no limit to their number."""

import asyncio
from typing import Any

import aiohttp
from pydantic_core import from_json, to_json

from bench.contenders.work import Message, converse


class PooledRollouts:
    """Runs rollouts in the background; use it from one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._running: set[asyncio.Task[None]] = set()

    def start(self, init: dict[str, Any]) -> None:
        """Run the rollout of ``init``, which has the fields of the protocol."""
        task = asyncio.create_task(self._run(init))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, init: dict[str, Any]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60), cookie_jar=aiohttp.DummyCookieJar()
            )
        session, rollout_id, server_url = self._session, init["rollout_id"], init["server_url"]
        headers = {"Authorization": f"Bearer {init['api_key']}", "Content-Type": "application/json"}

        async def post(path: str, body: dict[str, Any]) -> bytes:
            async with session.post(server_url + path, data=to_json(body), headers=headers) as response:
                response.raise_for_status()
                return await response.read()

        async def chat(messages: list[Message]) -> Message:
            body = {"rollout_id": rollout_id, "messages": messages, **init["completion_params"]}
            reply: Message = from_json(await post("/v1/chat/completions", body))["choices"][0]["message"]
            return reply

        messages = await converse(init["messages"], init["max_turns"], chat)
        result = {
            "rollout_id": rollout_id,
            "status": "COMPLETED",
            "final_messages": messages,
            "finish_reason": "stop",
            "reward": 1.0,
        }
        await post("/v1/rollout/completed", result)
