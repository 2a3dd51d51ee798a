"""Connections to trainers: shared between rollouts, apart between trainers, bounded, and closed on request."""

import asyncio
import gzip
import json
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import certifi
import pytest
from support.fake_trainer import FakeTrainer
from support.http_peer import CHAT_REPLY, HttpPeer, close_half_way, drop, hang, reply
from support.rollout_client import QUESTION

from osmosis_ai.rollout import OsmosisLLMClient, OsmosisTransportError, RolloutClientSettings
from osmosis_ai.rollout.wire import channels
from osmosis_ai.rollout.wire.channels import TrainerChannels

pytestmark = pytest.mark.usefixtures("default_settings", "no_proxies")

PROXY_VARIABLES = [
    variable
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD")
    for variable in (name, name.lower())
]


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in PROXY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
async def peers(way: None) -> AsyncIterator[list[HttpPeer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(HttpPeer()) for _ in range(4)]
        await channels.close_shared_channels()


async def rollout(url: str, rollout_id: str = "r", **arguments: Any) -> None:
    """One rollout of one chat call, with a client of its own."""
    async with OsmosisLLMClient(url, rollout_id, max_retries=0, **arguments) as client:
        await client.chat_completions(QUESTION)


class TestSharing:
    async def test_rollouts_one_after_the_other_use_one_connection(self, peer: HttpPeer) -> None:
        for number in range(5):
            await rollout(peer.url, f"r{number}")
        assert len(peer.requests) == 5
        assert peer.connections == 1

    async def test_the_limit_of_connections_holds_for_all_rollouts_together(self, peer: HttpPeer) -> None:
        settings = RolloutClientSettings(max_connections=2)
        await asyncio.gather(*(rollout(peer.url, f"r{number}", settings=settings) for number in range(10)))
        assert len(peer.requests) == 10
        assert peer.connections <= 2

    async def test_each_rollout_sends_its_own_credentials_over_the_shared_connection(self, peer: HttpPeer) -> None:
        await rollout(peer.url, api_key="one")
        await rollout(peer.url, api_key="two")
        await rollout(peer.url)
        assert peer.connections == 1
        assert peer.sent("Authorization") == ["Bearer one", "Bearer two", None]

    async def test_a_trainer_that_hangs_holds_up_no_other(self, peers: list[HttpPeer]) -> None:
        dead, alive, *_ = peers
        dead.answer = hang
        settings = RolloutClientSettings(max_connections=1)
        waiting = asyncio.create_task(rollout(dead.url, settings=settings))
        await dead.wait_for_requests(1)
        await rollout(alive.url, settings=settings)
        waiting.cancel()
        await asyncio.wait({waiting})

    async def test_a_connection_that_the_trainer_closed_is_replaced(self, peer: HttpPeer) -> None:
        peer.answers = [drop]
        with pytest.raises(OsmosisTransportError):
            await rollout(peer.url)
        await rollout(peer.url)
        assert peer.connections == 2

    async def test_closing_lets_go_of_every_connection_and_a_later_call_opens_another(self, peer: HttpPeer) -> None:
        await rollout(peer.url)
        await channels.close_shared_channels()
        await peer.wait_until_all_have_gone()
        await rollout(peer.url)
        assert peer.connections == 2

    async def test_closing_what_was_never_opened_does_nothing(self) -> None:
        await channels.close_shared_channels()

    def test_every_event_loop_has_connections_of_its_own(self) -> None:
        async def life_of_a_process(url: str) -> None:
            await rollout(url)
            await channels.close_shared_channels()

        with FakeTrainer() as trainer:
            for _ in range(2):
                asyncio.run(life_of_a_process(trainer.url))
            assert len(trainer.chats("r")) == 2


class TestOneRequestTwoWays:
    async def test_a_trainer_is_sent_the_same_bytes_either_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        heads: list[bytes] = []

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            writer.close()

        async with await asyncio.start_server(note, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x"
            for httptools_is_here in (True, False):
                monkeypatch.setattr(channels, "httptools_is_here", lambda here=httptools_is_here: here)
                trainers = TrainerChannels(1, 1)
                await trainers.post(url, b"{}", {"Content-Type": "application/json", "X-Key": "k"}, 10.0)
                await trainers.aclose()
        assert len(heads) == 2
        assert heads[0] == heads[1]

    @pytest.mark.parametrize("coding", ["identity", "gzip", "deflate"])
    async def test_a_reply_has_a_bound_either_way(self, peer: HttpPeer, coding: str) -> None:
        content = json.dumps({**CHAT_REPLY, "padding": " " * 10_000}).encode()
        if coding != "identity":
            content = gzip.compress(content) if coding == "gzip" else zlib.compress(content)
        peer.answer = reply(content, headers={"Content-Encoding": coding})
        await rollout(peer.url, channel=TrainerChannels(1, 1, 11_000))
        with pytest.raises(OsmosisTransportError, match="larger than 10000 bytes"):
            await rollout(peer.url, channel=TrainerChannels(1, 1, 10_000))


class TestBound:
    @pytest.fixture(autouse=True)
    def _two_origins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(channels, "MAX_ORIGINS", 2)

    async def test_the_trainers_that_were_called_longest_ago_are_let_go(self, peers: list[HttpPeer]) -> None:
        first, second, third, fourth = peers
        for peer in (first, second, first, third, fourth):
            await rollout(peer.url)
        await first.wait_until_all_have_gone()
        await second.wait_until_all_have_gone()
        await rollout(third.url)
        await rollout(fourth.url)
        assert [peer.connections for peer in peers] == [1, 1, 1, 1]

    @pytest.mark.parametrize("ending", [drop, close_half_way], ids=["dropped", "cut off"])
    async def test_a_failed_call_does_not_keep_its_trainer(self, peers: list[HttpPeer], ending: Any) -> None:
        first, *others = peers
        first.answers = [ending]
        with pytest.raises(OsmosisTransportError):
            await rollout(first.url)
        await rollout(first.url)
        for peer in others:
            await rollout(peer.url)
        await first.wait_until_all_have_gone()

    async def test_a_trainer_with_a_call_in_flight_is_kept(self, peers: list[HttpPeer]) -> None:
        busy, *others = peers
        busy.answers = [hang]
        waiting = asyncio.create_task(rollout(busy.url))
        await busy.wait_for_requests(1)
        for peer in others:
            await rollout(peer.url)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})


