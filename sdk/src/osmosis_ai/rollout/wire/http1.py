"""One HTTP/1.1 connection: a POST, its reply, and then perhaps another (RFC 9112). The parser is httptools'.

States: connecting, idle, waiting for an answer, closed. Exactly while a request is under way, ``_answer`` is a future,
and it is resolved once: by a whole reply, a fault of the peer, the deadline, or the end of the connection. When
anything comes that belongs to no request, it is closed: that would be taken for the reply to the next one. Failures are
httpx's exceptions, so that a caller need not know which way a request went.
"""

import asyncio
import math
from typing import Any, cast

import httptools
import httpx

from osmosis_ai.rollout.core.turnstile import Turnstile
from osmosis_ai.rollout.wire.alarm import Alarm
from osmosis_ai.rollout.wire.channel import (
    DISCARD_SECONDS,
    DISCARDED_BYTES,
    PAGE_BYTES,
    Reply,
    head_too_large,
    may_be_page,
    too_large,
)
from osmosis_ai.rollout.wire.coding import decoded, is_coded
from osmosis_ai.rollout.wire.heads import MAX_HEAD_BYTES, MAX_HEADER_BYTES, MAX_HEADERS
from osmosis_ai.rollout.wire.large_replies import LARGE_BYTES, LargeReply
from osmosis_ai.rollout.wire.portions import FIRST_BYTES, Portions

