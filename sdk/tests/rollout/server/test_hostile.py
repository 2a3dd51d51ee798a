"""Whatever is sent to a real server, it is refused in a sentence or handled, and the server goes on serving."""

import gzip
import json
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from support.hostile_target import INIT, KEY, MAX_BODY_BYTES, SECRET, Target, assert_refused, target
from support.plain_http import PLAIN
from support.rollouts import init_body

__all__ = ["target"]

MAX_METADATA_BYTES = 1_048_576
SLOW_CLIENTS = 200
PERMANENT_REFUSAL = range(400, 500)


PATHS = [
    "../../escaped",
    "/tmp/escaped",  # noqa: S108 - an id, never opened
    "..\\..\\escaped",
    "a/../../escaped",
    "...",
    "%2e%2e%2fescaped",
    "~root",
    "con",
    "a\rSet-Cookie: x",
    "\x1b[2J",
    "a\x00b",
    "\u202egnp.exe",
    "🦊" * 256,
    "x" * 256,
    "?query#fragment",
]


class TestIds:
    @pytest.mark.parametrize("rollout_id", PATHS, ids=ascii)
    def test_one_that_is_a_path_is_just_a_name(self, target: Target, rollout_id: str) -> None:
        assert target.init(rollout_id=rollout_id).status_code == 202
        assert target.trainer.result(rollout_id)["reward"] == 1.0
        status = target.client.get(f"/v1/rollout/{quote(rollout_id, safe='')}")
        assert status.json()["rollout_id"] == rollout_id
        outside = [path for path in target.folder.rglob("*") if not path.is_relative_to(target.traces)]
        assert {path.name.split(".db")[0] for path in outside} <= {"journal", "traces"} | _owners(target)
        assert all(path.parent == target.traces and path.is_file() for path in target.traces.iterdir())
        assert not any(Path.cwd().iterdir())

    @pytest.mark.parametrize("rollout_id", ["init", ".", "..", "a\n", "a\nb\r\nSet-Cookie: x"], ids=ascii)
    def test_one_whose_status_would_have_no_path_is_refused(self, target: Target, rollout_id: str) -> None:
        assert_refused(target, target.init(rollout_id=rollout_id), 422, "rollout_id")

    @pytest.mark.parametrize("rollout_id", ["", " ", "\n\t", "x" * 257, 7, None, ["a"], {"a": 1}, True], ids=ascii)
    def test_one_that_is_no_name_is_refused(self, target: Target, rollout_id: Any) -> None:
        assert_refused(target, target.init(rollout_id=rollout_id), 422, "rollout_id")


class TestWhatCannotEnd:
    """Accepted before, and then an ``agent_error`` in each rollout, another value on the wire, or no call ever."""

    @pytest.mark.parametrize(
        "params",
        [
            {"logprobs": 5},
            {"logprobs": 1},
            {"logprobs": "true"},
            {"max_tokens": 512.5},
            {"max_tokens": "512"},
            {"max_tokens": True},
            {"temperature": "hot"},
            {"temperature": "0.8"},
            {"top_p": [1]},
            {"model": 7},
            {"stop": 5},
            {"stop": ["a", None]},
            {"stop": {"a": 1}},
        ],
        ids=ascii,
    )
    def test_completion_params_of_the_wrong_type_are_refused(self, target: Target, params: dict[str, Any]) -> None:
        response = target.init(completion_params=params)
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"][:3] == ["body", "completion_params", next(iter(params))]
        target.assert_serving()

    @pytest.mark.parametrize(
        "params",
        [
            {"temperature": 1, "top_p": 0.5, "max_tokens": 64, "logprobs": False, "model": "m", "stop": "END"},
            {"stop": ["a", "b"], "max_tokens": 64.0, "top_k": "whatever", "n": None},
            dict.fromkeys(["temperature", "top_p", "max_tokens", "stop", "logprobs", "model"]),
        ],
    )
    def test_others_are_taken(self, target: Target, params: dict[str, Any]) -> None:
        assert target.init(rollout_id=f"params-{len(str(params))}", completion_params=params).status_code == 202

    @pytest.mark.parametrize(
        "place", ['"metadata": {"x": [1e999]}', '"completion_params": {"top_k": -1e999}', '"messages": [{"x": 1e999}]']
    )
    def test_a_number_that_is_too_large_is_refused(self, target: Target, place: str) -> None:
        fields = init_body("too-large", server_url=target.trainer.url)
        fields.pop(json.loads("{" + place.replace("1e999", "1") + "}").popitem()[0], None)
        assert_refused(target, target.post((json.dumps(fields)[:-1] + f", {place}}}").encode()), 422)

    def test_a_compressed_body_is_refused_as_such(self, target: Target) -> None:
        body = gzip.compress(json.dumps(init_body("gz", server_url=target.trainer.url)).encode())
        response = target.post(body, **{"Content-Encoding": "gzip"})
        assert_refused(target, response, 415)
        assert response.headers["accept-encoding"] == "identity"

    def test_a_byte_order_mark_is_no_matter(self, target: Target) -> None:
        body = json.dumps(init_body("with-a-mark", server_url=target.trainer.url)).encode()
        assert target.post(b"\xef\xbb\xbf" + body).status_code == 202

    @pytest.mark.parametrize("host", ["xn--.test", "a..b", "a" * 64 + ".test"])
    def test_a_host_that_cannot_be_looked_up_is_refused(self, target: Target, host: str) -> None:
        body = init_body("no-host", server_url=f"http://{host}")
        assert_refused(target, target.post(json.dumps(body).encode()), 422, "server_url")


