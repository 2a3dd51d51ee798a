"""Rollouts from init to result: once under one key, so many at a time, and none lost at the end."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.http_peer import CHAT_REPLY, HttpPeer, refuse
from support.rollout_client import Scripted
from support.rollouts import (
    INIT,
    Gate,
    ScriptedAgent,
    StandInClients,
    chat_once,
    client_of,
    eventually,
    health,
    init_body,
    lifespan_of,
    post_init,
    settings_of,
    until,
    until_counts,
)

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.schemas import RolloutMetrics
from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.app import create_app
from osmosis_ai.rollout.wire.channel import Reply

METRICS = RolloutMetrics(num_llm_calls=3, prompt_tokens=30)


class TestClient:
    async def test_is_made_once_a_rollout_with_keywords_and_used_as_a_context(self, clients: StandInClients) -> None:
        await post_init(create_app(ScriptedAgent()), init_body("id-1", server_url="http://trainer/base", api_key="cb"))
        client, _ = await clients.result()
        await until(lambda: client.left)
        assert clients.made == [client]
        named = {name: client.fields[name] for name in ("server_url", "rollout_id", "api_key")}
        assert named == {"server_url": "http://trainer/base", "rollout_id": "id-1", "api_key": "cb"}
        assert (client.entered, client.left) == (1, 1)

    async def test_gets_the_result_once(self, clients: StandInClients) -> None:
        await post_init(create_app(ScriptedAgent()), init_body())
        client, result = await clients.result()
        await until(lambda: client.left)
        assert client.completions == [result]
        metrics = result.pop("metrics")
        assert result == {
            "status": "COMPLETED",
            "final_messages": init_body()["messages"],
            "finish_reason": "stop",
            "error_message": None,
            "reward": None,
        }
        assert (metrics.num_llm_calls, metrics.prompt_tokens) == (METRICS.num_llm_calls, METRICS.prompt_tokens)
        assert metrics.total_latency_ms > 0

    async def test_calls_through_the_channel_that_the_app_is_handed(self) -> None:
        reply = Reply(200, json.dumps(CHAT_REPLY).encode())
        channel = Scripted(reply, reply)
        app = create_app(ScriptedAgent(chat_once), channel=channel)
        async with lifespan_of(app):
            await post_init(app, init_body(server_url="http://trainer.invalid", api_key="cb"))
            await until_counts(app, active=0, completed=1)
        assert [url.removeprefix("http://trainer.invalid/v1/") for url, *_ in channel.sent] == [
            "chat/completions",
            "rollout/completed",
        ]
        assert {headers["Authorization"] for _, _, headers, _ in channel.sent} == {"Bearer cb"}
        assert channel.closings == 1

    async def test_one_that_cannot_be_entered_is_logged_and_the_rollout_is_not_active_for_ever(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(**fields: Any) -> Any:
            raise OSError("no file descriptors left")

        monkeypatch.setattr("osmosis_ai.rollout.server.app.OsmosisLLMClient", broken)
        app = create_app(ScriptedAgent(), max_concurrent=1)
        for number in range(2):
            assert (await post_init(app, init_body(f"{number}"))).status_code == 202
        await until_counts(app, active=0, completed=2)
        assert "no file descriptors left" in caplog.text


class TestContext:
    async def test_carries_the_request_the_client_and_where_traces_go(
        self, clients: StandInClients, tmp_path: Path
    ) -> None:
        agent = ScriptedAgent()
        body = init_body(metadata={"ground_truth": 4}, max_turns=3)
        await post_init(create_app(agent, debug_dir=str(tmp_path)), body)
        client, _ = await clients.result()
        (ctx,) = agent.runs
        assert id(ctx.llm) == id(client)
        assert ctx._debug_dir == str(tmp_path)
        assert (ctx.request.rollout_id, ctx.request.max_turns, ctx.request.metadata) == (
            "rollout-1",
            3,
            {"ground_truth": 4},
        )
        assert ctx._start_time > 0

    async def test_without_a_debug_dir_there_is_none(self, clients: StandInClients) -> None:
        agent = ScriptedAgent()
        await post_init(create_app(agent), init_body())
        await clients.result()
        assert agent.runs[0]._debug_dir is None
        assert not agent.runs[0].debug_enabled


class TestConcurrency:
    async def test_beyond_the_limit_rollouts_are_accepted_and_wait(self, clients: StandInClients) -> None:
        gate = Gate()
        app = create_app(ScriptedAgent(gate), max_concurrent=2)
        for number in range(5):
            assert (await post_init(app, init_body(f"{number}"))).status_code == 202
        await until(lambda: gate.running == 2)
        body = await health(app)
        assert {name: body[name] for name in list(body)[:4]} == {
            "status": "healthy",
            "agent_loop": "scripted",
            "active_rollouts": 5,
            "completed_rollouts": 0,
        }
        assert body["concurrency"] == {"max_concurrent": 2, "queued": 3, "running": 2}
        assert body["lifecycle"] == {"accepting_rollouts": True, "active_rollouts": 5}
        gate.open()
        for _ in range(5):
            await clients.result()
        await until_counts(app, active=0, completed=5)
        assert gate.most == 2

    async def test_the_setting_is_the_default_limit(self, clients: StandInClients) -> None:
        gate = Gate()
        settings = RolloutSettings(server=RolloutServerSettings(max_concurrent_rollouts=1))
        app = create_app(ScriptedAgent(gate), settings=settings)
        for number in range(2):
            await post_init(app, init_body(f"{number}"))
        gate.open()
        for _ in range(2):
            await clients.result()
        assert gate.most == 1

    async def test_time_in_the_queue_is_not_counted_as_latency(self, clients: StandInClients) -> None:
        gate = Gate()
        agent = ScriptedAgent(gate)
        app = create_app(agent, max_concurrent=1)
        for number in range(2):
            await post_init(app, init_body(f"{number}"))
        await until(lambda: gate.running == 1)
        gate.open()
        for _ in range(2):
            await clients.result()
        first, second = agent.runs
        assert second._start_time > first._start_time

    async def test_a_failed_rollout_gives_its_place_back(self, clients: StandInClients) -> None:
        async def fail(ctx: RolloutContext) -> Any:
            raise SystemExit(1)

        app = create_app(ScriptedAgent(fail), max_concurrent=1)
        for number in range(3):
            await post_init(app, init_body(f"{number}"))
        for _ in range(3):
            assert (await clients.result())[1]["status"] == "ERROR"
        await until_counts(app, active=0, completed=3)

    async def test_a_delivery_that_drags_on_holds_no_place(self, trainer: FakeTrainer) -> None:
        trainer.completed_answers = [503] * 3
        app = create_app(ScriptedAgent(), max_concurrent=1, settings=settings_of(client={"retry_base_delay": 0.01}))
        for rollout_id in ("first", "second"):
            await post_init(app, init_body(rollout_id, server_url=trainer.url))
        for rollout_id in ("first", "second"):
            await trainer.result(rollout_id)

    async def test_when_there_is_no_room_left_init_is_429_and_leaves_no_trace(self, clients: StandInClients) -> None:
        gate = Gate()
        agent = ScriptedAgent(gate)
        settings = RolloutSettings(server=RolloutServerSettings(max_queued_rollouts=1))
        app = create_app(agent, max_concurrent=2, settings=settings)
        replies = await asyncio.gather(*(post_init(app, init_body(f"{number}")) for number in range(6)))
        refused = [reply for reply in replies if reply.status_code == 429]
        assert sorted(reply.status_code for reply in replies) == [202] * 3 + [429] * 3
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
        assert all(reply.json()["code"] == "at_capacity" for reply in refused)
        assert len(agent.tool_requests) == 3
        gate.open()
        for _ in range(3):
            await clients.result()
        statuses = [(await post_init(app, init_body(f"{number}"))).status_code for number in range(6)]
        assert statuses == [202] * 6
        for _ in range(3):
            await clients.result()
        assert len(agent.runs) == 6


class TestStatusAndCancel:
    async def test_a_rollout_can_be_followed_from_the_queue_to_its_end(self, clients: StandInClients) -> None:
        gate = Gate()
        app = create_app(ScriptedAgent(gate), max_concurrent=1)
        async with client_of(app) as client:
            for rollout_id in ("first", "a/b second"):
                await client.post(INIT, json=init_body(rollout_id, api_key="cb-secret"))
            await until(lambda: gate.running == 1)
            running = (await client.get("/v1/rollout/first")).json()
            queued = (await client.get("/v1/rollout/a/b second")).json()
            assert (running["state"], queued["state"]) == ("running", "queued")
            assert running["started_at"] >= running["accepted_at"]
            assert queued["started_at"] is None
            gate.open()
            for _ in range(2):
                await clients.result()
            ended = await eventually(
                lambda: client.get("/v1/rollout/first"), lambda reply: reply.json()["state"] == "delivered"
            )
        assert ended.json()["result"]["status"] == "COMPLETED"
        assert "cb-secret" not in ended.text

    @pytest.mark.parametrize("rollout_id", ["running", "queued"])
    async def test_a_cancelled_rollout_ends_as_error_with_its_reason(
        self, clients: StandInClients, rollout_id: str
    ) -> None:
        gate = Gate()
        app = create_app(ScriptedAgent(gate), max_concurrent=1)
        async with client_of(app) as client:
            for each in ("running", "queued"):
                await client.post(INIT, json=init_body(each))
            await until(lambda: gate.running == 1)
            response = await client.post(f"/v1/rollout/{rollout_id}/cancel")
            assert response.status_code == 202
            cancelled, result = await clients.result()
            assert cancelled.fields["rollout_id"] == rollout_id
            assert (result["status"], result["finish_reason"]) == ("ERROR", "cancelled")
            assert result["reward"] is None
            gate.open()
            other, result = await clients.result()
            assert other.fields["rollout_id"] != rollout_id
            assert result["status"] == "COMPLETED"

    async def test_a_rollout_that_has_ended_cannot_be_cancelled(self, clients: StandInClients) -> None:
        app = create_app(ScriptedAgent())
        async with client_of(app) as client:
            await client.post(INIT, json=init_body())
            await clients.result()
            response = await client.post("/v1/rollout/rollout-1/cancel")
        assert response.status_code == 409
        assert response.json()["code"] == "not_running"


class TestShutdown:
    async def test_while_it_drains_inits_are_refused_and_what_runs_may_finish(self, clients: StandInClients) -> None:
        gate = Gate()
        app = create_app(ScriptedAgent(gate))
        async with client_of(app) as client, AsyncExitStack() as stack:
            await stack.enter_async_context(lifespan_of(app))
            await client.post(INIT, json=init_body())
            await until(lambda: gate.running == 1)
            assert (await client.get("/ready")).json() == {"ready": True}
            closing = asyncio.create_task(stack.pop_all().aclose())
            ready = await eventually(lambda: client.get("/ready"), lambda reply: reply.status_code != 200)
            refused = await client.post(INIT, json=init_body("late"))
            gate.open()
            await closing
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        assert refused.status_code == 503
        assert refused.json()["code"] == "shutting_down"
        assert int(refused.headers["retry-after"]) >= 1
        _, result = await clients.result()
        assert result["status"] == "COMPLETED"

    async def test_what_runs_and_what_waits_ends_as_error_when_the_time_is_up(self, clients: StandInClients) -> None:
        gate = Gate()
        settings = RolloutSettings(server=RolloutServerSettings(drain_seconds=0.0))
        app = create_app(ScriptedAgent(gate), max_concurrent=1, settings=settings)
        async with lifespan_of(app):
            for rollout_id in ("running", "queued"):
                await post_init(app, init_body(rollout_id))
            await until(lambda: gate.running == 1)
        results = {client.fields["rollout_id"]: client.completions for client in clients.made}
        for rollout_id in ("running", "queued"):
            (result,) = results[rollout_id]
            assert result["status"] == "ERROR"
            assert result["error_message"] == "server shutting down"
            assert result["reward"] is None

    async def test_an_agent_that_swallows_its_cancellation_cannot_hold_it_up(
        self, clients: StandInClients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.server.execution.CANCEL_GRACE_SECONDS", 0.01)
        started, released = asyncio.Event(), asyncio.Event()

        async def swallow(ctx: RolloutContext) -> Any:
            started.set()
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue

        settings = RolloutSettings(server=RolloutServerSettings(drain_seconds=0.0))
        app = create_app(ScriptedAgent(swallow), settings=settings)
        async with lifespan_of(app):
            await post_init(app, init_body())
            await started.wait()
        released.set()
        assert [completion["status"] for completion in clients.made[0].completions] == ["ERROR"]

    async def test_a_trainer_that_is_gone_cannot_hold_it_up(self) -> None:
        agent = ScriptedAgent(chat_once)
        app = create_app(agent)
        async with asyncio.timeout(60), lifespan_of(app):
            await post_init(app, init_body())
            await until(lambda: agent.runs)
            await until(lambda: agent.runs[0].llm.finds_nobody)  # type: ignore[attr-defined]  # the SDK's own client

    async def test_a_pause_of_the_trainer_is_not_cut_short(self, peer: HttpPeer) -> None:
        peer.answers = [refuse(503, headers={"Retry-After": "1"})]
        app = create_app(ScriptedAgent(chat_once))
        async with lifespan_of(app):
            await post_init(app, init_body(server_url=peer.url))
            await peer.wait_for_requests(1)
        assert peer.bodies[-1]["status"] == "COMPLETED"
