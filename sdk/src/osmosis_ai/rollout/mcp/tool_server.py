"""One way to list and call the tools of a FastMCP server, whichever version of FastMCP made it.

Versions before 3 hold their tools in ``_tool_manager``, and so does a stand-in; later ones have ``list_tools`` and
``call_tool``. Tools are called directly, without a client: a call costs a quarter of what it costs through one, and a
tool that hangs or exits takes nothing else with it. The session that they find is ``mcp/session.py``'s.
"""

import asyncio
import contextvars
import inspect
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.offload import call_in_thread, daemon_threads
from osmosis_ai.rollout.mcp.loader import MCPLoadError
from osmosis_ai.rollout.mcp.session import ToolSession, has_sessions

Call = Callable[[str, dict[str, Any]], Awaitable[Any]]

LISTING_TIMEOUT_SECONDS = 60.0


class ToolServer:
    """The tools of ``server``."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    def list_tools(self) -> list[Any]:
        """The tools, objects with ``name``, ``description`` and ``parameters``; may be called in an event loop.

        Raises:
            MCPLoadError: the server cannot list its tools, or takes longer than ``LISTING_TIMEOUT_SECONDS``.
        """
        try:
            manager = self._tool_manager()
            if manager is not None:
                return list(manager._tools.values())
            # In an event loop of its own; a hanging one does not keep the process from ending.
            listing = partial(contextvars.copy_context().run, asyncio.run, self._server.list_tools())
            return list(daemon_threads().submit(listing).result(LISTING_TIMEOUT_SECONDS))
        except TimeoutError as error:
            raise MCPLoadError(f"The MCP server did not list its tools in {LISTING_TIMEOUT_SECONDS:g} s.") from error
        except (Exception, SystemExit) as error:
            raise MCPLoadError(
                f"The MCP server ({type(self._server).__name__}) cannot list its tools: {type(error).__name__}: {error}"
            ) from error

    @asynccontextmanager
    async def session(self, ctx: RolloutContext) -> AsyncIterator[Call]:
        """What calls the tools for one rollout: a function of name and arguments, as in ``call``."""
        async with self.running():
            if not self._is_fastmcp() or not has_sessions():
                yield self.call
                return
            session = ToolSession(ctx)

            async def call(name: str, arguments: dict[str, Any]) -> Any:
                with session.bound():
                    return await self.call(name, arguments)

            try:
                yield call
            finally:
                await session.close()

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """The result of a tool as the server gives it; raises what the tool raises."""
        manager = self._tool_manager()
        with _quiet_fastmcp():
            if manager is None:
                return await self._server.call_tool(name, arguments)
            if _blocks(manager, name):
                return await call_in_thread(lambda: asyncio.run(manager.call_tool(name, arguments)))
            return await manager.call_tool(name, arguments)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the server's lifespan open; of overlapping uses, the first begins it and the last ends it.

        Raises:
            Exception: the lifespan fails to begin or to end.
        """
        client = self._client()
        if client is None:
            yield
            return
        async with client:
            yield

    def _tool_manager(self) -> Any:
        return getattr(self._server, "_tool_manager", None)

    def _is_fastmcp(self) -> bool:
        """Whether it is a server of FastMCP, of version 3 or later."""
        server_class = getattr(sys.modules.get("fastmcp"), "FastMCP", None)
        is_one = isinstance(server_class, type) and isinstance(self._server, server_class)
        return is_one and self._tool_manager() is None

    def _client(self) -> Any:
        """The client of this event loop, whose only use is to keep the server running; ``None`` for a stand-in."""
        client_class = getattr(sys.modules.get("fastmcp"), "Client", None)
        if not isinstance(client_class, type) or not self._is_fastmcp():
            return None
        # One a loop, as what a session waits on belongs to the loop in which it began.
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = client_class(self._server)
        return self._clients[loop]


def _blocks(manager: Any, name: str) -> bool:
    """Whether the tool is a plain function that the manager would run on the event loop."""
    function = getattr(manager._tools.get(name), "fn", None)
    return inspect.isroutine(function) and not inspect.iscoroutinefunction(function)


_calling: ContextVar[bool] = ContextVar("_calling", default=False)


def _is_no_failed_call(record: logging.LogRecord) -> bool:
    """Not what FastMCP logs of a failed call: it draws the traceback on the event loop, for 10 ms and more."""
    return not _calling.get()


@contextmanager
def _quiet_fastmcp() -> Iterator[None]:
    logging.getLogger("fastmcp.server.server").addFilter(_is_no_failed_call)  # once; a repeat does nothing
    token = _calling.set(True)
    try:
        yield
    finally:
        _calling.reset(token)
