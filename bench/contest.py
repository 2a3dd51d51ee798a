"""One cell of the table: contenders side by side under the same load, in rounds that take turns."""

import asyncio
import gc
import statistics
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.contenders.roster import Contender
from bench.load.generator import Generator
from bench.load.tally import quantile
from bench.serving import API_KEY, Server

SETTLE_SECONDS = 0.05
"""After the last result, for what a server still writes about it."""
WARM_UP_ROLLOUTS = 50


@dataclass(frozen=True)
class Cell:
    """What is measured."""

    concurrency: int
    turns: int
    """Calls to the model in a rollout."""
    chat_delay_seconds: float = 0.0
    reply_bytes: int | None = None


@dataclass(frozen=True)
class Round:
    """One contender's turn."""

    rollouts: int
    cpu_ms: float
    """Of the server, for a rollout."""
    per_second: float
    rollout_p50_ms: float
    rollout_p99_ms: float
    turn_p50_ms: float
    turn_p99_ms: float
    peak_rss_mb: float
    load_busy: float
    """CPU time of the load over wall time; near 1 it is the limit."""


@dataclass
class Line:
    """What became of a contender in a cell: its rounds, and every error."""

    contender: Contender
    cell: Cell
    rounds: list[Round] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def median(self, name: str) -> float:
        """Of a field of the rounds."""
        return statistics.median(getattr(round_, name) for round_ in self.rounds) if self.rounds else float("nan")


async def contest(cell: Cell, contenders: list[Contender], folder: Path, *, rounds: int, seconds: float) -> list[Line]:
    """Measure each contender ``rounds`` times for about ``seconds``, one after the other in turns."""
    lines = [Line(contender, cell) for contender in contenders]
    async with AsyncExitStack() as stack:
        entrants = []
        for line in lines:
            server = Server(line.contender, folder / line.contender.name, concurrency=cell.concurrency)
            await stack.enter_async_context(server)
            generator = Generator(
                server.port,
                API_KEY,
                turns=cell.turns,
                reply_bytes=cell.reply_bytes,
                chat_delay_seconds=cell.chat_delay_seconds,
            )
            await stack.enter_async_context(generator)
            rollouts = await _warm_up(line, generator, seconds)
            entrants.append((line, server, generator, rollouts))
        for _ in range(rounds):
            for line, server, generator, rollouts in entrants:
                await _round(line, server, generator, rollouts)
    return lines


async def _warm_up(line: Line, generator: Generator, seconds: float) -> int:
    """Bring a server to its pace; give the rollouts it does in ``seconds``, and at least two for each place."""
    cell = line.cell
    started = time.perf_counter()
    tally = await generator.run(WARM_UP_ROLLOUTS, min(cell.concurrency, WARM_UP_ROLLOUTS))
    first = time.perf_counter() - started
    line.errors += tally.errors
    if first < seconds / 2 and not cell.chat_delay_seconds:
        more = int(WARM_UP_ROLLOUTS * seconds / 2 / first)
        started = time.perf_counter()
        line.errors += (await generator.run(more, cell.concurrency)).errors
        pace = more / (time.perf_counter() - started)
    else:
        pace = WARM_UP_ROLLOUTS / first
    return max(int(pace * seconds), cell.concurrency)


async def _round(line: Line, server: Server, generator: Generator, rollouts: int) -> None:
    load = psutil.Process()
    server.forget_peak()
    gc.collect()
    gc.disable()
    try:
        before, load_before, started = server.usage(), sum(load.cpu_times()[:2]), time.perf_counter()
        tally = await generator.run(rollouts, line.cell.concurrency)
        wall, load_cpu = time.perf_counter() - started, sum(load.cpu_times()[:2]) - load_before
        await asyncio.sleep(SETTLE_SECONDS)
        after = server.usage()
    finally:
        gc.enable()
    line.errors += tally.errors
    if not tally.completed:
        return
    line.rounds.append(
        Round(
            rollouts=tally.completed,
            cpu_ms=(after.cpu_seconds - before.cpu_seconds) * 1000 / tally.completed,
            per_second=tally.completed / wall,
            rollout_p50_ms=quantile(tally.rollout_seconds, 0.5) * 1000,
            rollout_p99_ms=quantile(tally.rollout_seconds, 0.99) * 1000,
            turn_p50_ms=quantile(tally.turn_seconds, 0.5) * 1000,
            turn_p99_ms=quantile(tally.turn_seconds, 0.99) * 1000,
            peak_rss_mb=after.peak_rss_bytes / 1e6,
            load_busy=load_cpu / wall,
        )
    )
