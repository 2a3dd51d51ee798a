"""Whatever an agent does, its rollout ends in exactly one result, and nobody else notices."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fake_trainer import FakeTrainer
from support.rollouts import (
    INIT,
    JsonObject,
    ScriptedAgent,
    StandInClients,
    chat_once,
    client_of,
    init_body,
    raising,
    settings_of,
)

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext
from osmosis_ai.rollout.core.settings import RolloutSettings
from osmosis_ai.rollout.server.app import create_app


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be printed")


class Closable:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def close(self) -> None:
        self._log.append("closed")


async def ends_with(trainer: FakeTrainer, agent: RolloutAgentLoop, **app: Any) -> JsonObject:
    """The one result of a rollout of ``agent``, seen from the trainer; another rollout succeeds after it."""
    served = create_app(agent, **app)
    async with client_of(served) as client:
        assert (await client.post(INIT, json=init_body(server_url=trainer.url))).status_code == 202
        result = await trainer.result("rollout-1")
        assert (await client.get("/health")).status_code == 200
        assert trainer.posts("rollout-1") == [result]
    return result


class TestFailure:
    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (ValueError("boom"), "ValueError: boom"),
            (KeyError("x"), "KeyError: 'x'"),
            (TimeoutError(), "TimeoutError"),
            (ExceptionGroup("both", [ValueError("a"), TypeError("b")]), "ExceptionGroup: both (2 sub-exceptions)"),
            (SystemExit(3), "SystemExit: 3"),
            (KeyboardInterrupt(), "KeyboardInterrupt"),
            (asyncio.CancelledError(), "CancelledError"),
            (StopAsyncIteration(), "StopAsyncIteration"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    async def test_an_exception_becomes_an_error_with_its_type_and_text(
        self, trainer: FakeTrainer, error: BaseException, message: str
    ) -> None:
        result = await ends_with(trainer, ScriptedAgent(raising(error)))
        assert (result["status"], result["finish_reason"], result["error_message"]) == ("ERROR", "error", message)
        assert result["extra_fields"]["outcome"] == "agent_error"
        assert "reward" not in result

    async def test_text_that_cannot_be_encoded_is_escaped(
        self, trainer: FakeTrainer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL)  # such text in a log breaks pytest-xdist
        result = await ends_with(trainer, ScriptedAgent(raising(ValueError("lone \ud800 surrogate"))))
        assert result["error_message"] == "ValueError: lone \\ud800 surrogate"

    async def test_an_exception_that_cannot_be_printed_is_named(self, trainer: FakeTrainer) -> None:
        result = await ends_with(trainer, ScriptedAgent(raising(UnprintableError())))
        assert result["error_message"].startswith("UnprintableError")

    async def test_a_long_text_is_cut(self, trainer: FakeTrainer) -> None:
        result = await ends_with(trainer, ScriptedAgent(raising(ValueError("x" * 1_000_000))))
        assert len(result["error_message"]) < 3000

    async def test_an_agent_that_cancels_itself_ends_in_an_error(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        result = await ends_with(trainer, ScriptedAgent(run))
        assert result["error_message"] == "CancelledError"

    @pytest.mark.parametrize("error", [GeneratorExit, SystemExit, KeyboardInterrupt, StopIteration])
    async def test_what_means_something_to_the_interpreter_means_nothing_more(
        self, trainer: FakeTrainer, error: type[BaseException]
    ) -> None:
        closed: list[str] = []

        async def run(ctx: RolloutContext) -> Any:
            await ctx.enter(contextlib.closing(Closable(closed)))
            raise error

        result = await ends_with(trainer, ScriptedAgent(run))
        assert error.__name__ in result["error_message"]
        assert result["extra_fields"]["outcome"] == "agent_error"
        assert closed == ["closed"]

    async def test_what_was_said_and_counted_until_then_is_kept(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            messages = list(ctx.request.messages)
            messages.append((await ctx.chat(messages)).message)
            ctx.record_tool_call(latency_ms=7.0)
            messages.append({"role": "tool", "content": "4", "tool_call_id": "c1"})
            raise RuntimeError("after the tool")

        result = await ends_with(trainer, ScriptedAgent(run))
        assert [message["role"] for message in result["final_messages"]] == ["user", "assistant", "tool"]
        metrics = result["metrics"]
        assert (metrics["num_llm_calls"], metrics["prompt_tokens"], metrics["response_tokens"]) == (1, 10, 5)
        assert (metrics["num_tool_calls"], metrics["tool_latency_ms"]) == (1, 7.0)
        assert metrics["total_latency_ms"] > 0

    async def test_the_last_reply_is_kept_though_the_agent_never_saw_it_again(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            await ctx.chat(list(ctx.request.messages))
            raise RuntimeError("at once")

        result = await ends_with(trainer, ScriptedAgent(run))
        assert result["final_messages"] == [*init_body()["messages"], trainer.reply]

    async def test_a_run_that_is_not_a_coroutine_is_an_error(self, trainer: FakeTrainer) -> None:
        class Synchronous(RolloutAgentLoop):
            name = "synchronous"

            def get_tools(self, request: Any) -> list[Any]:
                return []

            def run(self, ctx: RolloutContext) -> Any:
                return ctx.complete([])

        result = await ends_with(trainer, Synchronous())
        assert result["status"] == "ERROR"
        assert "await" in result["error_message"]

    async def test_it_is_logged_with_a_traceback_and_in_the_trace(
        self, trainer: FakeTrainer, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        await ends_with(trainer, ScriptedAgent(raising(ValueError("boom"))), debug_dir=str(tmp_path))
        assert "'rollout-1'" in caplog.text
        assert "Traceback" in caplog.text
        last_event = json.loads((tmp_path / "rollout-1.jsonl").read_text().splitlines()[-1])
        assert "ValueError: boom" in json.dumps(last_event)

    async def test_the_other_rollouts_go_on(self, clients: StandInClients) -> None:
        failed = asyncio.Event()

        async def run(ctx: RolloutContext) -> Any:
            if ctx.request.rollout_id == "bad":
                failed.set()
                raise SystemExit(1)
            await failed.wait()
            return ctx.complete([])

        async with client_of(create_app(ScriptedAgent(run))) as client:
            for rollout_id in ("good", "bad"):
                await client.post(INIT, json=init_body(rollout_id))
            ended = {}
            for _ in range(2):
                stand_in, result = await clients.result()
                ended[stand_in.fields["rollout_id"]] = result["status"]
        assert ended == {"good": "COMPLETED", "bad": "ERROR"}


class TestMutation:
    async def test_an_agent_that_rewrites_its_request_misdirects_nothing(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            ctx.request.rollout_id = "other"
            ctx.request.server_url = "http://127.0.0.1:9"
            ctx.request.messages.append({"role": "user", "content": "more"})
            ctx.request.metadata["x"] = object()
            return ctx.complete(ctx.request.messages, reward=1.0)

        result = await ends_with(trainer, ScriptedAgent(run))
        assert (result["rollout_id"], result["status"]) == ("rollout-1", "COMPLETED")

    async def test_a_repeated_init_is_still_recognised(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            ctx.request.messages.clear()
            return ctx.complete([])

        agent = ScriptedAgent(run)
        async with client_of(create_app(agent)) as client:
            for _ in range(2):
                assert (await client.post(INIT, json=init_body(server_url=trainer.url))).status_code == 202
                await trainer.result("rollout-1")
        assert len(agent.runs) == 1

    async def test_what_it_changes_after_the_end_changes_nothing(self, trainer: FakeTrainer) -> None:
        kept: list[Any] = []

        async def run(ctx: RolloutContext) -> Any:
            result = ctx.complete(ctx.request.messages, reward=1.0)
            kept.append(result)
            return result

        agent = ScriptedAgent(run)
        trainer.completed_answers = [503]
        async with client_of(create_app(agent, settings=settings_of(client={"retry_base_delay": 0.01}))) as client:
            await client.post(INIT, json=init_body(server_url=trainer.url))
            await trainer.first_post("rollout-1")
            kept[0].final_messages.append("nonsense")
            kept[0].reward = 0.0
            await trainer.result("rollout-1")
        first, second = trainer.posts("rollout-1")
        assert first == second


class TestTimeLimit:
    @pytest.fixture
    def short(self) -> RolloutSettings:
        return settings_of(server={"request_timeout_seconds": 0.05})

    async def test_a_rollout_that_takes_too_long_ends_with_what_it_has(self, trainer: FakeTrainer) -> None:
        async def run(ctx: RolloutContext) -> Any:
            messages = list(ctx.request.messages)
            messages.append({"role": "system", "content": "thinking"})
            with suppress(Exception):
                await ctx.chat(messages)
            await asyncio.Event().wait()

        limit = settings_of(server={"request_timeout_seconds": 0.3})
        result = await ends_with(trainer, ScriptedAgent(run), settings=limit)
        assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "timeout")
        assert "exceeded its time limit of 0.3 s" in result["error_message"]
        assert result["final_messages"][-1] == trainer.reply
        assert "reward" not in result

    async def test_a_trainer_that_never_answers_cannot_hold_the_rollout(
        self, trainer: FakeTrainer, short: RolloutSettings
    ) -> None:
        trainer.hold_chats()
        result = await ends_with(trainer, ScriptedAgent(chat_once), settings=short)
        assert result["extra_fields"]["outcome"] == "timeout"
        assert result["final_messages"] == init_body()["messages"]

    async def test_an_agent_that_swallows_its_cancellation_is_abandoned(
        self, trainer: FakeTrainer, short: RolloutSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.server.execution.CANCEL_GRACE_SECONDS", 0.01)
        released = asyncio.Event()

        async def run(ctx: RolloutContext) -> Any:
            while not released.is_set():
                with suppress(asyncio.CancelledError):
                    await released.wait()

        result = await ends_with(trainer, ScriptedAgent(run), settings=short)
        released.set()
        assert result["extra_fields"]["outcome"] == "timeout"

    async def test_cleaning_up_when_cancelled_is_given_its_chance(
        self, trainer: FakeTrainer, short: RolloutSettings
    ) -> None:
        cleaned: list[bool] = []

        async def run(ctx: RolloutContext) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append(True)

        await ends_with(trainer, ScriptedAgent(run), settings=short)
        assert cleaned == [True]


class TestForgottenByItsTrainer:
    @pytest.mark.parametrize("status", [404, 410])
    async def test_an_agent_that_calls_on_and_on_is_stopped(self, trainer: FakeTrainer, status: int) -> None:
        async def run(ctx: RolloutContext) -> Any:
            while True:
                with suppress(Exception):
                    await ctx.chat(list(ctx.request.messages))
                await asyncio.sleep(0)

        trainer.chat_answers = [status] * 10_000
        result = await ends_with(trainer, ScriptedAgent(run))
        assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "llm_error")
        assert str(status) in result["error_message"]


@pytest.mark.slow
async def test_a_stream_of_failing_rollouts_leaves_the_server_as_it_was(clients: StandInClients) -> None:
    async def bodies() -> AsyncIterator[httpx.Response]:
        async with client_of(create_app(ScriptedAgent(raising(SystemExit(1))), max_concurrent=2)) as client:
            for number in range(50):
                yield await client.post(INIT, json=init_body(f"{number}"))
            for _ in range(50):
                await clients.result()
            yield await client.get("/health")

    assert {response.status_code async for response in bodies()} == {202, 200}
