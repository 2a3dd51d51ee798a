"""A contender as a process of its own, on a free port of loopback; it never outlives its context."""

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Self

import psutil

from bench.accounting import Usage, forget_peak, usage
from bench.contenders.roster import LOOPBACK, PROJECT, Contender, Launch, launch
from bench.load.http1 import MessageReader

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.01
QUIET_SECONDS = 0.5
QUIET_CPU_SECONDS = 0.02
API_KEY = "bench-server-key"


class ServerError(Exception):
    """A server did not do what the bench needs; the message says what it wrote."""


class Server:
    """Serves from entry to exit. ``seconds_to_ready`` is from the start of the process to the first 200 of /health.

    What is served is ``checkout``: this project, or another copy of it with an environment of its own in ``.venv``.
    """

    def __init__(
        self,
        contender: Contender,
        folder: Path,
        *,
        concurrency: int = 64,
        workers: int = 1,
        wrapper: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
        checkout: Path = PROJECT,
    ) -> None:
        self.contender = contender
        self._checkout = checkout
        self.port = free_port()
        self.seconds_to_ready = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "server.log"
        self._launch: Launch = launch(contender, self.port, concurrency, folder, API_KEY, workers)
        self._wrapper = wrapper
        self._environment = environment or {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        started = time.perf_counter()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OSMOSIS_", "ROLLOUT_"))}
        environment = inherited | {"OSMOSIS_NO_DOTENV": "1"} | self._launch.environment | self._environment
        interpreter, *arguments = self._launch.command
        if self._checkout != PROJECT:
            interpreter = str(self._checkout / ".venv" / "bin" / "python")
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                interpreter,
                *self._wrapper,
                *arguments,
                cwd=self._checkout,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                while await health_status(self.port) != 200:
                    if self._process.returncode is not None:
                        raise ServerError(f"{self.contender} ended with {self._process.returncode}: {self.output()}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            await self.stop()
            raise ServerError(f"{self.contender} was not ready in {START_TIMEOUT_SECONDS:g} s.") from None
        self.seconds_to_ready = time.perf_counter() - started
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def output(self) -> str:
        """The end of what the server has written."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]

    def usage(self) -> Usage:
        """What the server has used since its start."""
        return usage(self._pid)

    def cpu_seconds_by_thread(self) -> dict[str, float]:
        """Of the server's first process: a name for each thread, and what it has used."""
        times = {thread.id: thread.user_time + thread.system_time for thread in psutil.Process(self._pid).threads()}
        return {"main" if tid == self._pid else f"thread {tid}": seconds for tid, seconds in times.items()}

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's first process."""
        os.kill(self._pid, number)

    async def until_quiet(self) -> None:
        """Wait until every process has started: none has used the CPU for a while."""
        async with asyncio.timeout(START_TIMEOUT_SECONDS):
            spent = -1.0
            while (now := self.usage().cpu_seconds) - spent > QUIET_CPU_SECONDS:
                spent = now
                await asyncio.sleep(QUIET_SECONDS)

    def forget_peak(self) -> None:
        """Let the peak of its memory begin anew."""
        forget_peak(self._pid)

    async def stop(self) -> None:
        """SIGTERM, then, if that is not heeded, SIGKILL."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            sys.stderr.write(f"{self.contender} did not end after SIGTERM and is killed.\n")
            self._process.kill()
            await self._process.wait()

    @property
    def _pid(self) -> int:
        if self._process is None:
            raise ServerError(f"{self.contender} has not been started.")
        return self._process.pid


async def health_status(port: int) -> int:
    """The status of GET /health; 0 if there is no answer."""
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return 0
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        messages = MessageReader()
        while data := await reader.read(65536):
            for head, _ in messages.feed(data):
                return int(head[9:12])
        return 0
    except OSError:
        return 0
    finally:
        writer.close()


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
