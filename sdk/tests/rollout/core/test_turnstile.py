"""What could go on at once goes on a few at a time, in order, and the loop gets its turn in between."""

import asyncio
import time

from osmosis_ai.rollout.core.turnstile import LONG_ROUND_SECONDS, MAX_PER_ROUND, MIN_PER_ROUND, turnstile_of

MANY = 10 * MAX_PER_ROUND


def block(seconds: float) -> None:
    """Hold up the event loop, as an agent's own work does."""
    time.sleep(seconds)


async def rounds_of(count: int, work_seconds: float = 0.0) -> list[int]:
    """How many of ``count`` results are let through in each round of the loop."""
    loop = asyncio.get_running_loop()
    turnstile = turnstile_of(loop)
    woken: list[int] = []

    async def wait(future: "asyncio.Future[int]") -> None:
        woken.append(await future)
        block(work_seconds)

    futures = [loop.create_future() for _ in range(count)]
    tasks = [asyncio.create_task(wait(future)) for future in futures]
    await asyncio.sleep(0)
    for number, future in enumerate(futures):
        turnstile.resolve(future, number)
    rounds = []
    while len(woken) < count:
        before = len(woken)
        await asyncio.sleep(0)
        rounds.append(len(woken) - before)
    await asyncio.gather(*tasks)
    assert woken == list(range(count))
    return [passed for passed in rounds if passed]


async def test_a_few_at_a_time_in_order() -> None:
    assert max(await rounds_of(MANY)) <= MAX_PER_ROUND


async def test_one_alone_does_not_wait() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()
    turnstile_of(loop).resolve(future, "now")
    assert future.done()
    await turnstile_of(loop).enter()


async def test_agents_that_take_long_pass_in_smaller_numbers() -> None:
    passed = await rounds_of(3 * MAX_PER_ROUND, LONG_ROUND_SECONDS / 10)
    assert MIN_PER_ROUND <= min(passed[1:-1]) < MAX_PER_ROUND // 2


async def test_who_has_stopped_waiting_takes_no_turn_and_harms_nobody() -> None:
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(MANY)]
    for number, future in enumerate(futures):
        turnstile_of(loop).resolve(future, number)
    for future in futures[MAX_PER_ROUND : MANY - 1]:
        future.cancel()
    assert await asyncio.wait_for(futures[-1], 60) == MANY - 1


async def test_those_who_enter_queue_behind_those_who_were_there() -> None:
    loop = asyncio.get_running_loop()
    order: list[str] = []
    futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(MANY)]
    for number, future in enumerate(futures):
        turnstile_of(loop).resolve(future, number)
    futures[-1].add_done_callback(lambda _: order.append("resolved"))
    await turnstile_of(loop).enter()
    order.append("entered")
    await futures[-1]
    assert order == ["resolved", "entered"]
