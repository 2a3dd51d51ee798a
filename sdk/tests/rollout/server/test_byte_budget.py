"""Bytes that many tasks hold at once: bounded, in line, never for ever because of a size."""

import asyncio

import pytest

from osmosis_ai.rollout.server.byte_budget import ByteBudget

pytestmark = pytest.mark.asyncio


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_held_together_stays_below_the_bound() -> None:
    budget, seen = ByteBudget(100), []

    async def work(size: int) -> None:
        async with budget.share(size):
            seen.append(budget.held_bytes)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(size) for size in [30, 70, 1, 99, 50, 50, 10] * 20))
    assert max(seen) <= 100
    assert (len(seen), budget.held_bytes) == (140, 0)


async def test_one_that_is_larger_goes_alone() -> None:
    budget = ByteBudget(100)
    await budget.take(10)
    large = asyncio.create_task(budget.take(1_000))
    small = asyncio.create_task(budget.take(10))
    await settle()
    assert not large.done()
    assert not small.done(), "in line: the large one would wait for ever"
    budget.give(10)
    await settle()
    assert (large.done(), small.done(), budget.held_bytes) == (True, False, 1_000)
    budget.give(1_000)
    await settle()
    assert small.done()


async def test_who_is_cancelled_leaves_the_line_to_the_next() -> None:
    budget = ByteBudget(100)
    await budget.take(50)
    first, second = asyncio.create_task(budget.take(100)), asyncio.create_task(budget.take(50))
    await settle()
    first.cancel()
    await settle()
    assert (second.done(), budget.held_bytes) == (True, 100)


async def test_who_is_cancelled_when_its_turn_has_come_gives_it_back() -> None:
    budget = ByteBudget(100)
    await budget.take(100)
    waiting = asyncio.create_task(budget.take(60))
    await settle()
    budget.give(100)
    waiting.cancel()
    await settle()
    assert budget.held_bytes == 0
