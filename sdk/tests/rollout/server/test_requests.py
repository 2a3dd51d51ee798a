"""What an init request may be: everything else is refused in JSON, by name, and leaves no trace."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import cache
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, strategies as st
from support.rollouts import INIT, JsonObject, ScriptedAgent, StandInClients, client_of, init_body

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.app import create_app
from osmosis_ai.rollout.server.requests import RefusedError, fingerprint, idempotency_key, parse_init

SECRET = "cb-secret-token"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def server(agent: ScriptedAgent | None = None, **settings: Any) -> FastAPI:
    return create_app(agent or ScriptedAgent(), settings=RolloutSettings(server=RolloutServerSettings(**settings)))


@cache
def any_server() -> FastAPI:
    """For whoever asks no more than one: in another event loop it knows of no rollout."""
    return server()


async def post(app: FastAPI, content: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    async with client_of(app) as client:
        given = {"content-type": "application/json", **headers}
        return await client.post(INIT, content=content, headers={name: value for name, value in given.items() if value})


def request(rollout_id: str = "rollout-1", **fields: Any) -> RolloutRequest:
    return RolloutRequest.model_validate(init_body(rollout_id, **fields))


@pytest.mark.usefixtures("clients")
class TestFields:
    @pytest.fixture(scope="class")
    @classmethod
    def refusing(cls) -> tuple[ScriptedAgent, FastAPI]:
        """An agent that is never asked, and its server."""
        agent = ScriptedAgent()
        return agent, server(agent)

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("rollout_id", "", "at least 1 character"),
            ("rollout_id", "x" * 257, "at most 256 characters"),
            ("rollout_id", " \t", "cannot be empty or whitespace only"),
            ("rollout_id", 7, "valid string"),
            ("rollout_id", None, "valid string"),
            ("server_url", "ftp://trainer", "must use http or https scheme"),
            ("server_url", "http://", "must have a valid host"),
            ("server_url", "http://:80", "must have a valid host"),
            ("server_url", "http://trainer:99999", "must have a valid host and port"),
            ("server_url", "http://trainer:0", "must have a valid host and port"),
            ("server_url", "http://user:pw@trainer", "must not carry user info"),
            ("server_url", "http://trainer?x=1", "must not have a query or a fragment"),
            ("server_url", "http://trainer#x", "must not have a query or a fragment"),
            ("server_url", "http://trainer ", "whitespace or control characters"),
            ("server_url", "http://trai\nner", "whitespace or control characters"),
            ("server_url", "http://¡", "cannot be called"),
            ("server_url", "http://trainer/" + "x" * 70_000, "at most 2048 characters"),
            ("messages", None, "valid list"),
            ("messages", ["hello"], "valid dictionary"),
            ("completion_params", None, "valid dictionary"),
            ("metadata", None, "valid dictionary"),
            ("metadata", {"big": "x" * 1_048_576}, "exceeds maximum"),
            ("max_turns", 0, "between 1 and"),
            ("max_turns", -1, "between 1 and"),
            ("max_turns", 10**9, "between 1 and"),
            ("max_turns", "many", "valid integer"),
            ("max_tokens_total", 0, "between 1 and"),
            ("max_tokens_total", 10**12, "between 1 and"),
            ("idempotency_key", "k" * 257, "at most 256 characters"),
            ("idempotency_key", 7, "valid string"),
            ("api_key", "schlüssel", "printable ASCII"),
            ("api_key", "two\nlines", "printable ASCII"),
            ("api_key", "k" * 4097, "printable ASCII"),
        ],
    )
    async def test_a_wrong_field_is_422_and_named_but_not_quoted(
        self, refusing: tuple[ScriptedAgent, FastAPI], field: str, value: Any, said: str
    ) -> None:
        agent, app = refusing
        response = await post(app, json.dumps(init_body(**{field: value})).encode())
        assert response.status_code == 422
        (detail,) = response.json()["detail"]
        assert detail["loc"][:2] == ["body", field]
        assert said in detail["msg"]
        assert set(detail) == {"type", "loc", "msg"}
        assert agent.tool_requests == []

    @pytest.mark.parametrize("field", ["rollout_id", "server_url", "messages", "completion_params"])
    async def test_a_missing_field_is_422_and_named(self, field: str) -> None:
        body = init_body()
        del body[field]
        response = await post(any_server(), json.dumps(body).encode())
        assert response.status_code == 422
        assert response.json()["detail"] == [{"type": "missing", "loc": ["body", field], "msg": "Field required"}]

    async def test_all_wrong_fields_are_named_at_once_and_no_input_comes_back(self) -> None:
        response = await post(
            any_server(), json.dumps({"api_key": SECRET, "rollout_id": "", "messages": SECRET}).encode()
        )
        assert [tuple(detail["loc"]) for detail in response.json()["detail"]] == [
            ("body", "rollout_id"),
            ("body", "server_url"),
            ("body", "messages"),
            ("body", "completion_params"),
        ]
        assert SECRET not in response.text

    @pytest.mark.parametrize(
        "fields",
        [
            {"rollout_id": "x" * 256},
            {"rollout_id": "../../etc/passwd\0"},
            {"messages": [], "completion_params": {}},
            {"server_url": "https://trainer.example:8443/base/"},
            {"server_url": "http://[::1]:80"},
            {"idempotency_key": "k" * 256},
            {"idempotency_key": "", "api_key": ""},
            {"max_turns": 1, "max_tokens_total": 1},
            {"tool_server_url": "not even a url"},
            {"unknown_field": {"nested": [None]}},
            {"metadata": {"ground_truth": 0, "ü": "ö"}},
        ],
    )
    async def test_whatever_else_is_accepted(self, fields: JsonObject) -> None:
        response = await post(any_server(), json.dumps(init_body(**fields)).encode())
        assert response.status_code == 202
        assert response.json()["rollout_id"] == fields.get("rollout_id", "rollout-1")

    async def test_the_defaults_reach_the_agent(self, clients: StandInClients) -> None:
        agent = ScriptedAgent()
        await post(server(agent), json.dumps(init_body()).encode())
        await clients.result()
        asked = agent.runs[0].request
        assert (asked.max_turns, asked.max_tokens_total, asked.metadata) == (10, 8192, {})
        assert (asked.api_key, asked.idempotency_key, asked.tool_server_url) == (None, None, None)

    async def test_completion_params_that_would_collide_with_the_chat_call_are_taken_out(
        self, clients: StandInClients
    ) -> None:
        agent = ScriptedAgent()
        params = {"messages": [], "rollout_id": "other", "self": 1, "temperature": None, "top_k": 5, "new": {"a": [1]}}
        await post(server(agent), json.dumps(init_body(completion_params=params)).encode())
        await clients.result()
        assert agent.runs[0].request.completion_params == {"temperature": None, "top_k": 5, "new": {"a": [1]}}

    async def test_the_metadata_limit_is_the_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.core.schemas._max_metadata_size_bytes", None)
        app = create_app(ScriptedAgent(), settings=RolloutSettings(max_metadata_size_bytes=1024))
        fits, too_large = ({"x": "y" * (1024 - len('{"x": ""}') + more)} for more in (0, 1))
        assert (await post(app, json.dumps(init_body(metadata=fits)).encode())).status_code == 202
        assert (await post(app, json.dumps(init_body("2", metadata=too_large)).encode())).status_code == 422


class TestTrainerHosts:
    @pytest.mark.parametrize(
        ("server_url", "status"),
        [
            ("http://trainer.example", 202),
            ("https://TRAINER.example:8443/base", 202),
            ("http://10.0.0.5:9001", 202),
            ("http://10.0.0.5:9002", 422),
            ("http://10.0.0.5", 422),
            ("http://trainer.example.evil.org", 422),
            ("http://169.254.169.254", 422),
        ],
    )
    @pytest.mark.usefixtures("clients")
    async def test_an_allow_list_names_hosts_with_any_port_or_one(self, server_url: str, status: int) -> None:
        app = server(allowed_trainer_hosts="Trainer.example, 10.0.0.5:9001")
        response = await post(app, json.dumps(init_body(server_url=server_url)).encode())
        assert response.status_code == status
        if status == 422:
            assert response.json()["detail"][0]["loc"] == ["body", "server_url"]


@pytest.mark.usefixtures("clients")
class TestBody:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no json",
            b"{",
            b"\xff\xfe{}",
            json.dumps(init_body()).encode("utf-16"),
            json.dumps(init_body()).replace("2 + 2", "\\ud800").encode(),
            b'{"rollout_id": "a", "rollout_id": NaN}',
            json.dumps(init_body(completion_params={"temperature": math.inf})).encode(),
            json.dumps(init_body(metadata={"x": math.nan})).encode(),
            b"[" * 100_000,
            b'{"metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
            json.dumps(init_body()).encode() + b" {}",
        ],
        ids=lambda content: repr(content[:20]),
    )
    async def test_what_is_not_one_strict_json_value_in_utf_8_is_422(self, content: bytes) -> None:
        response = await post(any_server(), content)
        assert response.status_code == 422
        (detail,) = response.json()["detail"]
        assert (detail["type"], detail["loc"]) == ("json_invalid", ["body"])

    @pytest.mark.parametrize("value", [None, 1, "text", [], [init_body()]])
    async def test_json_that_is_no_object_is_422(self, value: Any) -> None:
        response = await post(any_server(), json.dumps(value).encode())
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body"]

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"content-type": "application/json; charset=utf-8"}, 202),
            ({"content-type": "APPLICATION/JSON"}, 202),
            ({"content-type": "application/vnd.trainer+json"}, 202),
            ({"content-type": ""}, 202),
            ({"content-type": "", "origin": "https://evil.example"}, 415),
            ({"content-type": "text/plain"}, 415),
            ({"content-type": "application/x-www-form-urlencoded"}, 415),
            ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ],
    )
    async def test_a_body_that_says_it_is_something_else_is_415(self, headers: dict[str, str], status: int) -> None:
        response = await post(any_server(), json.dumps(init_body()).encode(), **headers)
        assert response.status_code == status
        if status == 415:
            assert response.json()["code"] == "not_json"
            assert "application/json" in response.json()["detail"]

    async def test_a_body_that_declares_too_much_is_413_before_it_is_read(self) -> None:
        async def never() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        response = await post(server(max_body_bytes=1024), never(), **{"content-length": "1025"})
        assert response.status_code == 413
        assert response.json() == {"detail": "The body is larger than 1024 bytes.", "code": "body_too_large"}

    async def test_a_body_that_declares_nothing_is_413_as_soon_as_it_is_too_large(self) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 512
                yield b" " * 512

        response = await post(server(max_body_bytes=1024), endless())
        assert response.status_code == 413
        assert sent == 1536

    async def test_a_body_of_just_the_limit_is_read(self) -> None:
        body = json.dumps(init_body()).encode()
        response = await post(server(max_body_bytes=1024), body + b" " * (1024 - len(body)))
        assert response.status_code == 202

    async def test_a_body_that_does_not_arrive_is_408(self) -> None:
        async def stalls() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        response = await post(server(body_timeout_seconds=0.1), stalls())
        assert response.status_code == 408
        assert response.json() == {"detail": "The body did not arrive within 0.1 s.", "code": "body_too_slow"}

    @pytest.mark.parametrize("declared", ["²", "-1", "1e3", "x", "0" * 30 + "7"])
    async def test_a_declared_length_that_is_no_number_is_ignored(self, declared: str) -> None:
        headers = httpx.Headers({"content-length": declared}, encoding="latin-1")
        async with client_of(any_server()) as client:
            response = await client.post(
                INIT,
                content=json.dumps(init_body()).encode(),
                headers=[*headers.raw, (b"content-type", b"application/json")],
            )
        assert response.status_code == 202


class TestFuzz:
    """Nothing that can be sent makes the server fail, and what is refused says why."""

    @staticmethod
    async def check(app: FastAPI, content: bytes) -> None:
        response = await post(app, content)
        assert response.status_code in (202, 409, 422), response.text
        if response.status_code == 422:
            for detail in response.json()["detail"]:
                assert set(detail) == {"type", "loc", "msg"}
                assert detail["loc"][0] == "body"

    @given(st.binary(max_size=200))
    def test_any_bytes(self, content: bytes) -> None:
        asyncio.run(self.check(any_server(), content))

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                name: json_values | st.just(init_body().get(name))
                for name in (*init_body(), "max_turns", "metadata", "api_key", "idempotency_key", "tool_server_url")
            },
        )
    )
    def test_any_fields(self, fields: JsonObject) -> None:
        asyncio.run(self.check(any_server(), json.dumps({**init_body(), **fields}).encode()))

    @given(st.text(max_size=40).map(lambda text: f"http://{text}") | st.text(max_size=40))
    def test_any_server_url(self, server_url: str) -> None:
        body = json.dumps(init_body(server_url=server_url)).encode()
        with suppress(RefusedError):
            assert parse_init(body, frozenset()).server_url == server_url
            assert httpx.URL(f"{server_url.rstrip('/')}/v1/chat/completions").host


class TestIdempotencyKey:
    def test_an_explicit_key_comes_first_and_an_empty_one_is_none(self) -> None:
        assert idempotency_key(request(idempotency_key="k")) == idempotency_key(request("other", idempotency_key="k"))
        assert idempotency_key(request(idempotency_key="")) == idempotency_key(request(idempotency_key=None))

    def test_ids_and_explicit_keys_do_not_collide(self) -> None:
        assert idempotency_key(request("same")) != idempotency_key(request("other", idempotency_key="same"))


class TestFingerprint:
    @pytest.mark.parametrize(
        "fields",
        [{"api_key": "rotated"}, {"idempotency_key": "k"}, {"rollout_id": "other"}, {"unknown": 1}, {"max_turns": 10}],
        ids=str,
    )
    def test_what_does_not_change_the_task_does_not_change_it(self, fields: JsonObject) -> None:
        assert fingerprint(request(**fields)) == fingerprint(request())

    @pytest.mark.parametrize(
        "fields",
        [
            {"server_url": "http://other"},
            {"messages": []},
            {"completion_params": {"temperature": 0.6}},
            {"max_turns": 11},
            {"max_tokens_total": 1},
            {"metadata": {"x": 1}},
            {"tool_server_url": "http://tools"},
        ],
    )
    def test_what_changes_the_task_changes_it(self, fields: JsonObject) -> None:
        assert fingerprint(request(**fields)) != fingerprint(request())

    def test_the_order_of_keys_does_not_matter_and_that_of_messages_does(self) -> None:
        a, b = {"role": "user", "content": "x"}, {"content": "x", "role": "user"}
        other = {"role": "user", "content": "y"}
        assert fingerprint(request(messages=[a, other])) == fingerprint(request(messages=[b, other]))
        assert fingerprint(request(messages=[a, other])) != fingerprint(request(messages=[other, a]))


def test_a_refusal_is_a_sentence_and_a_code() -> None:
    refused = RefusedError(503, "The server is shutting down.", "shutting_down", retry_after_seconds=3)
    assert refused.body == {"detail": "The server is shutting down.", "code": "shutting_down"}
    assert refused.headers == {"Retry-After": "3"}
    assert RefusedError(404, "Not found").body == {"detail": "Not found"}
