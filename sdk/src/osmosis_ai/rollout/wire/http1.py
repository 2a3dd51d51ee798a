"""HTTP/1.1 POSTs over kept-alive connections: what a rollout needs of an HTTP client, and nothing else.

A general client spends more on one request than the rest of a turn together: URL objects, header multidicts, cookies,
redirects, a pool that is searched linearly. Here a request is a few bytes joined, a connection is taken from the top
of a stack, and the parser is httptools'. Failures are raised as httpx's exceptions, so that callers need not care.

One ``Pool`` serves one origin in one event loop. Nothing is retried, but for a kept-alive connection that turns out to
have been closed by the peer before it answered anything: that request goes out once more on a fresh one.
"""

import asyncio
import json
import ssl
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
import httpx
from pydantic_core import from_json

from osmosis_ai.rollout.core.turnstile import turnstile_of

KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which common servers close an idle connection."""
JOINED_BYTES = 65_536
"""Up to here copying a body behind its head costs less than writing two pieces."""
MAX_REPLY_BYTES = 256 * 1024 * 1024
_CODED = frozenset({b"gzip", b"x-gzip", b"deflate"})
_LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(slots=True)
class Reply:
    """A response, complete with its body."""

    status_code: int
    content: bytes
    raw_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def headers(self) -> httpx.Headers:
        """The headers, whatever the case of their names."""
        return httpx.Headers(self.raw_headers)

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 become replacement characters."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body, decoded. Raises ``ValueError`` if it is no JSON."""
        try:
            return from_json(self.content)
        except ValueError:  # stricter than the standard library, which takes lone surrogates and a byte order mark
            return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a pool connects to."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class _Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.reusable = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._begun = False
        self._parser: Any = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._coding = b""
        self._has_length = False
        self._body: list[bytes] = []
        self._body_bytes = 0

    @property
    def answered_anything(self) -> bool:
        """Whether the peer has sent a byte in reply to the request under way."""
        return self._begun

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, head: bytes, body: bytes, loop: asyncio.AbstractEventLoop, deadline: float) -> Reply:
        """Send a request and wait until ``deadline`` (the loop's time) for the whole reply.

        A caller who stops waiting closes the connection.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        self._begun = self.reusable = False
        self._begin_message()
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        answer: asyncio.Future[Reply] = loop.create_future()
        self._answer = answer
        timer = loop.call_at(deadline, self._time_out)
        if len(body) <= JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        try:
            return await answer
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
            self._answer = None

    def _time_out(self) -> None:
        self._fail(httpx.ReadTimeout(""))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By its protocol, not by its class: uvloop's is none of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.close()
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"The reply is not HTTP/1.1: {error}"))

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended(exc)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        lower = name.lower()
        if lower == b"content-encoding":
            self._coding = value.strip().lower()
        elif lower in _LENGTH_HEADERS:
            self._has_length = True

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > MAX_REPLY_BYTES:
            self._fail(httpx.RemoteProtocolError(f"The reply is larger than {MAX_REPLY_BYTES} bytes."))
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._begin_message()
            return
        self.reusable = self._parser.should_keep_alive()
        self._resolve(status)

    def _begin_message(self) -> None:
        self._headers, self._body, self._body_bytes = [], [], 0
        self._coding, self._has_length = b"", False

    def _ended(self, error: Exception | None) -> None:
        if self._answer is None or self._answer.done():
            return
        # Without a length the body ends with the connection (RFC 9112, 6.3).
        if error is None and self._headers and not self._has_length:
            self._resolve(self._parser.get_status_code())
        elif error is None and not self._begun:
            self._fail(httpx.RemoteProtocolError("Server disconnected without sending a response."))
        elif error is None:
            self._fail(httpx.RemoteProtocolError("Server disconnected in the middle of its response."))
        else:
            self._fail(httpx.ReadError(str(error) or type(error).__name__))

    def _resolve(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            try:
                body = _decoded(body, self._coding)
            except zlib.error as error:
                self._fail(httpx.DecodingError(f"The reply cannot be decompressed: {error}"))
                return
            answer, self._answer = self._answer, None
            turnstile_of(answer.get_loop()).resolve(answer, Reply(status, body, self._headers))

    def _fail(self, error: httpx.RequestError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()


class Pool:
    """The connections to one origin: at most ``max_connections``, of which ``max_idle`` are kept open."""

    def __init__(self, origin: Origin, max_connections: int, max_idle: int) -> None:
        self._origin = origin
        self._max_idle = max_idle
        self._max_connections = max_connections
        self._free_places = max_connections
        self._idle: list[_Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()

    async def post(self, head: bytes, body: bytes, *, timeout_seconds: float, connect_timeout_seconds: float) -> Reply:
        """Send a complete HTTP/1.1 message, request line and headers in ``head``, and return the reply.

        Raises:
            httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ReadError, httpx.ReadTimeout,
            httpx.RemoteProtocolError, httpx.DecodingError: what httpx would raise.
        """
        loop = self._loop
        deadline = loop.time() + timeout_seconds
        if self._free_places > 0:
            self._free_places -= 1
        else:
            await self._wait_for_place(timeout_seconds)
        connection: _Connection | None = None
        try:
            connection = self._take_idle()
            if connection is not None:
                try:
                    return await connection.exchange(head, body, loop, deadline)
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    if connection.answered_anything:
                        raise
            connection = await self._connect(min(connect_timeout_seconds, deadline - loop.time()))
            return await connection.exchange(head, body, loop, deadline)
        finally:
            self._give_back(connection)

    @property
    def is_unused(self) -> bool:
        """Whether no request is under way."""
        return self._free_places == self._max_connections

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        self._max_idle = 0
        while self._idle:
            self._idle.pop().close()

    async def _connect(self, timeout_seconds: float) -> _Connection:
        try:
            async with asyncio.timeout(timeout_seconds):
                _, connection = await self._loop.create_connection(
                    _Connection, self._origin.host, self._origin.port, ssl=self._origin.tls
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("") from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error) or type(error).__name__) from error
        return connection

    async def _wait_for_place(self, timeout_seconds: float) -> None:
        place = self._loop.create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(timeout_seconds):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._give_place()
            if isinstance(error, TimeoutError):
                raise httpx.PoolTimeout("") from error
            raise

    def _take_idle(self) -> _Connection | None:
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < KEEPALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: _Connection | None) -> None:
        if connection is not None:
            if connection.reusable and connection.is_open and len(self._idle) < self._max_idle:
                connection.idle_since = self._loop.time()
                self._idle.append(connection)
            else:
                connection.close()
        self._give_place()

    def _give_place(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free_places += 1


def _decoded(body: bytes, coding: bytes) -> bytes:
    """``body`` without its content coding; none is asked for, but a server may send one all the same."""
    if coding not in _CODED or not body:
        return body
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
    decoded = decompressor.decompress(body, MAX_REPLY_BYTES)
    if decompressor.unconsumed_tail:
        raise zlib.error(f"larger than {MAX_REPLY_BYTES} bytes")
    return decoded