JOINED_BYTES = 65_536
"""Up to here copying a body behind its head costs less than writing two pieces."""
MAX_PIECES = 1000
"""Of a body, kept as they came. An object for each byte would take forty times as much."""
_LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class Http1Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turnstile: Turnstile, max_reply_bytes: int) -> None:
        self.idle_since = 0.0
        self.reusable = False
        self.answered_anything = False
        """Whether the peer has sent a byte in reply to the request under way."""
        self._loop = loop
        self._turnstile = turnstile
        self._max_reply_bytes = max_reply_bytes
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._parser: Any = None
        self._limit: Alarm
        self._only_status = False
        self._grace: asyncio.TimerHandle | None = None
        self._portions: Portions | None = None
        self._large: LargeReply | None = None
        self._is_held = False
        self._begin_message()

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent; the peer may have closed it all the same, which only sending shows."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, head: bytes, body: bytes, deadline: float, only_status: bool) -> Reply:
        """Send a request and wait until ``deadline`` (the loop's time) for the whole reply.

        A caller who stops waiting closes the connection. ``only_status`` is as in ``TrainerChannel.post``.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        # False until a whole reply says otherwise: whatever goes wrong from here on, the connection is not used again.
        self.answered_anything = self.reusable = False
        self._only_status = only_status
        self._overhead_bytes = 0
        self._begin_message()
        if self._parser is None:  # both refer back to this object, so they are not made for a connection that fails
            self._parser = httptools.HttpResponseParser(self)
            # Not asyncio.timeout, which would cancel the caller's task, and takes several times as long to set up.
            self._limit = Alarm(self._loop, self._time_out)
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._answer = answer
        self._limit.set(deadline)
        if len(body) <= JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        try:
            reply = await answer
            coding = dict(reply.raw_headers).get(b"content-encoding")
            if coding is not None and is_coded(coding):
                reply.content = await decoded(reply.content, self._max_reply_bytes)
            return reply
        except BaseException:
            # Also when the caller is cancelled: the reply still to come would be taken for that to the next request.
            self.close()
            raise
        finally:
            self._limit.unset()
            if self._grace is not None:
                self._grace.cancel()
                self._grace = None
            if self._large is not None:
                self._large.ended()
                self._large = None
                if self._is_held:  # the rest of it had been received already
                    self._let_go()
            self._answer = None

    def close(self) -> None:
        """Close it, whatever is under way."""
        if self._transport is not None:
            self._transport.close()

    def _time_out(self) -> None:
        if self._is_enough:
            self._cut_short()
        else:
            self._fail(httpx.ReadTimeout(""))

    def _cut_short(self) -> None:
        """Take the status, and leave the rest of the body unread."""
        self._resolve(self._parser.get_status_code())
        self.close()

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
        if self._portions is not None:
            self._portions.add(data)
        elif len(data) <= FIRST_BYTES or self._transport is None:
            self._take(data, False)
        else:
            self._portions = Portions(self._transport, self._loop, self._take, lambda: not self._is_held)
            self._portions.add(data)

    def _take(self, data: bytes, more: bool) -> bool:
        if self._answer is None or self._answer.done():
            return False
        body_bytes, self._piece_bytes = self._body_bytes, len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"The reply is not HTTP/1.1: {error}"))
        if self._answer is None:
            if more or (data.endswith((b"\n", b"\r")) and self._has_blank_lines_left(data)):
                self.close()
        else:
            if self._is_enough and self._grace is None:
                # A body that comes at once is received, so that the connection can be used again.
                self._grace = self._loop.call_later(DISCARD_SECONDS, self._cut_short)
            # Counted here, as the parser tells of a header when it has the whole of it: one without an end would grow
            # in there, at a cost that is quadratic. Chunks may have as much of their own as they hold.
            self._overhead_bytes += self._piece_bytes - (self._body_bytes - body_bytes)
            if self._overhead_bytes > MAX_HEAD_BYTES + self._body_bytes:
                self._fail(head_too_large())
        return self._answer is not None and self.is_open

    def eof_received(self) -> None:
        self._take_the_rest()
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_the_rest()
        self._transport = None
        if self._parser is not None:
            self._limit.close()
        self._ended(exc)

    def _take_the_rest(self) -> None:
        # TLS tells of the end also where nothing more is to be read.
        if self._portions is not None and self._portions.waiting:
            self._portions.work_off(math.inf)

    # httptools

    def on_message_begin(self) -> None:
        if self._answer is None:  # behind a whole reply, in the same bytes
            self._begin_message()  # the headers so far are the reply's, which has been given away
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_is_whole:
            return  # a trailer: it must not pass for a header (RFC 9110, section 6.5.1)
        name = name.lower()  # as names mean the same in any case
        # "gzip, chunked" and the like: the body would be read, but not for what it is (RFC 9112, section 6.1).
        if name == b"transfer-encoding" and (value.lower() != b"chunked" or name in dict(self._headers)):
            self._fail(httpx.RemoteProtocolError(f"The reply's Transfer-Encoding is not supported: {value!r}"))
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_is_whole = True
        # Looked at only where what has come is more than one header may have.
        may_be_large = self._overhead_bytes + self._piece_bytes > MAX_HEADER_BYTES
        if len(self._headers) > MAX_HEADERS or (may_be_large and self._head_is_large()):
            self._fail(head_too_large())
            return
        if self._only_status and self._answer is not None and 200 <= self._parser.get_status_code() < 300:
            self._is_enough = True
            self._may_be_page = may_be_page(dict(self._headers))

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        self._last_piece = data
        if self._is_enough:
            if self._may_be_page and self._body_bytes - len(data) < PAGE_BYTES:
                self._body.append(data[:PAGE_BYTES])
            if self._body_bytes > DISCARDED_BYTES:
                self._cut_short()
        elif self._body_bytes > self._max_reply_bytes:
            self._fail(too_large(self._max_reply_bytes))
        elif len(self._body) < MAX_PIECES:
            self._body.append(data)
        else:
            if not isinstance(self._body[-1], bytearray):
                self._body.append(bytearray())
            self._body[-1] += data
        if self._body_bytes > LARGE_BYTES and self._answer is not None:
            if self._large is None:
                self._large = LargeReply(self._loop, self._hold, self._let_go)
            self._large.grown(self._body_bytes)

    def _hold(self) -> None:
        self._is_held = True
        if self._transport is not None:
            self._transport.pause_reading()

    def _let_go(self) -> None:
        self._is_held = False
        if self.is_open and self._transport is not None and (self._portions is None or not self._portions.waiting):
            self._transport.resume_reading()

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # 100 and 103 come before the reply, and have headers of their own (RFC 9110, section 15.2)
            self._begin_message()
            return
        self.reusable = self._parser.should_keep_alive()
        self._resolve(status)

    def _begin_message(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes | bytearray] = []
        self._body_bytes = 0
        self._last_piece = b""
        self._head_is_whole = False
        self._is_enough = False
        """What has come, as only the status was asked for, and it is known."""
        self._may_be_page = False

    def _head_is_large(self) -> bool:
        sizes = [len(name) + len(value) for name, value in self._headers]
        return max(sizes, default=0) > MAX_HEADER_BYTES or sum(sizes) > MAX_HEAD_BYTES

    def _has_blank_lines_left(self, data: bytes) -> bool:
        """Whether lines without anything follow the reply that ``data`` has ended: the parser passes over them."""
        own = 4  # a head, or the chunk that is none, ends with an empty line
        if self._body_bytes and b"content-length" in dict(self._headers):
            own = _line_ends(self._last_piece)
        return _line_ends(data) > own

    def _ended(self, error: Exception | None) -> None:
        """At the end of the peer's data and again when the connection is lost; the first of the two counts."""
        if self._answer is None or self._answer.done():
            return
        # Without a length the body ends with the connection (RFC 9112, section 6.3). Of a head that is cut off nobody
        # knows whether a length was to come.
        if error is None and self._head_is_whole and _LENGTH_HEADERS.isdisjoint(dict(self._headers)):
            self._resolve(self._parser.get_status_code())
        elif error is None and not self.answered_anything:
            self._fail(httpx.RemoteProtocolError("Server disconnected without sending a response."))
        elif error is None:
            self._fail(httpx.RemoteProtocolError("Server disconnected in the middle of its response."))
        else:
            self._fail(httpx.ReadError(str(error) or type(error).__name__))

    def _resolve(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            body = bytes(self._body[0]) if len(self._body) == 1 else b"".join(self._body)
            # From here on bytes are unasked for, though the caller may get its turn only in a later round of the loop.
            answer, self._answer = self._answer, None
            self._turnstile.resolve(answer, Reply(status, body, self._headers))

    def _fail(self, error: httpx.RequestError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self._body.clear()  # the error's traceback holds this object for as long as somebody keeps the error
        self.close()


def _line_ends(data: bytes) -> int:
    """How many characters of line ends are at the end of ``data``."""
    return len(data) - len(data.rstrip(b"\r\n"))
