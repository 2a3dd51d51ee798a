"""The tools of an MCP server at a URL, over streamable HTTP.

Each rollout has a session of its own, which the server is told to end with it. The server is not trusted: what it
sends is bounded in bytes and time, it cannot send a rollout elsewhere (no redirects), and compressed replies are
refused. What a tool answers, errors included, is the model's; a server that is down ends the rollout: no failure of the
model's. The key of ``OSMOSIS_MCP_API_KEY`` is in the header of requests to it, and nowhere else.
"""

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.consts import MCP_KEY_VARIABLE
from osmosis_ai.rollout.core.offload import daemon_threads
from osmosis_ai.rollout.core.server_url import check_server_url
from osmosis_ai.rollout.core.text import excerpt, redacted
from osmosis_ai.rollout.core.user_errors import UsageError
from osmosis_ai.rollout.mcp.loader import INSTALL_HINT, MCPLoadError
from osmosis_ai.rollout.mcp.session import ToolSession
from osmosis_ai.rollout.mcp.tool_server import Call

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 30.0
CLOSE_SECONDS = 5.0
MAX_REPLY_BYTES = 32 * 2**20
"""Of one HTTP response; one that streams for a whole rollout included."""

# JSON-RPC: the method is not there, the parameters are not as they should be.
_OF_THE_MODEL = (-32601, -32602)

_NOT_ALLOWED = (401, 403)
_NOT_ALLOWED_HINT = f"{MCP_KEY_VARIABLE} is sent as its bearer token"


class MCPServerError(Exception):
    """The MCP server cannot be reached, or does not speak as it should; no failure of the model."""


def is_url(place: object) -> bool:
    """Whether ``--mcp`` names a server, and no directory."""
    return isinstance(place, str) and place.lower().startswith(("http://", "https://"))


def absolute_place(place: str) -> str:
    """A URL as it is, a directory as an absolute path: what another process is told."""
    return place if is_url(place) else str(Path(place).resolve())


def check_url(url: str) -> None:
    """See that ``url`` can be one.

    Raises:
        UsageError: it cannot; the sentence says why.
    """
    try:
        check_server_url(url)
    except ValueError as error:
        reason = str(error).partition(";")[0].replace("server_url", "its address")
        raise UsageError(f"--mcp takes an MCP server such as http://127.0.0.1:8000/mcp; {reason}.") from None


class RemoteToolServer:
    """The tools of the MCP server at ``url``, such as ``http://127.0.0.1:8000/mcp``.

    Raises:
        UsageError: ``url`` can be none, or the key of ``OSMOSIS_MCP_API_KEY`` cannot be sent.
    """

    def __init__(self, url: str) -> None:
        check_url(url)
        self.url = url
        self._key = _key()

    def list_tools(self) -> list[Any]:
        """The tools, as ``ToolServer.list_tools`` gives them.

        Raises:
            MCPLoadError: they cannot be had within ``CONNECT_SECONDS``.
        """
        _import_client()
        try:
            tools = daemon_threads().submit(lambda: asyncio.run(self._listed())).result(2 * CONNECT_SECONDS)
        except MCPServerError as error:
            raise MCPLoadError(str(error)) from error
        except Exception as error:
            raise MCPLoadError(f"The MCP server at {self.url} did not list its tools: {self._reason(error)}") from error
        return [
            SimpleNamespace(name=tool.name, description=tool.description, parameters=_input_schema(tool))
            for tool in tools
        ]

    @asynccontextmanager
    async def session(self, ctx: RolloutContext) -> AsyncIterator[Call]:
        """What calls the tools for one rollout, in a session of its own.

        Raises:
            MCPServerError: there is no session to be had.
        """

        async def log(message: Any) -> None:
            await said.send_log_message(str(message.level), message.data, message.logger)

        said = ToolSession(ctx)
        async with self._client(log) as client:

            async def call(name: str, arguments: dict[str, Any]) -> Any:
                try:
                    return await client.call_tool(name, arguments, raise_on_error=False)
                except Exception as error:
                    if getattr(getattr(error, "error", None), "code", None) in _OF_THE_MODEL:
                        raise
                    raise MCPServerError(f"The MCP server at {self.url} failed: {self._reason(error)}") from error

            yield call

    async def _listed(self) -> list[Any]:
        async with asyncio.timeout(CONNECT_SECONDS), self._client(_not_logged) as client:
            tools: list[Any] = await client.list_tools()
            return tools

    @asynccontextmanager
    async def _client(self, log: Callable[[Any], Awaitable[None]]) -> AsyncIterator[Any]:
        client_class, transport_class = _import_client()
        options = {"init_timeout": CONNECT_SECONDS, "log_handler": log}
        if "mode" in inspect.signature(client_class).parameters:
            options["mode"] = "legacy"  # the protocol that has sessions
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else None
        transport = transport_class(self.url, headers=headers, httpx_client_factory=_http_client)
        client = client_class(transport, **options)
        stack = AsyncExitStack()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await stack.enter_async_context(client)
        except Exception as error:
            raise MCPServerError(f"The MCP server at {self.url} cannot be reached: {self._reason(error)}") from error
        try:
            yield client
        finally:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await stack.aclose()
            except Exception as error:  # noqa: BLE001 - the rollout is over, and the server will end it by itself
                logger.debug("The session at %s could not be ended: %s", self.url, self._reason(error))

    def _reason(self, error: BaseException) -> str:
        """Without the key, which a server may repeat."""
        return redacted(excerpt(" ".join(str(error).split()), self._key))[:300] or type(error).__name__


