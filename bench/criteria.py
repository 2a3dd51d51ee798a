"""The project's targets for speed, each held against what was measured."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.contenders.roster import Contender
from bench.plan import TWO_CALLS
from bench.results import Results
from bench.scenarios import CROWD, PATIENT_512, PATIENT_4096
from bench.workers import WorkersOutcome

TIMES_FLOOR_MAX = 2.5
TIMES_BETTER_THAN_CLIENT_PER_ROLLOUT_MIN = 20.0
ADDED_TURN_MS_MAX = 1.0
P99_TIMES_FASTAPI_MAX = 1.5
HEALTH_P99_MS_MAX = 100.0
RSS_MB_MAX = {PATIENT_4096: 300.0, PATIENT_512: 130.0}
START_SECONDS_MAX = {"import osmosis_ai.rollout": 0.5, "osmosis --help": 0.4, "import osmosis_ai": 0.1}
WORKERS_GAIN_MIN = 1.7


@dataclass(frozen=True)
class Verdict:
    """One target."""

    target: str
    measured: str
    is_met: bool


def judge(results: Results) -> list[Verdict]:
    """Every target that this run has measured."""
    return [*_cpu(results), *_latency(results), *_crowds(results), *_startup(results), *_workers(results)]


def _cpu(results: Results) -> Iterator[Verdict]:
    for concurrency in (64, 512):
        ours = results.line(Contender.OURS, concurrency, TWO_CALLS)
        floor = results.line(Contender.FLOOR, concurrency, TWO_CALLS)
        heavy = results.line(Contender.CLIENT_PER_ROLLOUT, concurrency, TWO_CALLS)
        where = f"two-call rollouts, journal on, concurrency {concurrency}"
        if ours and floor:
            times = ours.times(floor, "cpu_ms")
            target = f"CPU at most {TIMES_FLOOR_MAX:g} times the floor: {where}"
            yield Verdict(target, f"{times:.2f} times", times <= TIMES_FLOOR_MAX)
        if ours and heavy:
            times = heavy.times(ours, "cpu_ms")
            target = f"CPU at least {TIMES_BETTER_THAN_CLIENT_PER_ROLLOUT_MIN:g} times better than (c): {where}"
            yield Verdict(target, f"{times:.1f} times", times >= TIMES_BETTER_THAN_CLIENT_PER_ROLLOUT_MIN)


def _latency(results: Results) -> Iterator[Verdict]:
    alone = results.line(Contender.OURS, 1, TWO_CALLS)
    if alone:
        added = alone.median("turn_p50_ms")
        target = f"added latency a turn below {ADDED_TURN_MS_MAX:g} ms at concurrency 1 (median)"
        yield Verdict(target, f"{added:.3f} ms", added < ADDED_TURN_MS_MAX)
    ours = results.line(Contender.OURS, 512, TWO_CALLS)
    fastapi = results.line(Contender.FASTAPI, 512, TWO_CALLS)
    if ours and fastapi:
        times = ours.times(fastapi, "rollout_p99_ms")
        target = f"p99 of rollout time at concurrency 512 within {P99_TIMES_FASTAPI_MAX:g} times that of (b)"
        yield Verdict(target, f"{times:.2f} times", times <= P99_TIMES_FASTAPI_MAX)


def _crowds(results: Results) -> Iterator[Verdict]:
    crowd = results.outcome(CROWD, Contender.OURS)
    if crowd:
        health = f"/health p99 {crowd.health_p99_ms:.1f} ms over {crowd.health_polls} polls"
        yield Verdict(
            f"{CROWD.name}: no error, /health p99 below {HEALTH_P99_MS_MAX:g} ms",
            f"{crowd.completed} of {CROWD.rollouts} completed, {crowd.errors.total()} errors, {health}",
            not crowd.errors and crowd.health_p99_ms < HEALTH_P99_MS_MAX,
        )
    for scenario, limit in RSS_MB_MAX.items():
        outcome = results.outcome(scenario, Contender.OURS)
        if outcome:
            yield Verdict(
                f"{scenario.name}: all complete, RSS below {limit:g} MB",
                f"{outcome.completed} of {scenario.rollouts} completed, peak RSS {outcome.peak_rss_mb:.0f} MB",
                not outcome.errors and outcome.peak_rss_mb < limit,
            )


def _startup(results: Results) -> Iterator[Verdict]:
    for one in results.startup:
        limit = START_SECONDS_MAX.get(one.what)
        if limit is not None:
            measured = f"{one.median_seconds:.3f} s (best {one.best_seconds:.3f})"
            yield Verdict(f"{one.what} under {limit:g} s", measured, one.median_seconds < limit)


def _workers(results: Results) -> Iterator[Verdict]:
    by_number = {one.workers: one for one in results.workers}
    if 1 in by_number and 2 in by_number:
        one, two = by_number[1], by_number[2]
        seen, _ = _gain(one, two, "per_second")
        accounted, between = _gain(one, two, "per_second_with_own_cores")
        repeats = one.repeated_inits + two.repeated_inits
        duplicates = one.errors.total() + two.errors.total()
        yield Verdict(
            f"two workers give {WORKERS_GAIN_MIN:g} times the throughput of one, no duplicate run",
            f"{seen:.2f} times seen, {accounted:.2f} ({between}) by CPU of the busiest process; {duplicates} errors or "
            f"duplicates in {repeats} rollouts with repeated inits",
            max(seen, accounted) >= WORKERS_GAIN_MIN and not duplicates,
        )


def _gain(one: WorkersOutcome, two: WorkersOutcome, rate: str) -> tuple[float, str]:
    """Median of the gains of the rounds, each against the one beside it in time, and between what they lie."""
    gains = [
        getattr(with_two, rate) / getattr(with_one, rate)
        for with_one, with_two in zip(one.rounds, two.rounds, strict=True)
    ]
    return statistics.median(gains), f"{min(gains):.2f} to {max(gains):.2f}"
