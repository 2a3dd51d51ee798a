"""An app on a real socket: uvicorn in a thread of this process, on a free loopback port."""

import asyncio
import socket
import threading
from types import TracebackType
from typing import Any, Self

import uvicorn

from osmosis_ai.rollout.wire.inbound import bound
from osmosis_ai.rollout.wire.listening import listen

DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.01


class LiveServer:
    """Serves ``app``, lifespan included, from entry to exit; connections are bounded where ``max_connections`` says so.

    A server of its own process bounds them by itself.
    """

    def __init__(self, app: Any, *, max_connections: int | None = None, **options: Any) -> None:
        self._socket = listen("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http: str = options.get("http", "auto")
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, **options)
        if max_connections is not None:
            bound(config, max_connections)
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(DEADLINE_SECONDS)
        self._socket.close()

    def connect(self) -> socket.socket:
        """A bare connection, for what no HTTP client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS)


class _Server(uvicorn.Server):
    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(POLL_SECONDS)  # uvicorn looks ten times a second, and tests wait for it