def _owners(target: Target) -> set[str]:
    return {path.name for path in (target.folder / "journal.db.owners").iterdir()}


TRAINER_URLS = [
    "",
    "127.0.0.1:1",
    "ftp://127.0.0.1",
    "file:///etc/passwd",
    "http://",
    "http://:80",
    "http:///v1",
    "http://127.0.0.1:0",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:-1",
    "http://127.0.0.1:x",
    "http://user@127.0.0.1",
    "http://user:password@127.0.0.1",
    "http://127.0.0.1/?x=1",
    "http://127.0.0.1/?",
    "http://127.0.0.1/#x",
    "http://127.0.0.1 ",
    " http://127.0.0.1",
    "http://127.0.0.1/a b",
    "http://127.0.0.1\r\nX: y",
    "http://127.0.0.1\x00",
    "http://[::1",
    "http://[zz]",
    "http://999.999.999.999.999",
    "http://elsewhere.invalid",
    "http://127.0.0.1.elsewhere.invalid",
    "http://169.254.169.254/latest/meta-data",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("server_url", TRAINER_URLS, ids=ascii)
def test_a_url_that_is_no_trainer_of_ours_is_refused(target: Target, server_url: str) -> None:
    body = init_body(server_url=server_url, api_key=SECRET)
    assert_refused(target, target.post(json.dumps(body).encode()), 422, "server_url")


class TestBodies:
    def test_one_that_is_too_large_is_413(self, target: Target) -> None:
        assert_refused(target, target.post(b" " * (MAX_BODY_BYTES + 1)), 413)

    def test_one_that_is_too_large_and_does_not_say_so_is_413(self, target: Target) -> None:
        chunks = (b" " * 65_536 for _ in range(MAX_BODY_BYTES // 65_536 + 2))
        headers = {"Content-Type": "application/json"}
        assert_refused(target, target.client.post(INIT, content=chunks, headers=headers), 413)

    def test_one_that_does_not_arrive_is_408(self, target: Target) -> None:
        with target.server.connect() as connection:
            connection.sendall(_head(content_length=100) + b'{"rollout_id":')
            assert b" 408 " in connection.makefile("rb").readline()
        target.assert_serving()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"\xff\xfe{}",
            b'{"rollout_id": "\xc3\x28"}',
            b"rollout_id=1",
            b"null",
            b"[]",
            b'"text"',
            b"NaN",
            b'{"metadata": {"x": NaN}}',
            b'{"metadata": {"x": 1e999}}',
            b'{"rollout_id": "\\ud800"}',
            b"[" * 100_000,
            b'{"metadata":' * 50_000 + b"1" + b"}" * 50_000,
            b"\x00" * 1000,
            b"9" * 100_000,
        ],
        ids=lambda content: ascii(content[:20]),
    )
    def test_one_that_is_no_init_is_422(self, target: Target, content: bytes) -> None:
        assert_refused(target, target.post(content), 422)

    def test_one_of_another_type_is_415(self, target: Target) -> None:
        response = target.post(json.dumps(init_body()).encode(), **{"Content-Type": "text/plain"})
        assert_refused(target, response, 415)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_turns", -1),
        ("max_turns", 0),
        ("max_turns", 10**30),
        ("max_turns", 1.5),
        ("max_tokens_total", -5),
        ("max_tokens_total", 10**15),
        ("idempotency_key", "k" * 257),
        ("api_key", "k" * 5_000),
        ("api_key", "two\r\nlines"),
        ("api_key", "schlüssel"),
        ("metadata", {"x": "y" * MAX_METADATA_BYTES}),
        ("messages", "hello"),
        ("messages", ["hello"]),
        ("completion_params", [1]),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_field_out_of_bounds_is_named(target: Target, field: str, value: Any) -> None:
    body = init_body(server_url=target.trainer.url) | {"api_key": SECRET} | {field: value}
    response = target.post(json.dumps(body).encode())
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"][:2] == ["body", field]
    assert SECRET not in response.text
    target.assert_serving()


class TestCredentials:
    @pytest.mark.parametrize(
        "header",
        [
            b"",
            b"Bearer",
            b"Bearer wrong",
            b"Basic dTpw",
            b"Bearer \xff\xfe",
            "Bearer schlüssel".encode(),
            f"Bearer {KEY}x".encode(),
            f"Bearer {KEY.upper()}".encode(),
            b"Bearer a b c",
            b"x" * 8_000,
        ],
        ids=lambda header: ascii(header[:20]),
    )
    @pytest.mark.parametrize("content", [b"{", b" " * (MAX_BODY_BYTES + 1)], ids=["not-json", "too-large"])
    def test_wrong_ones_are_401_before_the_body_is_looked_at(
        self, target: Target, header: bytes, content: bytes
    ) -> None:
        request = httpx.Request("POST", f"{target.server.url}{INIT}", content=content)
        request.headers = httpx.Headers([*request.headers.raw, (b"Authorization", header)])
        with httpx.Client(**PLAIN) as client:
            response = client.send(request)
        assert_refused(target, response, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
    def test_the_documentation_of_a_guarded_server_is_not_public(self, target: Target, path: str) -> None:
        assert httpx.get(f"{target.server.url}{path}", **PLAIN).status_code == 404

    @pytest.mark.parametrize("path", ["/v1/rollout/any", "/platform/health"])
    def test_what_tells_of_rollouts_needs_the_key(self, target: Target, path: str) -> None:
        assert httpx.get(f"{target.server.url}{path}", **PLAIN).status_code == 401


@pytest.mark.parametrize(
    ("do", "outcome", "says"),
    [
        ("none", "invalid_result", "NoneType"),
        ("text", "invalid_result", "str"),
        ("nan", "invalid_result", "reward"),
        ("unencodable", "invalid_result", "final_messages[1]"),
        ("surrogate", "invalid_result", "final_messages[1]"),
        ("cycle", "invalid_result", "final_messages[1]"),
        ("status", "invalid_result", "status"),
        ("exit", "agent_error", "SystemExit"),
        ("interrupt", "agent_error", "KeyboardInterrupt"),
        ("cancelled", "agent_error", "CancelledError"),
        ("unprintable", "agent_error", "ValueError"),
        ("mutate", "agent_error", "after a mess"),
    ],
)
def test_an_agents_nonsense_is_its_own_error_alone(target: Target, do: str, outcome: str, says: str) -> None:
    assert target.init(rollout_id=do, metadata={"do": do}).status_code == 202
    assert target.init(rollout_id=f"beside-{do}").status_code == 202
    result = target.trainer.result(do)
    assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", outcome)
    assert says in result["error_message"]
    assert "reward" not in result
    assert target.trainer.result(f"beside-{do}")["status"] == "COMPLETED"
    target.assert_serving()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=10), children, max_size=3),
    max_leaves=6,
)
KEYS = st.text(max_size=300) | JSON
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "rollout_id": KEYS,
        "server_url": st.text(max_size=40) | JSON,
        "messages": st.lists(st.dictionaries(st.text(max_size=10), JSON, max_size=3), max_size=3) | JSON,
        "completion_params": st.dictionaries(st.text(max_size=10), JSON, max_size=3) | JSON,
        "tool_server_url": st.text() | JSON,
        "max_turns": st.integers() | JSON,
        "max_tokens_total": st.integers() | JSON,
        "metadata": st.dictionaries(st.text(max_size=10), JSON, max_size=3) | JSON,
        "api_key": KEYS,
        "idempotency_key": KEYS,
        "unknown": JSON,
    },
)


