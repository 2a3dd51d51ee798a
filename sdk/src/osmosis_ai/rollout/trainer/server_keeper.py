"""A rollout server of our own that is started again, on the same port and journal, whenever it ends by itself.

::

    keeper = ServerKeeper(("-m", "server:agent_loop"), journal=folder / "journal.db")
    async with Trainer(complete, server_url=keeper.url, server_api_key=keeper.api_key) as trainer:
        async with keeper.serving(trainer):
            await keeper.guard(trainer.run(requests, take))

With a journal, the new process reports what the old one had accepted as ERROR within moments of its start; without one,
the trainer ends them as LOST after ``grace_seconds``. Either way no rollout waits for its full timeout.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from osmosis_ai.rollout.trainer.errors import TrainerError
from osmosis_ai.rollout.trainer.server_process import ServerProcess
from osmosis_ai.rollout.trainer.trainer import Trainer

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Restart:
    """One death of the server and what came of it. Times are unix seconds."""

    died_at: float
    ready_at: float
    pid: int
    """Of the server that runs since."""

    @property
    def recovery_seconds(self) -> float:
        """From the death, as we saw it, to a server that answers."""
        return self.ready_at - self.died_at


class ServerKeeper:
    """Keeps one server running. Its address and key stay the same for its life.

    Args:
        agent: what ``osmosis serve`` is to serve: ``("-m", "module:attribute")`` or ``("--mcp", "DIR")``.
        log_directory: where the server writes traces; ``None`` for none.
        journal: file of the server's journal, kept across restarts; ``None`` for no journal.
        grace_seconds: how long after a restart a rollout accepted before may stay unreported.
        max_restarts: further deaths are not repaired but raised.
        on_restart: told of each restart.

    Raises:
        TrainerError: on construction, if no socket can be bound or this system cannot hand one to a child.
    """

    def __init__(
        self,
        agent: tuple[str, str],
        *,
        log_directory: Path | None = None,
        journal: Path | None = None,
        grace_seconds: float = 10.0,
        max_restarts: int = 20,
        on_restart: Callable[[Restart], None] | None = None,
    ) -> None:
        self._agent = agent
        self._log_directory = log_directory
        self._journal = journal
        self._grace_seconds = grace_seconds
        self._max_restarts = max_restarts
        self._on_restart = on_restart
        self._process = ServerProcess(agent, log_directory, journal=journal)
        self._failure: asyncio.Future[None] | None = None
        self.restarts: list[Restart] = []
        self.url = self._process.url
        self.api_key = self._process.api_key

    @property
    def pid(self) -> int | None:
        """Process id of the server that runs now."""
        return self._process.pid

    @asynccontextmanager
    async def serving(self, trainer: Trainer) -> AsyncIterator[None]:
        """Have the server up from entry to exit; then it may be entered again.

        Raises:
            TrainerError: if it cannot be started.
        """
        if self._failure is not None:  # it served before
            self._process = self._another_process()
        self._failure = asyncio.get_running_loop().create_future()
        keeping: asyncio.Task[None] | None = None
        try:
            await self._process.start(trainer.callback_url)
            await self._process.wait_until_ready()
            keeping = asyncio.create_task(self._keep(trainer, self._failure))
            yield
        finally:
            if keeping is not None:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            self._failure.cancel()
            await self._process.stop()

    async def guard(self, work: Awaitable[Value]) -> Value:
        """Await ``work``, but no longer than the server can be kept running.

        Raises:
            ServerEndedError: if the server is gone for good.
            RuntimeError: outside ``serving``.
        """
        if self._failure is None:
            raise RuntimeError("guard() needs a server: use it inside serving().")
        working = asyncio.ensure_future(work)
        try:
            futures: set[asyncio.Future[Any]] = {working, self._failure}
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self._failure.result()
            return working.result()
        finally:
            if not working.done():
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

    async def _keep(self, trainer: Trainer, failure: "asyncio.Future[None]") -> None:
        notes: set[asyncio.Task[None]] = set()
        try:
            while True:
                await self._process.wait_for_exit()
                died_at = time.time()
                if len(self.restarts) >= self._max_restarts:
                    raise self._process.why_it_ended()
                await self._start_again(trainer.callback_url)
                restart = Restart(died_at, time.time(), pid=self.pid or 0)
                self.restarts.append(restart)
                if self._on_restart is not None:
                    self._on_restart(restart)
                note = asyncio.create_task(trainer.note_restart(self._grace_seconds))
                notes.add(note)
                note.add_done_callback(notes.discard)
        except TrainerError as error:
            failure.set_exception(error)
            # Asked for by guard(), if anyone still waits.
            failure.exception()
        finally:
            for note in notes:
                note.cancel()

    async def _start_again(self, callback_url: str) -> None:
        await self._process.stop()
        self._process = self._another_process()
        await self._process.start(callback_url)
        await self._process.wait_until_ready()

    def _another_process(self) -> ServerProcess:
        """One that is not started, at the same address and with the same key and journal."""
        return ServerProcess(
            self._agent, self._log_directory, port=self._process.port, api_key=self.api_key, journal=self._journal
        )
