"""How long a rollout's client waits before it tries again."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, strategies as st
from support.http_peer import HttpPeer, drop, hang, refuse
from support.rollout_client import QUESTION, ROLLOUT_ID, Scripted

from osmosis_ai.rollout import (
    OsmosisServerError,
    OsmosisTimeoutError,
    RolloutClientSettings,
)
from osmosis_ai.rollout.core.chat_watch import ChatWatch
from osmosis_ai.rollout.core.exceptions import OsmosisProtocolError
from osmosis_ai.rollout.wire.channel import Reply
from osmosis_ai.rollout.wire.client import OsmosisLLMClient

pytestmark = pytest.mark.usefixtures("default_settings")


class TestBackoff:
    async def test_delays_double_up_to_the_cap_and_are_spread_downwards(
        self, peer: HttpPeer, delays: list[float]
    ) -> None:
        settings = RolloutClientSettings(max_retries=6, retry_base_delay=1.0, retry_max_delay=10.0)
        peer.answer = refuse(500)
        with pytest.raises(OsmosisServerError):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
        full = [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        assert len(delays) == len(full)
        assert all(most / 2 <= delay <= most for delay, most in zip(delays, full, strict=True))

    async def test_each_attempt_of_a_chat_asks_whether_it_may_be_made(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float]
    ) -> None:
        class TakenOver(ChatWatch):
            async def _refuse(self) -> None:
                raise OsmosisProtocolError("taken over")

            def in_doubt(self) -> Awaitable[None] | None:
                return self._refuse() if delays else None

        client.watcher = TakenOver()
        peer.answer = refuse(500)
        with pytest.raises(OsmosisProtocolError, match="taken over"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == len(delays) == 1

    async def test_two_rollouts_do_not_retry_in_step(self, peer: HttpPeer, delays: list[float]) -> None:
        peer.answer = refuse(500)
        for _ in range(4):
            with pytest.raises(OsmosisServerError):
                await OsmosisLLMClient(peer.url, ROLLOUT_ID, max_retries=1).chat_completions(QUESTION)
        assert len(set(delays)) > 1

    @pytest.mark.parametrize(("header", "delay"), [("7", 7.0), ("0.25", 0.25), (" 3 ", 3.0), ("9" * 400, 30.0)])
    async def test_retry_after_in_seconds_is_honoured_up_to_the_cap(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float], header: str, delay: float
    ) -> None:
        peer.answers = [refuse(429, headers={"Retry-After": header})]
        await client.chat_completions(QUESTION)
        assert delays == [delay]

    async def test_retry_after_as_a_date_is_honoured(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float]
    ) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=20)
        peer.answers = [refuse(503, headers={"Retry-After": format_datetime(soon, usegmt=True)})]
        await client.chat_completions(QUESTION)
        assert len(delays) == 1
        assert 10 < delays[0] <= 20

    async def test_a_date_without_a_zone_is_taken_as_utc(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float]
    ) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=20)
        peer.answers = [refuse(503, headers={"Retry-After": soon.strftime("%a, %d %b %Y %H:%M:%S -0000")})]
        await client.chat_completions(QUESTION)
        assert 10 < delays[0] <= 20

    @pytest.mark.parametrize(
        "header", ["soon", "", "-5", "1e3", "Fri, 99 Feb 2026 99:00:00 GMT", f"Fri, 1 Jan {10**12} 00:00:00 GMT", "²"]
    )
    async def test_any_other_retry_after_is_ignored(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float], header: str
    ) -> None:
        peer.answers = [refuse(503, headers={"Retry-After": header})]
        await client.chat_completions(QUESTION)
        assert len(delays) == 1
        assert 0.5 <= delays[0] <= 1.0

    @pytest.mark.slow
    @given(
        header=st.text(max_size=40)
        | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,12} \d+:\d+:\d+ [+-]\d{1,6}")
    )
    async def test_no_retry_after_can_break_a_call(self, header: str) -> None:
        busy = Reply(503, b"busy", [(b"Retry-After", header.encode())])
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID, max_retries=0, channel=Scripted(busy))
        with pytest.raises(OsmosisServerError) as caught:
            await client.chat_completions(QUESTION)
        assert caught.value.retry_after_seconds is None or caught.value.retry_after_seconds >= 0

    async def test_the_client_tells_while_it_backs_off_from_a_trainer_that_is_not_there(
        self, client: OsmosisLLMClient, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[bool] = []

        async def look(delay: float) -> None:
            if delay:  # and not a turn for others
                seen.append(client.finds_nobody)

        monkeypatch.setattr(asyncio, "sleep", look)
        peer.answers = [drop, refuse(500)]
        await client.chat_completions(QUESTION)
        assert seen == [True, False]
        assert client.finds_nobody is False

    async def test_a_cancelled_backoff_is_over(
        self, client: OsmosisLLMClient, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def cancel(delay: float) -> None:
            if delay:  # and not a turn for others
                raise asyncio.CancelledError

        monkeypatch.setattr(asyncio, "sleep", cancel)
        peer.answers = [drop]
        with pytest.raises(asyncio.CancelledError):
            await client.chat_completions(QUESTION)
        assert client.finds_nobody is False

    async def test_no_retry_starts_after_the_deadline_of_the_call(self, peer: HttpPeer, delays: list[float]) -> None:
        settings = RolloutClientSettings(call_deadline_seconds=10.0)
        peer.answer = refuse(503, "come back later", {"Retry-After": "25"})
        with pytest.raises(OsmosisServerError, match="come back later"):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
        assert delays == []
        assert len(peer.requests) == 1

    async def test_the_deadline_of_the_call_ends_an_attempt(self, peer: HttpPeer, delays: list[float]) -> None:
        settings = RolloutClientSettings()
        settings.call_deadline_seconds = 0.05
        peer.answer = hang
        with pytest.raises(OsmosisTimeoutError, match="attempt 1 of 4"):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
        assert delays == []
