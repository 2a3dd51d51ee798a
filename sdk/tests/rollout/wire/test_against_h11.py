"""Our reading of replies beside h11's, an implementation of RFC 9112 that has nothing to do with ours."""

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

import h11
import httpx
from hypothesis import example, given, settings, strategies as st

from osmosis_ai.rollout.wire.channel import Limits, target_of
from osmosis_ai.rollout.wire.http1_channel import Http1Channel

BODY = b"{...}"


class Outcome(NamedTuple):
    """Of one request."""

    status: int
    content: bytes
    reusable: bool


def by_h11(raw: bytes) -> Outcome | None:
    """What h11 makes of the bytes of a connection, in reply to a POST; ``None`` where that is no whole reply."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    status, content = 0, b""
    try:
        connection.receive_data(raw)
        ended = False
        while True:
            match connection.next_event():
                case h11.Response() as head:
                    status = head.status_code
                case h11.Data() as part:
                    content += bytes(part.data)
                case h11.EndOfMessage():
                    break
                case h11.NEED_DATA if not ended:
                    ended = True
                    connection.receive_data(b"")
                case h11.InformationalResponse():
                    pass
                case _:
                    return None
    except h11.RemoteProtocolError:
        return None
    left_over, closed = connection.trailing_data
    reusable = connection.our_state is connection.their_state is h11.DONE and not (left_over or closed)
    return Outcome(status, content, reusable)


def by_us(pieces: list[bytes]) -> Outcome | None:
    """The same over a socket, on which the bytes come in ``pieces``."""

    async def story() -> Outcome | None:
        served = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):  # whoever has seen enough hangs up
                await reader.readuntil(BODY)
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0)
                writer.write_eof()
                await reader.read()
            writer.close()
            served.set()

        async with asyncio.timeout(60), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            channel = Http1Channel(target_of(url).origin, None, Limits(1, 1))
            try:
                reply = await channel.post(url, BODY, {}, 10.0)
            except httpx.RequestError:
                return None
            finally:
                idle = list(channel._idle)
                await channel.aclose()
                await served.wait()
            return Outcome(reply.status_code, reply.content, bool(idle))

    return asyncio.run(story())


LINES = st.sampled_from(
    [
        b"Content-Length: 2",
        b"Content-Length: 0",
        b"Content-Length: 7",
        b"content-length:2",
        b"Content-Length: 2, 2",
        b"Content-Length: +2",
        b"Content-Length: -1",
        b"Content-Length: x",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: Chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: identity",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Retry-After: 3",
        b"X:",
        b"X: \t y \t",
        b"X : y",
        b" folded",
        b"X: \x00",
        b"X: \xff",
        b": no name",
        b"no colon",
    ]
)
HEADS = st.builds(
    lambda version, status, reason, lines: (
        b"HTTP/%b %b%b\r\n%b\r\n" % (version, status, reason, b"".join(line + b"\r\n" for line in lines))
    ),
    st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0", b"2.0", b"1.", b""]),
    st.sampled_from([b"200", b"200", b"204", b"304", b"503", b"100", b"101", b"99", b"2000"]),
    st.sampled_from([b" OK", b" ", b"", b" Not so \xe9"]),
    st.lists(LINES, max_size=4),
)
BODIES = st.sampled_from(
    [
        b"",
        b"{}",
        b"{}\r\n",
        b"[1,2,3]",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"1\r\n{\r\n1;a=b\r\n}\r\n0\r\nX: y\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\n{}",
        b"2\r\n{}0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"g\r\n{}\r\n0\r\n\r\n",
        b"ffffffffffffffffffff\r\n{}",
    ]
)
STREAMS = st.lists(st.builds(bytes.__add__, HEADS, BODIES), min_size=1, max_size=2).map(b"".join)


def cut(stream: bytes, end: int, at: list[int]) -> list[bytes]:
    stream = stream[: len(stream) - end] if end else stream
    places = sorted({0, *(place % (len(stream) + 1) for place in at), len(stream)})
    return [stream[start:stop] for start, stop in pairwise(places)]


# Stricter than h11, and meant to be: RFC 9112 takes none of these as it stands.
def is_refused_on_purpose(stream: bytes) -> bool:
    lowered = stream.lower()
    return (
        lowered.count(b"content-length:") > 1
        or lowered.count(b"transfer-encoding:") > 0
        or any(line in lowered for line in (b"2, 2", b"\r\n folded", b"http/1.0"))
    )


@given(STREAMS, st.integers(0, 40) | st.just(0), st.lists(st.integers(0, 500), max_size=2))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n", 0, [])
@example(b"HTTP/1.1 200 OK\r\nX:\r\n", 0, [])
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\r\n", 0, [])
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n\r\n", 0, [])
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n", 0, [])
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n\n", 0, [])
@example(b"HTTP/1.0 200 OK\r\n\r\n{}", 0, [])
@settings(max_examples=3 * settings().max_examples)
def test_nothing_is_taken_for_a_reply_that_h11_takes_for_none_or_for_another(
    stream: bytes, end: int, at: list[int]
) -> None:
    pieces = cut(stream, end, at)
    theirs, ours = by_h11(b"".join(pieces)), by_us(pieces)
    if ours is not None:
        assert theirs is not None
        assert ours[:2] == theirs[:2]
        # In several pieces, what is left over may come when the connection lies idle; it is closed then.
        assert ours.reusable <= theirs.reusable or len(pieces) > 1
    elif theirs is not None:
        assert is_refused_on_purpose(stream)
