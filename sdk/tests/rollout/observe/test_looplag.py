import asyncio
import time

from support.rollouts import until

from osmosis_ai.rollout.observe.looplag import LoopLag


async def test_a_loop_that_is_free_has_next_to_no_lag() -> None:
    lags: list[float] = []
    meter = LoopLag(lags.append, interval_seconds=0.001)
    await until(lambda: len(lags) >= 20)
    meter.stop()
    assert all(lag >= 0 for lag in lags)
    assert sorted(lags)[10] < 0.05


async def test_what_blocks_the_loop_shows_as_lag() -> None:
    lags: list[float] = []
    meter = LoopLag(lags.append, interval_seconds=0.001)
    time.sleep(0.2)  # noqa: ASYNC251 - the very mistake that is measured
    await until(lambda: lags)
    meter.stop()
    assert lags[0] > 0.15


async def test_after_stop_nothing_is_measured() -> None:
    lags: list[float] = []
    meter = LoopLag(lags.append, interval_seconds=0.001)
    await until(lambda: lags)
    meter.stop()
    count = len(lags)
    await asyncio.sleep(0.02)
    assert len(lags) == count
