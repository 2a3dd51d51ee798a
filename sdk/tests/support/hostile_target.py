"""A guarded server for hostile requests; a module takes the fixture by importing it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.settings import RolloutClientSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.app import create_app
from support.faulty_trainer import FaultyTrainer
from support.live_server import LiveServer
from support.plain_http import PLAIN
from support.rollouts import ScriptedAgent, init_body

INIT = "/v1/rollout/init"


KEY = "the-servers-key"


SECRET = "the-callback-secret"


MAX_BODY_BYTES = 2_000_000


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no text")


async def misbehave(ctx: RolloutContext) -> Any:
    """An agent that does what its request's metadata say."""
    messages = list(ctx.request.messages)
    ctx.log_event("pre_llm", turn=1)
    match ctx.request.metadata.get("do"):
        case "none":
            return None
        case "text":
            return "done"
        case "nan":
            return ctx.complete(messages, reward=float("nan"))
        case "unencodable":
            return ctx.complete([*messages, {"role": "assistant", "content": Unprintable()}])
        case "surrogate":
            return ctx.complete([*messages, {"role": "assistant", "content": "\ud800"}])
        case "cycle":
            messages.append({"role": "assistant", "self": messages})
            return ctx.complete(messages)
        case "status":
            result = ctx.complete(messages, reward=1.0)
            result.status = "DONE"
            return result
        case "exit":
            raise SystemExit(7)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "unprintable":
            raise ValueError(Unprintable())
        case "mutate":
            ctx.request.rollout_id = "../other"
            ctx.request.server_url = "http://127.0.0.1:9"
            ctx.request.messages.clear()
            raise ValueError("after a mess")
    return ctx.complete(messages, reward=1.0)


@dataclass(frozen=True)
class Target:
    """A guarded server with traces, and a client that has its key."""

    server: LiveServer
    client: httpx.Client
    trainer: FaultyTrainer
    folder: Path

    @property
    def traces(self) -> Path:
        return self.folder / "traces"

    def init(self, **fields: Any) -> httpx.Response:
        body = init_body(server_url=self.trainer.url, api_key=SECRET, **fields)
        return self.client.post(INIT, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})

    def post(self, content: bytes, **headers: str) -> httpx.Response:
        return self.client.post(INIT, content=content, headers={"Content-Type": "application/json", **headers})

    def assert_serving(self) -> None:
        assert self.client.get("/health").json()["status"] == "healthy"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("hostile")
    settings = RolloutSettings(
        client=RolloutClientSettings(max_retries=0, retry_base_delay=0.1, retry_max_delay=1),
        server=RolloutServerSettings(
            max_body_bytes=MAX_BODY_BYTES,
            body_timeout_seconds=1,
            journal=str(folder / "journal.db"),
            allowed_trainer_hosts="127.0.0.1",
            drain_seconds=0,
            flush_seconds=0,
        ),
    )
    app = create_app(ScriptedAgent(misbehave), settings=settings, api_key=KEY, debug_dir=str(folder / "traces"))
    with (
        FaultyTrainer() as trainer,
        LiveServer(app) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, **PLAIN) as client,
    ):
        yield Target(server, client, trainer, folder)


def assert_refused(target: Target, response: httpx.Response, status: int, field: str | None = None) -> None:
    """One JSON object that names the field and holds no secret, from a server that goes on."""
    assert response.status_code == status, response.text
    detail = response.json()["detail"]
    if field is not None:
        assert [item["loc"] for item in detail] == [["body", field]]
    assert detail
    assert SECRET not in response.text
    assert KEY not in response.text
    target.assert_serving()
