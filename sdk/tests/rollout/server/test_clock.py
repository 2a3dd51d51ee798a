"""A limit that can stand still."""

import asyncio

from osmosis_ai.rollout.server.clock import Clock


class Loop:
    """An event loop whose time a test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: dict[asyncio.TimerHandle, float] = {}
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: object) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(self.now + delay, callback, (), self._loop)  # type: ignore[arg-type]


def ends_at(clock: Clock) -> float | None:
    timer = clock._timer
    return None if timer is None else timer.when()


async def test_what_stands_still_is_not_counted_and_what_was_waiting_is_given_back() -> None:
    loop = Loop()
    clock = Clock(loop, lambda: None)  # type: ignore[arg-type]
    clock.start(100)
    loop.now = 30
    clock.stand_still(10)  # the attempt that met the pause began at 20
    assert ends_at(clock) is None
    loop.now = 1000
    clock.go_on(5)  # the one that was answered began at 995
    assert ends_at(clock) == 1000 + 100 - 20 - 5


async def test_a_limit_that_is_used_up_meanwhile_ends_at_once() -> None:
    loop = Loop()
    clock = Clock(loop, lambda: None)  # type: ignore[arg-type]
    clock.start(10)
    clock.stand_still()
    clock.go_on(60)
    assert ends_at(clock) == 0


async def test_started_while_it_stands_still_it_waits_and_cancelled_it_is_over() -> None:
    loop = Loop()
    clock = Clock(loop, lambda: None)  # type: ignore[arg-type]
    clock.stand_still()
    clock.start(10)
    assert ends_at(clock) is None
    loop.now = 50
    clock.go_on()
    assert ends_at(clock) == 60
    clock.stand_still()
    clock.cancel()
    clock.go_on()
    assert ends_at(clock) is None
