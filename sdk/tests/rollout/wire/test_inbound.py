"""What a peer may cost a server of ours: bare sockets against a real uvicorn, with either of its HTTP protocols."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from support.live_server import DEADLINE_SECONDS, LiveServer

from osmosis_ai.rollout.wire import bounded_httptools, inbound, waiting
from osmosis_ai.rollout.wire.heads import MAX_HEAD_BYTES, MAX_HEADERS

MAX_CONNECTIONS = 20
SHORT_SECONDS = 0.4
LARGE_BYTES = 64 * 1024 * 1024
ENDLESS_BYTES = 64 * 1024 * 1024
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the size of the body; ``/large`` with as many bytes, ``/at-once`` without waiting for the body."""
    if scope["type"] == "lifespan":
        return
    size, more = 0, scope["path"] != "/at-once"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    content = bytes(LARGE_BYTES) if scope["path"] == "/large" else b"%d" % size
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture(scope="module", params=["httptools", "h11"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with LiveServer(app, max_connections=MAX_CONNECTIONS, lifespan="off", http=request.param) as live:
        yield live


@pytest.fixture(scope="module", params=["httptools", "h11"])
def hasty(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """Whose times a test can wait for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "LOOK_SECONDS", 0.05)
        for name in ("HEAD_SECONDS", "UNREAD_SECONDS", "CLOSE_SECONDS"):
            patch.setattr(waiting, name, SHORT_SECONDS)
        with LiveServer(app, max_connections=MAX_CONNECTIONS, lifespan="off", http=request.param) as live:
            yield live


def reply_of(connection: socket.socket) -> bytes:
    """All that comes until the other side closes, or resets what it has not read."""
    received = bytearray()
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            received += piece
    return bytes(received)


def send_all(connection: socket.socket, content: bytes) -> None:
    """Send, whether or not the other side takes it."""
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(content)


def asked(server: LiveServer, *pieces: bytes) -> bytes:
    with server.connect() as connection:
        for piece in pieces:
            send_all(connection, piece)
        return reply_of(connection)


def send_endlessly(connection: socket.socket, piece: bytes) -> int:
    """How much could be sent before the other side had enough."""
    sent = 0
    with suppress(BrokenPipeError, ConnectionResetError):
        while sent < ENDLESS_BYTES:
            sent += connection.send(piece)
    return sent


def assert_serving(server: LiveServer) -> None:
    assert asked(server, GET + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


REFUSED = (b"HTTP/1.1 431", b"HTTP/1.1 400")
"""Ours, and what uvicorn makes of h11's."""


class TestHeads:
    @pytest.mark.parametrize(
        ("start", "piece"),
        [
            (b"", b"a" * 65_536),
            (b"GET /", b"a" * 65_536),
            (GET + b"X: ", b"a" * 65_536),
            (GET, b"X: a\r\n" * 10_000),
            (GET, b"a" * 65_536),
            (b"", b"\r\n" * 10_000),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 65_536),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a" * 65_536),
            (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: a\r\n" * 10_000),
        ],
        ids=["method", "target", "value", "headers", "name", "empty-lines", "extension", "trailer", "trailers"],
    )
    def test_none_is_endless(self, server: LiveServer, start: bytes, piece: bytes) -> None:
        with server.connect() as connection:
            connection.sendall(start)
            assert send_endlessly(connection, piece) < ENDLESS_BYTES
        assert_serving(server)

    def test_one_that_is_too_large_is_refused_in_a_sentence(self, server: LiveServer) -> None:
        reply = asked(server, GET + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n")
        assert reply.startswith(REFUSED)
        if server.http == "httptools":
            assert b'{"detail":"A request\'s head may have 100 headers and 65536 bytes."}' in reply

    def test_one_that_is_too_large_in_its_last_piece_starts_nothing(self, server: LiveServer) -> None:
        reply = asked(server, GET + b"X: " + b"a" * 40_000, b"a" * 40_000 + b"\r\nConnection: close\r\n\r\n")
        assert reply.startswith(REFUSED)

    def test_one_with_a_hundred_thousand_headers_is_refused(self, server: LiveServer) -> None:
        assert asked(server, GET + b"X-Y: a\r\n" * 100_000 + b"\r\n").startswith(REFUSED)

    def test_a_hundred_headers_are_enough(self, server: LiveServer) -> None:
        rest = b"Connection: close\r\n" + b"X: a\r\n" * (MAX_HEADERS - 2)
        assert asked(server, GET + rest + b"\r\n").startswith(b"HTTP/1.1 200")
        if server.http == "httptools":
            assert asked(server, GET + rest + b"X: a\r\n\r\n").startswith(b"HTTP/1.1 431")

    def test_one_of_ten_thousand_bytes_in_single_bytes_is_taken(self, server: LiveServer) -> None:
        head = GET + b"Connection: close\r\nX: " + b"a" * 10_000 + b"\r\n\r\n"
        assert asked(server, *(head[at : at + 1] for at in range(len(head)))).startswith(b"HTTP/1.1 200")


class TestWhatIsNotMeant:
    def test_many_requests_in_one_piece_are_no_large_head(self, server: LiveServer) -> None:
        many = 2000
        requests = GET + b"\r\n"
        with server.connect() as connection:
            threading.Thread(
                target=send_all, args=(connection, requests * many + GET + b"Connection: close\r\n\r\n"), daemon=True
            ).start()
            assert reply_of(connection).count(b"HTTP/1.1 200") == many + 1

    def test_more_requests_in_a_row_than_all_may_have_waiting_are_refused(
        self, server: LiveServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if server.http == "h11":
            pytest.skip("parses one request at a time")
        monkeypatch.setattr(bounded_httptools, "MAX_PIPELINED", 50)
        with server.connect() as connection:
            send_all(connection, (GET + b"\r\n") * 300)
            assert reply_of(connection).count(b"HTTP/1.1 200") < 250
        with server.connect() as connection:  # what waited is counted no longer
            send_all(connection, (GET + b"\r\n") * 40 + GET + b"Connection: close\r\n\r\n")
            assert reply_of(connection).count(b"HTTP/1.1 200") == 41

    def test_small_chunks_are_no_large_head(self, server: LiveServer) -> None:
        head = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert asked(server, head, b"1\r\nx\r\n" * 20_000, b"0\r\n\r\n").endswith(b"20000")

    def test_a_large_body_is_no_large_head(self, server: LiveServer) -> None:
        size = 5_000_000
        reply = asked(server, POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % size, b"x" * size)
        assert reply.endswith(b"%d" % size)

    def test_a_connection_serves_on(self, server: LiveServer) -> None:
        with server.connect() as connection:
            for _ in range(3):
                connection.sendall(GET + b"\r\n")
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


class TestTime:
    def test_a_head_that_does_not_end_is_408(self, hasty: LiveServer) -> None:
        assert asked(hasty, GET).startswith(b"HTTP/1.1 408")

    def test_bytes_now_and_then_do_not_help(self, hasty: LiveServer) -> None:
        with hasty.connect() as connection:
            connection.sendall(GET + b"X: ")
            connection.settimeout(SHORT_SECONDS / 4)
            ends = time.monotonic() + DEADLINE_SECONDS
            while True:
                assert time.monotonic() < ends
                with suppress(TimeoutError):
                    assert connection.recv(100).startswith(b"HTTP/1.1 408")
                    break
                connection.sendall(b"a")

    def test_a_second_head_that_does_not_end_is_408(self, hasty: LiveServer) -> None:
        with hasty.connect() as connection:
            connection.sendall(GET + b"\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            connection.sendall(GET)
            assert reply_of(connection).startswith(b"HTTP/1.1 408")

    @pytest.mark.slow
    def test_a_connection_without_a_byte_is_closed_without_one(self, hasty: LiveServer) -> None:
        assert asked(hasty) == b""

    def test_a_body_whose_reply_has_gone_is_not_waited_for(self, hasty: LiveServer) -> None:
        reply = asked(hasty, POST.replace(b"/", b"/at-once", 1) + b"Content-Length: 100\r\n\r\n", b"x")
        assert reply.startswith(b"HTTP/1.1 200")
        assert b"408" not in reply

    @pytest.mark.slow
    def test_a_reply_that_nobody_reads_is_given_up(self, hasty: LiveServer) -> None:
        with hasty.connect() as connection:
            connection.sendall(GET.replace(b"/", b"/large", 1) + b"\r\n")
            time.sleep(SHORT_SECONDS * 3)  # that nothing is read is what is tested
            assert len(reply_of(connection)) < LARGE_BYTES


@pytest.mark.parametrize("sent", [b"", GET, POST + b"Content-Length: 10\r\n\r\n", GET + b"\r\n"])
def test_beyond_the_largest_number_whoever_has_waited_longest_is_closed(server: LiveServer, sent: bytes) -> None:
    with ExitStack() as stack:
        connections = []
        for _ in range(3 * MAX_CONNECTIONS):
            connections.append(stack.enter_context(server.connect()))
            send_all(connections[-1], sent)
        for _ in range(3):
            assert_serving(server)
        for connection in connections[:MAX_CONNECTIONS]:
            assert b"408" not in reply_of(connection)


def test_unfinished_heads_are_bounded_together(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "UNFINISHED_HEADS_BYTES", 50_000)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(10)]
        for connection in connections:
            connection.sendall(GET + b"X: " + b"a" * 10_000)
        assert reply_of(connections[0]) == b""
        connections[-1].sendall(b"\r\nConnection: close\r\n\r\n")
        assert reply_of(connections[-1]).startswith(b"HTTP/1.1 200")


def test_there_is_room_for_connections_of_the_servers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, outbound, inbound_at_most in ((20_000, 200, 4096), (1024, 200, 760), (1024, 20_000, 240), (64, 200, 16)):
        monkeypatch.setattr(inbound, "descriptor_limit", lambda limit=limit: limit)
        assert inbound.connection_limit(outbound) == inbound_at_most
