"""The server under test as a process of the kit's: started, asked to stop, killed, started again.

It has a session of its own. The whole session is gone, and nobody answers at its address, before the next one starts
and when ``ServerCommand`` is left: a worker that outlives its supervisor would answer in place of the next server.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import httpx

from rollout_conformance.own_connections import OwnConnections
from rollout_conformance.processes import kill_session
from rollout_conformance.text import shortened
from rollout_conformance.vocabulary import ConformanceError

READY_SECONDS = 60.0
STARTING_SECONDS = 10.0
POLL_SECONDS = 0.05
GONE_SECONDS = 10.0
SHOWN_OUTPUT_BYTES = 8_000
SHOWN_LINES = 10


class ServerCommand:
    """Runs ``command`` (no shell) from entry to exit; ready for requests when entered.

    Args:
        variables: those of its environment that are not set in the kit's.

    Raises:
        ConformanceError: on entry, if it cannot be started, ends by itself, or does not answer in time.
    """

    def __init__(self, command: Sequence[str], server_url: str, variables: Mapping[str, str] | None = None) -> None:
        self._command = tuple(command)
        self._server_url = server_url
        self._variables = dict(variables or {})
        self._process: asyncio.subprocess.Process | None = None
        self._is_told_to_end = False
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __aexit__
        self.own_end: tuple[str, ...] = ()
        """That it has ended though nobody had told it to, and the last that it printed, line by line; or nothing."""

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
        with contextlib.suppress(ConformanceError):  # the report says more than that something is left
            await self.kill()
        self._output.close()

    async def start(self, variables: Mapping[str, str] | None = None) -> None:
        """Start it, once what is left of the one before is gone, and wait until it answers.

        Args:
            variables: further ones of this start.

        Raises:
            ConformanceError: it cannot be started, ends by itself, or does not answer in time; or the one before
                answers still.
        """
        await self.kill()
        self._is_told_to_end = False
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env={**self._variables, **(variables or {}), **os.environ},
                # Its workers too are killed by one call, and Ctrl-C goes to the kit alone.
                start_new_session=True,
            )
        except OSError as error:
            raise ConformanceError(f"--command {self._command[0]} cannot be started: {error.strerror}.") from error
        began = time.monotonic()
        # It is asked whether it lives after it has answered: somebody else may do so at that address.
        while not await self._is_ready(began) or self._process.returncode is not None:
            if self._process.returncode is not None:
                self._is_told_to_end = True  # the error tells of it
                raise ConformanceError(
                    f"--command ended with exit code {self._process.returncode}: {' / '.join(self.last_lines())}"
                )
            if time.monotonic() > began + READY_SECONDS:
                raise ConformanceError(
                    f"--command does not answer at {self._server_url} in {READY_SECONDS:g} s: "
                    f"{' / '.join(self.last_lines())}"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _is_ready(self, began: float) -> bool:
        # Whatever it says: what /health answers is another check's matter, but for a proxy's 503 while it starts.
        status = await self._status()
        return status is not None and (status < 500 or time.monotonic() > began + STARTING_SECONDS)

    async def _answers(self) -> bool:
        return await self._status() is not None

    async def _status(self) -> int | None:
        """Of the answer to GET /health; ``None`` without one."""
        try:
            return (await OwnConnections(READY_SECONDS).request("GET", f"{self._server_url}/health")).status_code
        except httpx.TransportError:
            return None

    def output(self) -> bytes:
        """What it has printed, in all its starts."""
        self._output.seek(0)
        return self._output.read()

    def last_lines(self) -> list[str]:
        """The last that it has printed, short and printable."""
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - SHOWN_OUTPUT_BYTES))
        lines = self._output.read().decode("utf-8", "replace").splitlines()
        return [shortened(line) for line in lines if line.strip()][-SHOWN_LINES:] or ["it printed nothing"]

    def look(self) -> None:
        """Note in ``own_end`` whether it has ended by itself."""
        if self._process is not None and self._process.returncode is not None and not self._is_told_to_end:
            self._is_told_to_end = True
            how = f"The server ended by itself, with exit code {self._process.returncode}. The last that it printed:"
            self.own_end = (how, *self.last_lines())

    def terminate(self) -> None:
        """SIGTERM to the process itself, as a supervisor sends it."""
        self.look()
        self._is_told_to_end = True
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
        """kill -9 to it and all that it has started, and wait until they are gone, and nobody answers there.

        Raises:
            ConformanceError: some of it does not end; or somebody answers still, who has begun a session of his own.
        """
        if self._process is None:
            return
        self.look()
        self._is_told_to_end = True
        deadline = time.monotonic() + GONE_SECONDS
        # A child may begin another meanwhile; and on a busy machine one outlives the kill by a moment.
        while left := kill_session(self._process.pid):
            if time.monotonic() > deadline:
                raise ConformanceError(
                    f"Process {left[0]} of --command has not ended {GONE_SECONDS:g} s after kill -9."
                )
            await asyncio.sleep(POLL_SECONDS)
        await self._process.wait()
        self._process = None
        while await self._answers():
            if time.monotonic() > deadline:
                raise ConformanceError(
                    f"{self._server_url} answers still, {GONE_SECONDS:g} s after --command was killed: "
                    "it must not leave the session that it is started in."
                )
            await asyncio.sleep(POLL_SECONDS)