def _key() -> str | None:
    key = os.environ.get(MCP_KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"The key of {MCP_KEY_VARIABLE} must be printable ASCII text.")
    return key or None


def _import_client() -> tuple[Any, Any]:
    try:
        from fastmcp import Client
        from fastmcp.client.transports import StreamableHttpTransport
    except ImportError as error:
        raise MCPLoadError(f"MCP tools need the package fastmcp; {INSTALL_HINT}") from error
    _take_large_events()
    return Client, StreamableHttpTransport


def _take_large_events() -> None:
    """Have an event be as large as a reply may be: the client's limit of 1 MiB is less than an image has.

    What breaks when a call is given up is logged by the client as an error, with a traceback; it is none.
    """
    from fastmcp.client.transports import http

    logging.getLogger("mcp.client.streamable_http").setLevel(logging.CRITICAL)
    opener = getattr(http, "streamable_http_client", None)
    if isinstance(opener, partial) or opener is None:
        return
    if "max_sse_event_size" in inspect.signature(opener).parameters:
        vars(http)["streamable_http_client"] = partial(opener, max_sse_event_size=MAX_REPLY_BYTES)


async def _not_logged(_: Any) -> None:
    """No rollout, no trace."""


def _http_client(**options: Any) -> Any:
    from mcp.shared import _httpx_utils

    library: Any = getattr(_httpx_utils, "httpx2", None) or __import__("httpx")

    async def bound(response: Any) -> None:
        if response.status_code in _NOT_ALLOWED:  # which the client would call an error response
            raise library.ReadError(f"status {response.status_code}, {_NOT_ALLOWED_HINT}", request=response.request)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise library.DecodingError("a compressed reply, which was not asked for", request=response.request)
        response.stream = _Bounded(response.stream, library, response.request)

    class _Bounded(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any, library: Any, request: Any) -> None:
            self._stream, self._request = stream, request

        async def __aiter__(self) -> AsyncIterator[bytes]:
            count = 0
            async for chunk in self._stream:
                count += len(chunk)
                if count > MAX_REPLY_BYTES:
                    # Told here, as the client keeps it to itself.
                    logger.warning("A reply of the MCP server has more than %d bytes, and is dropped.", MAX_REPLY_BYTES)
                    raise library.ReadError(f"a reply of more than {MAX_REPLY_BYTES:,} bytes", request=self._request)
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    options["headers"] = {**(options.get("headers") or {}), "accept-encoding": "identity"}
    options["follow_redirects"] = False
    options.setdefault("timeout", library.Timeout(CONNECT_SECONDS, read=300.0))
    client = library.AsyncClient(**{key: value for key, value in options.items() if value is not None})
    client.event_hooks["response"].append(bound)
    return client


def _input_schema(tool: Any) -> Any:
    return getattr(tool, "input_schema", None) or getattr(tool, "inputSchema", None)
