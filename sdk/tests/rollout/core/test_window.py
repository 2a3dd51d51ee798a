import asyncio
from collections.abc import Iterator

import pytest
from support.rollouts import until

from osmosis_ai.rollout.core.window import run_window


async def test_the_next_starts_as_soon_as_one_ends() -> None:
    slow_may_end = asyncio.Event()
    ended: list[int] = []

    async def work(item: int) -> bool:
        if item == 0:
            await slow_may_end.wait()
        ended.append(item)
        if item == 5:
            slow_may_end.set()
        return True

    await run_window(range(6), work, 2)
    assert ended == [1, 2, 3, 4, 5, 0]


async def test_items_are_read_only_as_they_are_worked_on() -> None:
    read: list[int] = []
    may_go_on = asyncio.Event()

    def produce() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    async def work(item: int) -> bool:
        await may_go_on.wait()
        return True

    running = asyncio.create_task(run_window(produce(), work, 3))
    await until(lambda: len(read) == 3)
    await asyncio.sleep(0.01)
    assert read == [0, 1, 2]
    may_go_on.set()
    await running
    assert len(read) == 100


async def test_after_a_stop_nothing_starts_and_what_is_in_flight_ends() -> None:
    started: list[int] = []
    ended: list[int] = []
    stopped = asyncio.Event()

    async def work(item: int) -> bool:
        started.append(item)
        if item == 1:
            await until(lambda: len(started) == 3)
            stopped.set()
            return False
        await stopped.wait()
        ended.append(item)
        return True

    await run_window(range(100), work, 3)
    assert started == [0, 1, 2]
    assert ended == [0, 2]


async def test_a_stop_at_once_starts_nothing_else() -> None:
    started: list[int] = []

    async def work(item: int) -> bool:
        started.append(item)
        return False

    await run_window(range(100), work, 8)
    assert started == [0]


async def test_what_is_raised_ends_everything() -> None:
    cancelled = asyncio.Event()

    async def work(item: int) -> bool:
        if item == 1:
            raise ValueError("broken")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return True

    with pytest.raises(ValueError, match="broken"):
        await run_window(range(5), work, 2)
    assert cancelled.is_set()
