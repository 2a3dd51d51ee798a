"""The faults, each a name and what it does. When one is over, everything is as it was before, but for what it broke.

What a fault takes to be alone with is said by ``hits``: one server, every server with the journal, the trainer. Faults
that hit different things happen at once.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from bench.faults.clock import Clock
from bench.faults.ledger import Ledger
from bench.faults.load import Load
from bench.faults.server import Server
from bench.faults.trainer import CHAT_PATH, LOOPBACK, RESULT_PATH, FaultyTrainer

if TYPE_CHECKING:
    from support.partition import Partition
    from support.postgres import Database

AWAY_SECONDS = 8.0
PAUSE_SECONDS = 5.0
"""Of each way in which a trainer is not there during a weight update."""
ABORTS = 5
STOPPED_SECONDS = 6.0
MOVED_SECONDS = 4.0
UNREADY_SECONDS = 5.0
SECURED_SECONDS = 2.0
"""After that, what was promised needs no ``-wal``: operations.md says one, on a machine that is not busy."""
DESCRIPTORS = 160
HALF_SENT_HEADS = 400
BURST = 60
HELD_SECONDS = 12.0
LARGE_RESULTS, LARGE_MEGABYTES = 100, 5
MEMORY_KILOBYTES = 1_000_000
LARGE_WAIT_SECONDS = 60.0


class Hits(StrEnum):
    """What a fault has to itself."""

    SERVER = "server"
    SERVERS = "servers"
    TRAINER = "trainer"
    ALL = "all"


@dataclass(frozen=True)
class Replicas:
    """A database of the bench's own, and the way of each replica to it."""

    database: "Database"
    ways: list["Partition"]
    urls: list[str] = field(repr=False)
    """Of the journal, by these ways."""
    url: str = field(repr=False)


@dataclass(frozen=True)
class Scene:
    """What there is to break. ``server`` is the one of ``servers`` that the plan has chosen."""

    server: Server
    servers: list[Server]
    journal: Path
    trainer: FaultyTrainer
    load: Load
    ledger: Ledger
    clock: Clock
    on_database: Replicas | None = None

    @property
    def replicas(self) -> Replicas:
        """Where the servers are replicas on a database."""
        assert self.on_database is not None  # noqa: S101 - narrows the type; these faults are for replicas alone
        return self.on_database

    @property
    def way(self) -> "Partition":
        """Of the chosen server to the database."""
        return self.replicas.ways[self.servers.index(self.server)]

    async def restart_all(self, limits: str = "-c 0") -> None:
        """kill -9 for every server, and a new process for each."""
        await asyncio.gather(*(server.kill() for server in self.servers))
        await asyncio.gather(*(server.start(limits) for server in self.servers))


@dataclass(frozen=True)
class Fault:
    """``name`` is what ``--faults`` calls it; ``all`` has it ``times``."""

    name: str
    hits: Hits
    times: int
    carry_out: Callable[[Scene], Awaitable[None]]


FAULTS: dict[str, Fault] = {}


def _fault(name: str, hits: Hits, times: int = 1) -> Callable[[Callable[[Scene], Awaitable[None]]], None]:
    def add(carry_out: Callable[[Scene], Awaitable[None]]) -> None:
        FAULTS[name] = Fault(name, hits, times, carry_out)

    return add


@_fault("kill", Hits.SERVER, times=2)
async def _kill(scene: Scene) -> None:
    await scene.server.kill()
    await scene.server.start()


@_fault("term", Hits.SERVER, times=2)
async def _term(scene: Scene) -> None:
    await scene.server.stop()
    await scene.server.start()


@_fault("outage", Hits.TRAINER)
async def _outage(scene: Scene) -> None:
    async with scene.trainer.away():
        await asyncio.sleep(AWAY_SECONDS)


@_fault("pause", Hits.TRAINER, times=2)
async def _pause(scene: Scene) -> None:
    """A weight update: longer than a few attempts take."""
    with scene.trainer.refusing(CHAT_PATH, RESULT_PATH):
        await asyncio.sleep(PAUSE_SECONDS)
    with scene.trainer.refusing(CHAT_PATH, RESULT_PATH, retry_after_seconds=2):
        await asyncio.sleep(PAUSE_SECONDS)
    async with scene.trainer.away():
        await asyncio.sleep(PAUSE_SECONDS)


@_fault("abort", Hits.TRAINER)
async def _abort(scene: Scene) -> None:
    for _ in range(ABORTS):
        scene.trainer.abort()
        await asyncio.sleep(1)


