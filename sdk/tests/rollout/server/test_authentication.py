"""Who may start a rollout: the key, the header it comes in, and that it is asked for before anything is read."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from support.rollouts import (
    INIT,
    ScriptedAgent,
    client_of,
    init_body,
    post_init,
)

from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.api_key import bearer_token
from osmosis_ai.rollout.server.app import create_app

KEY = "osm_rollout_test-key"
UNAUTHORIZED = {"detail": "Invalid or missing API key"}


class TestBearerToken:
    @pytest.mark.parametrize(
        ("header", "token"),
        [
            (None, None),
            ("", None),
            (" \t ", None),
            ("Bearer abc", "abc"),
            ("bearer abc", "abc"),
            ("BEARER  abc ", "abc"),
            ("tok", "tok"),
            (" tok ", "tok"),
            ("Basic abc", "Basic abc"),
            ("Bearer a b", "Bearer a b"),
            ("Bearer", "Bearer"),
        ],
    )
    def test_is_what_follows_the_scheme_or_the_whole_header(self, header: str | None, token: str | None) -> None:
        assert bearer_token(header) == token


@pytest.mark.usefixtures("clients")
class TestAuthentication:
    @pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", KEY, f"  {KEY}  "])
    async def test_the_key_opens_init(self, header: str) -> None:
        response = await post_init(create_app(ScriptedAgent(), api_key=KEY), authorization=header)
        assert response.status_code == 202

    @pytest.mark.parametrize(
        "header",
        [
            None,
            b"",
            b"Bearer",
            b"Bearer wrong",
            f"Bearer {KEY}x".encode(),
            f"Bearer {KEY.upper()}".encode(),
            f"Basic {KEY}".encode(),
            f"Bearer {KEY} {KEY}".encode(),
            b"Bearer \xff\xfe",
            "Bearer schlüssel".encode(),
        ],
    )
    async def test_anything_else_is_401_and_starts_nothing(self, header: bytes | None) -> None:
        agent = ScriptedAgent()
        headers = {} if header is None else {b"authorization": header}
        async with client_of(create_app(agent, api_key=KEY)) as client:
            response = await client.post(INIT, json=init_body(), headers=headers)
        assert (response.status_code, response.json()) == (401, UNAUTHORIZED)
        assert response.headers["www-authenticate"] == "Bearer"
        assert agent.tool_requests == []

    async def test_a_refusal_is_logged_without_what_was_sent(self, caplog: pytest.LogCaptureFixture) -> None:
        await post_init(create_app(ScriptedAgent(), api_key=KEY), authorization="Bearer guess-1")
        (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "Invalid or missing API key" in record.getMessage()
        assert "guess-1" not in caplog.text
        assert KEY not in caplog.text

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"rollout_id": ""}', b"x" * 100_000])
    async def test_the_key_comes_before_the_body(self, content: bytes) -> None:
        settings = RolloutSettings(server=RolloutServerSettings(max_body_bytes=1024))
        async with client_of(create_app(ScriptedAgent(), settings=settings, api_key=KEY)) as client:
            for headers in ({}, {"content-type": "text/plain"}):
                response = await client.post(INIT, content=content, headers=headers)
                assert (response.status_code, response.json()) == (401, UNAUTHORIZED)

    async def test_the_body_of_a_stranger_is_not_waited_for(self) -> None:
        async def never() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        async with client_of(create_app(ScriptedAgent(), api_key=KEY)) as client:
            assert (await client.post(INIT, content=never())).status_code == 401

    async def test_a_key_beyond_ascii_works_too(self) -> None:
        app = create_app(ScriptedAgent(), api_key="schlüssel")
        async with client_of(app) as client:
            for header, status in (("Bearer schlüssel", 202), ("schlüssel", 202), ("Bearer schlussel", 401)):
                response = await client.post(INIT, json=init_body(), headers={b"authorization": header.encode()})
                assert response.status_code == status

    async def test_nobody_has_the_empty_key(self) -> None:
        app = create_app(ScriptedAgent(), api_key="")
        assert (await post_init(app)).status_code == 401
        for header in ("", "Bearer ", "Bearer"):
            assert (await post_init(app, authorization=header)).status_code == 401

    async def test_the_key_may_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_API_KEY", KEY)
        app = create_app(ScriptedAgent())
        assert (await post_init(app)).status_code == 401
        assert (await post_init(app, authorization=f"Bearer {KEY}")).status_code == 202

    async def test_a_key_given_in_code_wins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_API_KEY", "other")
        app = create_app(ScriptedAgent(), api_key=KEY)
        assert (await post_init(app, authorization="Bearer other")).status_code == 401
        assert (await post_init(app, authorization=f"Bearer {KEY}")).status_code == 202

    async def test_the_callback_key_is_not_the_servers_key(self) -> None:
        app = create_app(ScriptedAgent(), api_key=KEY)
        assert (await post_init(app, init_body(api_key=KEY))).status_code == 401
