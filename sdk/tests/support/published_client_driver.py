"""Runs in the environment of the published osmosis-ai 0.3, which has nothing of ours: drives its own client.

A line of JSON on stdin is a job, ``{"n": 1, "do": "run", ...}``, begun at once; a line on stdout is what came of it.
The client is taken as it is; the tokens of its 202s are noted by a hook of the HTTP client that it may be given.
"""

import asyncio
import json
import sys
from typing import Any

import httpx
from osmosis_ai.rollout.client import RolloutClient  # type: ignore[import-not-found,unused-ignore]  # the other one

AT_ONCE = 64


async def main(url: str, key: str | None) -> None:
    """Until stdin ends."""
    tokens: dict[str, list[str]] = {}

    async def note(response: httpx.Response) -> None:
        if response.status_code == httpx.codes.ACCEPTED:
            await response.aread()
            body = response.json()
            tokens.setdefault(body["rollout_id"], []).append(body["polling_lease_token"])

    limits = httpx.Limits(max_connections=2 * AT_ONCE, max_keepalive_connections=AT_ONCE)
    http = httpx.AsyncClient(
        base_url=url, event_hooks={"response": [note]}, limits=limits, timeout=120, trust_env=False
    )
    client = RolloutClient(url=url, http_client=http, api_key=key)
    room = asyncio.Semaphore(AT_ONCE)

    async def run(**about: Any) -> dict[str, Any]:
        async with room:
            result = await client.run_rollout(**about)
        return {**result.model_dump(mode="json"), "tokens": tokens[about["rollout_id"]]}

    async def start(**about: Any) -> dict[str, Any]:
        handle = await client.run_rollout_async(**about)
        handle.cancel()  # it asks for nothing from here on
        return {"tokens": tokens[about["rollout_id"]]}

    async def cancel(rollout_id: str) -> dict[str, Any]:
        return dict((await client.cancel_rollout(rollout_id)).model_dump(mode="json"))

    async def idle() -> dict[str, Any]:
        return dict(await client.wait_idle(timeout_sec=30, poll_interval_sec=0.1))

    jobs: dict[str, Any] = {"run": run, "start": start, "cancel": cancel, "idle": idle}

    async def work(n: int, do: str, about: dict[str, Any]) -> None:
        try:
            outcome = await jobs[do](**about)
        except Exception as error:  # noqa: BLE001 - the test is told
            outcome = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps({"n": n, **outcome}) + "\n")
        sys.stdout.flush()

    loop = asyncio.get_running_loop()
    under_way = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        job = json.loads(line)
        task = loop.create_task(work(job.pop("n"), job.pop("do"), job))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
