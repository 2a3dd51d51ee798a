import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from osmosis_ai.rollout.wire import http1, large_replies
from osmosis_ai.rollout.wire.channel import Limits, target_of
from osmosis_ai.rollout.wire.http1_channel import Http1Channel
from osmosis_ai.rollout.wire.large_replies import LARGE_BYTES, ROOM_BYTES, LargeReply

MB = 1024 * 1024
Send = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


class Recorded:
    """A large reply that notes whether it is read."""

    def __init__(self) -> None:
        self.is_read = True
        self.reply = LargeReply(asyncio.get_running_loop(), self.hold, self.let_go)

    def hold(self) -> None:
        self.is_read = False

    def let_go(self) -> None:
        self.is_read = True


async def test_beyond_the_room_one_goes_on_and_the_others_wait_in_their_order() -> None:
    first, second, third = Recorded(), Recorded(), Recorded()
    second.reply.grown(LARGE_BYTES)
    third.reply.grown(LARGE_BYTES)
    first.reply.grown(ROOM_BYTES)
    assert (first.is_read, second.is_read, third.is_read) == (True, True, True)
    second.reply.grown(LARGE_BYTES + 1)
    third.reply.grown(LARGE_BYTES + 1)
    assert (first.is_read, second.is_read, third.is_read) == (True, False, False)
    first.reply.grown(2 * ROOM_BYTES)
    assert (first.is_read, second.is_read, third.is_read) == (True, False, False)
    first.reply.ended()
    assert (second.is_read, third.is_read) == (True, True)
    for one in (second, third):
        one.reply.ended()


async def test_one_that_takes_its_time_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_replies, "PATIENCE_SECONDS", 0.01)
    slow, second, third = Recorded(), Recorded(), Recorded()
    slow.reply.grown(ROOM_BYTES + 1)
    second.reply.grown(LARGE_BYTES)
    third.reply.grown(LARGE_BYTES)
    assert (slow.is_read, second.is_read, third.is_read) == (True, False, False)
    async with asyncio.timeout(30):
        while not third.is_read:  # noqa: ASYNC110 - a timer of the code's own
            await asyncio.sleep(0.001)
    assert second.is_read
    for one in (slow, second, third):
        one.reply.ended()


@asynccontextmanager
async def answering(send: Send) -> AsyncIterator[tuple[Http1Channel, str]]:
    """A server that gives ``send`` each connection with its number, once a request has come."""
    number = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                number += 1
                await send(writer, number)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    channel = Http1Channel(target_of(url).origin, None, Limits(20, 20, 64 * MB))
    async with server:
        yield channel, url
        await channel.aclose()


async def test_many_large_replies_all_arrive_whole_and_their_connections_serve_again() -> None:
    async def send(writer: asyncio.StreamWriter, number: int) -> None:
        size = 12 * MB if number <= 6 else 5
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await writer.drain()

    async with answering(send) as (channel, url), asyncio.timeout(60):
        large = await asyncio.gather(*(channel.post(url, b"", {}, 50) for _ in range(6)))
        small = await asyncio.gather(*(channel.post(url, b"", {}, 50) for _ in range(6)))
    assert [len(reply.content) for reply in large] == [12 * MB] * 6
    assert [len(reply.content) for reply in small] == [5] * 6


async def test_what_is_not_large_never_waits() -> None:
    held = asyncio.Event()

    async def send(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:  # most of the room and more, and never the end
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (60 * MB) + bytes(50 * MB))
            await writer.drain()
            held.set()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MB + bytes(MB))
        await writer.drain()

    async with answering(send) as (channel, url), asyncio.timeout(60):
        endless = asyncio.create_task(channel.post(url, b"", {}, 50))
        await held.wait()
        assert len((await channel.post(url, b"", {}, 50)).content) == MB
        endless.cancel()
        await asyncio.wait([endless])


async def test_a_connection_whose_reply_came_whole_while_it_was_held_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large_replies, "ROOM_BYTES", 0)
    monkeypatch.setattr(http1, "LARGE_BYTES", 3000)
    begun, finish = asyncio.Event(), asyncio.Event()

    async def send(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10001\r\n\r\n" + bytes(10_000))
            begun.set()
            await finish.wait()
            writer.write(b"x")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000))
        await writer.drain()

    async with answering(send) as (channel, url), asyncio.timeout(60):
        first = asyncio.create_task(channel.post(url, b"", {}, 50))
        await begun.wait()
        await asyncio.wait([first], timeout=0.1)  # its beginning has come, or else this tries nothing
        for _ in range(3):
            assert len((await channel.post(url, b"", {}, 50)).content) == 50_000
        finish.set()
        assert len((await first).content) == 10_001
