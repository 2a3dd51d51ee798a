"""A trainer that refuses the body of a result gets it once more, without its messages; then always those bytes."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.faulty_trainer import Fault, FaultyTrainer
from support.live_server import LiveServer
from support.plain_http import PLAIN
from support.process_fixtures import trainer
from support.promise_agent import agent_loop
from support.rollouts import JsonObject
from support.server_process import ServerProcess, init_of

from osmosis_ai.rollout.core.settings import RolloutClientSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.journal import Payload, SqliteJournal
from osmosis_ai.rollout.server.app import create_app

__all__ = ["trainer"]

INIT = "/v1/rollout/init"
DEADLINE_SECONDS = 60.0


@pytest.fixture(scope="module", params=["file", "off"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    journal = str(tmp_path_factory.mktemp("refused") / "journal.db") if request.param == "file" else "off"
    settings = RolloutSettings(
        client=RolloutClientSettings(retry_base_delay=0.1, retry_max_delay=1),
        server=RolloutServerSettings(journal=journal, drain_seconds=0, flush_seconds=1),
    )
    with LiveServer(create_app(agent_loop, settings=settings)) as server:
        yield server


def init(server: LiveServer, body: JsonObject) -> None:
    assert httpx.post(f"{server.url}{INIT}", json=body, **PLAIN).status_code == 202


async def until_state(server: LiveServer, name: str, state: str) -> JsonObject:
    async with httpx.AsyncClient(base_url=server.url, **PLAIN) as client, asyncio.timeout(DEADLINE_SECONDS):
        while (view := (await client.get(f"/v1/rollout/{name}")).json())["state"] != state:  # noqa: ASYNC110 - the app tells by answers alone
            await asyncio.sleep(0.01)
    return dict(view)


def without_messages(body: bytes) -> JsonObject:
    result = json.loads(body)
    return {**result, "final_messages": [], "extra_fields": {**result["extra_fields"], "messages_refused": True}}


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("do", ["complete", "fail"])
async def test_it_comes_once_more_without_its_messages_and_else_the_same(
    server: LiveServer, trainer: FaultyTrainer, status: int, do: str
) -> None:
    name = f"refused-{status}-{do}"
    trainer.result_faults[name] = [status]
    init(server, init_of(name, trainer.url, do))
    view = await until_state(server, name, "delivered")
    whole, rest = trainer.bodies(name)
    assert json.loads(whole)["final_messages"] != []
    assert json.loads(rest) == without_messages(whole)
    assert (view["delivery_attempts"], view["result"]["status"]) == (2, json.loads(whole)["status"])


async def test_a_second_refusal_is_final(server: LiveServer, trainer: FaultyTrainer) -> None:
    trainer.result_faults["twice"] = [422, 422]
    init(server, init_of("twice", trainer.url))
    view = await until_state(server, "twice", "undeliverable")
    assert (view["delivery_attempts"], view["result"]["reward"]) == (2, 1.0)
    assert "HTTP 422" in view["last_error"]
    assert len(trainer.bodies("twice")) == 2


@pytest.mark.slow
async def test_from_then_on_it_is_always_the_shorter_body(server: LiveServer, trainer: FaultyTrainer) -> None:
    trainer.result_faults["then"] = [503, 422, 503, Fault.DROP, 503]
    init(server, init_of("then", trainer.url))
    await until_state(server, "then", "delivered")
    bodies = trainer.bodies("then")
    assert bodies[0] == bodies[1]
    assert [json.loads(body)["final_messages"] != [] for body in bodies[:3]] == [True, True, False]
    assert set(bodies[2:]) == {bodies[2]}
    assert len(bodies) == 6


@pytest.mark.parametrize("status", [401, 403, 404, 409])
async def test_other_refusals_are_not_about_the_body(server: LiveServer, trainer: FaultyTrainer, status: int) -> None:
    name = f"other-{status}"
    trainer.result_faults[name] = [status] * 9
    init(server, init_of(name, trainer.url))
    trainer.wait_for_post(name)
    await asyncio.sleep(0.3)
    assert {json.loads(body)["final_messages"] != [] for body in trainer.bodies(name)} == {True}


async def test_a_result_without_messages_has_nothing_to_leave_out(server: LiveServer, trainer: FaultyTrainer) -> None:
    trainer.result_faults["empty"] = [422]
    trainer.chat_faults["empty"] = [400]
    init(server, init_of("empty", trainer.url, messages=[]))
    view = await until_state(server, "empty", "undeliverable")
    assert (view["delivery_attempts"], len(trainer.bodies("empty"))) == (1, 1)


@pytest.mark.slow
async def test_the_next_process_sends_the_shorter_body_too(tmp_path: Path, trainer: FaultyTrainer) -> None:
    """Killed when the trainer has seen both: what was on record before the second was sent decides."""
    trainer.result_faults["rollout"] = [422, Fault.HANG, 503]
    with ServerProcess(tmp_path / "journal.db") as server:
        server.accept(trainer.url, rollout="complete")
        trainer.wait_for_post("rollout", times=2)
        server.kill()
        server.start()
        assert trainer.result("rollout")["extra_fields"]["messages_refused"] is True
        server.wait_for_state("rollout", "delivered")
    whole, *shorter = trainer.bodies("rollout")
    assert len(shorter) == 3
    assert set(shorter) == {shorter[0]}
    async with SqliteJournal(server.journal) as journal:
        (record,) = await journal.records()
        assert record.without_messages
        assert await journal.load(record.key, Payload.RESULT) == whole
