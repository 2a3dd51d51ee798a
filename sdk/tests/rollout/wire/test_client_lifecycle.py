"""The HTTP client under the client to the trainer: when it is made and closed, and how other code replaces it."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import httpx
import pytest
from support.http_peer import CHAT_REPLY, HttpPeer
from support.rollout_client import QUESTION, ROLLOUT_ID, SECRET, stand_in

from osmosis_ai.rollout import OsmosisTimeoutError, OsmosisTransportError, RolloutClientSettings
from osmosis_ai.rollout.wire.client import OsmosisLLMClient

pytestmark = pytest.mark.usefixtures("default_settings")


class TestLifeCycle:
    async def test_with_yields_the_client_itself_and_closes_it(self, peer: HttpPeer) -> None:
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID)
        async with client as entered:
            assert entered is client
            assert client._client is None
            await client.chat_completions(QUESTION)
            http_client = client._client
        assert http_client is not None
        assert http_client.is_closed
        assert client._client is None

    async def test_closing_is_harmless_at_any_time_and_a_later_call_opens_a_new_client(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        await client.close()
        await client.chat_completions(QUESTION)
        await client.close()
        await client.close()
        await client.chat_completions(QUESTION)
        assert len(peer.requests) == 2

    async def test_one_http_client_serves_first_calls_at_the_same_time_and_is_closed_once(
        self, client: OsmosisLLMClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[Any] = []

        class Counted(httpx.AsyncClient):
            def __init__(self, **arguments: Any) -> None:
                super().__init__(**arguments)
                self.closings = 0
                made.append(self)

            async def aclose(self) -> None:
                self.closings += 1
                await super().aclose()

        monkeypatch.setattr("osmosis_ai.rollout.wire.client.httpx.AsyncClient", Counted)
        got = await asyncio.gather(*(client._get_client() for _ in range(5)))
        await asyncio.gather(*(client.chat_completions(QUESTION) for _ in range(5)))
        assert all(one is client._client for one in got)
        await asyncio.gather(client.close(), client.close())
        assert [counted.closings for counted in made] == [1]

    async def test_the_http_client_has_the_documented_limits_and_headers(self) -> None:
        settings = RolloutClientSettings(timeout_seconds=42, max_connections=7, max_keepalive_connections=3)
        http_client = await OsmosisLLMClient("http://trainer", ROLLOUT_ID, SECRET, settings=settings)._get_client()
        assert http_client.timeout == httpx.Timeout(42, connect=10)
        assert http_client.headers["Content-Type"] == "application/json"
        assert http_client.headers["Authorization"] == f"Bearer {SECRET}"
        assert http_client.follow_redirects is False
        hasty = await OsmosisLLMClient("http://trainer", ROLLOUT_ID, timeout_seconds=2)._get_client()
        assert hasty.timeout.connect == 2


class TestStandIn:
    async def test_requests_are_one_url_and_one_plain_dict(self) -> None:
        client = OsmosisLLMClient("http://trainer/", ROLLOUT_ID)
        ok = MagicMock(status_code=200, text="{}")
        ok.json.return_value = CHAT_REPLY
        client._client = http_client = stand_in(ok, ok)
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."
        await client.complete_rollout("COMPLETED", QUESTION)
        chat, completed = http_client.post.await_args_list
        assert chat.args == ("http://trainer/v1/chat/completions",)
        assert completed.args == ("http://trainer/v1/rollout/completed",)
        for call in (chat, completed):
            assert set(call.kwargs) == {"json"}
            assert type(call.kwargs["json"]) is dict
        await client.close()
        http_client.aclose.assert_awaited_once()
        assert client._client is None

    async def test_a_recorded_request_does_not_grow_with_the_conversation(self) -> None:
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID)
        ok = MagicMock(status_code=200, json=lambda: CHAT_REPLY)
        client._client = http_client = stand_in(ok)
        messages = [{"role": "user", "content": "one", "meta": {"n": 1}}]
        await client.chat_completions(messages)
        messages[0]["content"] = "changed"
        messages.append({"role": "user", "content": "two"})
        sent = http_client.post.await_args.kwargs["json"]
        assert sent["messages"] == [{"role": "user", "content": "one", "meta": {"n": 1}}]

    @pytest.mark.parametrize("kind", [MagicMock, AsyncMock, SimpleNamespace])
    async def test_of_a_reply_only_status_json_and_text_need_to_be_real(
        self, delays: list[float], recwarn: pytest.WarningsRecorder, kind: Callable[..., Any]
    ) -> None:
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID)
        busy = kind(status_code=503, text="busy", json=dict)
        client._client = stand_in(busy, kind(status_code=200, text="", json=lambda: CHAT_REPLY))
        await client.chat_completions(QUESTION)
        assert len(delays) == 1
        assert [str(warning.message) for warning in recwarn if "never awaited" in str(warning.message)] == []

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
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID, max_retries=1)
        client._client = stand_in(raised, raised)
        with pytest.raises(error_class) as caught:
            await client.chat_completions(QUESTION)
        assert str(caught.value).startswith(text)
        assert caught.value.__cause__ is raised
