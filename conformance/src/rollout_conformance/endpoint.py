"""A small HTTP/1.1 endpoint that can do what a good one never does: close or reset a connection in place of an answer,
or within it, write more than the answer, or never come to its end.

The protocol is h11's; this is the loop around it. Each connection has a task, which ends with the endpoint.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import h11

from rollout_conformance.vocabulary import ConformanceError

READ_BYTES = 65_536
MAX_BODY_BYTES = 64 * 1024 * 1024
TAIL_BYTES = 64
STATUS_LINE = b"HTTP/1.1 200"
PIECE_SECONDS = 0.05
"""After which the first piece has been read by itself."""
CHUNKED = b"chunked"
LAST_CHUNK = b"0\r\n\r\n"
AT_ONCE = struct.pack("ii", 1, 0)
"""With it, the end of a connection is a reset (RST), which drops what is still on its way."""


@dataclass(frozen=True)
class Request:
    """A request, read whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case; a repeated one has all its values, with commas between (RFC 9110, 5.3)."""
    body: bytes
    is_abandoned: Callable[[], bool] = field(default=lambda: False, compare=False)
    """Whether whoever sent it has closed the connection, in full or for its part."""


@dataclass(eq=False)
class Flood:
    """A head or a body without end, up to ``max_bytes``."""

    opening: bytes
    """What comes first."""
    again: bytes
    """What comes after it, again and again."""
    max_bytes: int
    sent_bytes: int = 0
    """How much the other side has taken before it hung up; ``max_bytes`` or more if it took all."""


@dataclass(frozen=True)
class Answer:
    """A response; ``None`` in its place cuts the connection."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Instead of the usual ones, or beside them; an empty text leaves one out."""
    cut_within: str = ""
    """``start``, ``line`` (of the status), ``head`` or ``body``: where it ends, and the connection with it; ``tail``:
    in white space behind the body's JSON; ``end``: before its last line break, of one in chunks."""
    is_reset: bool = False
    """Whether the connection of one that is cut is reset, not closed."""
    is_chunked: bool = False
    """Whether its body comes in chunks; one that is cut within its body lacks the last, empty one alone."""
    coding: bytes = CHUNKED
    """How the coding of one in chunks is written: its name has no case (RFC 9112, 7)."""
    trailer: Mapping[str, str] = field(default_factory=dict)
    """Fields behind the last chunk of one in chunks (RFC 9112, 7.1.2)."""
    in_pieces: bool = False
    """Whether the first character beyond ASCII of its body comes in two writes, or in two chunks."""
    ends_with_connection: bool = False
    """Whether nothing but the end of the connection says where its body ends."""
    before: bytes = b""
    """What is written right before it."""
    behind: bytes = b""
    """What is written right behind it."""
    flood: Flood | None = None
    """What comes in its place."""

    @property
    def is_whole(self) -> bool:
        """Whether the other side gets an answer at all."""
        return not self.cut_within and self.flood is None


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


def bound(host: str, port: int) -> socket.socket:
    """A TCP socket on ``host`` that does not listen yet, and that others of this user may stand beside.

    Raises:
        OSError: it cannot be bound.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.bind(address[:2])
    return one


def address_of(listener: socket.socket, host: str) -> str:
    """``http`` URL of a listening socket."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def served(handler: Handler, listener: socket.socket) -> AsyncIterator[None]:
    """Serve ``handler`` on ``listener``, which is closed at the end; so is every connection."""
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(_serve_connection(handler, reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, sock=listener)
    try:
        yield
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _serve_connection(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = h11.Connection(h11.SERVER)
    try:
        with contextlib.suppress(OSError, h11.RemoteProtocolError):
            while (request := await _read(reader, writer, connection)) is not None:
                answer = await handler(request)
                if answer is None:
                    writer.transport.abort()
                    return
                if answer.flood is not None:
                    await _pour(writer, answer.flood)
                    return
                written = answer.before + _cut(_encode(connection, answer), answer) + answer.behind
                if answer.in_pieces:
                    first, written = cut_within_character(written)
                    writer.write(first)
                    await asyncio.sleep(PIECE_SECONDS)
                writer.write(written)
                await writer.drain()
                if answer.is_reset:
                    await asyncio.sleep(PIECE_SECONDS)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                    writer.transport.abort()
                if answer.cut_within or answer.ends_with_connection:
                    return
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
    finally:
        writer.transport.abort() if writer.transport.is_closing() else writer.close()


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: h11.Connection
) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            # Some clients wait for it before they send a body (RFC 9110, 10.1.1).
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
            headers = dict[str, str]()
            for name, value in ((one.decode("latin-1"), two.decode("latin-1")) for one, two in head.headers):
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            return Request(
                head.method.decode("ascii"),
                head.target.decode("latin-1"),
                headers,
                bytes(body),
                partial(_is_over, reader),
            )
        else:
            return None


def _is_over(reader: asyncio.StreamReader) -> bool:
    return reader.at_eof() or reader.exception() is not None


async def _pour(writer: asyncio.StreamWriter, flood: Flood) -> None:
    writer.write(flood.opening)
    piece = flood.again * max(1, READ_BYTES // len(flood.again))
    while flood.sent_bytes < flood.max_bytes:
        writer.write(piece)
        await writer.drain()
        flood.sent_bytes += len(piece)


def cut_within_character(text: bytes) -> tuple[bytes, bytes]:
    """``text`` in two, behind the first byte of its first character beyond ASCII, or in its middle."""
    at = next((n + 1 for n, byte in enumerate(text) if byte > 127), len(text) // 2)
    return text[:at], text[at:]


def _cut(response: bytes, answer: Answer) -> bytes:
    """Nothing of the response, or all up to its reason, to the end of its last header, which could be taken for that of
    the head, to half of its body, or to the end of what its body says.
    """
    head, _, body = response.partition(b"\r\n\r\n")
    kept = {
        "start": 0,
        "line": len(STATUS_LINE),
        "head": len(head) + 2,
        "body": len(head) + 4 + (len(body) - len(LAST_CHUNK) if answer.is_chunked else len(body) // 2),
        "tail": len(response) - TAIL_BYTES // 2,
        "end": len(response) - 2,
    }
    return response[: kept.get(answer.cut_within, len(response))]


def _encode(connection: h11.Connection, answer: Answer) -> bytes:
    body = answer.body + b" " * (TAIL_BYTES if answer.cut_within == "tail" else 0)
    frame = {"Transfer-Encoding": "chunked"} if answer.is_chunked else {"Content-Length": str(len(body))}
    headers = {"Content-Type": "application/json", **answer.headers, **frame}
    head = h11.Response(status_code=answer.status, headers=[(name, v) for name, v in headers.items() if v])
    parts = cut_within_character(body) if answer.in_pieces and answer.is_chunked else (body,)
    end = h11.EndOfMessage(headers=list(answer.trailer.items()))
    events: tuple[h11.Event, ...] = (head, *(h11.Data(data=part) for part in parts), end)
    response = b"".join(connection.send(event) or b"" for event in events)
    response = response.replace(b": " + CHUNKED, b": " + answer.coding, 1) if answer.is_chunked else response
    # No event of h11's: it would make chunks of such a body.
    length = f"Content-Length: {len(body)}".encode()
    return response.replace(length, b"Connection: close", 1) if answer.ends_with_connection else response
