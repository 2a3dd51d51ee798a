"""A limit that moves on with each request: one timer of the loop's, where there were as many as requests."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from osmosis_ai.rollout.wire.alarm import Alarm


class Loop:
    """An event loop whose time a test sets, and which has one timer at a time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.timers_made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], Any]) -> asyncio.TimerHandle:
        assert self.timer is None or self.timer.cancelled()
        self.timers_made += 1
        self.timer = asyncio.TimerHandle(when, callback, (), asyncio.get_running_loop())
        return self.timer

    def go_on_to(self, now: float) -> None:
        """Let time pass, and the timer go off as often as it is due."""
        self.now = now
        while self.timer is not None and not self.timer.cancelled() and self.timer.when() <= now:
            timer, self.timer = self.timer, None
            timer._run()


@pytest.fixture
async def loop() -> Loop:
    return Loop()


def alarm_of(loop: Loop) -> tuple[Alarm, list[float]]:
    """An alarm, and when it rang."""
    rang: list[float] = []
    return Alarm(loop, lambda: rang.append(loop.now)), rang  # type: ignore[arg-type]


async def test_it_rings_once_at_its_limit(loop: Loop) -> None:
    alarm, rang = alarm_of(loop)
    alarm.set(10)
    loop.go_on_to(9.9)
    assert rang == []
    loop.go_on_to(10)
    loop.go_on_to(100)
    assert rang == [10]


async def test_a_limit_that_moves_on_costs_no_timer(loop: Loop) -> None:
    alarm, rang = alarm_of(loop)
    for request in range(1000):
        loop.go_on_to(request / 1000)
        alarm.set(loop.now + 10)
        alarm.unset()
    assert loop.timers_made == 1
    alarm.set(loop.now + 10)
    loop.go_on_to(10)
    assert rang == []
    loop.go_on_to(10.999)
    assert rang == [10.999]
    assert loop.timers_made == 2


async def test_an_earlier_limit_comes_earlier(loop: Loop) -> None:
    alarm, rang = alarm_of(loop)
    alarm.set(100)
    alarm.set(1)
    loop.go_on_to(1)
    assert rang == [1]


async def test_without_a_limit_it_is_silent_and_leaves_no_timer(loop: Loop) -> None:
    alarm, rang = alarm_of(loop)
    alarm.set(10)
    alarm.unset()
    loop.go_on_to(20)
    assert rang == []
    assert loop.timer is None
    alarm.set(30)
    alarm.close()
    loop.go_on_to(30)
    assert rang == []


async def test_a_timer_that_is_early_by_the_clocks_resolution_counts(loop: Loop) -> None:
    alarm, rang = alarm_of(loop)
    alarm.set(10.0004)
    assert loop.timer is not None
    loop.now = 10.0
    loop.timer._run()
    assert rang == [10.0]