@_fault("moved", Hits.SERVERS)
async def _moved(scene: Scene) -> None:
    """The journal's folder is renamed and put back; a server dies meanwhile."""
    home = scene.journal.parent
    away = home.with_name("away")
    home.rename(away)
    await asyncio.sleep(MOVED_SECONDS)
    await scene.server.kill()
    away.rename(home)
    await scene.server.start()


@_fault("wal", Hits.SERVERS)
async def _wal(scene: Scene) -> None:
    """The log of the journal is removed; some time later the machine is reset."""
    scene.journal.with_name(f"{scene.journal.name}-wal").unlink()
    await asyncio.gather(*(server.until_unready(UNREADY_SECONDS) for server in scene.servers))
    await asyncio.sleep(SECURED_SECONDS)
    await scene.restart_all()


@_fault("clean", Hits.SERVERS)
async def _clean(scene: Scene) -> None:
    """The owners' lock files are removed, and a server looks for what dead ones left."""
    for file in scene.journal.with_name(f"{scene.journal.name}.owners").iterdir():
        file.unlink(missing_ok=True)
    await scene.server.kill()
    await scene.server.start()


@_fault("clock", Hits.ALL)
async def _clock(scene: Scene) -> None:
    """The wall clock is set while servers run, and between two of them, while the trainer takes no result."""
    scene.clock.set_to("+2h")
    await asyncio.sleep(PAUSE_SECONDS)
    with scene.trainer.refusing(RESULT_PATH):
        await asyncio.sleep(1)
        await scene.server.kill()
        scene.clock.set_to("+25h")
        await scene.server.start()
        await asyncio.sleep(PAUSE_SECONDS)
    scene.clock.set_to("-3h")
    await asyncio.sleep(PAUSE_SECONDS)
    scene.clock.set_to("+0")


@_fault("stop", Hits.SERVER)
async def _stop(scene: Scene) -> None:
    """A server that is stopped for a while goes on; then it is killed while it is stopped."""
    scene.server.send_signal(signal.SIGSTOP)
    await asyncio.sleep(STOPPED_SECONDS)
    scene.server.send_signal(signal.SIGCONT)
    await asyncio.sleep(1)
    scene.server.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1)
    await scene.server.kill()
    await scene.server.start()


@_fault("descriptors", Hits.ALL)
async def _descriptors(scene: Scene) -> None:
    """Few descriptors, all held by requests that never get whole, when the rollouts need new connections."""
    await scene.server.stop()
    await scene.server.start(f"-n {DESCRIPTORS}")
    async with asyncio.TaskGroup() as group:
        async with scene.trainer.away():
            await scene.load.send(BURST)
            holders = [group.create_task(_hold_half_a_head(scene.server.port)) for _ in range(HALF_SENT_HEADS)]
            await asyncio.sleep(1)
        await asyncio.sleep(HELD_SECONDS)
        for holder in holders:
            holder.cancel()
    await scene.server.stop()
    await scene.server.start()


async def _hold_half_a_head(port: int) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        try:
            writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            await reader.read()
        except OSError:
            pass
        finally:
            writer.transport.abort()


@_fault("memory", Hits.ALL)
async def _memory(scene: Scene) -> None:
    """What is owed to a trainer that takes nothing is large, and a server with little memory is to deliver it."""
    with scene.trainer.refusing(RESULT_PATH):
        large = await scene.load.send(LARGE_RESULTS, LARGE_MEGABYTES)
        await _until(lambda: large <= scene.ledger.runs.keys() | scene.ledger.never_accepted)
        await asyncio.sleep(PAUSE_SECONDS)  # not until each was offered: few of such a size are at once
        await scene.restart_all(f"-v {MEMORY_KILOBYTES}")
    await _until(lambda: not large & scene.ledger.lost)
    await scene.restart_all()


async def _until(holds: Callable[[], bool]) -> None:
    """Wait for it, for a while; the accounts tell of what has not come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LARGE_WAIT_SECONDS):
            while not holds():  # noqa: ASYNC110 - a few looks a second cost nothing
                await asyncio.sleep(0.1)


def chosen(names: Iterable[str], among: Mapping[str, Fault] = FAULTS) -> list[Fault]:
    """Faults by name, as often as they are named; ``all`` is each as often as it says itself.

    Raises:
        KeyError: there is none of a name.
    """
    faults: list[Fault] = []
    for name in names:
        if name == "all":
            faults += [fault for fault in among.values() for _ in range(fault.times)]
        else:
            faults.append(among[name])
    return faults
