"""HTTP/1.1 as peers really speak it, on both event loops."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvloop

from osmosis_ai.rollout.wire.http1 import Origin, Pool

REQUEST = b"POST / HTTP/1.1\r\nHost: peer\r\nContent-Length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    with asyncio.Runner(loop_factory=request.param) as runner:

        async def awaited(work: Awaitable[Any]) -> Any:
            async with asyncio.timeout(20):
                return await work

        yield lambda work: runner.run(awaited(work))


class Peer:
    """Answers each request on each connection with the next of ``answers``, or with ``OK``."""

    def __init__(self, answers: list[bytes | Answer]) -> None:
        self.answers = answers
        self.connections = 0
        self.requests = 0
        self.asked = asyncio.Event()
        self.serving: set[asyncio.Task[Any]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            while not writer.is_closing():
                await reader.readexactly(len(REQUEST))
                self.requests += 1
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


@asynccontextmanager
async def connected(*answers: bytes | Answer, max_connections: int = 8) -> AsyncIterator[tuple[Peer, Pool]]:
    peer = Peer(list(answers))
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    pool = Pool(Origin("127.0.0.1", server.sockets[0].getsockname()[1], None), max_connections, 4)
    try:
        yield peer, pool
    finally:
        pool.close()
        server.close()
        for task in peer.serving:
            task.cancel()
        if peer.serving:
            await asyncio.wait(peer.serving)


def post(pool: Pool, timeout_seconds: float = 10.0) -> Awaitable[Any]:
    return pool.post(REQUEST, b"", timeout_seconds=timeout_seconds, connect_timeout_seconds=5.0)


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
        async with connected(answer) as (peer, pool):
            assert (await post(pool)).content == content
            assert (await post(pool)).json() == {}
            assert (peer.connections, peer.requests) == (1, 2)

    run(story())


def test_headers_are_found_whatever_their_case(run: Run) -> None:
    async def story() -> None:
        async with connected(b"HTTP/1.1 429 No\r\nRETRY-after: 7\r\nContent-Length: 0\r\n\r\n") as (_, pool):
            reply = await post(pool)
            assert (reply.status_code, reply.headers.get("Retry-After")) == (429, "7")

    run(story())


def test_a_body_without_a_length_ends_with_the_connection(run: Run) -> None:
    async def story() -> None:
        async with connected(lambda writer: close_after(writer, b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n{}")) as (peer, pool):
            assert (await post(pool)).content == b"{}"
            await post(pool)
            assert peer.connections == 2

    run(story())


def test_a_compressed_body_that_nobody_asked_for_is_read(run: Run) -> None:
    body = gzip.compress(b'{"a": 1}')

    async def story() -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with connected(head + body, head + b"x" * len(body)) as (_, pool):
            assert (await post(pool)).json() == {"a": 1}
            with raises(httpx.DecodingError):
                await post(pool)

    run(story())


def test_a_kept_connection_that_has_died_is_replaced_at_once(run: Run) -> None:
    async def story() -> None:
        async with connected(OK, close_after) as (peer, pool):
            await post(pool)
            assert (await post(pool)).status_code == 200
            assert (peer.connections, peer.requests) == (2, 3)

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
        async with connected(answer) as (peer, pool):
            with raises(httpx.RemoteProtocolError, sentence):
                await post(pool)
            assert peer.requests == 1
            assert (await post(pool)).status_code == 200

    run(story())


def test_a_peer_that_says_nothing_is_a_timeout_and_loses_its_connection(run: Run) -> None:
    async def story() -> None:
        async with connected(hang) as (_, pool):
            with raises(httpx.ReadTimeout):
                await post(pool, timeout_seconds=0.05)
            assert pool.is_unused

    run(story())


def test_beyond_the_limit_a_request_waits_for_a_connection(run: Run) -> None:
    async def story() -> None:
        async with connected(max_connections=1) as (peer, pool):
            replies = await asyncio.gather(*(post(pool) for _ in range(20)))
            assert [reply.status_code for reply in replies] == [200] * 20
            assert peer.connections == 1
            assert pool.is_unused

    run(story())


def test_one_that_waits_too_long_for_a_connection_is_told_so(run: Run) -> None:
    async def story() -> None:
        async with connected(hang, max_connections=1) as (peer, pool):
            holder = asyncio.ensure_future(post(pool))
            await peer.asked.wait()
            with raises(httpx.PoolTimeout):
                await post(pool, timeout_seconds=0.05)
            holder.cancel()
            await asyncio.wait({holder})
            assert pool.is_unused

    run(story())


def test_a_caller_who_stops_waiting_closes_the_connection_and_frees_its_place(run: Run) -> None:
    async def story() -> None:
        async with connected(hang, max_connections=1) as (peer, pool):
            call = asyncio.ensure_future(post(pool))
            await peer.asked.wait()
            call.cancel()
            await asyncio.wait({call})
            assert (await post(pool)).status_code == 200
            assert peer.connections == 2

    run(story())


def test_nobody_there_is_a_connect_error(run: Run) -> None:
    async def story() -> None:
        async with connected() as (_, pool):
            port = pool._origin.port
        with raises(httpx.ConnectError):
            await post(Pool(Origin("127.0.0.1", port, None), 1, 1))

    run(story())
