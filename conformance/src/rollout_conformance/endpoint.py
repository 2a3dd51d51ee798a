"""A small HTTP/1.1 endpoint that can do what a good one never does: cut a connection in place of an answer.

The protocol is h11's; this is the loop around it. Each connection has a task, which ends with the endpoint.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import h11

from rollout_conformance.vocabulary import ConformanceError

READ_BYTES = 65_536
MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """A request, read whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case; of a repeated one the last."""
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A response; ``None`` in its place cuts the connection."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Answer | None]]


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket that listens on ``host``; port 0 takes any free one.

    Raises:
        ConformanceError: the address cannot be resolved or bound.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConformanceError(f"Cannot listen on {host} port {port}: {reason}.") from error
    # Accepted connections inherit it; asyncio leaves it out for sockets made with protocol 0, as here. Without it a
    # long answer waits some 40 ms for the server's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket, host: str) -> str:
    """``http`` URL of a listening socket."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Endpoint:
    """Serves ``handler`` on ``listener`` from entry to exit, and closes the socket."""

    def __init__(self, handler: Handler, listener: socket.socket) -> None:
        self._handler = handler
        self._listener = listener
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, sock=self._listener)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, h11.RemoteProtocolError):
                await self._serve_requests(reader, writer, h11.Connection(h11.SERVER))
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _serve_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: h11.Connection
    ) -> None:
        while (request := await _read(reader, writer, connection)) is not None:
            answer = await self._handler(request)
            if answer is None:
                writer.transport.abort()
                return
            writer.write(_encode(connection, answer))
            await writer.drain()
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: h11.Connection
) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
            return Request(head.method.decode("ascii"), head.target.decode("latin-1"), headers, bytes(body))
        else:
            return None


def _encode(connection: h11.Connection, answer: Answer) -> bytes:
    headers = {"Content-Type": "application/json", **answer.headers, "Content-Length": str(len(answer.body))}
    head = h11.Response(status_code=answer.status, headers=list(headers.items()))
    events: tuple[h11.Event, ...] = (head, h11.Data(data=answer.body), h11.EndOfMessage())
    return b"".join(connection.send(event) or b"" for event in events)
