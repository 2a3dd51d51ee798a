"""One HTTP/1.1 connection: a POST, its reply, and then perhaps another (RFC 9112). The parser is httptools'.

States: connecting, idle, waiting for an answer, closed. Exactly while a request is under way, ``_answer`` is a future,
and it is resolved once: by a whole reply, a fault of the peer, the deadline, or the end of the connection. Failures are
httpx's exceptions, so that a caller need not know which way a request went.
"""

import asyncio
import zlib
from typing import Any, cast

import httptools
import httpx

from osmosis_ai.rollout.core.turnstile import Turnstile
from osmosis_ai.rollout.wire.channel import MAX_REPLY_BYTES, Reply, too_large

JOINED_BYTES = 65_536
"""Up to here copying a body behind its head costs less than writing two pieces."""
_CODED = frozenset({b"gzip", b"x-gzip", b"deflate"})
_LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class Http1Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self, turnstile: Turnstile) -> None:
        self.idle_since = 0.0
        self.reusable = False
        self.answered_anything = False
        """Whether the peer has sent a byte in reply to the request under way."""
        self._turnstile = turnstile
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._parser: Any = None
        self._begin_message()

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent; the peer may have closed it all the same, which only sending shows."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, head: bytes, body: bytes, loop: asyncio.AbstractEventLoop, deadline: float) -> Reply:
        """Send a request and wait until ``deadline`` (the loop's time) for the whole reply.

        A caller who stops waiting closes the connection.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        # False until a whole reply says otherwise: whatever goes wrong from here on, the connection is not used again.
        self.answered_anything = self.reusable = False
        self._begin_message()
        if self._parser is None:  # it refers back to this object, so it is not made for a connection that fails
            self._parser = httptools.HttpResponseParser(self)
        answer: asyncio.Future[Reply] = loop.create_future()
        self._answer = answer
        # A timer of its own: asyncio.timeout would cancel the caller's task and take twice as long to set up.
        timer = loop.call_at(deadline, self._time_out)
        if len(body) <= JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        try:
            return await answer
        except BaseException:
            # Also when the caller is cancelled: the reply still to come would be taken for that to the next request.
            self.close()
            raise
        finally:
            timer.cancel()
            self._answer = None

    def close(self) -> None:
        """Close it, whatever is under way."""
        if self._transport is not None:
            self._transport.close()

    def _time_out(self) -> None:
        self._fail(httpx.ReadTimeout(""))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # By its protocol, not by its class: uvloop's is none of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            # Nothing was asked. What a server says unasked (408 before it closes an idle connection, or the second
            # half of a body that was longer than its length) must not become the reply to the next request.
            self.close()
            return
        self.answered_anything = True
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
        self._headers.append((name.lower(), value))  # in lower case, as names mean the same in any

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > MAX_REPLY_BYTES:
            self._fail(too_large())
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 and 103 come before the reply, and have headers of their own (RFC 9110, section 15.2)
            self._begin_message()
            return
        self.reusable = self._parser.should_keep_alive()
        self._resolve(status)

    def _begin_message(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0

    def _ended(self, error: Exception | None) -> None:
        """At the end of the peer's data and again when the connection is lost; the first of the two counts."""
        if self._answer is None or self._answer.done():
            return
        # Without a length the body ends with the connection (RFC 9112, section 6.3).
        if error is None and self._headers and _LENGTH_HEADERS.isdisjoint(dict(self._headers)):
            self._resolve(self._parser.get_status_code())
        elif error is None and not self.answered_anything:
            self._fail(httpx.RemoteProtocolError("Server disconnected without sending a response."))
        elif error is None:
            self._fail(httpx.RemoteProtocolError("Server disconnected in the middle of its response."))
        else:
            self._fail(httpx.ReadError(str(error) or type(error).__name__))

    def _resolve(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            try:
                body = _decoded(body, dict(self._headers).get(b"content-encoding", b""))
            except zlib.error as error:
                self._fail(httpx.DecodingError(f"The reply cannot be decompressed: {error}"))
                return
            # From here on bytes are unasked for, though the caller may get its turn only in a later round of the loop.
            answer, self._answer = self._answer, None
            self._turnstile.resolve(answer, Reply(status, body, self._headers))

    def _fail(self, error: httpx.RequestError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()


def _decoded(body: bytes, coding: bytes) -> bytes:
    """``body`` without its content coding; none is asked for, but a server may send one all the same."""
    if not body or coding.strip().lower() not in _CODED:
        return body
    # + 32: either of the two formats, by their headers, as servers call both "deflate". Bounded: a body of some
    # kilobytes may decompress to gigabytes.
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
    decoded = decompressor.decompress(body, MAX_REPLY_BYTES)
    if decompressor.unconsumed_tail:
        raise zlib.error(f"larger than {MAX_REPLY_BYTES} bytes")
    return decoded
