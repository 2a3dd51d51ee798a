"""Does throughput grow with the processes of a server?

After the rounds that are measured comes one in which every init is sent twice, on two connections: the rollout must run
once all the same. Each round has connections of its own, as it is by connections that the work is shared out.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.contenders.roster import Contender
from bench.contest import SETTLE_SECONDS
from bench.load.generator import Generator
from bench.serving import API_KEY, Server

CONCURRENCY = 128
TURNS = 2
WARM_UP_ROLLOUTS = 500


@dataclass(frozen=True)
class WorkersRound:
    """One server's turn; CPU is in milliseconds for a rollout."""

    rollouts: int
    per_second: float
    cpu_ms: float
    """Of all its processes."""
    busiest_cpu_ms: float
    """Of the busiest process."""
    load_busy: float
    """CPU time of the load over wall time; near 1 it is the limit."""

    @property
    def per_second_with_own_cores(self) -> float:
        """Rollouts a second if each process had a core for itself: the busiest one sets the pace."""
        return 1000 / self.busiest_cpu_ms


@dataclass
class WorkersOutcome:
    """What a server with ``workers`` processes did."""

    workers: int
    rounds: list[WorkersRound] = field(default_factory=list)
    repeated_inits: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def median(self, name: str) -> float:
        """Of a field of the rounds."""
        values = [getattr(round_, name) for round_ in self.rounds]
        return statistics.median(values) if values else float("nan")


async def compare(folder: Path, *, rollouts: int, rounds: int, workers: Sequence[int] = (1, 2)) -> list[WorkersOutcome]:
    """Measure a server at each number of processes, in turns, ``rollouts`` a round.

    Raises:
        ServerError: a server did not start.
    """
    async with AsyncExitStack() as stack:
        entrants = []
        for number in workers:
            place = folder / f"workers-{number}"
            server = Server(Contender.OURS, place, concurrency=CONCURRENCY, workers=number)
            entrants.append((WorkersOutcome(number), await stack.enter_async_context(server)))
        for outcome, server in entrants:
            await server.until_quiet()
            await _round(outcome, server, min(rollouts, WARM_UP_ROLLOUTS * outcome.workers))
            outcome.rounds.clear()
        for _ in range(rounds):
            for outcome, server in entrants:
                await _round(outcome, server, rollouts)
        for outcome, server in entrants:
            await _load(outcome, server, rollouts, repeat_inits=True)
    return [outcome for outcome, _ in entrants]


async def _round(outcome: WorkersOutcome, server: Server, rollouts: int) -> None:
    load = psutil.Process()
    before, load_before = server.usage(), sum(load.cpu_times()[:2])
    completed, seconds = await _load(outcome, server, rollouts)
    load_cpu = sum(load.cpu_times()[:2]) - load_before
    after = server.usage()
    spent = [after.cpu_seconds_of[pid] - before.cpu_seconds_of.get(pid, 0.0) for pid in after.cpu_seconds_of]
    outcome.rounds.append(
        WorkersRound(
            rollouts=completed,
            per_second=completed / seconds,
            cpu_ms=sum(spent) * 1000 / max(1, completed),
            busiest_cpu_ms=max(spent) * 1000 / max(1, completed),
            load_busy=load_cpu / seconds,
        )
    )


async def _load(
    outcome: WorkersOutcome, server: Server, rollouts: int, *, repeat_inits: bool = False
) -> tuple[int, float]:
    """Send rollouts; how many were completed, and in how many seconds."""
    async with Generator(server.port, API_KEY, turns=TURNS, repeat_inits=repeat_inits) as generator:
        started = time.perf_counter()
        tally = await generator.run(rollouts, CONCURRENCY)
        seconds = time.perf_counter() - started
        await asyncio.sleep(SETTLE_SECONDS)
    outcome.errors += tally.errors
    outcome.repeated_inits += tally.repeats
    return tally.completed, seconds
