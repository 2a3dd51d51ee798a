"""Delivering a result: the same one, again and again, until the trainer has it."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from support.fake_trainer import FakeTrainer
from support.faulty_trainer import Fault, FaultyTrainer
from support.promise_agent import agent_loop
from support.rollouts import (
    INIT,
    NO_TRAINER,
    JsonObject,
    ScriptedAgent,
    StandInClients,
    chat_once,
    client_of,
    eventually,
    init_body,
    lifespan_of,
    raising,
    settings_of,
)
from support.server_process import init_of

from osmosis_ai.rollout.core.exceptions import OsmosisTimeoutError, OsmosisValidationError
from osmosis_ai.rollout.server import attempts
from osmosis_ai.rollout.server.app import create_app

QUICK = settings_of(client={"retry_base_delay": 0.01, "retry_max_delay": 0.02})


async def init(app: FastAPI, rollout_id: str, server_url: str) -> None:
    async with client_of(app) as client:
        response = await client.post(INIT, json=init_body(rollout_id, server_url=server_url))
        assert response.status_code == 202


async def state_of(app: FastAPI, rollout_id: str) -> JsonObject:
    async with client_of(app) as client:
        state: JsonObject = (await client.get(f"/v1/rollout/{rollout_id}")).json()
        return state


async def until_state(app: FastAPI, rollout_id: str, state: str) -> JsonObject:
    """What the server knows of a rollout, once it is in that state."""
    return await eventually(lambda: state_of(app, rollout_id), lambda view: view["state"] == state)


class TestRetry:
    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 0])
    async def test_a_failure_that_may_pass_is_tried_again_with_the_same_payload(
        self, trainer: FakeTrainer, status: int
    ) -> None:
        trainer.completed_answers = [status] * 6
        app = create_app(ScriptedAgent(chat_once), settings=QUICK)
        await init(app, "rollout-1", trainer.url)
        result = await trainer.result("rollout-1")
        assert (result["status"], result["reward"]) == ("COMPLETED", 1.0)
        assert trainer.posts("rollout-1") == [result] * 7
        view = await until_state(app, "rollout-1", "delivered")
        # A connection from the pool that proves dead is replaced within the attempt.
        assert view["delivery_attempts"] == (7 if status else 6)

    @pytest.mark.parametrize("status", [201, 202, 204, 299])
    async def test_any_success_is_an_acknowledgement(self, trainer: FakeTrainer, status: int) -> None:
        trainer.completed_answers = [status]
        app = create_app(ScriptedAgent(), settings=QUICK)
        await init(app, "rollout-1", trainer.url)
        await until_state(app, "rollout-1", "delivered")
        assert len(trainer.posts("rollout-1")) == 1

    @pytest.mark.parametrize("status", [401, 403, 404, 409, 410])
    async def test_a_refusal_is_final_and_kept_as_undeliverable(
        self, trainer: FakeTrainer, caplog: pytest.LogCaptureFixture, status: int
    ) -> None:
        trainer.completed_answers = [status]
        app = create_app(ScriptedAgent(), settings=QUICK)
        await init(app, "rollout-1", trainer.url)
        view = await until_state(app, "rollout-1", "undeliverable")
        assert f"HTTP {status}" in view["last_error"]
        assert view["result"]["status"] == "COMPLETED"
        assert len(trainer.posts("rollout-1")) == 1
        assert any(record.levelno == logging.ERROR for record in caplog.records)

    async def test_an_error_is_delivered_as_stubbornly(self, trainer: FakeTrainer) -> None:
        trainer.completed_answers = [503, 0, 503]
        app = create_app(ScriptedAgent(raising(ValueError("boom"))), settings=QUICK)
        await init(app, "rollout-1", trainer.url)
        result = await trainer.result("rollout-1")
        assert result["error_message"] == "ValueError: boom"
        assert trainer.posts("rollout-1") == [result] * 4

    async def test_a_trainer_may_ask_to_be_called_again_sooner(self, trainer: FakeTrainer) -> None:
        trainer.completed_answers = [503]
        trainer.retry_after = "0"
        settings = settings_of(client={"retry_base_delay": 1000.0, "retry_max_delay": 1000.0})
        app = create_app(ScriptedAgent(), settings=settings)
        await init(app, "rollout-1", trainer.url)
        await trainer.result("rollout-1")

    @pytest.mark.parametrize("retry_after", ["86400", "Fri, 31 Dec 2100 23:59:59 GMT", "soon", "-1"])
    async def test_or_later_but_not_later_than_the_longest_delay(self, trainer: FakeTrainer, retry_after: str) -> None:
        trainer.completed_answers = [503]
        trainer.retry_after = retry_after
        app = create_app(ScriptedAgent(), settings=QUICK)
        await init(app, "rollout-1", trainer.url)
        await trainer.result("rollout-1")

    async def test_after_the_deadline_it_is_given_up(self) -> None:
        settings = settings_of(
            client={"retry_base_delay": 0.01, "retry_max_delay": 0.01}, server={"delivery_deadline_seconds": 0.02}
        )
        app = create_app(ScriptedAgent(), settings=settings)
        await init(app, "rollout-1", NO_TRAINER)
        view = await until_state(app, "rollout-1", "undeliverable")
        assert view["delivery_attempts"] >= 1
        assert view["result"]["status"] == "COMPLETED"


class TestAnyFailure:
    """The same where a post fails in ways that a socket does not."""

    async def test_a_completed_result_is_tried_again_and_never_followed_by_an_error(
        self, clients: StandInClients, caplog: pytest.LogCaptureFixture
    ) -> None:
        clients.failures = [OsmosisTimeoutError("no answer"), ConnectionError("reset"), RuntimeError("anything")]
        app = create_app(ScriptedAgent(), settings=QUICK)
        await init(app, "rollout-1", NO_TRAINER)
        _, result = await clients.result()
        assert result["status"] == "COMPLETED"
        assert [completion for client in clients.made for completion in client.completions] == [result] * 4
        assert all(client.entered == client.left for client in clients.made)
        assert "no answer" in caplog.text

    async def test_a_refusal_is_final_for_it_too(self, clients: StandInClients) -> None:
        clients.failures = [OsmosisValidationError("who?", 404)]
        app = create_app(ScriptedAgent(), settings=QUICK)
        await init(app, "rollout-1", NO_TRAINER)
        await until_state(app, "rollout-1", "undeliverable")
        assert [completion["status"] for completion in clients.made[0].completions] == ["COMPLETED"]

    async def test_the_rollout_counts_as_completed_though_nobody_took_its_result(self, clients: StandInClients) -> None:
        clients.failures = [ConnectionError("down")] * 10_000
        app = create_app(ScriptedAgent())
        await init(app, "rollout-1", NO_TRAINER)
        async with client_of(app) as client:
            health = await eventually(lambda: client.get("/health"), lambda reply: reply.json()["active_rollouts"] == 0)
        assert health.json()["completed_rollouts"] == 1


class TestManyTrainers:
    async def test_a_dead_one_delays_nobody_elses_results(self, trainer: FakeTrainer) -> None:
        with FakeTrainer() as dead:
            dead.completed_answers = [503] * 100_000
            app = create_app(ScriptedAgent(), max_concurrent=4, settings=QUICK)
            for number in range(40):
                await init(app, f"dead-{number}", dead.url)
            await init(app, "alive", trainer.url)
            await trainer.result("alive")
            assert len(dead.posts("dead-0")) >= 1

    async def test_one_that_comes_back_gets_what_waits_for_it_at_once(self, trainer: FakeTrainer) -> None:
        settings = settings_of(client={"retry_base_delay": 1000.0, "retry_max_delay": 1000.0})
        app = create_app(ScriptedAgent(), settings=settings)
        trainer.completed_answers = [503] * 3
        for number in range(3):
            await init(app, f"waiting-{number}", trainer.url)
            await trainer.first_post(f"waiting-{number}")
        await init(app, "fresh", trainer.url)
        for rollout_id in ("fresh", "waiting-0", "waiting-1", "waiting-2"):
            await trainer.result(rollout_id)


class TestShutdown:
    async def test_each_waiting_result_gets_one_last_attempt(self, trainer: FakeTrainer) -> None:
        settings = settings_of(client={"retry_base_delay": 1000.0, "retry_max_delay": 1000.0})
        app = create_app(ScriptedAgent(), settings=settings)
        trainer.completed_answers = [503]
        async with lifespan_of(app):
            await init(app, "rollout-1", trainer.url)
            await trainer.first_post("rollout-1")
        await trainer.result("rollout-1")
        assert len(trainer.posts("rollout-1")) == 2

    async def test_a_trainer_that_does_not_answer_is_not_waited_for(self, clients: StandInClients) -> None:
        clients.failures = [ConnectionError("down")] * 10_000
        settings = settings_of(client={"retry_base_delay": 1000.0, "retry_max_delay": 1000.0})
        app = create_app(ScriptedAgent(), settings=settings)
        async with asyncio.timeout(60), lifespan_of(app):
            await init(app, "rollout-1", NO_TRAINER)
        assert {completion["status"] for completion in clients.made[0].completions} == {"COMPLETED"}


class TestRoom:
    @pytest.fixture
    def hanging(self) -> Iterator[FaultyTrainer]:
        with FaultyTrainer() as trainer:
            trainer.result_faults["stuck"] = [Fault.HANG]
            yield trainer

    @pytest.fixture
    def other(self) -> Iterator[FaultyTrainer]:
        with FaultyTrainer() as trainer:
            yield trainer

    async def test_a_large_result_and_what_comes_after_it_do_not_wait_for_a_trainer_that_hangs(
        self, tmp_path: Path, hanging: FaultyTrainer, other: FaultyTrainer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attempts, "BYTES_AT_ONCE", 100_000)
        monkeypatch.setattr(attempts, "BYTES_AT_ONCE_PER_TRAINER", 25_000)
        settings = settings_of(server={"journal": str(tmp_path / "journal.db"), "drain_seconds": 0, "flush_seconds": 0})
        app = create_app(agent_loop, settings=settings)
        async with lifespan_of(app), client_of(app) as client:
            for name, trainer, do in (
                ("stuck", hanging, "complete"),
                ("large", other, "give_too_much"),
                ("small", other, "complete"),
            ):
                assert (await client.post(INIT, json=init_of(name, trainer.url, do))).status_code == 202
                await asyncio.to_thread(trainer.wait_for_chat, name)
                if trainer is hanging:
                    await asyncio.to_thread(trainer.wait_for_post, name)
            for name in ("large", "small"):
                assert (await asyncio.to_thread(other.result, name))["status"] == "COMPLETED"
            assert (await state_of(app, "stuck"))["state"] == "finished"
