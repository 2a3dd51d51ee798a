"""The mock trainer and its helpers (`osmosis_ai.rollout.trainer.testing`)."""

import builtins
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.testclient import TestClient
from hypothesis import given, strategies as st
from support.plain_http import PLAIN

from osmosis_ai.rollout import OsmosisLLMClient, RolloutMetrics, RolloutResponse, RolloutStatus, testing
from osmosis_ai.rollout.trainer.testing import (
    RolloutCompletionTracker,
    create_mock_trainer_app,
    fake_prompt_token_ids,
    fake_token_ids,
    patch_httpx_for_mock_trainer,
)

CHAT = "/v1/chat/completions"
COMPLETED = "/v1/rollout/completed"


def test_the_exported_names_are_those_of_the_specification() -> None:
    assert sorted(testing.__all__) == [
        "RolloutCompletionTracker",
        "create_mock_trainer_app",
        "fake_prompt_token_ids",
        "fake_token_ids",
        "patch_httpx_for_mock_trainer",
    ]


@given(st.text())
def test_a_fake_token_is_a_character(text: str) -> None:
    assert fake_token_ids(text) == list(range(len(text)))


@pytest.mark.parametrize(("count", "tokens"), [(0, 10), (1, 10), (3, 30)])
def test_a_message_is_ten_fake_tokens(count: int, tokens: int) -> None:
    assert fake_prompt_token_ids([{}] * count) == list(range(tokens))


def completion(rollout_id: str = "r1", **fields: Any) -> dict[str, Any]:
    return {"rollout_id": rollout_id, "status": "COMPLETED", **fields}


def chat(client: TestClient, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    reply = client.post(CHAT, json={"rollout_id": "r1", "messages": list(messages), **fields})
    assert reply.status_code == 200
    body: dict[str, Any] = reply.json()
    return body


@pytest.fixture
def tracker() -> RolloutCompletionTracker:
    return RolloutCompletionTracker()


@pytest.fixture
def trainer(tracker: RolloutCompletionTracker) -> Iterator[TestClient]:
    with TestClient(create_mock_trainer_app(tracker)) as client:
        yield client


class TestChat:
    def test_a_reply_is_a_full_completion(self, trainer: TestClient) -> None:
        before = int(time.time())
        reply = chat(trainer, {"role": "system", "content": "s"}, {"role": "user", "content": "hello"}, model="m")
        created = reply.pop("created")
        assert before <= created <= time.time()
        assert reply == {
            "id": "r1",
            "object": "chat.completion",
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "OK."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
            "token_ids": [0, 1, 2],
            "logprobs": [0.0, 0.0, 0.0],
            "prompt_token_ids": list(range(20)),
        }

    @pytest.mark.parametrize(
        "content", ["Please ADD 5 and 3", "calculate", "sum", "plus", "subtract", "multiply", "divide", "my address"]
    )
    def test_a_keyword_of_the_user_calls_for_the_tool(self, trainer: TestClient, content: str) -> None:
        (choice,) = chat(trainer, {"role": "user", "content": content})["choices"]
        assert choice == {
            "index": 0,
            "finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "I'll help you with that calculation.",
                "tool_calls": [
                    {
                        "id": "call_mock_add",
                        "type": "function",
                        "function": {"name": "add", "arguments": '{"a": 5, "b": 3}'},
                    }
                ],
            },
        }

    @pytest.mark.parametrize(
        ("message", "content"),
        [
            ({"role": "user", "content": "hello"}, "OK."),
            ({"role": "user", "content": None}, "OK."),
            ({"role": "user", "content": [{"type": "text", "text": "add"}]}, "OK."),
            ({"role": "user"}, "OK."),
            ({"role": "assistant", "content": "add"}, "OK."),
            ({"content": "add"}, "OK."),
            ({}, "OK."),
            ({"role": "tool", "content": "8, the sum"}, "The calculation is complete."),
        ],
        ids=str,
    )
    def test_other_messages_get_text(self, trainer: TestClient, message: dict[str, Any], content: str) -> None:
        (choice,) = chat(trainer, {"role": "user", "content": "add"}, message)["choices"]
        assert choice["message"] == {"role": "assistant", "content": content}

    def test_an_empty_conversation_gets_text(self, trainer: TestClient) -> None:
        reply = chat(trainer)
        assert reply["choices"][0]["message"]["content"] == "OK."
        assert reply["usage"]["prompt_tokens"] == 10

    @pytest.mark.parametrize("body", [{}, {"rollout_id": "r1"}, {"rollout_id": " ", "messages": []}], ids=str)
    def test_an_invalid_request_is_refused(self, trainer: TestClient, body: dict[str, Any]) -> None:
        assert trainer.post(CHAT, json=body).status_code == 422

    def test_a_generator_decides_alone(self) -> None:
        seen: list[dict[str, Any]] = []
        calls = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]

        def generate(last_message: dict[str, Any]) -> list[dict[str, Any]] | None:
            seen.append(last_message)
            return calls if last_message.get("role") == "tool" else None

        with TestClient(create_mock_trainer_app(tool_call_generator=generate)) as client:
            plain = chat(client, {"role": "user", "content": "add"})["choices"][0]["message"]
            called = chat(client, {"role": "tool", "content": "8"})["choices"][0]["message"]
            chat(client)
        assert plain == {"role": "assistant", "content": "OK."}
        assert called == {
            "role": "assistant",
            "content": "I'll help you with that calculation.",
            "tool_calls": calls,
        }
        assert seen[-1] == {"role": "user", "content": ""}

    def test_an_empty_list_of_a_generator_means_no_tool_calls(self) -> None:
        with TestClient(create_mock_trainer_app(None, lambda last_message: [])) as client:
            assert "tool_calls" not in chat(client, {"role": "user", "content": "add"})["choices"][0]["message"]


