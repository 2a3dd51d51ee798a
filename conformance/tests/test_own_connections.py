"""A request of the kit has a connection of its own, and an answer counts however it comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from rollout_conformance.own_connections import OwnConnections

LARGE = b"x" * 8 * 1024 * 1024


@asynccontextmanager
async def answering(answer: bytes, *, ends: bool = True) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives each connection this answer, and what it has read of each."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if not ends:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def test_each_request_has_its_connection_though_the_server_would_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    answer = b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 202 Taken\r\nX-Odd: a\r\nx-odd: b\r\nContent-Length: 2\r\n\r\n{}"
    async with answering(answer, ends=False) as (url, heads):
        for _ in range(2):
            told = await OwnConnections(60.0).request("GET", f"{url}/a%2Fb?c", headers={"X-Own": "1"})
            assert (told.status_code, told.text, told.headers.get_list("x-odd")) == (202, "{}", ["a", "b"])
    assert len(heads) == 2
    assert heads[0].startswith(b"GET /a%2Fb?c HTTP/1.1\r\n")
    assert b"X-Own: 1\r\n" in heads[0]


async def test_a_refusal_counts_though_the_body_was_not_read() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield LARGE[: 1024 * 1024]

    async with answering(b"HTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n", ends=False) as (url, heads):
        told = await OwnConnections(60.0).request("POST", url, content=b"{}")
        assert told.status_code == 413
        told = await OwnConnections(60.0).request("POST", url, content=pieces())
        assert told.status_code == 413
    assert b"content-length: 2" in heads[0].lower()
    assert b"transfer-encoding: chunked" in heads[1].lower()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"nonsense\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + LARGE * 9, httpx.ReadError),
    ],
    ids=["none", "no HTTP", "cut", "an endless head", "an endless body"],
)
async def test_what_is_no_whole_answer_is_an_error(answer: bytes, error: type[Exception]) -> None:
    async with answering(answer) as (url, _):
        with pytest.raises(error):
            await OwnConnections(60.0).request("GET", url)


async def test_an_answer_is_waited_for_so_long_and_a_connection_too() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n", ends=False) as (url, _):
        with pytest.raises(httpx.ReadTimeout):
            await OwnConnections(0.05).request("GET", url)
    with pytest.raises(httpx.ConnectError):
        await OwnConnections(60.0).request("GET", url)
