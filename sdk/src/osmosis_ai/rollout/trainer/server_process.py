"""A rollout server of our own: ``osmosis serve`` in a child process, on a loopback socket that is bound here.

The child never outlives ``ServerProcess``: it is asked to stop, then killed, and ends by itself where we are killed. It
runs in a session of its own, so that a Ctrl-C in the terminal reaches only us.
"""

import asyncio
import os
import secrets
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

import httpx

from osmosis_ai.rollout.core.consts import WHILE_STDIN_IS_OPEN_VARIABLE
from osmosis_ai.rollout.core.files import open_regular
from osmosis_ai.rollout.core.text import printable
from osmosis_ai.rollout.trainer import defaults
from osmosis_ai.rollout.trainer.errors import ServerEndedError, TrainerError
from osmosis_ai.rollout.trainer.listener import bind_socket, url_of

LOOPBACK = "127.0.0.1"
SERVER_KEY_BYTES = 32
READY_TIMEOUT_SECONDS = 60.0
STOP_GRACE_SECONDS = 5.0
KEPT_OUTPUT_LINES = 20
KEPT_LINE_BYTES = 2_000
ERROR_PREFIX = "Error: "

JOURNAL_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_JOURNAL"
DRAIN_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS"


class ServerProcess:
    """Serves an agent loop from entry to exit; ready for requests after ``wait_until_ready``.

    Args:
        agent: what ``osmosis serve`` is to serve, as its arguments: ``-m module:attribute`` or ``--mcp DIR``.
        log_directory: where the server writes traces; ``None`` for none.
        port: loopback port to serve on; 0 means any free one.
        api_key: the key of its inits; by default a new random one.
        server_log: file that gets all that the server writes.
        on_print: gets each line that the server's standard output has once it is ready: what the agent's code prints.
        journal: file in which the server keeps accepted rollouts, so that a later process on the same file reports
            those that this one left behind; ``None`` for no journal.

    Raises:
        TrainerError: on construction, if no socket can be bound or the system cannot hand one to a child.
    """

    def __init__(
        self,
        agent: tuple[str, ...],
        log_directory: Path | None = None,
        *,
        port: int = 0,
        api_key: str | None = None,
        journal: Path | None = None,
        server_log: Path | None = None,
        on_print: Callable[[str], None] | None = None,
    ) -> None:
        if os.name != "posix":
            raise TrainerError(
                "A server cannot be started from here on this system: start it with 'osmosis serve' and use --server."
            )
        self._agent = agent
        self._log_directory = log_directory
        self._journal = journal
        self._socket = bind_socket(LOOPBACK, port)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Future[Any] | None = None
        self._server_log = None if server_log is None else _opened(server_log)
        self._on_print = on_print
        self._output: deque[bytes] = deque(maxlen=KEPT_OUTPUT_LINES)
        self.port: int = self._socket.getsockname()[1]
        self.url = url_of(LOOPBACK, self.port)
        self.api_key = api_key or secrets.token_urlsafe(SERVER_KEY_BYTES)

    @property
    def pid(self) -> int | None:
        """Process id, once started."""
        return self._process.pid if self._process else None

    async def start(self, callback_url: str) -> None:
        """Start the child, which will be sent to ``callback_url`` and must not go through a proxy for it."""
        descriptor = self._socket.fileno()
        command = ["-m", "osmosis_ai", "serve", *self._agent, "--fd", str(descriptor)]
        if self._log_directory is not None:
            command += ["--log", str(self._log_directory)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            stdin=asyncio.subprocess.PIPE,  # closes with us, however we end
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(callback_url),
            pass_fds=[descriptor],
            start_new_session=True,
        )
        # As long as we held the socket too, a request to a dead child would wait instead of fail.
        self._socket.close()
        # What the server itself has to say goes to standard error: the other is the agent's.
        outputs = ((self._process.stdout, self._on_print), (self._process.stderr, None))
        self._reader = asyncio.gather(*(self._keep_output(stream, tell) for stream, tell in outputs if stream))

    def _environment(self, callback_url: str) -> dict[str, str]:
        environment = dict(os.environ)
        host = urlsplit(callback_url).hostname or LOOPBACK
        for variable in ("no_proxy", "NO_PROXY"):
            environment[variable] = ",".join(filter(None, [environment.get(variable), host]))
        environment[defaults.SERVER_KEY_VARIABLE] = self.api_key
        environment[JOURNAL_VARIABLE] = str(self._journal) if self._journal else "off"
        # When we stop it, nobody waits for what still runs.
        environment[DRAIN_VARIABLE] = "0"
        environment["PYTHONUNBUFFERED"] = "1"
        environment[WHILE_STDIN_IS_OPEN_VARIABLE] = "1"
        return environment

    async def _keep_output(self, stream: asyncio.StreamReader, tell: Callable[[str], None] | None) -> None:
        pending = b""
        while chunk := await stream.read(65_536):
            if self._server_log is not None:
                self._server_log.write(chunk)
            *lines, pending = (pending + chunk).split(b"\n")
            pending = pending[-KEPT_LINE_BYTES:]
            self._keep([line for line in lines if line.strip()], tell)
        self._keep([pending] if pending.strip() else [], tell)

    def _keep(self, lines: list[bytes], tell: Callable[[str], None] | None) -> None:
        self._output.extend(lines)
        if tell is not None:
            for line in lines:
                tell(_shown(line))

    async def wait_until_ready(self) -> None:
        """Wait until the child answers ``GET /health``.

        Raises:
            ServerEndedError: if it exits first.
            TrainerError: if it does not answer in ``READY_TIMEOUT_SECONDS``.
        """
        exited = asyncio.create_task(self.wait_for_exit())
        answered = asyncio.create_task(self._wait_for_health())
        try:
            await asyncio.wait({exited, answered}, timeout=READY_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                raise self.why_it_ended()
            if not answered.done():
                raise TrainerError(
                    f"The rollout server for {self._agent[1]} was not ready within {READY_TIMEOUT_SECONDS:g} s."
                )
        finally:
            exited.cancel()
            answered.cancel()
            await asyncio.gather(exited, answered, return_exceptions=True)

    async def _wait_for_health(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=READY_TIMEOUT_SECONDS) as client:
            while True:
                try:
                    response = await client.get(f"{self.url}/health")
                except httpx.TransportError:
                    pass
                else:
                    if response.is_success:
                        return
                await asyncio.sleep(0.05)

    async def wait_for_exit(self) -> None:
        """Wait until the child has ended and all it wrote has been read."""
        if self._process is not None and self._reader is not None:
            await self._process.wait()
            # Its last words may still be in the pipe; whoever stops waiting must not stop the reader.
            await asyncio.shield(self._reader)

    def why_it_ended(self) -> ServerEndedError:
        """The error to raise when the child has ended by itself: its own last error, or what it wrote last."""
        for line in map(_shown, reversed(self._output)):
            if line.startswith(ERROR_PREFIX):
                return ServerEndedError(line.removeprefix(ERROR_PREFIX), output=[])
        code = self._process.returncode if self._process else None
        return ServerEndedError(
            f"The rollout server for {self._agent[1]} ended by itself with exit code {code}.",
            list(map(_shown, self._output)),
        )

    async def stop(self) -> None:
        """Ask the child to stop; kill it if it has not within ``STOP_GRACE_SECONDS``, or if this is cancelled."""
        self._socket.close()
        process = self._process
        if process is None:
            return
        try:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), STOP_GRACE_SECONDS)
        except (TimeoutError, ProcessLookupError):
            pass
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            if self._reader is not None:
                # A child of the child may hold the pipe. Waited for, as nobody else asks what came of it.
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)
            if self._server_log is not None:
                self._server_log.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


def _opened(path: Path) -> BinaryIO:
    try:
        return os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, follow=True), "ab", buffering=0)
    except OSError as error:
        raise TrainerError(f"--server-log {path} cannot be written: {error.strerror or error}.") from error


def _shown(line: bytes) -> str:
    return printable(line[:KEPT_LINE_BYTES].decode("utf-8", "replace"))
