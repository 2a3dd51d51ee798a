"""Servers of this package on free ports, in this process; they end without a drain: their trainers are gone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from anyio.from_thread import start_blocking_portal

from servers.small import SmallServer


class QuietServer(uvicorn.Server):
    """Leaves signals to the program it runs in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(server: SmallServer) -> AsyncIterator[str]:
    """The URL of ``server``, which runs in this event loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    program = QuietServer(uvicorn.Config(server.app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    task = asyncio.create_task(program.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await server.close()
        program.should_exit = True
        await task
        listener.close()


@contextmanager
def serving_in_a_thread(server: SmallServer) -> Iterator[str]:
    """The same, for tests that are not in an event loop."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving(server)) as url:
        yield url
