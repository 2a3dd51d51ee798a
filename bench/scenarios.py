"""Many rollouts in flight against a model that takes its time: do all complete, what is held, is /health prompt?"""

import gc
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders.roster import Contender
from bench.contest import Cell
from bench.load.generator import Generator
from bench.load.health import HealthPoll
from bench.load.tally import quantile
from bench.serving import API_KEY, Server


@dataclass(frozen=True)
class Scenario:
    """What is run, against a server that has just started."""

    name: str
    cell: Cell
    rollouts: int


CROWD = Scenario("1,000 in flight, 6 turns, a model of 20 ms", Cell(1000, 6, chat_delay_seconds=0.02), 5000)
PATIENT_512 = Scenario("512 in flight, a model of 2 s", Cell(512, 2, chat_delay_seconds=2.0), 1024)
PATIENT_4096 = Scenario("4,096 in flight, a model of 2 s", Cell(4096, 2, chat_delay_seconds=2.0), 8192)


@dataclass(frozen=True)
class Outcome:
    """What was seen. Times of /health are milliseconds."""

    scenario: Scenario
    contender: Contender
    completed: int
    seconds: float
    cpu_ms: float
    """Of the server, for a rollout."""
    rollout_p50_ms: float
    rollout_p99_ms: float
    health_p50_ms: float
    health_p99_ms: float
    health_max_ms: float
    health_polls: int
    idle_rss_mb: float
    peak_rss_mb: float
    errors: Counter[str]


async def play(scenario: Scenario, contenders: Sequence[Contender], folder: Path) -> list[Outcome]:
    """Run a scenario against each contender, one after the other."""
    return [await _play(scenario, contender, folder / contender.name) for contender in contenders]


async def _play(scenario: Scenario, contender: Contender, folder: Path) -> Outcome:
    cell = scenario.cell
    async with (
        Server(contender, folder, concurrency=cell.concurrency) as server,
        Generator(server.port, API_KEY, turns=cell.turns, chat_delay_seconds=cell.chat_delay_seconds) as generator,
    ):
        before, started = server.usage(), time.perf_counter()
        gc.collect()
        gc.disable()
        try:
            async with HealthPoll(server.port) as health:
                tally = await generator.run(scenario.rollouts, cell.concurrency)
        finally:
            gc.enable()
        seconds, after = time.perf_counter() - started, server.usage()
    errors = tally.errors + health.errors
    if tally.completed < scenario.rollouts:
        errors["rollouts without a right result"] = scenario.rollouts - tally.completed
    return Outcome(
        scenario=scenario,
        contender=contender,
        completed=tally.completed,
        seconds=seconds,
        cpu_ms=(after.cpu_seconds - before.cpu_seconds) * 1000 / max(1, tally.completed),
        rollout_p50_ms=quantile(tally.rollout_seconds, 0.5) * 1000,
        rollout_p99_ms=quantile(tally.rollout_seconds, 0.99) * 1000,
        health_p50_ms=quantile(health.seconds, 0.5) * 1000,
        health_p99_ms=quantile(health.seconds, 0.99) * 1000,
        health_max_ms=quantile(health.seconds, 1.0) * 1000,
        health_polls=len(health.seconds),
        idle_rss_mb=before.rss_bytes / 1e6,
        peak_rss_mb=after.peak_rss_bytes / 1e6,
        errors=errors,
    )
