"""The server under test as a process of the kit's: started, asked to stop, killed, started again.

It has a session of its own, and the whole session is gone when ``ServerCommand`` is left.
"""

import asyncio
import contextlib
import os
import signal
import ssl
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Self

import httpx

from rollout_conformance.text import shortened
from rollout_conformance.vocabulary import ConformanceError

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
GONE_SECONDS = 5.0
SHOWN_OUTPUT_BYTES = 2_000


_certificates = cache(ssl.create_default_context)  # to load them takes 20 ms, and is done for each client otherwise


def own_client(timeout_seconds: float) -> httpx.AsyncClient:
    """A client with connections of its own: one that is kept open may belong to a process that is about to go."""
    return httpx.AsyncClient(trust_env=False, timeout=timeout_seconds, verify=_certificates())


class ServerCommand:
    """Runs ``command`` (no shell) from entry to exit; ready for requests when entered.

    Raises:
        ConformanceError: on entry, if it cannot be started, ends by itself, or does not answer in time.
    """

    def __init__(self, command: Sequence[str], server_url: str) -> None:
        self._command = tuple(command)
        self._server_url = server_url
        self._process: asyncio.subprocess.Process | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __aexit__

    async def __aenter__(self) -> Self:
        try:
            if await self._answers():
                raise ConformanceError(
                    f"{self._server_url} answers already, before --command has run: stop what runs there."
                )
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.kill()
        self._output.close()

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ConformanceError: it cannot be started, ends by itself, or does not answer in time.
        """
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                # Its workers too are killed by one call, and Ctrl-C goes to the kit alone.
                start_new_session=True,
            )
        except OSError as error:
            raise ConformanceError(f"--command {self._command[0]} cannot be started: {error.strerror}.") from error
        deadline = time.monotonic() + READY_SECONDS
        # It is asked whether it lives after it has answered: somebody else may do so at that address.
        while not await self._answers() or self._process.returncode is not None:
            if self._process.returncode is not None:
                raise ConformanceError(f"--command ended with exit code {self._process.returncode}: {self._tail()}")
            if time.monotonic() > deadline:
                raise ConformanceError(f"--command does not answer at {self._server_url} in {READY_SECONDS:g} s.")
            await asyncio.sleep(POLL_SECONDS)

    async def _answers(self) -> bool:
        async with own_client(READY_SECONDS) as http:
            try:
                return (await http.get(f"{self._server_url}/health")).is_success
            except httpx.TransportError:
                return False

    def output(self) -> bytes:
        """What it has printed, in all its starts."""
        self._output.seek(0)
        return self._output.read()

    def _tail(self) -> str:
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - SHOWN_OUTPUT_BYTES))
        return shortened(self._output.read().decode("utf-8", "replace").strip() or "it printed nothing")

    def terminate(self) -> None:
        """SIGTERM to the process itself, as a supervisor sends it."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def exit_code(self, timeout_seconds: float) -> int | None:
        """Its exit code once it has ended; ``None`` if it has not in time."""
        if self._process is None:
            return None
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._process.wait(), timeout_seconds)
        return None

    async def kill(self) -> None:
        """kill -9 to it and all its children, and wait until they are gone."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        # On a busy machine a child outlives it by a moment, and keeps the port from the next one.
        deadline = time.monotonic() + GONE_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, 0)
                await asyncio.sleep(POLL_SECONDS)