class TestStrictMode:
    @pytest.fixture
    def strict_trainer(self) -> Iterator[TestClient]:
        with TestClient(create_mock_trainer_app(strict=True)) as client:
            yield client

    @pytest.mark.parametrize("content", ["add 5 and 3", "Calculate: 5+3", "what is the SUM?"])
    def test_a_word_that_stands_alone_calls_for_the_tool(self, strict_trainer: TestClient, content: str) -> None:
        (choice,) = chat(strict_trainer, {"role": "user", "content": content})["choices"]
        assert choice["message"]["tool_calls"][0]["id"] == "call_mock_add"
        assert choice["finish_reason"] == "tool_calls"

    @pytest.mark.parametrize("content", ["my address", "a summary", "the surplus", "calculated"])
    def test_part_of_a_word_does_not(self, strict_trainer: TestClient, content: str) -> None:
        (choice,) = chat(strict_trainer, {"role": "user", "content": content})["choices"]
        assert choice["message"] == {"role": "assistant", "content": "OK."}
        assert choice["finish_reason"] == "stop"


class TestCompletions:
    def test_a_completion_is_stored_and_tracked_without_nulls(
        self, trainer: TestClient, tracker: RolloutCompletionTracker
    ) -> None:
        sent = RolloutResponse(
            rollout_id="r1",
            status=RolloutStatus.COMPLETED,
            final_messages=[{"role": "assistant", "content": None}],
            reward=1.0,
            metrics=RolloutMetrics(num_llm_calls=2),
        )
        reply = trainer.post(COMPLETED, json=sent.model_dump(mode="json"))
        assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
        stored = trainer.get(f"{COMPLETED}/r1").json()
        assert stored == sent.model_dump(mode="json", exclude_none=True)
        assert "error_message" not in stored
        assert tracker.wait(0.01, count=1)
        assert tracker.responses == [stored]

    def test_a_later_completion_of_the_same_rollout_wins(
        self, trainer: TestClient, tracker: RolloutCompletionTracker
    ) -> None:
        for reward in (0.0, 1.0):
            trainer.post(COMPLETED, json=completion(reward=reward))
        assert trainer.get(f"{COMPLETED}/r1").json()["reward"] == 1.0
        assert [response["reward"] for response in tracker.responses] == [0.0, 1.0]

    def test_an_unknown_rollout_has_an_empty_completion(self, trainer: TestClient) -> None:
        reply = trainer.get(f"{COMPLETED}/unheard-of")
        assert (reply.status_code, reply.json()) == (200, {})

    @pytest.mark.parametrize("rollout_id", ["run7/000042", "a b", "q?x=1#f", "ünï"])
    def test_any_id_can_be_asked_for(self, trainer: TestClient, rollout_id: str) -> None:
        trainer.post(COMPLETED, json=completion(rollout_id))
        assert trainer.get(f"{COMPLETED}/{quote(rollout_id)}").json()["rollout_id"] == rollout_id

    @pytest.mark.parametrize("body", [{}, {"rollout_id": "r1", "status": "DONE"}], ids=str)
    def test_an_invalid_completion_is_refused_and_not_tracked(
        self, trainer: TestClient, tracker: RolloutCompletionTracker, body: dict[str, Any]
    ) -> None:
        assert trainer.post(COMPLETED, json=body).status_code == 422
        assert tracker.responses == []

    def test_each_application_keeps_its_own(self, trainer: TestClient) -> None:
        trainer.post(COMPLETED, json=completion())
        with TestClient(create_mock_trainer_app()) as other:
            assert other.get(f"{COMPLETED}/r1").json() == {}

    def test_the_oldest_completions_are_forgotten(self, trainer: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(testing, "MAX_STORED_COMPLETIONS", 2)
        for rollout_id in ("a", "b", "a", "c"):
            trainer.post(COMPLETED, json=completion(rollout_id))
        known = [rollout_id for rollout_id in "abc" if trainer.get(f"{COMPLETED}/{rollout_id}").json()]
        assert known == ["a", "c"]


class TestApplication:
    def test_it_says_what_it_is(self, trainer: TestClient) -> None:
        assert trainer.get("/health").json() == {"status": "healthy", "service": "mock-trainer"}
        assert create_mock_trainer_app().title == "Mock Trainer Server"

    def test_without_fastapi_it_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real_import = builtins.__import__

        def block_fastapi(name: str, *args: Any) -> Any:
            if name.split(".")[0] == "fastapi":
                raise ImportError(name)
            return real_import(name, *args)

        monkeypatch.setattr(builtins, "__import__", block_fastapi)
        with pytest.raises(ImportError, match=r"FastAPI is required .* osmosis-ai\[server\]"):
            create_mock_trainer_app()

    @pytest.mark.slow
    def test_importing_the_module_needs_neither_fastapi_nor_a_test_framework(self) -> None:
        script = (
            "import sys, osmosis_ai.rollout.trainer.testing; "
            "print(sorted({'fastapi', 'starlette', 'pytest', 'httpx'} & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"


class TestPatchedHttpx:
    @pytest.fixture(autouse=True)
    def _patched(self, trainer: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        patch_httpx_for_mock_trainer(trainer, monkeypatch)

    @pytest.mark.parametrize("prefix", ["http://trainer.invalid:8443", "https://other.invalid/base"])
    async def test_a_chat_call_to_any_host_reaches_the_mock_trainer(self, prefix: str) -> None:
        async with httpx.AsyncClient(**PLAIN) as client:
            reply = await client.post(f"{prefix}{CHAT}", json={"rollout_id": "r9", "messages": []})
        assert type(reply) is httpx.Response
        assert reply.status_code == 200
        assert reply.json()["id"] == "r9"
        assert (reply.request.method, str(reply.request.url)) == ("POST", f"{prefix}{CHAT}")

    async def test_a_completion_reaches_the_tracker(self, tracker: RolloutCompletionTracker) -> None:
        async with httpx.AsyncClient(**PLAIN) as client:
            reply = await client.post(f"http://trainer.invalid{COMPLETED}", json=completion())
        assert reply.json() == {"status": "ok"}
        assert tracker.responses[0]["rollout_id"] == "r1"

    async def test_the_url_may_be_an_object(self) -> None:
        async with httpx.AsyncClient(**PLAIN) as client:
            reply = await client.post(httpx.URL(f"http://trainer.invalid{CHAT}"), json={})
        assert reply.status_code == 422

    async def test_request_is_covered_like_post(self) -> None:
        async with httpx.AsyncClient(**PLAIN) as client:
            reply = await client.request("post", f"http://trainer.invalid{CHAT}", json={})
        assert reply.status_code == 422

    @pytest.mark.parametrize("url", ["http://trainer.invalid:8443", "https://other.invalid/base"])
    async def test_the_calls_of_a_rollout_reach_the_mock_trainer(
        self, tracker: RolloutCompletionTracker, url: str
    ) -> None:
        async with OsmosisLLMClient(url, "r1", api_key="cb") as client:
            reply = await client.chat_completions([{"role": "user", "content": "add 5 and 3"}])
            await client.complete_rollout("COMPLETED", [reply.message], reward=1.0)
        assert reply.has_tool_calls
        assert [(result["rollout_id"], result["reward"]) for result in tracker.responses] == [("r1", 1.0)]

    async def test_other_calls_go_out_as_before(self) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(418, text=f"{request.method} {request.url.path}")

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            posted = await client.post("http://elsewhere.invalid/v1/other", json={})
            got = await client.get(f"http://trainer.invalid{COMPLETED}/r1")
        assert (posted.status_code, posted.text) == (418, "POST /v1/other")
        assert got.text == f"GET {COMPLETED}/r1"


async def test_status_headers_and_a_body_that_is_no_json_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()

    @app.post(CHAT)
    async def fail() -> Response:
        return Response("upstream is gone", 503, headers={"Retry-After": "7"}, media_type="text/plain")

    patch_httpx_for_mock_trainer(TestClient(app), monkeypatch)
    async with httpx.AsyncClient(**PLAIN) as client:
        reply = await client.post(f"http://trainer.invalid{CHAT}")
    assert (reply.status_code, reply.text) == (503, "upstream is gone")
    assert reply.headers["retry-after"] == "7"
    assert reply.headers["content-type"].startswith("text/plain")


async def test_a_compressed_reply_arrives_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_mock_trainer_app()
    app.add_middleware(GZipMiddleware, minimum_size=1)
    patch_httpx_for_mock_trainer(TestClient(app), monkeypatch)
    async with httpx.AsyncClient(**PLAIN) as client:
        reply = await client.post(f"http://trainer.invalid{COMPLETED}", json=completion())
    assert reply.json() == {"status": "ok"}
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "user", "content": "Add it"}, True),
        ({"role": "user", "content": "hello"}, False),
        ({"role": "tool", "content": "add"}, False),
        ({"content": "add"}, False),
        ({"role": "user"}, False),
        ({"role": "user", "content": ["add"]}, False),
    ],
    ids=str,
)
def test_the_keyword_rule(message: dict[str, Any], expected: bool) -> None:
    assert testing._should_use_tools(message) is expected
