"""Foreign synchronous code in a thread: its result or its error comes back, and nothing else."""

import asyncio
import contextvars
import gc
import threading
from typing import Any

import pytest

from osmosis_ai.rollout.server.offload import call_in_thread

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def fail_with(error: BaseException) -> Any:
    raise error


async def test_the_result_comes_back_from_another_thread() -> None:
    def work(argument: int) -> tuple[int, int]:
        return argument + 1, threading.get_ident()

    result, thread = await call_in_thread(work, 1)
    assert result == 2
    assert thread != threading.get_ident()


async def test_it_sees_the_callers_context() -> None:
    tenant.set("somebody")
    assert await call_in_thread(lambda _: tenant.get(), None) == "somebody"


async def test_an_exception_comes_back_as_it_is() -> None:
    error = ValueError("boom")
    with pytest.raises(ValueError, match="boom") as caught:
        await call_in_thread(fail_with, error)
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
        (StopIteration(1), "StopIteration: 1"),
    ],
)
async def test_what_would_end_the_event_loop_comes_back_as_an_ordinary_error(error: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        await call_in_thread(fail_with, error)


async def test_a_caller_that_gives_up_does_not_disturb_the_thread() -> None:
    released, done = threading.Event(), threading.Event()

    def work(_: None) -> None:
        released.wait()
        done.set()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await call_in_thread(work, None)
    released.set()
    assert await asyncio.to_thread(done.wait, 20)


def test_a_thread_that_outlives_its_event_loop_ends_quietly() -> None:
    released, ended, threads = threading.Event(), threading.Event(), []

    def work(_: None) -> None:
        threads.append(threading.current_thread())
        released.wait()
        ended.set()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await call_in_thread(work, None)

    asyncio.run(give_up())
    released.set()
    assert ended.wait(20)
    assert all(thread.daemon for thread in threads)
    gc.collect()
