"""The client to the trainer and the channel it is handed: what goes through it, and when it is closed."""

import json
from typing import Any

import httpx
import pytest
from support.http_peer import CHAT_REPLY, HttpPeer
from support.rollout_client import QUESTION, ROLLOUT_ID, SECRET, Scripted

from osmosis_ai.rollout import OsmosisTimeoutError, OsmosisTransportError, RolloutClientSettings
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.wire.channel import Reply
from osmosis_ai.rollout.wire.client import OsmosisLLMClient

pytestmark = pytest.mark.usefixtures("default_settings")

OK = Reply(200, json.dumps(CHAT_REPLY).encode())


class TestLifeCycle:
    async def test_with_yields_the_client_itself(self) -> None:
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID)
        async with client as entered:
            assert entered is client

    async def test_closing_is_harmless_at_any_time_and_a_later_call_goes_out_all_the_same(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        await client.close()
        await client.chat_completions(QUESTION)
        await client.close()
        await client.close()
        await client.chat_completions(QUESTION)
        assert len(peer.requests) == 2

    async def test_closing_leaves_the_channel_to_whoever_handed_it_over(self) -> None:
        channel = Scripted(OK)
        async with OsmosisLLMClient("http://trainer", ROLLOUT_ID, channel=channel) as client:
            await client.chat_completions(QUESTION)
        assert channel.closings == 0


class TestChannel:
    async def test_it_carries_url_body_headers_and_a_limit(self) -> None:
        channel = Scripted(OK, OK)
        client = OsmosisLLMClient("http://trainer/", ROLLOUT_ID, SECRET, timeout_seconds=42, channel=channel)
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."
        await client.complete_rollout("COMPLETED", QUESTION)
        chat, completed = channel.sent
        assert chat[0] == "http://trainer/v1/chat/completions"
        assert completed[0] == "http://trainer/v1/rollout/completed"
        assert json.loads(chat[1])["messages"] == json.loads(completed[1])["final_messages"] == QUESTION
        for _, _, headers, limit_seconds in channel.sent:
            assert list(headers) == ["Content-Type", "User-Agent", "Authorization", "Idempotency-Key"]
            assert headers["User-Agent"] == f"osmosis-ai/{PACKAGE_VERSION}"
            assert headers["Content-Type"] == "application/json"
            assert headers["Authorization"] == f"Bearer {SECRET}"
            assert limit_seconds == 42

    async def test_the_limit_is_never_more_than_is_left_of_the_call(self) -> None:
        channel = Scripted(OK)
        settings = RolloutClientSettings(timeout_seconds=300, call_deadline_seconds=20)
        await OsmosisLLMClient("http://trainer", ROLLOUT_ID, settings=settings, channel=channel).chat_completions(
            QUESTION
        )
        assert 19 < channel.sent[0][3] <= 20

    async def test_a_body_that_was_sent_does_not_change_with_the_conversation(self) -> None:
        channel = Scripted(OK)
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID, channel=channel)
        messages: list[dict[str, Any]] = [{"role": "user", "content": "one", "meta": {"n": 1}}]
        await client.chat_completions(messages)
        messages[0]["content"] = "changed"
        messages.append({"role": "user", "content": "two"})
        assert json.loads(channel.sent[0][1])["messages"] == [{"role": "user", "content": "one", "meta": {"n": 1}}]

    @pytest.mark.parametrize(
        ("raised", "error_class", "text"),
        [
            (httpx.ReadTimeout("too slow"), OsmosisTimeoutError, "too slow"),
            (TimeoutError(), OsmosisTimeoutError, "TimeoutError"),
            (httpx.ConnectError("refused"), OsmosisTransportError, "ConnectError: refused"),
            (httpx.ReadError(""), OsmosisTransportError, "ReadError "),
        ],
    )
    async def test_errors_of_httpx_become_ours(
        self, delays: list[float], raised: Exception, error_class: type[Exception], text: str
    ) -> None:
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID, max_retries=1, channel=Scripted(raised, raised))
        with pytest.raises(error_class) as caught:
            await client.chat_completions(QUESTION)
        assert str(caught.value).startswith(text)
        assert caught.value.__cause__ is raised
