"""Does throughput grow with the processes of a server?

Every init is sent twice, on two connections: the rollout must run once all the same.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.contenders.roster import Contender
from bench.contest import SETTLE_SECONDS
from bench.load.generator import Generator
from bench.serving import API_KEY, Server

CONCURRENCY = 64
TURNS = 2
WARM_UP_ROLLOUTS = 500


@dataclass(frozen=True)
class WorkersOutcome:
    """What a server with ``workers`` processes did."""

    workers: int
    rollouts: int
    repeated_inits: int
    per_second: float
    cpu_ms: float
    """Of all processes, for a rollout."""
    busiest_cpu_ms: float
    """Of the busiest process, for a rollout."""
    load_busy: float
    """CPU time of the load over wall time; near 1 it is the limit."""
    errors: Counter[str]

    @property
    def per_second_with_own_cores(self) -> float:
        """Rollouts a second if each process had a core for itself: the busiest one sets the pace."""
        return 1000 / self.busiest_cpu_ms


async def compare(folder: Path, *, rollouts: int, workers: tuple[int, ...] = (1, 2)) -> list[WorkersOutcome]:
    """Measure a server at each number of processes.

    Raises:
        ServerError: a server did not start.
    """
    return [await _measure(folder / f"workers-{number}", number, rollouts) for number in workers]


async def _measure(folder: Path, workers: int, rollouts: int) -> WorkersOutcome:
    load = psutil.Process()
    async with (
        Server(Contender.OURS, folder, concurrency=CONCURRENCY, workers=workers) as server,
        Generator(server.port, API_KEY, turns=TURNS, repeat_inits=True) as generator,
    ):
        errors = (await generator.run(WARM_UP_ROLLOUTS, CONCURRENCY)).errors
        before, load_before, started = server.usage(), sum(load.cpu_times()[:2]), time.perf_counter()
        tally = await generator.run(rollouts, CONCURRENCY)
        seconds, load_cpu = time.perf_counter() - started, sum(load.cpu_times()[:2]) - load_before
        await asyncio.sleep(SETTLE_SECONDS)
        after = server.usage()
    spent = [after.cpu_seconds_of[pid] - before.cpu_seconds_of.get(pid, 0.0) for pid in after.cpu_seconds_of]
    completed = max(1, tally.completed)
    return WorkersOutcome(
        workers=workers,
        rollouts=tally.completed,
        repeated_inits=tally.repeats,
        per_second=tally.completed / seconds,
        cpu_ms=(after.cpu_seconds - before.cpu_seconds) * 1000 / completed,
        busiest_cpu_ms=max(spent) * 1000 / completed,
        load_busy=load_cpu / seconds,
        errors=errors + tally.errors,
    )
