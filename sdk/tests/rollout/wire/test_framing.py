"""Where a reply ends: what is cut off is none, and what comes behind it is never taken for the next one."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from support.http_peer import CHAT_REPLY, Answer, HttpPeer, close_half_way, drop, reply
from support.rollout_client import QUESTION

from osmosis_ai.rollout import OsmosisLLMClient, OsmosisServerError, OsmosisTransportError
from osmosis_ai.rollout.wire import coding, httpx_reading
from osmosis_ai.rollout.wire.channel import DISCARDED_BYTES
from osmosis_ai.rollout.wire.channels import TrainerChannels
from osmosis_ai.rollout.wire.heads import MAX_HEAD_BYTES, MAX_HEADERS

pytestmark = pytest.mark.usefixtures("default_settings")

CHAT = json.dumps(CHAT_REPLY).encode()
ACKNOWLEDGED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
RAW_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS)
RAW_CHAT = RAW_DEFLATE.compress(CHAT) + RAW_DEFLATE.flush()


def as_is(content: bytes, *, then_close: bool = False) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        if then_close:
            await writer.drain()
            writer.close()

    return answer


def whole(body: bytes, *lines: bytes) -> bytes:
    head = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def client_of(peer: HttpPeer, rollout_id: str = "r", **arguments: Any) -> OsmosisLLMClient:
    return OsmosisLLMClient(peer.url, rollout_id, max_retries=0, complete_rollout_retries=0, **arguments)


class TestLeftovers:
    @pytest.mark.parametrize("leftover", [ACKNOWLEDGED, ACKNOWLEDGED[:-2], ACKNOWLEDGED[:20], b"{}", b"H"])
    @pytest.mark.parametrize("first", ["chat", "result"])
    async def test_what_comes_behind_a_reply_never_acknowledges_a_result(
        self, peer: HttpPeer, leftover: bytes, first: str
    ) -> None:
        peer.answers = [as_is(whole(CHAT) + leftover), reply({"error": "not now"}, 503)]
        async with client_of(peer) as client:
            if first == "chat":
                await client.chat_completions(QUESTION)
            else:
                await client_of(peer, "another").complete_rollout("COMPLETED", QUESTION)
            with pytest.raises(OsmosisServerError, match="not now"):
                await client.complete_rollout("COMPLETED", QUESTION)
        assert peer.connections == 2

    async def test_it_adds_no_header_to_the_reply_before(self, peer: HttpPeer) -> None:
        refusal = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        peer.answers = [as_is(refusal + b"HTTP/1.1 503 Busy\r\nRetry-After: 29\r\nContent-Length: 0\r\n\r\n")]
        with pytest.raises(OsmosisServerError) as caught:
            await client_of(peer).chat_completions(QUESTION)
        assert caught.value.retry_after_seconds is None

    async def test_a_reply_without_any_keeps_its_connection(self, peer: HttpPeer) -> None:
        for _ in range(3):
            await client_of(peer).chat_completions(QUESTION)
        assert peer.connections == 1


class TestCutOff:
    @pytest.mark.parametrize(
        "cut",
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Le",
            b"HTTP/1.1 2",
        ],
    )
    async def test_a_reply_cut_within_its_headers_is_none(self, peer: HttpPeer, cut: bytes) -> None:
        peer.answer = as_is(cut, then_close=True)
        with pytest.raises(OsmosisTransportError):
            await client_of(peer).complete_rollout("COMPLETED", QUESTION)
        with pytest.raises(OsmosisTransportError):
            await client_of(peer).chat_completions(QUESTION)

    @pytest.mark.usefixtures("delays")
    async def test_it_is_tried_again(self, peer: HttpPeer) -> None:
        peer.answers = [as_is(b"HTTP/1.1 200 OK\r\nX: y\r\n", then_close=True)]
        client = OsmosisLLMClient(peer.url, "r", max_retries=1)
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."

    @pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
    async def test_a_reply_without_headers_ends_with_its_connection(self, peer: HttpPeer, head: bytes) -> None:
        peer.answer = as_is(head + CHAT, then_close=True)
        assert (await client_of(peer).chat_completions(QUESTION)).content == "About 85 grams."


class TestCodings:
    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("gzip", gzip.compress(CHAT)),
            ("x-gzip", gzip.compress(CHAT)),
            ("gzip", gzip.compress(CHAT[:30]) + gzip.compress(CHAT[30:90]) + gzip.compress(CHAT[90:])),
            ("gzip", gzip.compress(CHAT) + gzip.compress(b"")),
            ("deflate", zlib.compress(CHAT)),
            ("deflate", RAW_CHAT),
            ("deflate", gzip.compress(CHAT)),
        ],
        ids=["gzip", "x-gzip", "members", "an empty member", "deflate", "raw deflate", "gzip by another name"],
    )
    async def test_a_compressed_reply_is_read(self, peer: HttpPeer, name: str, body: bytes) -> None:
        peer.answer = reply(body, headers={"Content-Encoding": name})
        assert (await client_of(peer).chat_completions(QUESTION)).content == "About 85 grams."

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("gzip", gzip.compress(CHAT)[:-8]),
            ("gzip", gzip.compress(CHAT)[:-4]),
            ("gzip", gzip.compress(CHAT)[:-8] + bytes(8)),
            ("gzip", gzip.compress(CHAT) + b"x"),
            ("gzip", gzip.compress(CHAT) + gzip.compress(CHAT)[:-5]),
            ("gzip", gzip.compress(b"") * coding.MAX_MEMBERS + gzip.compress(CHAT)),
            ("deflate", zlib.compress(CHAT)[:-2]),
            ("deflate", zlib.compress(CHAT)[:-4] + bytes(4)),
            ("deflate", zlib.compress(CHAT) + b"x"),
            ("deflate", RAW_CHAT[:-2]),
            ("gzip", CHAT),
        ],
    )
    async def test_one_that_is_damaged_or_cut_off_is_none(self, peer: HttpPeer, name: str, body: bytes) -> None:
        peer.answer = reply(body, headers={"Content-Encoding": name})
        with pytest.raises(OsmosisTransportError, match="DecodingError: The reply cannot be decompressed"):
            await client_of(peer).chat_completions(QUESTION)

    @pytest.mark.slow
    async def test_a_large_one_leaves_the_event_loop_free(self, peer: HttpPeer) -> None:
        bomb = gzip.compress(bytes(128 * 1024 * 1024))
        peer.answer = reply(bomb, headers={"Content-Encoding": "gzip"})
        loop = asyncio.get_running_loop()
        call = asyncio.ensure_future(client_of(peer).chat_completions(QUESTION))
        longest, before = 0.0, loop.time()
        while not call.done():
            await asyncio.sleep(0)
            longest, before = max(longest, loop.time() - before), loop.time()
        with pytest.raises(OsmosisTransportError):
            await call
        assert longest < 0.2

    async def test_many_bombs_at_once_cost_no_memory(self, peer: HttpPeer) -> None:
        peer.answer = reply(gzip.compress(bytes(16_000_000)), headers={"Content-Encoding": "gzip"})
        channel = TrainerChannels(8, 8, 8_000_000)
        calls = [client_of(peer, f"r{n}", channel=channel).chat_completions(QUESTION) for n in range(8)]
        tracemalloc.start()
        try:
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            await channel.aclose()
        assert {type(outcome) for outcome in outcomes} == {OsmosisTransportError}
        assert peak_bytes < 6_000_000

    async def test_a_refused_reply_is_not_kept_by_the_error_that_says_so(self, peer: HttpPeer) -> None:
        peer.answer = reply(b" " * 8_000_000)
        channel = TrainerChannels(1, 1, 6_000_000)
        tracemalloc.start()
        try:
            with pytest.raises(OsmosisTransportError, match="larger than 6000000 bytes") as raised:
                await client_of(peer, channel=channel).chat_completions(QUESTION)
            kept_bytes = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            await channel.aclose()
        assert raised.value.__cause__ is not None
        assert kept_bytes < 3_000_000

    async def test_the_bound_counts_what_is_decompressed(self, peer: HttpPeer) -> None:
        peer.answer = reply(gzip.compress(CHAT + b" " * 1_000_000), headers={"Content-Encoding": "gzip"})
        channel = TrainerChannels(1, 1, len(CHAT) + 1_000_000)
        await client_of(peer, channel=channel).chat_completions(QUESTION)
        await channel.aclose()
        channel = TrainerChannels(1, 1, len(CHAT) + 999_999)
        with pytest.raises(OsmosisTransportError, match=f"larger than {len(CHAT) + 999_999} bytes"):
            await client_of(peer, channel=channel).chat_completions(QUESTION)
        await channel.aclose()


class TestBoundsOfHeads:
    @pytest.mark.parametrize(
        "endless",
        [b"X: y\r\n" * 100, b"X: " + b"y" * 20_000 + b"\r\n", b"y" * 1000],
        ids=["lines", "long lines", "one line"],
    )
    @pytest.mark.parametrize(
        "start",
        [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: "],
        ids=["headers", "trailers"],
    )
    async def test_an_endless_head_is_cut_off(self, peer: HttpPeer, start: bytes, endless: bytes) -> None:
        sent = 0

        async def pour(writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(start)
            while not writer.is_closing():
                writer.write(endless)
                sent += len(endless)
                await writer.drain()
                await asyncio.sleep(0)

        peer.answer = pour
        with pytest.raises(OsmosisTransportError):
            await client_of(peer).chat_completions(QUESTION)
        await peer.wait_until_all_have_gone()
        assert sent < 32 * 1024 * 1024  # what the system buffers is in it

    @pytest.mark.slow
    @pytest.mark.parametrize(("size", "is_refused"), [(1, True), (6, False)])
    async def test_a_body_in_tiny_pieces_takes_no_more_memory_than_its_size(
        self,
        peer: HttpPeer,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        size: int,
        is_refused: bool,
    ) -> None:
        count = 400_000
        if "through httpx" in request.node.name:  # 50 µs a chunk
            monkeypatch.setattr(httpx_reading, "MAX_HEAD_BYTES", 1000)
            count = 20_000 if is_refused else 2000
        chunk = b"%d\r\n%b\r\n" % (size, b" " * size)

        async def pour(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(count // 1000):
                writer.write(chunk * 1000)
                await writer.drain()
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT), CHAT))

        peer.answer = pour
        client = client_of(peer)
        if is_refused:
            with pytest.raises(OsmosisTransportError, match="headers are too large"):
                await client.chat_completions(QUESTION)
            return
        tracemalloc.start()
        try:
            await client.chat_completions(QUESTION)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 6 * count * size + 2_000_000  # what is loaded meanwhile

    async def test_interim_replies_without_end_are_cut_off(self, peer: HttpPeer) -> None:
        async def pour(writer: asyncio.StreamWriter) -> None:
            while not writer.is_closing():
                writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100)
                await writer.drain()
                await asyncio.sleep(0)

        peer.answer = pour
        with pytest.raises(OsmosisTransportError, match="headers are too large"):
            await client_of(peer, timeout_seconds=5).chat_completions(QUESTION)

    @pytest.mark.parametrize(
        "lines",
        [[b"X: y"] * MAX_HEADERS, [b"X: " + b"y" * 17_000], [b"X: " + b"y" * 15_000] * (MAX_HEAD_BYTES // 15_000 + 1)],
        ids=["count", "size", "total"],
    )
    async def test_so_is_one_that_comes_at_once(self, peer: HttpPeer, lines: list[bytes]) -> None:
        peer.answer = as_is(whole(CHAT, *lines))
        with pytest.raises(OsmosisTransportError, match="headers are too large"):
            await client_of(peer).chat_completions(QUESTION)


class TestAcknowledgements:
    async def acknowledged(self, peer: HttpPeer, answer: Answer) -> None:
        peer.answers = [answer]
        async with asyncio.timeout(60):
            await client_of(peer).complete_rollout("COMPLETED", QUESTION)

    async def test_a_body_without_end_is_not_read(self, peer: HttpPeer) -> None:
        sent = 0

        async def pour(writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not writer.is_closing():
                writer.write(bytes(65_536))
                sent += 65_536
                await writer.drain()
                await asyncio.sleep(0)

        await self.acknowledged(peer, pour)
        await peer.wait_until_all_have_gone()
        assert sent < 32 * 1024 * 1024

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "head",
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 202 x\r\nTransfer-Encoding: chunked\r\n\r\n"],
    )
    async def test_one_that_is_late_is_not_waited_for(self, peer: HttpPeer, head: bytes) -> None:
        await self.acknowledged(peer, as_is(head + b"1"))
        await peer.wait_until_all_have_gone()

    @pytest.mark.parametrize(
        "answer",
        [
            reply(b"no gzip", headers={"Content-Encoding": "gzip"}),
            reply(bytes(DISCARDED_BYTES + 1)),
            reply(b"", 204),
        ],
        ids=["damaged", "long", "empty"],
    )
    async def test_its_body_is_no_matter(self, peer: HttpPeer, answer: Answer) -> None:
        await self.acknowledged(peer, answer)

    async def test_a_short_one_keeps_the_connection_and_a_long_one_does_not(self, peer: HttpPeer) -> None:
        await self.acknowledged(peer, reply(bytes(DISCARDED_BYTES)))
        await self.acknowledged(peer, reply(bytes(DISCARDED_BYTES + 1)))
        assert peer.connections == 1
        await self.acknowledged(peer, reply())
        assert peer.connections == 2

    async def test_one_that_follows_its_head_keeps_the_connection(self, peer: HttpPeer) -> None:
        async def in_two_parts(writer: asyncio.StreamWriter) -> None:
            writer.write(ACKNOWLEDGED[:-2])
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(ACKNOWLEDGED[-2:])

        await self.acknowledged(peer, in_two_parts)
        await self.acknowledged(peer, reply())
        assert peer.connections == 1

    @pytest.mark.parametrize(
        "trouble", [drop, as_is(b"HTTP/1.1 100 Continue\r\n\r\n", then_close=True), close_half_way]
    )
    async def test_no_status_and_a_reply_that_is_cut_off_are_no_acknowledgement(
        self, peer: HttpPeer, trouble: Answer
    ) -> None:
        peer.answer = trouble
        with pytest.raises(OsmosisTransportError):
            await client_of(peer).complete_rollout("COMPLETED", QUESTION)

    async def test_what_a_refusal_says_is_read(self, peer: HttpPeer) -> None:
        peer.answer = reply(b"not now", 503)
        with pytest.raises(OsmosisServerError, match="not now"):
            await client_of(peer).complete_rollout("COMPLETED", QUESTION)
