"""Who answers in the trainer's place settles nothing: firewalls, proxies that want a login, portals, redirects."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from support.http_peer import CHAT_REPLY, Answer, HttpPeer, reply
from support.live_server import DEADLINE_SECONDS, LiveServer
from support.plain_http import PLAIN
from support.promise_agent import agent_loop
from support.server_process import init_of

from osmosis_ai.rollout import OsmosisLLMClient
from osmosis_ai.rollout.core.exceptions import OsmosisTrainerAbsentError
from osmosis_ai.rollout.core.settings import RolloutClientSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.app import create_app

PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    settings = RolloutSettings(
        client=RolloutClientSettings(retry_base_delay=0.1, retry_max_delay=1),
        server=RolloutServerSettings(journal="off", drain_seconds=0, flush_seconds=1),
    )
    with LiveServer(create_app(agent_loop, settings=settings)) as server:
        yield server


def page(status: int, body: bytes = PAGE, headers: dict[str, str] | None = None) -> Answer:
    return reply(body, status, {**HTML, **(headers or {})})


@pytest.fixture
async def delivered(server: LiveServer, peer: HttpPeer) -> Callable[..., Awaitable[dict[str, Any]]]:
    """The state of a rollout whose result is answered as given, and then as a trainer does."""

    async def deliver(*answers: Answer) -> dict[str, Any]:
        name = f"rollout-{id(answers)}-{peer.port}"
        peer.answers = [reply(CHAT_REPLY), *answers]
        peer.answer = reply({"status": "ok"})
        async with httpx.AsyncClient(base_url=server.url, **PLAIN) as client:
            assert (await client.post("/v1/rollout/init", json=init_of(name, peer.url))).status_code == 202
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (view := (await client.get(f"/v1/rollout/{name}")).json())["state"] not in (  # noqa: ASYNC110 - the app tells by answers alone
                    "delivered",
                    "undeliverable",
                ):
                    await asyncio.sleep(0.01)
        return dict(view)

    return deliver


@pytest.mark.parametrize(
    "status",
    [200, 403, *(pytest.param(status, marks=pytest.mark.slow) for status in (202, 400, 401, 404, 405, 407, 422, 500))],
)
async def test_a_page_is_nobodys_word_whatever_its_status(
    delivered: Callable[..., Awaitable[dict[str, Any]]], status: int
) -> None:
    view = await delivered(page(status), page(status, b"\xef\xbb\xbf\r\n  <HTML>"))
    assert (view["state"], view["delivery_attempts"]) == ("delivered", 3)


async def test_nor_is_a_redirect(delivered: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    view = await delivered(reply(b"", 302, {"Location": "http://login.example/"}))
    assert (view["state"], view["delivery_attempts"]) == ("delivered", 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        page(200, b""),
        page(200, b"ok"),
        page(200, b"OK, <b>thanks</b>"),
        page(200, b"no gzip", {"Content-Encoding": "gzip"}),
        reply(PAGE, 200),
        reply(b"", 204),
    ],
    ids=["empty", "text", "markup", "coded", "no html", "nothing"],
)
async def test_any_other_success_acknowledges(
    delivered: Callable[..., Awaitable[dict[str, Any]]], answer: Answer
) -> None:
    view = await delivered(answer)
    assert (view["state"], view["delivery_attempts"]) == ("delivered", 1)


@pytest.mark.slow
@pytest.mark.parametrize("body", [b"", b"no", b'{"detail": "no"}', b"<error/>"])
@pytest.mark.parametrize("status", [401, 403, 409])
async def test_a_trainers_refusal_is_final(
    delivered: Callable[..., Awaitable[dict[str, Any]]], status: int, body: bytes
) -> None:
    view = await delivered(page(status, body))
    assert (view["state"], view["delivery_attempts"]) == ("undeliverable", 1)


@pytest.mark.slow
async def test_a_page_that_trickles_is_one_too(delivered: Callable[..., Awaitable[dict[str, Any]]]) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in b"<html><body>" * 10:
            writer.write(b"1\r\n%c\r\n" % byte)
        await writer.drain()  # and no end

    view = await delivered(trickle)
    assert (view["state"], view["delivery_attempts"]) == ("delivered", 2)


@pytest.mark.slow
async def test_the_same_call_goes_out_again(peer: HttpPeer) -> None:
    peer.answers = [page(200)]
    async with OsmosisLLMClient(peer.url, "r", complete_rollout_retries=1) as client:
        await client.complete_rollout("COMPLETED", [])
    assert len(peer.requests) == 2
    assert len(set(peer.sent("Idempotency-Key"))) == 1


async def test_it_says_who_answers(peer: HttpPeer) -> None:
    peer.answer = page(200)
    async with OsmosisLLMClient(peer.url, "r", complete_rollout_retries=0) as client:
        with pytest.raises(OsmosisTrainerAbsentError, match=r"in the trainer's place, with a page(?s:.*)HTTP 200"):
            await client.complete_rollout("COMPLETED", [])
