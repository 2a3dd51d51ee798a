"""What goes wrong when. One seed gives one plan; what a fault hits still depends on the moment."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from bench.faults.server import Server
from bench.faults.trainer import FaultyTrainer

FIRST_FAULT_AT = 0.1
"""Share of the load that has been sent before the first fault; the last one comes as long before the end."""


class Kind(StrEnum):
    """What happens."""

    KILL = "kill -9"
    TERM = "SIGTERM"
    OUTAGE = "trainer away"


@dataclass(frozen=True)
class Planned:
    """A fault, ``at_seconds`` after the start of the load."""

    at_seconds: float
    kind: Kind
    server: int = 0


@dataclass(frozen=True)
class Happened:
    """A fault that is over. ``at`` is monotonic; ``seconds_until_serving`` from the fault to the next ``/ready``."""

    at: float
    kind: Kind
    seconds_until_serving: float


def make_plan(random: Random, load_seconds: float, kills: int, terms: int, outages: int, servers: int) -> list[Planned]:
    """Faults in random order over the load, one in each of as many equal spans, so that none hides another."""
    kinds = [Kind.KILL] * kills + [Kind.TERM] * terms + [Kind.OUTAGE] * outages
    random.shuffle(kinds)
    begin, end = FIRST_FAULT_AT * load_seconds, (1 - FIRST_FAULT_AT) * load_seconds
    span = (end - begin) / max(len(kinds), 1)
    return [
        Planned(begin + span * (number + random.random()), kind, random.randrange(servers))
        for number, kind in enumerate(kinds)
    ]


async def carry_out(
    plan: Sequence[Planned], servers: Sequence[Server], trainer: FaultyTrainer, outage_seconds: float
) -> list[Happened]:
    """Let each fault happen at its time; returns when the last one is over and every server is up."""
    locks = [asyncio.Lock() for _ in servers]

    async def happen(planned: Planned) -> Happened:
        await asyncio.sleep(planned.at_seconds)
        async with nullcontext() if planned.kind is Kind.OUTAGE else locks[planned.server]:
            at = time.monotonic()
            server = servers[planned.server]
            match planned.kind:
                case Kind.OUTAGE:
                    async with trainer.away():
                        await asyncio.sleep(outage_seconds)
                case Kind.KILL:
                    await server.kill()
                    await server.start()
                case Kind.TERM:
                    await server.stop()
                    await server.start()
            return Happened(at, planned.kind, time.monotonic() - at)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(happen(planned)) for planned in plan]
    return [task.result() for task in tasks]
