"""Faults of replicas on one PostgreSQL: those of ``kinds`` that break no file, and these.

``python -m bench.faults --replicas 3`` starts a database of its own, as the tests do, and a proxy between each replica
and it.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.faults.kinds import FAULTS, Fault, Hits, Replicas, Scene
from bench.faults.server import PROJECT

sys.path.insert(0, str(PROJECT / "sdk" / "tests"))
from support.partition import Partition
from support.postgres import database

ASLEEP_SECONDS = 30.0
"""Longer than a lease, and than what others take to see its end."""
CUT_SECONDS = 6.0
DOWN_SECONDS = 4.0


@contextmanager
def replicas(count: int) -> Iterator[Replicas]:
    """A database that waits for its disk, and the way of each replica to it."""
    with ExitStack() as stack:
        running = stack.enter_context(database("max_connections=50"))
        ways = [stack.enter_context(Partition(running.port)) for _ in range(count)]
        url = running.new_url()
        urls = [url.replace(f":{running.port}/", f":{way.port}/") for way in ways]
        yield Replicas(running, ways, urls, url)


async def _asleep(scene: Scene) -> None:
    """A replica is stopped until another has taken it over, and wakes."""
    scene.ledger.ended.add(scene.server.pid)
    scene.server.send_signal(signal.SIGSTOP)
    await asyncio.sleep(ASLEEP_SECONDS)
    scene.server.send_signal(signal.SIGCONT)
    await scene.server.until_ready()


async def _cut(scene: Scene) -> None:
    """A replica does not reach the database for less than its lease."""
    way = scene.way
    way.cut()
    await asyncio.sleep(CUT_SECONDS)
    way.mend()
    await scene.server.until_ready()


async def _partition(scene: Scene) -> None:
    """The same for longer: it is taken over while it runs."""
    scene.ledger.ended.add(scene.server.pid)
    way = scene.way
    way.cut()
    await asyncio.sleep(ASLEEP_SECONDS)
    way.reset()
    way.mend()
    await scene.server.until_ready()


async def _restart(scene: Scene) -> None:
    """The database is stopped and started, and crashes and is started."""
    for how in (signal.SIGINT, signal.SIGQUIT):
        await asyncio.to_thread(scene.replicas.database.stop, how)
        await asyncio.sleep(DOWN_SECONDS)
        await asyncio.to_thread(scene.replicas.database.start)
        await asyncio.gather(*(server.until_ready() for server in scene.servers))


async def _rolling(scene: Scene) -> None:
    """One after the other is asked to stop, and started anew."""
    for server in scene.servers:
        await server.stop()
        await server.start()


DATABASE_FAULTS = {name: FAULTS[name] for name in ("kill", "term", "outage", "pause", "abort", "stop")} | {
    fault.name: fault
    for fault in (
        Fault("asleep", Hits.SERVER, 2, _asleep),
        Fault("cut", Hits.SERVER, 2, _cut),
        Fault("partition", Hits.SERVER, 2, _partition),
        Fault("restart", Hits.SERVERS, 2, _restart),
        Fault("rolling", Hits.SERVERS, 1, _rolling),
    )
}
