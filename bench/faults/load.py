"""The client of the fault bench: sends each init until it is accepted, with the same body each time.

Some inits are repeated after their 202, to any of the servers, as a client does that has lost the reply.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from http import HTTPStatus
from random import Random
from typing import Self

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
    """Rollouts, spread over the servers at ``urls``. To be entered before it is used."""

    def __init__(
        self, urls: Sequence[str], trainer_url: str, api_key: str, ledger: Ledger, random: Random, name: str
    ) -> None:
        self._urls = urls
        self._trainer_url = trainer_url
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._ledger = ledger
        self._random = random
        self._name = name
        self._more = itertools.count()

    async def __aenter__(self) -> Self:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        self._client = httpx.AsyncClient(trust_env=False, timeout=ATTEMPT_TIMEOUT_SECONDS, limits=limits)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()

    async def run(self, amount: int, rate: float, until: asyncio.Event) -> None:
        """Send ``amount``, and more until ``until`` is set; returns when each is accepted or given up."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if number >= amount and until.is_set():
                    break
                await asyncio.sleep(started + number / rate - time.monotonic())
                group.create_task(self._send(f"{self._name}-{number}"))

    async def send(self, amount: int, megabytes: int = 0) -> set[str]:
        """Some at once, whose results have that size; gives their ids when each is accepted or given up."""
        ids = {f"{self._name}-more-{next(self._more)}" for _ in range(amount)}
        bodies = {rollout_id: self._body(rollout_id, megabytes) for rollout_id in ids}
        await asyncio.gather(*(self._until_accepted(rollout_id, body) for rollout_id, body in bodies.items()))
        return ids

    async def _send(self, rollout_id: str) -> None:
        body = self._body(rollout_id)
        if await self._until_accepted(rollout_id, body) and self._random.random() < REPEATED_SHARE:
            await asyncio.sleep(self._random.uniform(0, REPEATED_WITHIN_SECONDS))
            await self._until_accepted(rollout_id, body)

    async def _until_accepted(self, rollout_id: str, body: bytes) -> bool:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            url = self._random.choice(self._urls)
            pause = self._random.uniform(*RETRY_SECONDS)
            try:
                response = await self._client.post(f"{url}{INIT_PATH}", content=body, headers=self._headers)
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

    def _body(self, rollout_id: str, megabytes: int = 0) -> bytes:
        init = {
            "rollout_id": rollout_id,
            "server_url": self._trainer_url,
            "api_key": "callback-key",
            "messages": [{"role": "user", "content": f"What happens to {rollout_id}?"}],
            "completion_params": {"temperature": 1.0},
            "metadata": {"turns": self._random.choice(TURNS), "megabytes": megabytes},
        }
        return json.dumps(init).encode()
