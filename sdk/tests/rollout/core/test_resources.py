"""``ctx.enter``: what a rollout opens is closed, however the rollout ends."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.rollouts import INIT, ScriptedAgent, client_of, init_body, lifespan_of, settings_of

from osmosis_ai.rollout.core import offload
from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.offload import DaemonThreads
from osmosis_ai.rollout.core.resources import Resources
from osmosis_ai.rollout.server.app import create_app


class Log:
    """What was opened and closed, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def resource(self, name: str) -> AsyncIterator[str]:
        self.events.append(f"open {name}")
        self.opened.set()
        try:
            yield name
        except BaseException as error:
            self.events.append(f"{name} sees {type(error).__name__}")
            raise
        finally:
            await asyncio.sleep(0)
            self.events.append(f"close {name}")
            self.closed.set()

    def plain(self, may_open: threading.Event | None = None) -> "contextlib.AbstractContextManager[None]":
        loop = asyncio.get_running_loop()

        @contextlib.contextmanager
        def resource() -> Iterator[None]:
            loop.call_soon_threadsafe(self.opened.set)
            if may_open is not None:
                may_open.wait(60)
            yield
            loop.call_soon_threadsafe(self.closed.set)

        return resource()


async def test_success_closes_the_last_entered_first_before_the_result(trainer: FakeTrainer) -> None:
    log = Log()

    async def run(ctx: RolloutContext) -> Any:
        assert await ctx.enter(log.resource("a")) == "a"
        await ctx.enter(log.resource("b"))
        return ctx.complete([], reward=1.0)

    result = await _result(trainer, run)
    assert result["status"] == "COMPLETED"
    assert log.events == ["open a", "open b", "close b", "close a"]


async def test_a_failure_is_seen_by_the_resource_and_told_as_it_is(trainer: FakeTrainer) -> None:
    log = Log()

    async def run(ctx: RolloutContext) -> Any:
        await ctx.enter(log.resource("a"))
        raise KeyError("employees")

    result = await _result(trainer, run)
    assert result["error_message"] == "KeyError: 'employees'"
    assert log.events == ["open a", "a sees KeyError", "close a"]


async def test_a_time_limit_closes(trainer: FakeTrainer) -> None:
    log = Log()

    async def run(ctx: RolloutContext) -> Any:
        await ctx.enter(log.resource("a"))
        await asyncio.sleep(60)

    result = await _result(trainer, run, request_timeout_seconds=0.3)
    assert result["extra_fields"]["outcome"] == "timeout"
    assert "test_resources.py" in result["extra_fields"]["where"][0], "where it waited"
    assert log.events[-1] == "close a"


@pytest.mark.slow
async def test_an_agent_that_swallows_its_cancellation_does_not_keep_it_open(trainer: FakeTrainer) -> None:
    log = Log()

    async def run(ctx: RolloutContext) -> Any:
        await ctx.enter(log.resource("a"))
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    result = await _result(trainer, run, request_timeout_seconds=0.2)
    assert result["extra_fields"]["outcome"] == "timeout"
    assert log.events[-1] == "close a"


async def test_a_cancel_closes(trainer: FakeTrainer) -> None:
    log = Log()
    async with client_of(create_app(ScriptedAgent(_waiting(log)))) as client:
        await client.post(INIT, json=init_body(server_url=trainer.url))
        await log.opened.wait()
        assert (await client.post("/v1/rollout/rollout-1/cancel")).is_success
        await asyncio.wait_for(log.closed.wait(), 20)


async def test_a_shutdown_closes(trainer: FakeTrainer) -> None:
    log = Log()
    settings = settings_of(server={"drain_seconds": 0.1})
    app = create_app(ScriptedAgent(_waiting(log)), settings=settings)
    async with client_of(app) as client, lifespan_of(app):
        await client.post(INIT, json=init_body(server_url=trainer.url))
        await log.opened.wait()
    assert log.events[-1] == "close a"


async def test_what_cannot_be_closed_changes_no_result(trainer: FakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    @contextlib.contextmanager
    def stuck() -> Iterator[None]:
        yield
        raise OSError("the disk is gone")

    async def run(ctx: RolloutContext) -> Any:
        await ctx.enter(stuck())
        return ctx.complete([], reward=1.0)

    assert (await _result(trainer, run))["reward"] == 1.0
    assert "could not be closed" in caplog.text


async def test_a_plain_context_manager_does_its_work_in_a_thread(trainer: FakeTrainer) -> None:
    threads: list[int] = []

    @contextlib.contextmanager
    def plain() -> Iterator[str]:
        threads.append(threading.get_ident())
        yield "x"
        threads.append(threading.get_ident())

    async def run(ctx: RolloutContext) -> Any:
        return ctx.complete([{"role": "user", "content": await ctx.enter(plain())}])

    assert (await _result(trainer, run))["final_messages"] == [{"role": "user", "content": "x"}]
    assert threading.get_ident() not in threads
    assert len(threads) == 2


async def test_a_plain_one_is_closed_though_nobody_waits_for_it_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = DaemonThreads(1)
    monkeypatch.setattr(offload, "daemon_threads", lambda: threads)
    log = Log()
    resources = Resources()
    await resources.enter(log.plain())
    may_go_on = threading.Event()
    threads.submit(may_go_on.wait)
    closing = asyncio.create_task(resources.close())
    await asyncio.sleep(0)  # it waits for a thread
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    may_go_on.set()
    await asyncio.wait_for(log.closed.wait(), 20)


async def test_so_is_one_that_nobody_waits_for_while_it_opens() -> None:
    log = Log()
    may_open = threading.Event()
    entering = asyncio.create_task(Resources().enter(log.plain(may_open)))
    await asyncio.wait_for(log.opened.wait(), 20)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    may_open.set()
    await asyncio.wait_for(log.closed.wait(), 20)


async def test_what_is_no_context_manager_or_would_stay_open_is_refused(trainer: FakeTrainer) -> None:
    async def run(ctx: RolloutContext) -> Any:
        with pytest.raises(
            TypeError, match=r"ctx.enter takes a context manager, not object: write ctx.enter\(contextlib"
        ):
            await ctx.enter(object())  # type: ignore[arg-type]
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        with pytest.raises(TypeError, match="commits, and stays open"):
            await ctx.enter(connection)
        await ctx.enter(contextlib.closing(connection))
        return ctx.complete([])

    assert (await _result(trainer, run))["status"] == "COMPLETED"


def _waiting(log: Log) -> Any:
    async def run(ctx: RolloutContext) -> Any:
        await ctx.enter(log.resource("a"))
        await asyncio.sleep(60)

    return run


async def _result(trainer: FakeTrainer, run: Any, **server: Any) -> Any:
    app = create_app(ScriptedAgent(run), settings=settings_of(server=server))
    async with client_of(app) as client:
        assert (await client.post(INIT, json=init_body(server_url=trainer.url))).status_code == 202
        return await trainer.result("rollout-1")
