"""One ``osmosis serve`` process of the fault bench: killed, asked to stop, and started anew on the same port."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx

from bench.faults.trainer import LOOPBACK

PROJECT = Path(__file__).parents[2]
AGENT = "bench.faults.agent:agent_loop"
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 45.0
"""Longer than the drain (30 s) and the flush (5 s) of a server with default settings."""
POLL_SECONDS = 0.01


class ServerError(Exception):
    """A server did not do what the bench needs; the message says what, and where its log is."""


class Server:
    """A server process on a port and a journal that stay the same; it never outlives the context.

    ``exit_codes`` are those of the processes that were asked to stop; ``ended`` gets the id of each that was, or that
    was killed. ``python`` runs it, with the SDK that is installed there.
    """

    def __init__(
        self,
        journal: Path | str,
        log: Path,
        api_key: str,
        *,
        ended: set[int] | None = None,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self.port = _free_port()
        self.exit_codes: list[int] = []
        self._ended = set() if ended is None else ended
        self._extra = dict(environment or {})
        self._python = python
        self._journal = journal
        self._log = log
        self._api_key = api_key
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """Of its process.

        Raises:
            ServerError: it has none yet.
        """
        if self._process is None:
            raise ServerError("The server has not been started.")
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.kill()

    async def start(self, limits: str = "-c 0") -> float:
        """Start a process, with ``limits`` as the shell's ``ulimit`` takes them; give the seconds until it was ready.

        Raises:
            ServerError: it ended, or was not ready in time.
        """
        started = time.monotonic()
        command = ["-m", "osmosis_ai", "serve", "-m", AGENT, "--host", LOOPBACK, "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                "sh",
                "-c",
                f'ulimit {limits} && exec "$@"',
                "sh",
                self._python,
                *command,
                "--log-level",
                "warning",
                cwd=PROJECT,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS), httpx.AsyncClient(trust_env=False) as client:
                while not await self._is_ready(client):
                    if self._process.returncode is not None:
                        raise ServerError(f"A server ended with exit code {self._process.returncode}: see {self._log}.")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise ServerError(f"A server was not ready in {START_TIMEOUT_SECONDS:g} s: see {self._log}.") from None
        return time.monotonic() - started

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """One that does not end it, such as SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(number)

    async def stop(self) -> None:
        """SIGTERM, and wait until the process has ended.

        Raises:
            ServerError: it did not end in time.
        """
        if self._process is None or self._process.returncode is not None:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                self.exit_codes.append(await self._end(signal.SIGTERM))
        except TimeoutError:
            raise ServerError(
                f"A server did not end {STOP_TIMEOUT_SECONDS:g} s after SIGTERM: see {self._log}."
            ) from None

    async def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._ended.add(self._process.pid)
            self._process.send_signal(number)
        return await self._process.wait()

    async def until_ready(self) -> None:
        """Wait until it is ready, or has ended.

        Raises:
            ServerError: it was not in time.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS), httpx.AsyncClient(trust_env=False) as client:
                while self._process is not None and self._process.returncode is None:
                    if await self._is_ready(client):
                        return
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise ServerError(f"A server was not ready in {START_TIMEOUT_SECONDS:g} s: see {self._log}.") from None

    async def until_unready(self, seconds: float) -> None:
        """Wait until it is not ready any more, for so long at most."""
        deadline = time.monotonic() + seconds
        async with httpx.AsyncClient(trust_env=False) as client:
            while time.monotonic() < deadline and await self._is_ready(client):  # noqa: ASYNC110 - a few looks a second cost nothing
                await asyncio.sleep(POLL_SECONDS)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}/ready")).is_success
        except httpx.TransportError:
            return False

    def _environment(self) -> dict[str, str]:
        """Everything at its default, whatever this shell has set."""
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("OSMOSIS_")}
        ours = {
            "OSMOSIS_NO_DOTENV": "1",
            "OSMOSIS_ROLLOUT_SERVER_API_KEY": self._api_key,
            "OSMOSIS_ROLLOUT_SERVER_JOURNAL": str(self._journal),  # not an option: a URL has a password
        }
        return inherited | ours | self._extra


def python_of(checkout: Path) -> str:
    """The interpreter that has the SDK of a checkout."""
    return sys.executable if checkout == PROJECT else str(checkout.resolve() / ".venv" / "bin" / "python")


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
