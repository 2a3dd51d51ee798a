"""One cell of the table: contenders side by side under the same load, in rounds that take turns."""

import asyncio
import gc
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import psutil

from bench.contenders.roster import PROJECT, Contender
from bench.load.generator import Generator
from bench.load.tally import quantile
from bench.serving import API_KEY, Server

SETTLE_SECONDS = 0.05
"""After the last result, for what a server still writes about it."""
WARM_UP_ROLLOUTS = 50
MIN_ROLLOUTS = 20
LONG_ROUND = 5
"""Times the seconds asked for; a contender whose round takes longer has one."""


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
        return statistics.median(self.values(name)) if self.rounds else float("nan")

    def spread(self, name: str) -> float:
        """The highest value of a field less the lowest, over the median."""
        values = self.values(name)
        return (max(values) - min(values)) / self.median(name) if values else float("nan")

    def times(self, other: "Line", name: str) -> float:
        """How many times ``other``'s value of a field this one is: the median of rounds that stood side by side."""
        pairs = list(zip(self.values(name), other.values(name), strict=False))
        return statistics.median(mine / theirs for mine, theirs in pairs) if pairs else float("nan")

    def values(self, name: str) -> list[float]:
        """A field of every round."""
        return [getattr(round_, name) for round_ in self.rounds]


@dataclass
class _Entrant:
    line: Line
    server: Server
    generator: Generator
    rollouts: int = 0
    """In a round."""
    rounds: int = 0


async def contest(
    cell: Cell,
    contenders: Sequence[Contender],
    folder: Path,
    *,
    rounds: int,
    seconds: float,
    checkouts: Sequence[Path] = (PROJECT,),
) -> list[Line]:
    """Measure each contender of each checkout ``rounds`` times for about ``seconds``, one after the other in turns.

    A contender that needs much longer than ``seconds`` for the rollouts in flight has one round.
    """
    async with AsyncExitStack() as stack:
        entrants = []
        for number, (contender, checkout) in enumerate(product(contenders, checkouts)):
            place = folder / f"{number}-{contender.name}"
            server = await stack.enter_async_context(
                Server(contender, place, concurrency=cell.concurrency, checkout=checkout)
            )
            generator = Generator(
                server.port,
                API_KEY,
                turns=cell.turns,
                reply_bytes=cell.reply_bytes,
                chat_delay_seconds=cell.chat_delay_seconds,
            )
            entrants.append(_Entrant(Line(contender, cell), server, await stack.enter_async_context(generator)))
        for entrant in entrants:
            pace = await _warm_up(entrant, seconds)
            entrant.rollouts, entrant.rounds = _amount(cell, pace, rounds, seconds)
        for number in range(rounds):
            for entrant in entrants:
                if number < entrant.rounds:
                    await _round(entrant)
    return [entrant.line for entrant in entrants]


async def _warm_up(entrant: _Entrant, seconds: float) -> float:
    """Bring a server to its pace; give it in rollouts a second."""
    cell, pace = entrant.line.cell, 0.0
    rollouts, seconds_left = WARM_UP_ROLLOUTS, seconds
    while seconds_left > 0:
        started = time.perf_counter()
        entrant.line.errors += (await entrant.generator.run(rollouts, min(cell.concurrency, rollouts))).errors
        elapsed = time.perf_counter() - started
        pace = rollouts / elapsed
        seconds_left -= elapsed
        rollouts = max(WARM_UP_ROLLOUTS, int(pace * seconds / 2))
    return pace


def _amount(cell: Cell, pace: float, rounds: int, seconds: float) -> tuple[int, int]:
    """Rollouts of a round, and rounds: two waves if they fit, else one, and once if that takes long."""
    waves = 2 if 2 * cell.concurrency / pace < LONG_ROUND * seconds else 1
    rollouts = max(MIN_ROLLOUTS, int(pace * seconds), waves * cell.concurrency)
    return rollouts, rounds if rollouts / pace < LONG_ROUND * seconds else 1


async def _round(entrant: _Entrant) -> None:
    line, server = entrant.line, entrant.server
    load = psutil.Process()
    server.forget_peak()
    gc.collect()
    gc.disable()
    try:
        before, load_before, started = server.usage(), sum(load.cpu_times()[:2]), time.perf_counter()
        tally = await entrant.generator.run(entrant.rollouts, line.cell.concurrency)
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