class TestTls:
    async def test_one_verifying_context_serves_every_trainer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        contexts: list[ssl.SSLContext] = []
        create_default_context = ssl.create_default_context

        def note(*arguments: Any, **options: Any) -> ssl.SSLContext:
            contexts.append(create_default_context(*arguments, **options))
            return contexts[-1]

        monkeypatch.setattr(ssl, "create_default_context", note)
        channels.tls_context.cache_clear()
        async with AsyncExitStack() as stack:
            for _ in range(4):
                hang_up = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
                await stack.enter_async_context(hang_up)
                with pytest.raises(OsmosisTransportError):
                    await rollout(f"https://127.0.0.1:{hang_up.sockets[0].getsockname()[1]}")
        await channels.close_shared_channels()
        (context,) = contexts
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname

    async def test_plain_http_loads_no_certificates(self, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(ssl, "create_default_context")
        await rollout(peer.url)
        assert len(peer.requests) == 1

    @pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "no certificates"])
    def test_a_certificate_file_that_is_none_is_named_with_its_variable(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
    ) -> None:
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_text(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        channels.tls_context.cache_clear()
        with pytest.raises(ValueError, match=r"SSL_CERT_FILE names '.*ca\.pem'"):
            channels.check_certificates()
        channels.tls_context.cache_clear()

    def test_a_certificate_folder_that_is_none_is_named_with_its_variable(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "certs"))
        with pytest.raises(ValueError, match="SSL_CERT_DIR names"):
            channels.check_certificates()

    def test_certificates_that_can_be_used_are_no_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
        channels.check_certificates()


class TestProxies:
    async def test_the_proxy_of_the_environment_is_used(self, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", peer.url)
        await rollout("http://trainer.invalid:8443")
        assert peer.requests[0].target == "http://trainer.invalid:8443/v1/chat/completions"

    @pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy"])
    async def test_a_proxy_for_all_schemes_is_used(
        self, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, peer.url)
        await rollout("http://trainer.invalid")
        assert peer.requests[0].target == "http://trainer.invalid/v1/chat/completions"

    async def test_https_goes_through_a_tunnel(self, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTPS_PROXY", peer.url)
        peer.answer = drop
        with pytest.raises(OsmosisTransportError):
            await rollout("https://trainer.invalid")
        assert (peer.requests[0].method, peer.requests[0].target) == ("CONNECT", "trainer.invalid:443")

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_this_machine_is_called_directly(
        self, peers: list[HttpPeer], monkeypatch: pytest.MonkeyPatch, host: str
    ) -> None:
        proxy, trainer, *_ = peers
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        await rollout(f"http://{host}:{trainer.port}")
        assert trainer.requests[0].target == "/v1/chat/completions"
        assert proxy.requests == []

    async def test_a_host_in_no_proxy_is_called_directly(
        self, peers: list[HttpPeer], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy, trainer, *_ = peers
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "0.0.0.0")  # noqa: S104 - called, not bound
        await rollout(f"http://0.0.0.0:{trainer.port}")
        assert len(trainer.requests) == 1
        assert proxy.requests == []

    @pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "http://127.0.0.1:port"])
    async def test_a_proxy_that_cannot_be_used_is_named_as_the_cause(
        self, monkeypatch: pytest.MonkeyPatch, proxy: str
    ) -> None:
        monkeypatch.setenv("ALL_PROXY", proxy)
        with pytest.raises(OsmosisTransportError, match="The proxy that the environment names cannot be used"):
            await rollout("http://trainer.invalid")
