"""The loopback endpoint against whoever else is on this machine: real sockets, raw bytes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from osmosis_ai.rollout.openai_api import endpoint
from osmosis_ai.rollout.openai_api.answers import Generated
from osmosis_ai.rollout.openai_api.chat_api import ChatApi
from osmosis_ai.rollout.openai_api.endpoint import Address, Endpoint

BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
DEADLINE_SECONDS = 60.0


async def chat(messages: list[dict[str, Any]], fields: dict[str, Any]) -> Generated:
    return Generated({"role": "assistant", "content": f"{len(messages)} heard"})


@pytest.fixture
async def address() -> AsyncIterator[Address]:
    address = Endpoint.open(ChatApi(chat))
    yield address
    Endpoint.close(address)


def port_of(address: Address) -> int:
    return int(address.base_url.split(":")[2].split("/")[0])


def request(address: Address, **changed: Any) -> bytes:
    host, key = changed.get("host", f"127.0.0.1:{port_of(address)}"), changed.get("key", address.api_key)
    target = changed.get("target", f"/{address.number}/v1/chat/completions")
    body: bytes = changed.get("body", BODY)
    length = changed.get("length", len(body))
    head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode("latin-1") + body


async def exchange(address: Address, data: bytes) -> bytes:
    """All that comes back until the endpoint closes, or one whole response."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(address))
        try:
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return head + await reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            return error.partial
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


async def test_a_connection_is_kept_for_the_next_request(address: Address) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(address))
    for _ in range(3):
        writer.write(request(address))
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        assert json.loads(body)["choices"][0]["message"]["content"] == "1 heard"
    writer.close()


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "localhost"}, 421),
        ({"key": "wrong"}, 401),
        ({"key": ""}, 401),
        ({"key": "\xff"}, 401),
        ({"target": "/999/v1/chat/completions"}, 401),
        ({"target": "/v1/chat/completions"}, 401),
        ({"target": "/1/v1/../../chat/completions"}, 401),
        ({"body": b"{"}, 400),
        ({"body": b"[]"}, 400),
        ({"body": b"[" * 100_000}, 400),
        ({"body": b'{"messages": [7]}'}, 400),
        ({"body": b'{"messages": []}'}, 400),
        ({"body": b"\xff"}, 400),
    ],
)
async def test_what_is_not_a_call_of_the_rollout_is_refused_in_openais_form(
    address: Address, changed: dict[str, Any], status: int
) -> None:
    if changed.get("target", "").startswith("/1/"):
        changed = {"target": changed["target"].replace("/1/", f"/{address.number}/"), "key": "wrong"}
    answer = await exchange(address, request(address, **changed))
    assert status_of(answer) == status
    error = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert address.api_key not in answer.decode("latin-1")
    assert b"x-should-retry: false" in answer


async def test_a_stranger_is_refused_before_its_body_is_read(address: Address) -> None:
    answer = await exchange(address, request(address, key="wrong", body=b"", length=10**12))
    assert status_of(answer) == 401


async def test_a_body_without_end_is_refused(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_BODY_BYTES", 1000)
    answer = await exchange(address, request(address, body=b"x" * 5000))
    assert status_of(answer) == 413


async def test_a_body_that_does_not_come_ends_the_connection(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "REQUEST_SECONDS", 0.05)
    assert await exchange(address, request(address, body=b"", length=10)) == b""


@pytest.mark.parametrize("data", [b"\x00" * 100, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000, b"SSH-2.0\r\n\r\n"])
async def test_what_is_no_http_ends_the_connection(address: Address, data: bytes) -> None:
    assert await exchange(address, data) == b""
    assert status_of(await exchange(address, request(address))) == 200


async def test_there_are_no_more_connections_than_allowed(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_CONNECTIONS", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(address))
    writer.write(request(address))
    await reader.readuntil(b"\r\n\r\n")
    assert await exchange(address, request(address)) == b""
    writer.close()


async def test_strangers_who_say_nothing_keep_nobody_out(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_STRANGERS", 5)
    known, writer = await asyncio.open_connection("127.0.0.1", port_of(address))
    writer.write(request(address))
    await known.readuntil(b"heard")
    strangers = [await asyncio.open_connection("127.0.0.1", port_of(address)) for _ in range(20)]
    for _, stranger in strangers:
        stranger.write(b"POST / HTTP/1.1\r\nHost: 127")
    async with asyncio.timeout(DEADLINE_SECONDS):
        for reader, _ in strangers[:15]:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b"", "closed, the longest wait first"
    assert status_of(await exchange(address, request(address))) == 200
    writer.write(request(address))
    await known.readuntil(b"heard")
    for _, stranger in (*strangers, (known, writer)):
        stranger.close()


async def test_a_stranger_has_less_time_than_a_known_connection(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "HEAD_SECONDS", 0.05)
    assert await exchange(address, b"POST / HTTP/1.1\r\nHost: 127") == b""
    known, writer = await asyncio.open_connection("127.0.0.1", port_of(address))
    for _ in range(2):
        writer.write(request(address))
        await known.readuntil(b"heard")
        await asyncio.sleep(0.1)
    writer.close()


async def test_one_socket_serves_all_rollouts_of_an_event_loop_each_by_its_own_key(address: Address) -> None:
    other = Endpoint.open(ChatApi(chat))
    assert port_of(other) == port_of(address)
    assert status_of(await exchange(address, request(other))) == 200
    assert status_of(await exchange(address, request(other, key=address.api_key))) == 401
    Endpoint.close(other)
    assert status_of(await exchange(address, request(other))) == 401
    assert repr(address) == f"Address('{address.base_url}')"


async def test_the_last_one_to_go_closes_the_socket() -> None:
    address = Endpoint.open(ChatApi(chat))
    assert status_of(await exchange(address, request(address))) == 200
    Endpoint.close(address)
    with pytest.raises(OSError):  # noqa: PT011 - refused, or reset
        await exchange(address, request(address))
