import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.model_endpoint import ADD_CALL, HANG, HANG_UP, Answer, ModelEndpoint, refuse, reply, say

from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.models.endpoint import EndpointLLMClient

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is 1 + 2?"}]
ADD_TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},
    },
}


@asynccontextmanager
async def client_of(
    endpoint: ModelEndpoint, model: str = "m", key: str | None = None
) -> AsyncIterator[EndpointLLMClient]:
    async with EndpointLLMClient(model, key, endpoint.url) as client:
        yield client


async def error_after(*answers: Answer) -> ProviderError:
    with ModelEndpoint(*answers) as endpoint:
        async with client_of(endpoint) as client:
            with pytest.raises(ProviderError) as failure:
                await client.chat_completions(QUESTION)
            assert client.get_metrics().num_llm_calls == 0
            return failure.value


def test_the_package_it_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ProviderError, match=r"^Calling this model needs the package 'aiohttp', which is not installed"):
        EndpointLLMClient("m", None, "http://127.0.0.1:9/v1")


async def test_a_tool_call_goes_round_and_all_but_nulls_goes_back() -> None:
    with ModelEndpoint() as endpoint:
        async with client_of(endpoint) as client:
            client.set_tools([ADD_TOOL])
            called = await client.chat_completions(QUESTION)
            assert called.message.keys() == {"role", "content", "tool_calls", "provider_specific_fields"}
            assert called.message["content"] is None
            assert called.finish_reason == "tool_calls"
            result = {"role": "tool", "tool_call_id": called.tool_calls[0]["id"], "content": "3"}
            answered = await client.chat_completions([*QUESTION, called.message, result])
    assert answered.content == "The answer is 3.\n#### 3"
    assert endpoint.calls[1].body["messages"][1] == called.message
    assert endpoint.calls[1].body["tools"] == [ADD_TOOL]
    assert client.get_metrics().num_llm_calls == 2
    assert client.get_metrics().prompt_tokens == 20


@pytest.mark.parametrize(
    ("message", "finish_reason", "expected"),
    [
        ({"content": None, "tool_calls": [ADD_CALL]}, "stop", "tool_calls"),
        ({"content": None, "tool_calls": [ADD_CALL]}, None, "tool_calls"),
        ({"content": None, "tool_calls": [ADD_CALL]}, "length", "length"),
        ({"content": "x"}, "tool_calls", "stop"),
        ({"content": "x", "tool_calls": []}, None, "stop"),
        ({"content": "x"}, "eos", "eos"),
    ],
)
async def test_a_wrong_finish_reason_is_put_right(
    message: dict[str, Any], finish_reason: str | None, expected: str
) -> None:
    with ModelEndpoint(reply(message, finish_reason)) as endpoint:
        async with client_of(endpoint) as client:
            assert (await client.chat_completions(QUESTION)).finish_reason == expected


async def test_tool_calls_without_ids_and_with_decoded_arguments_are_made_whole() -> None:
    calls = [{"function": {"name": "add", "arguments": {"a": 1}}}, {"id": "", "function": {"name": "add"}}]
    with ModelEndpoint(reply({"role": "assistant", "tool_calls": calls})) as endpoint:
        async with client_of(endpoint) as client:
            message = (await client.chat_completions(QUESTION)).message
    assert [call["id"] for call in message["tool_calls"]] == ["call_0", "call_1"]
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == ['{"a": 1}', "{}"]
    assert message["content"] is None


async def test_a_call_in_openais_older_form_is_one_and_text_in_parts_is_text() -> None:
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": ""}}
    parts = [{"type": "text", "text": "It is "}, {"type": "thinking", "thinking": "?"}, {"type": "text", "text": "3"}]
    with ModelEndpoint(reply(legacy, "function_call"), reply({"role": "assistant", "content": parts})) as endpoint:
        async with client_of(endpoint) as client:
            called = await client.chat_completions(QUESTION)
            answered = await client.chat_completions(QUESTION)
    function = {"name": "add", "arguments": "{}"}
    assert called.message["tool_calls"] == [{"id": "call_0", "type": "function", "function": function}]
    assert "function_call" not in called.message
    assert called.finish_reason == "tool_calls"
    assert (answered.content, answered.message["content"]) == ("It is 3", parts)


