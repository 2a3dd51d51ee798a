"""The JSON Schemas of docs/protocol.md against the real server: true of what is on the wire, and of what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, strategies as st
from jsonschema import Draft202012Validator
from support.fake_trainer import FakeTrainer
from support.live_server import LiveServer
from support.plain_http import PLAIN

from docs.generate import schemas
from docs.generate.transcript import Exchange, record
from osmosis_ai.rollout import RolloutServerSettings, RolloutSettings, create_app
from osmosis_ai.rollout.server.requests import RefusedError, parse_init
from server import agent_loop

ROOT = Path(__file__).parent.parent
INIT_REQUEST = Draft202012Validator(json.loads((ROOT / "docs/schemas/init-request.schema.json").read_text("utf-8")))
MAX_BODY_BYTES = 100_000
INIT_PATH = "/v1/rollout/init"


def problems(message: str, body: Any) -> list[str]:
    schema = json.loads((ROOT / f"docs/schemas/{message}.schema.json").read_text(encoding="utf-8"))
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(body)]


@pytest.mark.parametrize("message", schemas.MESSAGES)
def test_a_schema_is_one(message: str) -> None:
    Draft202012Validator.check_schema(schemas.schema(message))


@pytest.mark.parametrize("server_url", ["http://trainer:8000", "HTTP://trainer:8000", "Https://[::1]:8000/run"])
def test_the_scheme_of_a_server_url_has_no_case(server_url: str) -> None:
    init = {"rollout_id": "r", "server_url": server_url, "messages": [], "completion_params": {}}
    assert problems("init-request", init) == []


# --- real traffic


@pytest.fixture(scope="module")
def story() -> dict[str, list[Exchange]]:
    return record()


def messages_of(exchange: Exchange) -> Iterator[tuple[str, Any]]:
    """The messages of an exchange, each with the name of its schema."""
    kinds = {
        INIT_PATH: ("init-request", "init-response"),
        "/v1/chat/completions": ("chat-request", "chat-response"),
        "/v1/rollout/completed": ("completed", None),
    }
    request, response = kinds.get(exchange.path, (None, "rollout-status"))
    if request and not exchange.status.startswith("422"):
        yield request, exchange.body
    if response and exchange.status.startswith("2"):
        yield response, exchange.response
    elif exchange.path.startswith("/v1/rollout/") and not exchange.status.startswith("2"):
        yield "error", exchange.response


def test_everything_on_the_wire_is_as_its_schema_says(story: dict[str, list[Exchange]]) -> None:
    seen = set()
    for exchange in (exchange for part in story.values() for exchange in part):
        for message, body in messages_of(exchange):
            seen.add(message)
            assert problems(message, body) == [], exchange

    expected = {"init-request", "init-response", "chat-request", "chat-response", "completed", "rollout-status"}
    assert seen == {*expected, "error"}


def test_the_repeated_init_gets_the_same_reply(story: dict[str, list[Exchange]]) -> None:
    assert story["repeat"][0].status == "202 Accepted"
    assert story["repeat"][0].response == story["start"][0].response


def test_each_chat_call_begins_with_the_one_before(story: dict[str, list[Exchange]]) -> None:
    first, second = (exchange.body["messages"] for exchange in story["turns"])
    reply = story["turns"][0].response["choices"][0]["message"]

    assert second[: len(first) + 1] == [*first, reply]
    assert story["result"][0].body["final_messages"][: len(second)] == second


# --- what is refused

INIT: dict[str, Any] = {
    "rollout_id": "r1",
    "server_url": "http://127.0.0.1:1",
    "messages": [],
    "completion_params": {},
}

BAD_FIELDS: list[dict[str, Any]] = [
    {"rollout_id": ""},
    {"rollout_id": " \t"},
    {"rollout_id": "x" * 257},
    {"rollout_id": None},
    {"rollout_id": 7},
    {"server_url": "ftp://trainer"},
    {"server_url": "http://"},
    {"server_url": "http://trainer/?a=1"},
    {"server_url": "http://trainer/#a"},
    {"server_url": "http://user:secret@trainer"},
    {"server_url": "http://train er"},
    {"server_url": "http://trainer\n"},
    {"server_url": "http://trainer/" + "x" * 2048},
    {"server_url": None},
    {"messages": None},
    {"messages": {}},
    {"messages": ["hello"]},
    {"completion_params": None},
    {"completion_params": []},
    {"max_turns": 0},
    {"max_turns": -1},
    {"max_turns": 100_001},
    {"max_turns": 1.5},
    {"max_turns": "many"},
    {"max_tokens_total": 0},
    {"max_tokens_total": 1_000_000_001},
    {"metadata": None},
    {"metadata": [1]},
    {"api_key": "x" * 4097},
    {"api_key": "kéy"},
    {"api_key": "key\n"},
    {"api_key": 7},
    {"idempotency_key": "x" * 257},
    {"idempotency_key": 7},
    {"tool_server_url": 7},
]
# No schema can say it: a port that is no number, a host that is none, the size of the JSON text.
BEYOND_A_SCHEMA: list[dict[str, Any]] = [
    {"server_url": "http://trainer:port"},
    {"server_url": "http://trainer:0"},
    {"server_url": "http://..."},
    {"metadata": {"text": "x" * 2000}},
]
GOOD_FIELDS: list[dict[str, Any]] = [
    {},
    {"rollout_id": "a/b ü"},
    {"server_url": "https://trainer.example:8443/base/path/"},
    {"server_url": "http://[::1]:8000"},
    {"completion_params": {"top_k": 40, "stop": ["\n"]}},
    {"api_key": "a key", "idempotency_key": ""},
    {"api_key": None, "idempotency_key": None, "tool_server_url": None},
    {"metadata": {"ground_truth": "4"}, "max_turns": 1, "max_tokens_total": 1},
    {"anything": "else"},
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = RolloutSettings(
        server=RolloutServerSettings(api_key=None, journal="off", max_body_bytes=MAX_BODY_BYTES),
        max_metadata_size_bytes=1024,
    )
    with (
        FakeTrainer() as trainer,
        LiveServer(create_app(agent_loop, settings=settings)) as server,
        httpx.Client(base_url=server.url, **PLAIN) as client,
    ):
        INIT["server_url"] = trainer.url
        yield client


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=str)
def test_server_and_schema_refuse_the_same(fields: dict[str, Any], client: httpx.Client) -> None:
    body = {**INIT, **fields}

    response = client.post(INIT_PATH, json=body)

    assert response.status_code == 422
    assert problems("error", response.json()) == []
    assert problems("init-request", body) != []


@pytest.mark.parametrize("missing", ["rollout_id", "server_url", "messages", "completion_params"])
def test_server_and_schema_require_the_same(missing: str, client: httpx.Client) -> None:
    body = {name: value for name, value in INIT.items() if name != missing}

    assert client.post(INIT_PATH, json=body).status_code == 422
    assert problems("init-request", body) != []


@pytest.mark.parametrize("fields", BEYOND_A_SCHEMA, ids=lambda fields: str(fields)[:60])
def test_the_server_refuses_more_than_a_schema_can_say(fields: dict[str, Any], client: httpx.Client) -> None:
    assert client.post(INIT_PATH, json={**INIT, **fields}).status_code == 422
    assert problems("init-request", {**INIT, **fields}) == []


@pytest.mark.parametrize("fields", GOOD_FIELDS, ids=str)
def test_server_and_schema_take_the_same(fields: dict[str, Any], client: httpx.Client) -> None:
    body = {**INIT, "rollout_id": f"good {GOOD_FIELDS.index(fields)}", **fields}
    assert problems("init-request", body) == []
    if "server_url" not in fields:  # nobody is there to call
        response = client.post(INIT_PATH, json=body)
        assert response.status_code == 202
        assert problems("init-response", response.json()) == []


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (("POST", INIT_PATH, b"{}", "text/plain"), 415, "not_json"),
        (("POST", INIT_PATH, b"x" * (MAX_BODY_BYTES + 1), "application/json"), 413, "body_too_large"),
        (("POST", INIT_PATH, b"{", "application/json"), 422, None),
        (("GET", INIT_PATH, None, None), 405, None),
        (("GET", "/nothing", None, None), 404, None),
        (("GET", "/platform/health", None, None), 404, None),
        (("GET", "/v1/rollout/never", None, None), 404, "unknown_rollout"),
        (("POST", "/v1/rollout/never/cancel", None, None), 404, "unknown_rollout"),
    ],
)
def test_a_refusal_is_as_its_schema_says(
    request_: tuple[str, str, bytes | None, str | None], status: int, code: str | None, client: httpx.Client
) -> None:
    method, path, content, kind = request_
    response = client.request(method, path, content=content, headers={"Content-Type": kind} if kind else {})

    assert (response.status_code, response.json().get("code")) == (status, code)
    assert problems("error", response.json()) == []


def test_health_and_readiness_are_as_their_schemas_say(client: httpx.Client) -> None:
    assert problems("health", client.get("/health").json()) == []
    assert problems("ready", client.get("/ready").json()) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"status": "FAILED"},
        {"status": "ERROR", "reward": 0.0, "extra_fields": {"outcome": "agent_error"}},
        {"status": "ERROR", "extra_fields": {"outcome": "success"}},
        {"status": "COMPLETED", "extra_fields": {"outcome": "timeout"}},
        {"extra_fields": {}},
        {"reward": "1"},
        {"final_messages": None},
    ],
    ids=str,
)
def test_the_schema_of_results_refuses_a_contradiction(broken: dict[str, Any]) -> None:
    result = {
        "rollout_id": "r1",
        "status": "COMPLETED",
        "final_messages": [],
        "finish_reason": "stop",
        "reward": 1.0,
        "extra_fields": {"outcome": "success"},
    }
    assert problems("completed", result) == []
    assert problems("completed", {**result, **broken}) != []


@given(
    rollout_id=st.text(max_size=258)
    | st.text(
        st.sampled_from("\t\n\v\f\r\x1c\x1f \x85\xa0\u1680\u200a\u200b\u2028\u202f\u3000\ufeff.initx"), max_size=6
    )
    | st.sampled_from(["init", ".", "..", "...", "inits", "init\n", "x" * 256, "x" * 257, "😀" * 256])
)
def test_the_schema_takes_the_ids_that_init_takes(rollout_id: str) -> None:
    body = {**INIT, "rollout_id": rollout_id}
    try:
        parse_init(json.dumps(body).encode(), frozenset())
    except RefusedError:
        is_taken = False
    else:
        is_taken = True
    assert INIT_REQUEST.is_valid(body) is is_taken
