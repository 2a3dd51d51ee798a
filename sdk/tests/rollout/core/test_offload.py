"""Foreign synchronous code in a thread: its result or its error comes back, and nothing else."""

import asyncio
import contextvars
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from osmosis_ai.rollout.core.offload import SHORT_SECONDS, DaemonThreads, call_in_thread

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


async def give_up_once(started: threading.Event, work: Callable[[None], None]) -> None:
    """Call ``work`` in a thread, and be cancelled when it has started: before that, it never would."""
    caller = asyncio.ensure_future(call_in_thread(work, None))
    assert await asyncio.to_thread(started.wait, 60)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_caller_that_gives_up_does_not_disturb_the_thread() -> None:
    started, released, done = threading.Event(), threading.Event(), threading.Event()

    def work(_: None) -> None:
        started.set()
        released.wait()
        done.set()

    await give_up_once(started, work)
    released.set()
    assert await asyncio.to_thread(done.wait, 20)


def test_a_thread_that_outlives_its_event_loop_ends_quietly() -> None:
    started, released, ended, threads = threading.Event(), threading.Event(), threading.Event(), []

    def work(_: None) -> None:
        threads.append(threading.current_thread())
        started.set()
        released.wait()
        ended.set()

    asyncio.run(give_up_once(started, work))
    released.set()
    assert ended.wait(60)
    assert all(thread.daemon for thread in threads)
    gc.collect()


def identify(_: None) -> int:
    return threading.get_ident()


async def test_short_calls_share_a_thread() -> None:
    used = []
    # A machine that is busy elsewhere can make a short call look long, though not each time.
    for _ in range(10):
        pool = DaemonThreads(8)
        threads = await asyncio.gather(*(asyncio.wrap_future(pool.submit(identify, None)) for _ in range(200)))
        used.append(len(set(threads)))
    assert min(used) < 8


async def test_calls_that_take_long_do_not_wait_for_each_other() -> None:
    pool = DaemonThreads(8)
    all_here = threading.Barrier(8)
    calls = [pool.submit(all_here.wait, 20) for _ in range(8)]
    assert sorted([await asyncio.wrap_future(call) for call in calls]) == list(range(8))


async def test_no_more_threads_than_allowed() -> None:
    pool = DaemonThreads(2)
    running: set[int] = set()
    both = threading.Barrier(2)

    def occupy(_: int) -> None:
        running.add(threading.get_ident())
        both.wait(60)
        time.sleep(4 * SHORT_SECONDS)  # while others wait for a thread, and get none

    await asyncio.gather(*(asyncio.wrap_future(pool.submit(occupy, number)) for number in range(6)))
    assert len(running) == 2


async def test_a_call_behind_one_that_never_ends_is_not_lost() -> None:
    pool = DaemonThreads(8)
    release = threading.Event()
    stuck = pool.submit(release.wait, 20)
    assert await asyncio.wrap_future(pool.submit(identify, None))
    release.set()
    await asyncio.wrap_future(stuck)