async def test_the_model_the_key_and_the_sampling_settings_are_sent() -> None:
    with ModelEndpoint(say("x"), say("x")) as endpoint:
        async with client_of(endpoint, "openai/Qwen/Qwen3", key="secret") as client:
            assert client.display_name == "openai/Qwen/Qwen3"
            await client.chat_completions(QUESTION, temperature=0, logit_bias={"5": 1}, timeout=5)
        async with client_of(endpoint, " Qwen/Qwen3 ") as client:
            assert client.model == "openai/Qwen/Qwen3"
            await client.chat_completions(QUESTION)
    first, second = endpoint.calls
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == "Bearer secret"
    assert first.body == {"model": "Qwen/Qwen3", "messages": QUESTION, "temperature": 0, "logit_bias": {"5": 1}}
    assert second.headers["authorization"] == "Bearer none"
    assert second.body == {"model": "Qwen/Qwen3", "messages": QUESTION}


@pytest.mark.parametrize(
    ("answer", "start", "failure"),
    [
        (refuse(429, Retry_After="7"), "Rate limit exceeded. Details: the reason", ProviderFailure.RATE_LIMIT),
        (refuse(429, "no", "insufficient_quota"), "Rate limit exceeded.", ProviderFailure.BUDGET),
        (refuse(500), "LLM API error (HTTP 500): the reason", ProviderFailure.SERVER),
        (refuse(529), "LLM API error (HTTP 529): the reason", ProviderFailure.SERVER),
        (refuse(400), "LLM API error (HTTP 400): the reason", ProviderFailure.REFUSED),
        (refuse(400, "x", "context_length_exceeded"), "Context window exceeded.", ProviderFailure.CONTEXT_WINDOW),
        (Answer(b"<html>busy</html>", 503), "LLM API error (HTTP 503): <html>", ProviderFailure.SERVER),
        (Answer(b"{"), "The endpoint's reply is not JSON", ProviderFailure.MALFORMED_REPLY),
        (Answer(b"[]"), "The endpoint's reply holds no choices", ProviderFailure.MALFORMED_REPLY),
        (Answer(b'{"choices": []}'), "The endpoint's reply holds no choices", ProviderFailure.MALFORMED_REPLY),
        (Answer(b'{"choices": [{"message": 3}]}'), "The endpoint's reply holds no", ProviderFailure.MALFORMED_REPLY),
        (
            reply({"role": "assistant", "content": "I was"}, "abort"),
            "The model's reply was broken off (finish_reason 'abort')",
            ProviderFailure.SERVER,
        ),
        (
            Answer(b'{"error": "out of memory"}'),
            "LLM API error (in a reply of status 200): out",
            ProviderFailure.SERVER,
        ),
        (
            reply({"role": "assistant", "content": ""}, "content_filter"),
            "The provider's content filter",
            ProviderFailure.REFUSED,
        ),
        (HANG_UP, "The connection broke before the reply was there", ProviderFailure.CONNECTION),
    ],
)
async def test_a_failure_that_concerns_one_call_is_a_provider_error(
    answer: Answer, start: str, failure: ProviderFailure
) -> None:
    error = await error_after(answer)
    assert not isinstance(error, SystemicProviderError)
    assert str(error).startswith(start)
    assert error.failure is failure
    assert error.retry_after_seconds == (7.0 if answer.headers else None)


@pytest.mark.parametrize(
    ("answer", "start"),
    [
        (refuse(401), "Authentication failed: give the right key with --model-api-key"),
        (refuse(403), "LLM API error (HTTP 403): the reason"),
        (refuse(404), "LLM API error (HTTP 404): the reason"),
        (Answer(status=308, headers={"Location": "https://x/v1"}), "The endpoint redirects to 'https://x/v1'"),
    ],
)
async def test_a_failure_that_concerns_every_call_is_systemic(answer: Answer, start: str) -> None:
    error = await error_after(answer)
    assert isinstance(error, SystemicProviderError)
    assert str(error).startswith(start)


