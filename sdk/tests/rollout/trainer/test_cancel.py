import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.plain_http import PLAIN
from support.processes import ServingProgram
from support.scripted_server import QUESTION, Rollout, ScriptedServer

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.trainer import (
    ChatCall,
    Ending,
    RedispatchPolicy,
    RetryPolicy,
    RolloutOutcome,
    Trainer,
    TrainerLimits,
)

ROOT = Path(__file__).parents[4]
RETRY = RetryPolicy(base_delay_seconds=0.001, max_delay_seconds=0.01, unreachable_seconds=30)


class Hanging:
    """A policy that never answers, and says what became of its calls."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.cancelled: list[str] = []
        self.reached = asyncio.Condition()

    async def __call__(self, call: ChatCall) -> CompletionsResult:
        async with self.reached:
            self.called.append(call.rollout_id)
            self.reached.notify_all()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(call.rollout_id)
            raise
        raise AssertionError

    async def calls(self, count: int) -> None:
        """Wait until it is asked ``count`` times."""
        async with asyncio.timeout(30), self.reached:
            await self.reached.wait_for(lambda: len(self.called) >= count)


def request(name: str) -> RolloutRequest:
    return RolloutRequest(rollout_id=name, server_url="http://placeholder", messages=QUESTION, completion_params={})


async def ask(rollout: Rollout) -> None:
    reply = await rollout.chat(QUESTION, f"key of {rollout.id}")
    STATUSES.append(reply.status_code)


STATUSES: list[int] = []


@asynccontextmanager
async def playing(**limits: Any) -> AsyncIterator[tuple[Trainer, ScriptedServer, Hanging]]:
    STATUSES.clear()
    policy = Hanging()
    async with ScriptedServer(ask) as server:
        limited = TrainerLimits(**{"concurrency": 64, **limits})
        async with Trainer(policy, server_url=server.url, limits=limited, retry=RETRY) as trainer:
            yield trainer, server, policy


def started(trainer: Trainer, *names: str) -> list["asyncio.Task[RolloutOutcome]"]:
    return [asyncio.create_task(trainer.run_one(request(name))) for name in names]


class TestCancel:
    @pytest.mark.parametrize(
        ("meant", "expected"),
        [
            ({"rollout_ids": ["a-1", "b-1", "unknown"]}, {"a-1", "b-1"}),
            ({"rollout_ids": "a-1"}, {"a-1"}),
            ({"prefix": "a-"}, {"a-1", "a-2"}),
            ({"everything": True}, {"a-1", "a-2", "b-1"}),
            ({}, set()),
        ],
    )
    async def test_those_meant_end_at_once_are_not_generated_for_and_the_server_is_told(
        self, meant: dict[str, Any], expected: set[str]
    ) -> None:
        async with playing() as (trainer, server, policy):
            tasks = dict(zip(("a-1", "a-2", "b-1"), started(trainer, "a-1", "a-2", "b-1"), strict=True))
            await policy.calls(3)
            assert await trainer.cancel(**meant) == len(expected)
            assert set(server.cancelled) == expected
            for name in expected:
                outcome = await tasks[name]
                assert (outcome.outcome, outcome.reward) == (Ending.CANCELLED, None)
                assert outcome.problem == "The trainer cancelled it."
            assert set(policy.cancelled) == expected
            assert {name for name, task in tasks.items() if task.done()} == expected

    async def test_the_call_that_was_under_way_is_answered_with_gone(self) -> None:
        async with playing() as (trainer, server, policy):
            tasks = started(trainer, "a")
            await policy.calls(1)
            await trainer.cancel(["a"])
            await asyncio.gather(*tasks)
            await server.agents()
        assert STATUSES == [410]

    async def test_one_whose_init_is_not_answered_yet_ends_too(self) -> None:
        async with playing() as (trainer, server, _policy):
            server.hold_inits()
            (task,) = started(trainer, "a")
            await asyncio.wait_for(server.init_came.wait(), 30)
            assert await trainer.cancel(everything=True) == 1
            assert (await task).outcome is Ending.CANCELLED

    async def test_one_that_waits_for_room_ends_too_and_is_never_sent(self) -> None:
        async with playing(concurrency=1) as (trainer, server, policy):
            tasks = started(trainer, "a", "b", "c")
            await policy.calls(1)
            assert await trainer.cancel(["b"]) == 1
            assert (await tasks[1]).outcome is Ending.CANCELLED
            assert await trainer.cancel(everything=True) == 2
            assert {outcome.outcome for outcome in await asyncio.gather(*tasks)} == {Ending.CANCELLED}
            assert ([init["rollout_id"] for init in server.inits], server.cancelled) == (["a"], ["a"])

    async def test_it_is_not_dispatched_again(self) -> None:
        async with playing() as (trainer, server, policy):
            task = asyncio.create_task(trainer.run_again(request("a"), RedispatchPolicy()))
            await policy.calls(1)
            await trainer.cancel(everything=True)
            assert [outcome.outcome for outcome in await task] == [Ending.CANCELLED]
            assert len(server.inits) == 1

    async def test_cancelling_the_task_that_waits_does_the_same(self) -> None:
        async with playing() as (trainer, server, policy):
            (task,) = started(trainer, "a")
            await policy.calls(1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0)
            await trainer.cancel()  # returns when the server has been told
            assert (server.cancelled, policy.cancelled) == (["a"], ["a"])

    async def test_a_rollout_that_takes_too_long_is_cancelled_there_as_well(self) -> None:
        async with playing(rollout_timeout_seconds=0.2) as (trainer, server, _policy):
            (task,) = started(trainer, "a")
            assert (await task).outcome is Ending.TIMED_OUT
            await trainer.cancel()
            assert server.cancelled == ["a"]

    async def test_a_server_that_takes_one_id_at_a_time_is_told_so(self) -> None:
        async with playing() as (trainer, server, policy):
            server.cancels_many = False
            tasks = started(trainer, "a", "b/c")
            await policy.calls(2)
            await trainer.cancel(everything=True)
            await asyncio.gather(*tasks)
            assert sorted(server.cancelled) == ["a", "b/c"]

    @pytest.mark.slow
    async def test_a_server_that_is_gone_holds_up_nothing(self) -> None:
        async with playing() as (trainer, server, policy):
            tasks = started(trainer, "a")
            await policy.calls(1)
            await server.stop_listening()
            await trainer.cancel(everything=True)
            assert [task.outcome for task in await asyncio.gather(*tasks)] == [Ending.CANCELLED]


class TestLeaving:
    async def test_what_is_in_flight_is_cancelled_without_a_word_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        async with playing() as (trainer, server, policy):
            tasks = started(trainer, *(f"r{number}" for number in range(20)))
            await policy.calls(20)
            await trainer.__aexit__(None, None, None)  # and again, by the block's end
            outcomes = await asyncio.gather(*tasks)
            assert {outcome.outcome for outcome in outcomes} == {Ending.CANCELLED}
            assert len(server.cancelled) == 20
        assert caplog.records == []

    async def test_what_waits_for_room_or_would_come_next_is_never_sent(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        outcomes: list[RolloutOutcome] = []
        async with playing(concurrency=2) as (trainer, server, policy):
            run = asyncio.create_task(trainer.run((request(f"r{number}") for number in range(9)), outcomes.append))
            again = asyncio.create_task(trainer.run_again(request("again"), RedispatchPolicy()))
            await policy.calls(2)
            await trainer.__aexit__(None, None, None)
            assert await run == "The trainer was left: what it runs ends with its 'async with'."
            outcomes += await again
            assert [outcome.outcome for outcome in outcomes] == [Ending.CANCELLED] * 3
            assert len(server.inits) == 2
        assert caplog.records == []

    async def test_the_results_of_what_it_cancelled_are_taken_first(self) -> None:
        async with playing() as (trainer, server, policy):
            server.report_delay_seconds = 0.2
            tasks = started(trainer, *(f"r{number}" for number in range(20)))
            await policy.calls(20)
            await trainer.__aexit__(None, None, None)
            await asyncio.gather(*tasks)
            await server.agents()  # none of which found a closed port
            assert trainer.late_results == 20

    @pytest.mark.slow
    @pytest.mark.parametrize("fate", ["is gone", "has accepted nothing", "has reported it already"])
    async def test_a_server_that_owes_nothing_is_not_waited_for(
        self, fate: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.trainer.withdrawals.LAST_REPORTS_SECONDS", 3600)
        async with playing() as (trainer, server, policy):
            if fate == "has accepted nothing":
                server.hold_inits()
            tasks = started(trainer, "a")
            await (server.init_came.wait() if fate == "has accepted nothing" else policy.calls(1))
            if fate == "is gone":
                await server.stop_listening()
            if fate == "has reported it already":
                await trainer.cancel(everything=True)
                await server.agents()
            await asyncio.wait_for(trainer.__aexit__(None, None, None), 30)
            assert [task.outcome for task in await asyncio.gather(*tasks)] == [Ending.CANCELLED]

    async def test_a_server_that_never_reports_is_waited_for_a_moment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.trainer.withdrawals.LAST_REPORTS_SECONDS", 0.05)
        async with playing() as (trainer, server, policy):
            server.reports_cancelled = False
            tasks = started(trainer, "a")
            await policy.calls(1)
            await asyncio.wait_for(trainer.__aexit__(None, None, None), 30)
            assert (server.cancelled, trainer.late_results) == (["a"], 0)
            await asyncio.gather(*tasks)

    @pytest.mark.slow
    async def test_a_real_server_has_nothing_left_to_deliver(self, tmp_path: Path) -> None:
        policy, key = Hanging(), "key-of-the-test"
        variables = {"PYTHONPATH": str(ROOT), "OSMOSIS_ROLLOUT_SERVER_API_KEY": key}
        with ServingProgram(tmp_path, "-m", "server:agent_loop", "-p", "0", **variables) as server:
            url = f"http://127.0.0.1:{server.wait_until_serving().port}"
            async with Trainer(policy, server_url=url, server_api_key=key) as trainer:
                names = [f"r{number}" for number in range(8)]
                tasks = started(trainer, *names)
                await policy.calls(8)
            assert trainer.late_results == 8
            await asyncio.gather(*tasks)
            authorization = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=url, headers=authorization, **PLAIN) as client, asyncio.timeout(30):
                for name in names:
                    while (status := (await client.get(f"/v1/rollout/{name}")).json())["state"] == "finished":
                        assert status.get("last_error") is None
                        await asyncio.sleep(0.05)  # acknowledged, and about to be noted
                    assert (status["state"], status["delivery_attempts"]) == ("delivered", 1)
