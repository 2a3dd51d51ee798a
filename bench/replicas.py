"""``python -m bench.replicas``: what a rollout costs with the journal in a file and in PostgreSQL, by CPU accounting.

One server with a file, one replica, two replicas, in turn. Where cores are few, wall time says nothing of two replicas:
what they could do with cores of their own is rollouts a second of CPU, each replica's summed. The database's CPU is
told apart, as it has a machine of its own. What writes in company shares a commit, so it matters how much comes at
once: two replicas are measured with the rate of one each (what a second one adds), and with that rate together (what it
costs to spread the same).

A second process on the same cores costs by itself. Two replicas with a schema each, which share nothing, show how much;
what two cost over these is what it costs that they know of each other. ``--rate 0`` is as fast as it goes: one process
sends and answers all, so each of two servers then has less to do than one. Loopback only; ends by itself.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from secrets import token_urlsafe

from bench.accounting import usage
from bench.faults.database import replicas
from bench.faults.ledger import Ledger
from bench.faults.load import Load
from bench.faults.server import Server
from bench.faults.trainer import Faults, FaultyTrainer
from osmosis_ai.rollout.journal.postgres.address import parse
from osmosis_ai.rollout.journal.postgres.link import connect

WARM_UP = 200
STEPS_A_SECOND = 10
DEADLINE_SECONDS = 300.0
EACH, TOGETHER, APART = (
    "two replicas, each its load",
    "two replicas, one's load",
    "two that share nothing, each its load",
)
SETUPS = (("file", 0, 1), ("one replica", 1, 1), (EACH, 2, 2), (TOGETHER, 2, 1), (APART, 2, 2))
"""Name, replicas on a database, how many times ``--at-once``."""


@dataclass(frozen=True)
class Cost:
    """Of a round, in seconds of CPU."""

    servers: list[float]
    database: float
    commits: int
    rollouts: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m bench.replicas", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=1000, metavar="N", help="a round and server [%(default)s]")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="[%(default)s]")
    parser.add_argument("--at-once", type=int, default=128, metavar="N", help="inits at a time [%(default)s]")
    parser.add_argument("--rate", type=float, default=40, metavar="N", help="a second and share [%(default)s]")
    options = parser.parse_args(arguments)
    costs: dict[str, list[Cost]] = {name: [] for name, _, _ in SETUPS}
    for _ in range(options.rounds):
        for name, count, shares in SETUPS:
            amount = options.rollouts * max(count, 1)
            costs[name].append(
                asyncio.run(_round(count, amount, options.at_once * shares, options.rate * shares, name))
            )
    each = {name: [1000 * sum(cost.servers) / cost.rollouts for cost in rounds] for name, rounds in costs.items()}
    rows = [
        (f"{name}, CPU ms a rollout", f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        for name, values in each.items()
    ]
    for name in (name for name, count, _ in SETUPS if count):
        database = statistics.median(1000 * cost.database / cost.rollouts for cost in costs[name])
        commits = statistics.median(cost.commits / cost.rollouts for cost in costs[name])
        rows.append((f"the database's, beside {name}", f"{database:.2f}, {commits:.2f} commits a rollout"))
    one = statistics.median(each["one replica"])
    rows.append(("one replica over the file", f"{one / statistics.median(each['file']):.2f}"))
    for name in (EACH, TOGETHER):
        gains = [2 * before / after for before, after in zip(each["one replica"], each[name], strict=True)]
        median = 2 * one / statistics.median(each[name])
        spread = f"by rounds {min(gains):.2f} to {max(gains):.2f}"
        rows.append((f"{name}, over one", f"{median:.2f} times its rollouts, with a core each ({spread})"))
    known = statistics.median(each[EACH]) / statistics.median(each[APART])
    rows.append(("two replicas over two that share nothing", f"{known:.2f} times the CPU"))
    width = max(len(name) for name, _ in rows)
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in rows))
    return 0


async def _round(count: int, rollouts: int, at_once: int, rate: float, name: str) -> Cost:
    random, ledger, key = Random(1), Ledger(), token_urlsafe()  # noqa: S311 - guards nothing
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="osmosis-replicas-")))
        on_database = stack.enter_context(replicas(count)) if count else None
        trainer = await stack.enter_async_context(FaultyTrainer(ledger, Faults(), random))
        places = [str(folder / "journal.db")] if on_database is None else [on_database.url] * count
        if name == APART:
            places = [f"{place}_{number}" for number, place in enumerate(places)]  # The URL ends with the schema.
        servers = [
            await stack.enter_async_context(Server(place, folder / f"{number}.log", key))
            for number, place in enumerate(places)
        ]
        load = await stack.enter_async_context(
            Load([server.url for server in servers], trainer.url, key, ledger, random, "rollout")
        )

        async def send(amount: int, rate: float) -> None:
            before, started = len(ledger.delivered_at), time.monotonic()
            step = max(round(rate / STEPS_A_SECOND), 1) if rate else at_once
            for first in range(0, amount, step):
                await load.send(min(step, amount - first))
                if rate:
                    await asyncio.sleep(started + (first + step) / rate - time.monotonic())
            async with asyncio.timeout(DEADLINE_SECONDS):
                while len(ledger.delivered_at) < before + amount:  # noqa: ASYNC110 - as cheap as an event
                    await asyncio.sleep(0.02)

        async def used() -> list[float]:
            of_servers = [usage(server.pid).cpu_seconds for server in servers]
            if on_database is None:
                return [0.0, 0.0, *of_servers]
            return [usage(on_database.database.pid).cpu_seconds, await _commits(on_database.url), *of_servers]

        await send(WARM_UP, 0)
        before = await used()
        await send(rollouts, rate)
        of_database, commits, *of_servers = (now - then for now, then in zip(await used(), before, strict=True))
        return Cost(of_servers, of_database, round(commits), rollouts)


async def _commits(url: str) -> float:
    """How many transactions the database has carried out; its processes tell it a second later at the latest."""
    await asyncio.sleep(1.0)
    connection = await connect(parse(url), "bench")
    try:
        return float(await connection.fetchval("SELECT sum(xact_commit) FROM pg_stat_database"))
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(main())
