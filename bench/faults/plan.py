"""What goes wrong when. One seed gives one plan; what a fault hits still depends on the moment."""

import asyncio
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from random import Random

from bench.faults.kinds import Fault, Hits, Scene

GAP_SECONDS = (2.0, 6.0)
"""Least and most from the beginning of a fault to that of the next."""
CALM_SECONDS = 1.0
"""After a fault, before the next one may hit the same thing."""


@dataclass(frozen=True)
class Planned:
    """A fault, ``at_seconds`` after the start of the load."""

    at_seconds: float
    fault: Fault
    server: int = 0


@dataclass(frozen=True)
class Happened:
    """A fault that is over. ``at`` is monotonic."""

    at: float
    name: str
    seconds: float
    """Until it was over, and every server ready."""


def make_plan(random: Random, faults: Iterable[Fault], servers: int) -> list[Planned]:
    """The faults in random order, each some seconds after the one before has begun."""
    order = list(faults)
    random.shuffle(order)
    plan, at = [], 0.0
    for fault in order:
        at += random.uniform(*GAP_SECONDS)
        plan.append(Planned(at, fault, random.randrange(servers)))
    return plan


async def carry_out(plan: Sequence[Planned], scene: Scene) -> list[Happened]:
    """Let each fault happen at its time, or when what it hits has got over the one before; returns after the last."""
    started = time.monotonic()
    server_locks, trainer_lock = [asyncio.Lock() for _ in scene.servers], asyncio.Lock()

    def locks(planned: Planned) -> Iterator[asyncio.Lock]:
        hits = planned.fault.hits
        if hits is Hits.SERVER:
            yield server_locks[planned.server]
        elif hits is not Hits.TRAINER:
            yield from server_locks
        if hits in (Hits.TRAINER, Hits.ALL):
            yield trainer_lock

    async def happen(planned: Planned) -> Happened:
        await asyncio.sleep(planned.at_seconds)
        async with AsyncExitStack() as held:
            for lock in locks(planned):
                await held.enter_async_context(lock)
            at = time.monotonic()
            sys.stderr.write(f"{at - started:6.1f} s  {planned.fault.name}, server {planned.server}\n")
            await planned.fault.carry_out(replace(scene, server=scene.servers[planned.server]))
            happened = Happened(at, planned.fault.name, time.monotonic() - at)
            sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {planned.fault.name} is over\n")
            await asyncio.sleep(CALM_SECONDS)
            return happened

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(happen(planned)) for planned in plan]
    return [task.result() for task in tasks]
