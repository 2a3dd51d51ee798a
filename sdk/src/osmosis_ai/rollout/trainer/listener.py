"""An ASGI app served inside this process's event loop, on a socket that is bound first."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import uvicorn

from osmosis_ai.rollout.trainer.errors import TrainerError
from osmosis_ai.rollout.wire.inbound import bound, connection_limit
from osmosis_ai.rollout.wire.listening import listen

if TYPE_CHECKING:
    from starlette.types import ASGIApp

CLOSE_TIMEOUT_SECONDS = 2
OWN_CONNECTIONS = 256
"""Descriptors that the callbacks leave to the trainer's program: its inits, models, files."""
LOOPBACK_OF_ALL_INTERFACES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a key, not bound


def bind_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens on ``host``; port 0 means any free one.

    Raises:
        TrainerError: if the address cannot be listened on.
    """
    try:
        return listen(host, port)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainerError(f"Cannot listen on {host} port {port}: {reason}.") from error


def url_of(host: str, port: int) -> str:
    """``http`` URL at which this machine reaches ``host``; IPv6 addresses in brackets."""
    host = LOOPBACK_OF_ALL_INTERFACES.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Listener:
    """Serves ``app`` on ``listening_socket`` from entry to exit, and closes the socket."""

    def __init__(self, app: "ASGIApp", listening_socket: socket.socket) -> None:
        self._socket = listening_socket
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=CLOSE_TIMEOUT_SECONDS,
        )
        bound(config, connection_limit(OWN_CONNECTIONS))
        self._server = _QuietServer(config)
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        await self._server.is_up.wait()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop()
        if self._serving is not None:
            await self._serving
        self._socket.close()


class _QuietServer(uvicorn.Server):
    """Leaves signals to the program it runs in, and waits to be stopped instead of asking ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()
        self._asked_to_stop = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._asked_to_stop.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._asked_to_stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)
        # Idle connections are gone by now; uvicorn would wait for them all the same.
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
