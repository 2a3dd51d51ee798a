"""Bytes that take long to work off hold up nobody: bodies in chunks of one byte, from many peers at once."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from support.http_peer import CHAT_REPLY, HttpPeer, reply
from support.live_server import DEADLINE_SECONDS, LiveServer
from support.rollout_client import QUESTION

from osmosis_ai.rollout import OsmosisLLMClient
from osmosis_ai.rollout.wire.portions import FIRST_BYTES, Portions

pytestmark = pytest.mark.usefixtures("default_settings")

PEERS = 40
LONG_CPU_SECONDS = 0.1
"""Of one round of the event loop, by the CPU's clock of its thread: what else this machine does is not in it."""
HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
SINGLE = b"1\r\n \r\n"


async def longest_round(until: Callable[[], bool]) -> float:
    """Of the event loop, in seconds of its CPU time."""
    longest, began = 0.0, time.thread_time()
    while not until():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, began = max(longest, now - began), now
    return longest


class SlowApp:
    """``/block`` holds the event loop until all others have sent, and then watches it; ``/`` counts its body."""

    def __init__(self) -> None:
        self.longest_seconds = 0.0
        self.is_blocked = threading.Event()
        self.all_have_sent = threading.Event()
        self.counted: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["path"] == "/block":
            self.is_blocked.set()
            self.all_have_sent.wait(DEADLINE_SECONDS)
            self.longest_seconds = await longest_round(lambda: len(self.counted) == PEERS)
        else:
            size, more = 0, True
            while more:
                message = await receive()
                size, more = size + len(message["body"]), message["more_body"]
            self.counted.append(size)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(("http", "chunks"), [("httptools", 10_000), pytest.param("h11", 1000, marks=pytest.mark.slow)])
def test_requests_in_single_bytes_take_turns(http: str, chunks: int) -> None:
    app = SlowApp()
    with LiveServer(app, max_connections=100, lifespan="off", http=http) as server, ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(PEERS)]
        for connection in connections:
            connection.sendall(HEAD)
        blocking = stack.enter_context(server.connect())
        blocking.sendall(b"GET /block HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert app.is_blocked.wait(DEADLINE_SECONDS)
        left = [SINGLE * chunks + b"0\r\n\r\n"] * PEERS
        for number, connection in enumerate(connections):
            connection.setblocking(False)
            with suppress(BlockingIOError):
                left[number] = left[number][connection.send(left[number]) :]
            connection.setblocking(True)
            connection.settimeout(DEADLINE_SECONDS)
        app.all_have_sent.set()
        for connection, rest in zip(connections, left, strict=True):
            connection.sendall(rest)
        assert blocking.recv(100).startswith(b"HTTP/1.1 200")
    assert app.counted == [chunks] * PEERS
    assert app.longest_seconds < LONG_CPU_SECONDS


@pytest.mark.slow
async def test_replies_in_single_bytes_take_turns(peer: HttpPeer, request: pytest.FixtureRequest) -> None:
    chunks = 1000 if "through httpx" in request.node.name else 20_000
    all_are_asked = asyncio.Event()

    async def pour(writer: asyncio.StreamWriter) -> None:
        await all_are_asked.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + SINGLE * chunks + b"0\r\n\r\n")

    peer.answer = pour
    clients = [OsmosisLLMClient(peer.url, f"r{number}", max_retries=0) for number in range(PEERS)]
    calls = [asyncio.create_task(client.chat_completions(QUESTION)) for client in clients]
    await peer.wait_for_requests(PEERS)
    all_are_asked.set()
    longest_seconds = await longest_round(lambda: all(call.done() for call in calls))
    for ended in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(ended, Exception)  # too much around its bytes, or no JSON
    assert longest_seconds < LONG_CPU_SECONDS


@pytest.mark.parametrize("size", [FIRST_BYTES - 1, FIRST_BYTES + 1, 300_000, 5_000_000])
async def test_a_large_reply_is_whole(peer: HttpPeer, size: int) -> None:
    text = "x" * size
    message = {"role": "assistant", "content": text}
    peer.answer = reply({**CHAT_REPLY, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    async with OsmosisLLMClient(peer.url, "r", max_retries=0) as client:
        for _ in range(2):
            assert (await client.chat_completions(QUESTION)).message["content"] == text
    assert peer.connections == 1


async def test_what_follows_a_reply_in_a_later_portion_closes_the_connection(peer: HttpPeer) -> None:
    body = b"x" * FIRST_BYTES

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 x\r\nContent-Length: %d\r\n\r\n" % len(body) + body + b"\r\n" * FIRST_BYTES)

    peer.answers = [answer]
    client = OsmosisLLMClient(peer.url, "r", max_retries=0)
    with pytest.raises(Exception, match="HTTP 400"):
        await client.chat_completions(QUESTION)
    await client.chat_completions(QUESTION)
    assert peer.connections == 2


class Held(asyncio.Protocol):
    """Takes one portion, and is then told of the end, as TLS tells of it though nothing is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.taken = b""
        self.transport = transport
        self.portions = Portions(transport, asyncio.get_running_loop(), self.take)
        self.all_taken = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.portions.add(data)

    def take(self, portion: bytes, more: bool) -> bool:
        self.taken += portion
        time.sleep(0.003)  # longer than a turn: that it waits is what is tested
        if not more and self.taken.endswith(b"."):
            self.all_taken.set_result(None)
        return True


async def test_portions_come_whole_and_in_their_order() -> None:
    loop = asyncio.get_running_loop()
    made: list[Held] = []

    def make() -> Held:
        made.append(Held())
        return made[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    content = b"".join(b"%d," % number for number in range(10_000)) + b"."
    writers = []
    for _ in range(3):
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(content)
        writers.append(writer)
    while len(made) < 3:  # noqa: ASYNC110 - accepted in one of the next rounds
        await asyncio.sleep(0)
    await asyncio.gather(*(held.all_taken for held in made))
    assert [held.taken for held in made] == [content] * 3
    for writer in writers:
        writer.close()
    server.close()
