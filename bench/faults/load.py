"""The client of the fault bench: sends each init until it is accepted, with the same body each time.

Some inits are repeated after their 202, to any of the servers, as a client does that has lost the reply.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from random import Random

import httpx

from bench.faults.ledger import Ledger

INIT_PATH = "/v1/rollout/init"
ATTEMPT_TIMEOUT_SECONDS = 10.0
GIVE_UP_SECONDS = 90.0
RETRY_SECONDS = (0.1, 0.4)
REPEATED_SHARE = 0.2
REPEATED_WITHIN_SECONDS = 3.0
TURNS = (2, 3)


class Load:
    """``amount`` rollouts, ``rate`` of them a second, spread over the servers at ``urls``."""

    def __init__(
        self, urls: Sequence[str], trainer_url: str, api_key: str, ledger: Ledger, random: Random, name: str
    ) -> None:
        self._urls = urls
        self._trainer_url = trainer_url
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._ledger = ledger
        self._random = random
        self._name = name

    async def run(self, amount: int, rate: float) -> None:
        """Send them all; returns when each is accepted or given up."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        async with httpx.AsyncClient(trust_env=False, timeout=ATTEMPT_TIMEOUT_SECONDS, limits=limits) as client:
            started = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for number in range(amount):
                    await asyncio.sleep(started + number / rate - time.monotonic())
                    group.create_task(self._send(client, f"{self._name}-{number}"))

    async def _send(self, client: httpx.AsyncClient, rollout_id: str) -> None:
        body = self._body(rollout_id)
        if await self._until_accepted(client, rollout_id, body) and self._random.random() < REPEATED_SHARE:
            await asyncio.sleep(self._random.uniform(0, REPEATED_WITHIN_SECONDS))
            await self._until_accepted(client, rollout_id, body)

    async def _until_accepted(self, client: httpx.AsyncClient, rollout_id: str, body: bytes) -> bool:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            url = self._random.choice(self._urls)
            pause = self._random.uniform(*RETRY_SECONDS)
            try:
                response = await client.post(f"{url}{INIT_PATH}", content=body, headers=self._headers)
            except httpx.TransportError:
                pass
            else:
                if response.status_code == HTTPStatus.ACCEPTED:
                    self._ledger.promised(rollout_id, response.content)
                    return True
                pause += float(response.headers.get("Retry-After", 0))
            await asyncio.sleep(pause)
        self._ledger.never_accepted.add(rollout_id)
        return False

    def _body(self, rollout_id: str) -> bytes:
        init = {
            "rollout_id": rollout_id,
            "server_url": self._trainer_url,
            "api_key": "callback-key",
            "messages": [{"role": "user", "content": f"What happens to {rollout_id}?"}],
            "completion_params": {"temperature": 1.0},
            "metadata": {"turns": self._random.choice(TURNS)},
        }
        return json.dumps(init).encode()
