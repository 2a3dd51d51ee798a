"""A trainer that pauses costs no rollout its time, and none its result; what must end still ends at once."""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.rollouts import INIT, ScriptedAgent, chat_once, client_of, init_body, lifespan_of, settings_of, until
from support.scrapes import Scrape

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.server.app import create_app


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


QUICK = {"retry_base_delay": 0.02, "retry_max_delay": 0.05}
PAGE = b"<html><h1>404 Not Found</h1></html>"


def pausing(limit_seconds: float = 0.5, **client: Any) -> Any:
    return settings_of(
        client=QUICK | client, server={"request_timeout_seconds": limit_seconds, "tool_turn_timeout_seconds": 0.5}
    )


@pytest.mark.slow
async def test_a_pause_beyond_the_agents_limit_is_waited_for_measured_and_traced(
    trainer: FakeTrainer, tmp_path: Any
) -> None:
    trainer.chat_answers = [503] * 40  # a second and a half, at least
    app = create_app(ScriptedAgent(chat_once), settings=pausing(), debug_dir=str(tmp_path))
    async with client_of(app) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        await until(lambda: len(trainer.chats("rollout-1")) > 1)
        during = Scrape((await client.get("/metrics")).text)
        result = await trainer.result("rollout-1")
        after = Scrape((await client.get("/metrics")).text)
    assert (result["status"], result["extra_fields"]["outcome"]) == ("COMPLETED", "success")
    assert during("osmosis_llm_paused_calls") == 1
    assert after("osmosis_llm_paused_calls") == 0
    assert after("osmosis_llm_pause_seconds_count", cause="refused") == 1
    assert after("osmosis_llm_pause_seconds_sum", cause="refused") > 0.5
    await until(lambda: any(event["event"] == "delivery" for event in events_of(tmp_path / "rollout-1.jsonl")))
    pauses = [event for event in events_of(tmp_path / "rollout-1.jsonl") if event["event"].startswith("pause")]
    assert [event["event"] for event in pauses] == ["pause_start", "pause_end"]
    assert "HTTP 503" in pauses[0]["problem"]
    assert pauses[1]["answered"]
    assert pauses[1]["pause_ms"] > 500


async def test_the_call_deadline_bounds_it(trainer: FakeTrainer) -> None:
    trainer.chat_answers = [503] * 10_000
    app = create_app(ScriptedAgent(chat_once), settings=pausing(60.0, call_deadline_seconds=0.5))
    async with client_of(app) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        result = await trainer.result("rollout-1")
    assert result["extra_fields"]["outcome"] == "llm_error"
    assert "HTTP 503" in result["error_message"]


async def test_an_agent_that_asks_a_dead_trainer_again_and_again_has_its_limit(trainer: FakeTrainer) -> None:
    async def stubborn(ctx: RolloutContext) -> Any:
        while True:
            with suppress(Exception):
                await ctx.chat(list(ctx.request.messages))
            await asyncio.sleep(0)

    trainer.chat_answers = [503] * 10_000
    app = create_app(ScriptedAgent(stubborn), settings=pausing(call_deadline_seconds=0.3))
    async with client_of(app) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        result = await trainer.result("rollout-1")
    assert result["extra_fields"]["outcome"] == "timeout"


async def test_the_limit_runs_while_the_model_answers(trainer: FakeTrainer) -> None:
    async def hold(ctx: RolloutContext) -> Any:
        await ctx.chat(list(ctx.request.messages))  # after a pause
        trainer.hold_chats()
        return await chat_once(ctx)

    trainer.chat_answers = [503] * 3
    app = create_app(ScriptedAgent(hold), settings=pausing(1.0))
    async with client_of(app) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        result = await trainer.result("rollout-1")
        trainer.release_chats()
    assert result["extra_fields"]["outcome"] == "timeout"


async def test_a_pause_of_one_call_stops_the_tool_turn_of_another(trainer: FakeTrainer) -> None:
    async def both(ctx: RolloutContext) -> Any:
        messages = list(ctx.request.messages)
        await ctx.chat(messages)
        trainer.chat_answers = [503] * 30
        await asyncio.gather(ctx.chat(messages), ctx.chat(messages))
        return ctx.complete(messages)

    settings = settings_of(client=QUICK, server={"tool_turn_timeout_seconds": 0.3, "request_timeout_seconds": 0.5})
    app = create_app(ScriptedAgent(both), settings=settings)
    async with client_of(app) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        assert (await trainer.result("rollout-1"))["status"] == "COMPLETED"


@pytest.mark.parametrize("way", ["cancel", "shutdown"])
async def test_a_rollout_that_waits_ends_as_promptly_as_any(trainer: FakeTrainer, way: str) -> None:
    trainer.chat_answers = [503] * 10_000
    slow = {"retry_base_delay": 60.0, "retry_max_delay": 60.0}
    app = create_app(ScriptedAgent(chat_once), settings=settings_of(client=slow, server={"drain_seconds": 60.0}))
    async with client_of(app) as client:
        async with lifespan_of(app):
            await client.post(INIT, json=init_body(server_url=trainer.url))
            await until(lambda: len(trainer.chats("rollout-1")) == 1)
            if way == "cancel":
                assert (await client.post("/v1/rollout/rollout-1/cancel")).status_code == 202
            started = time.monotonic()
        result = await trainer.result("rollout-1")
    assert time.monotonic() - started < 50  # and not 60
    assert result["extra_fields"]["outcome"] == ("cancelled" if way == "cancel" else "interrupted")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, PAGE),
        (404, b""),
        (404, b'{"detail": "Not Found"}'),
        (404, b'{"message":"no Route matched with those values","request_id":"1f"}'),
        (405, PAGE),
    ],
    ids=["page", "empty", "path", "gateway", "static page"],
)
async def test_a_404_of_somebody_else_leaves_the_result_on_its_way(
    trainer: FakeTrainer, status: int, body: bytes
) -> None:
    trainer.refusal = body
    trainer.completed_answers = [status] * 5
    app = create_app(ScriptedAgent(chat_once), settings=pausing())
    async with client_of(app) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        assert (await trainer.result("rollout-1"))["status"] == "COMPLETED"
        assert len(trainer.posts("rollout-1")) == 6


async def test_nor_does_it_stop_a_rollout_as_forgotten(trainer: FakeTrainer) -> None:
    trainer.refusal = PAGE
    trainer.chat_answers = [404] * 10
    app = create_app(ScriptedAgent(chat_once), settings=pausing())
    async with client_of(app) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        assert (await trainer.result("rollout-1"))["extra_fields"]["outcome"] == "success"