async def test_nobody_at_the_address_is_systemic() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with EndpointLLMClient("m", None, f"http://127.0.0.1:{port}/v1") as client:
        with pytest.raises(SystemicProviderError, match="Cannot connect to API endpoint") as failure:
            await client.chat_completions(QUESTION)
    assert f"127.0.0.1:{port}" in str(failure.value)


async def test_an_endpoint_that_hangs_is_left() -> None:
    with ModelEndpoint(HANG) as endpoint:
        async with client_of(endpoint) as client:
            with pytest.raises(ProviderError, match=r"Request timed out.*within 0\.05 s") as failure:
                await client.chat_completions(QUESTION, timeout=0.05)
    assert failure.value.failure is ProviderFailure.TIMEOUT


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x/v1", "http://", "http://x:99999/v1", "http://x/v1?a=b"])
def test_what_is_no_base_url_is_refused_by_name(url: str) -> None:
    with pytest.raises(ProviderError, match="--base-url"):
        EndpointLLMClient("m", None, url)


async def test_the_check_before_a_run_tells_what_would_fail_every_row() -> None:
    with ModelEndpoint(say("x"), refuse(429), refuse(401), refuse(400, "no max_tokens")) as endpoint:
        async with client_of(endpoint) as client:
            client.set_tools([ADD_TOOL])
            await client.preflight_check()
            assert endpoint.calls[0].body["max_tokens"] == 1
            assert "tools" not in endpoint.calls[0].body
            await client.preflight_check()
            assert client.preflight_warning is None
            with pytest.raises(SystemicProviderError, match="Authentication failed"):
                await client.preflight_check()
            await client.preflight_check()
            assert client.preflight_warning == "LLM API error (HTTP 400): no max_tokens"
            endpoint.answers.append(HANG_UP)
            with pytest.raises(SystemicProviderError, match="The connection broke"):
                await client.preflight_check()
            assert client.get_metrics().num_llm_calls == 0


async def test_runs_at_the_same_time_keep_their_own_tools_and_counters() -> None:
    with ModelEndpoint() as endpoint:
        async with client_of(endpoint) as client:
            one, other = client.for_one_run(), client.for_one_run()
            one.set_tools([ADD_TOOL])
            await one.chat_completions(QUESTION)
            await one.close()
            await other.chat_completions(QUESTION)
            assert "tools" not in endpoint.calls[1].body
            counted = [of.get_metrics().num_llm_calls for of in (client, one, other)]
    assert counted == [0, 1, 1]


async def test_messages_that_are_no_json_are_refused_before_they_are_sent() -> None:
    with ModelEndpoint() as endpoint:
        async with client_of(endpoint) as client:
            with pytest.raises(ProviderError, match="no JSON"):
                await client.chat_completions([{"role": "user", "content": float("nan")}])
    assert endpoint.calls == []


async def test_a_lone_surrogate_in_a_message_does_not_stop_the_call() -> None:
    with ModelEndpoint(say("x")) as endpoint:
        async with client_of(endpoint) as client:
            await client.chat_completions([{"role": "user", "content": json.loads('"\\ud800"')}])
    assert len(endpoint.calls) == 1


async def test_the_key_is_not_in_its_text() -> None:
    assert "secret" not in repr(EndpointLLMClient("m", "secret", "http://127.0.0.1:1/v1"))


@pytest.mark.parametrize("finish_reason", ["error", "cancelled", "canceled", "FAILED", "timeout", "incomplete"])
async def test_what_was_not_ended_by_the_model_is_no_answer(finish_reason: str) -> None:
    with ModelEndpoint(reply({"role": "assistant", "content": "#### 3"}, finish_reason)) as endpoint:
        async with client_of(endpoint) as client:
            with pytest.raises(ProviderError, match="broken off") as raised:
                await client.chat_completions(QUESTION)
    assert raised.value.failure is ProviderFailure.SERVER
