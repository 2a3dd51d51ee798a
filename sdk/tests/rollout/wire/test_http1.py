"""HTTP/1.1 as peers really speak it, on both event loops."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvloop

from osmosis_ai.rollout.wire.channel import Limits, Reply, target_of
from osmosis_ai.rollout.wire.http1_channel import Http1Channel

BODY = b"{...}"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    with asyncio.Runner(loop_factory=request.param) as runner:

        async def awaited(work: Awaitable[Any]) -> Any:
            async with asyncio.timeout(60):
                return await work

        yield lambda work: runner.run(awaited(work))


class Peer:
    """Answers each request on each connection with the next of ``answers``, or with ``OK``."""

    def __init__(self, answers: list[bytes | Answer]) -> None:
        self.answers = answers
        self.connections = 0
        self.received: list[bytes] = []
        self.asked = asyncio.Event()
        self.serving: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            while not writer.is_closing():
                self.received.append(await reader.readuntil(BODY))
                self.asked.set()
                answer = self.answers.pop(0) if self.answers else OK
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


class Caller:
    """Posts to one peer over one channel."""

    def __init__(self, port: int, max_connections: int) -> None:
        self.port = port
        self._url = f"http://127.0.0.1:{port}/v1/x"
        self.channel = Http1Channel(target_of(self._url).origin, None, Limits(max_connections, 4))

    async def post(self, limit_seconds: float = 10.0) -> Reply:
        return await self.channel.post(self._url, BODY, {"Content-Type": "a/b", "X-Key": "k"}, limit_seconds)


@asynccontextmanager
async def connected(*answers: bytes | Answer, max_connections: int = 8) -> AsyncIterator[tuple[Peer, Caller]]:
    peer = Peer(list(answers))
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    caller = Caller(server.sockets[0].getsockname()[1], max_connections)
    try:
        yield peer, caller
    finally:
        await caller.channel.aclose()
        server.close()
        for task in peer.serving:
            task.cancel()
        if peer.serving:
            await asyncio.wait(peer.serving)


async def close_after(writer: asyncio.StreamWriter, answer: bytes = b"") -> None:
    writer.write(answer)
    await writer.drain()
    writer.close()


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@contextmanager
def raises(error: type[httpx.RequestError], match: str | None = None) -> Iterator[None]:
    with pytest.raises(error, match=match):
        yield


def test_a_request_is_these_bytes_and_no_more(run: Run) -> None:
    async def story() -> None:
        async with connected() as (peer, caller):
            await caller.post()
            head = f"POST /v1/x HTTP/1.1\r\nHost: 127.0.0.1:{caller.port}\r\nContent-Type: a/b\r\nX-Key: k\r\n"
            assert peer.received == [head.encode() + b"Content-Length: 5\r\n\r\n{...}"]

    run(story())


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n', b'{"a":1}'),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nRetry-After: 3\r\n\r\nlate", b"late"),
    ],
    ids=["chunked", "after 100", "no content", "refusal"],
)
def test_a_reply_is_whole_and_its_connection_used_again(answer: bytes, content: bytes, run: Run) -> None:
    async def story() -> None:
        async with connected(answer) as (peer, caller):
            assert (await caller.post()).content == content
            assert (await caller.post()).json() == {}
            assert (peer.connections, len(peer.received)) == (1, 2)

    run(story())


def test_headers_are_found_whatever_their_case(run: Run) -> None:
    async def story() -> None:
        async with connected(b"HTTP/1.1 429 No\r\nRETRY-after: 7\r\nContent-Length: 0\r\n\r\n") as (_, caller):
            reply = await caller.post()
            assert (reply.status_code, reply.headers.get("Retry-After")) == (429, "7")

    run(story())


def test_a_body_without_a_length_ends_with_the_connection(run: Run) -> None:
    async def story() -> None:
        answer = b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n{}"
        async with connected(lambda writer: close_after(writer, answer)) as (peer, caller):
            assert (await caller.post()).content == b"{}"
            await caller.post()
            assert peer.connections == 2

    run(story())


def test_a_compressed_body_that_nobody_asked_for_is_read(run: Run) -> None:
    body = gzip.compress(b'{"a": 1}')

    async def story() -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with connected(head + body, head + b"x" * len(body)) as (_, caller):
            assert (await caller.post()).json() == {"a": 1}
            with raises(httpx.DecodingError):
                await caller.post()

    run(story())


def test_a_kept_connection_that_has_died_is_replaced_at_once(run: Run) -> None:
    async def story() -> None:
        async with connected(OK, close_after) as (peer, caller):
            await caller.post()
            assert (await caller.post()).status_code == 200
            assert (peer.connections, len(peer.received)) == (2, 3)

    run(story())


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (close_after, "without sending a response"),
        (lambda writer: close_after(writer, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), "in the middle"),
        (b"not HTTP at all\r\n\r\n", "not HTTP/1.1"),
    ],
    ids=["dropped", "cut off", "nonsense"],
)
def test_a_fresh_connection_that_fails_is_the_callers_affair(answer: Any, sentence: str, run: Run) -> None:
    async def story() -> None:
        async with connected(answer) as (peer, caller):
            with raises(httpx.RemoteProtocolError, sentence):
                await caller.post()
            assert len(peer.received) == 1
            assert (await caller.post()).status_code == 200

    run(story())


def test_a_peer_that_says_nothing_is_a_timeout_and_loses_its_connection(run: Run) -> None:
    async def story() -> None:
        async with connected(hang, max_connections=1) as (peer, caller):
            with raises(httpx.ReadTimeout):
                await caller.post(0.05)
            assert (await caller.post()).status_code == 200
            assert peer.connections == 2

    run(story())


def test_beyond_the_limit_a_request_waits_for_a_connection(run: Run) -> None:
    async def story() -> None:
        async with connected(max_connections=1) as (peer, caller):
            replies = await asyncio.gather(*(caller.post() for _ in range(20)))
            assert [reply.status_code for reply in replies] == [200] * 20
            assert peer.connections == 1

    run(story())


def test_one_that_waits_too_long_for_a_connection_is_told_so(run: Run) -> None:
    async def story() -> None:
        async with connected(hang, max_connections=1) as (peer, caller):
            holder = asyncio.ensure_future(caller.post())
            await peer.asked.wait()
            with raises(httpx.PoolTimeout):
                await caller.post(0.05)
            holder.cancel()
            await asyncio.wait({holder})
            assert (await caller.post()).status_code == 200

    run(story())


def test_a_caller_who_stops_waiting_closes_the_connection_and_frees_its_place(run: Run) -> None:
    async def story() -> None:
        async with connected(hang, max_connections=1) as (peer, caller):
            call = asyncio.ensure_future(caller.post())
            await peer.asked.wait()
            call.cancel()
            await asyncio.wait({call})
            assert (await caller.post()).status_code == 200
            assert peer.connections == 2

    run(story())


def test_nobody_there_is_a_connect_error(run: Run) -> None:
    async def story() -> None:
        async with connected() as (_, caller):
            pass
        with raises(httpx.ConnectError):
            await caller.post()

    run(story())