@given(fields=FIELDS)
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_init_is_accepted_or_refused_in_json(target: Target, fields: dict[str, Any]) -> None:
    body = init_body(server_url=target.trainer.url) | fields
    response = target.post(json.dumps(body).encode())
    # On a busy machine a body is late (408), or the rollouts of the examples before are still under way (429).
    assert response.status_code in (202, 408, 409, 422) or int(response.headers["Retry-After"]) > 0
    assert response.json()["rollout_id" if response.status_code == 202 else "detail"]


@given(content=st.binary(max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_bytes_are_refused_in_json(target: Target, content: bytes) -> None:
    response = target.post(content)
    assert response.status_code in PERMANENT_REFUSAL
    assert response.json()["detail"]


def test_clients_that_stop_half_way_do_not_keep_health_from_answering(target: Target) -> None:
    halves = [b"POST /v1/ro", _head(content_length=1000)[:-2], _head(content_length=1000) + b"{", b""]
    with ExitStack() as stack:
        slow: list[socket.socket] = []
        for number in range(SLOW_CLIENTS):
            connection = stack.enter_context(target.server.connect())
            connection.sendall(halves[number % len(halves)])
            slow.append(connection)
        for _ in range(10):
            target.assert_serving()
        assert target.init(rollout_id="among-the-slow").status_code == 202
        assert target.trainer.result("among-the-slow")["status"] == "COMPLETED"
        assert all(connection.fileno() > 0 for connection in slow)
    target.assert_serving()


def _head(content_length: int) -> bytes:
    return (
        f"POST {INIT} HTTP/1.1\r\nHost: server\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {content_length}\r\n\r\n"
    ).encode()
