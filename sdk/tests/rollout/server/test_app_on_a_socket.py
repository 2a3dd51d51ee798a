"""The app behind a real socket."""

import json
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from support.fake_trainer import FakeTrainer
from support.live_server import LiveServer
from support.plain_http import PLAIN
from support.rollouts import (
    INIT,
    ScriptedAgent,
    chat_once,
    init_body,
)

from osmosis_ai.rollout.core import turnstile
from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.app import create_app

KEY = "server-key"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    settings = RolloutSettings(server=RolloutServerSettings(max_body_bytes=100_000))
    with LiveServer(create_app(ScriptedAgent(chat_once), settings=settings, api_key=KEY)) as server:
        yield server


class TestOnASocket:
    @pytest.fixture
    def client(self, server: LiveServer) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=server.url, **PLAIN, headers={"authorization": f"Bearer {KEY}"}) as client:
            yield client

    def test_a_rollout_is_driven_through(self, client: httpx.Client, trainer: FakeTrainer) -> None:
        body = init_body("on-a-socket", server_url=trainer.url, api_key="cb-token")
        response = client.post(INIT, json=body)
        assert response.status_code == 202
        assert response.json() == {"rollout_id": "on-a-socket", "tools": []}
        result = trainer.wait_for_result("on-a-socket")
        assert (result["status"], result["reward"], result["finish_reason"]) == ("COMPLETED", 1.0, "stop")
        assert result["final_messages"] == [*body["messages"], trainer.reply]
        assert {call.authorization for call in trainer.calls} == {"Bearer cb-token"}

    def test_without_a_callback_key_no_authorization_is_sent(self, client: httpx.Client, trainer: FakeTrainer) -> None:
        client.post(INIT, json=init_body("no-key", server_url=trainer.url + "/"))
        trainer.wait_for_result("no-key")
        assert [(call.path, call.authorization) for call in trainer.calls] == [
            ("/v1/chat/completions", None),
            ("/v1/rollout/completed", None),
        ]

    def test_a_client_that_hangs_up_half_way_is_no_error(
        self, server: LiveServer, client: httpx.Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        head = f"POST {INIT} HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nContent-Length: 100\r\n\r\n"
        for _ in range(5):
            with server.connect() as connection:
                connection.sendall(head.encode() + b"{")
        assert client.get("/health").status_code == 200
        assert "Traceback" not in caplog.text

    @pytest.mark.parametrize(
        "garbage", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"POST " + b"x" * 100_000, b"\r\n\r\n\0"]
    )
    def test_what_is_no_http_does_no_harm(self, server: LiveServer, client: httpx.Client, garbage: bytes) -> None:
        with server.connect() as connection:
            connection.sendall(garbage)
        assert client.get("/health").status_code == 200

    def test_a_body_beyond_the_limit_is_refused_and_the_connection_is_not_wedged(self, client: httpx.Client) -> None:
        response = client.post(INIT, content=b" " * 200_000, headers={"content-type": "application/json"})
        assert response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        assert client.get("/health").status_code == 200

    def test_health_answers_while_many_clients_stand_idle(self, server: LiveServer, client: httpx.Client) -> None:
        head = f"POST {INIT} HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nContent-Length: 100\r\n\r\n".encode()
        idle = [server.connect() for _ in range(200)]
        try:
            for connection in idle:
                connection.sendall(head)
            assert client.get("/health").json()["status"] == "healthy"
        finally:
            for connection in idle:
                connection.close()

    def test_the_json_of_the_reply_is_what_the_header_says(self, client: httpx.Client) -> None:
        response = client.post(INIT, json=init_body("json"))
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.content)["rollout_id"] == "json"


def test_inits_that_are_whole_run_though_all_who_sent_them_have_hung_up_before_their_turn(
    trainer: FakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile, "MAX_PER_ROUND", 1)
    monkeypatch.setattr(turnstile, "MIN_PER_ROUND", 1)
    app = create_app(ScriptedAgent(chat_once), api_key=KEY)
    holds, all_are_sent = threading.Event(), threading.Event()

    async def holding(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") == "/hold":
            holds.set()
            all_are_sent.wait()  # and with it the loop
        await app(scope, receive, send)

    names = [f"hung-up-{number}" for number in range(30)]
    with LiveServer(holding) as server, server.connect() as first:
        first.sendall(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
        holds.wait()
        try:
            for name in names:
                body = json.dumps(init_body(name, server_url=trainer.url)).encode()
                head = f"POST {INIT} HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
                with server.connect() as connection:
                    connection.sendall(head.encode() + body)
        finally:
            all_are_sent.set()
        assert {trainer.wait_for_result(name)["status"] for name in names} == {"COMPLETED"}
