"""The providers that the README names, by their own wires: LiteLLM is the real one, the sockets are real."""

import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import provider_wires
from support.model_endpoint import Answer, ModelEndpoint, refuse, say

from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.models import choice, routes

# LiteLLM takes seconds to import.
pytestmark = pytest.mark.slow

QUESTION: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": "What is 1 + 2?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}
ADD_TOOL = {"type": "function", "function": {"name": "add", "description": "Add", "parameters": PARAMETERS}}


@dataclass(frozen=True)
class Provider:
    """How one provider is called. ``tools`` gives the offered tool's name and schema out of a body."""

    model: str
    base_path: str
    path: str
    key_header: tuple[str, str]
    answer: Callable[[dict[str, Any]], Answer]
    sent_model: str
    tools: Callable[[dict[str, Any]], tuple[str, Any]]
    thought: Callable[[dict[str, Any]], Any]
    """What the model had thought, in its message of a body."""


def openai_tool(body: dict[str, Any]) -> tuple[str, Any]:
    function = body["tools"][0]["function"]
    return function["name"], function["parameters"]


def anthropic_tool(body: dict[str, Any]) -> tuple[str, Any]:
    return body["tools"][0]["name"], body["tools"][0]["input_schema"]


PROVIDERS = {
    "openai": Provider(
        "gpt-4o",
        "/v1",
        "/v1/chat/completions",
        ("authorization", "Bearer sk"),
        provider_wires.OPENAI.answer,
        "gpt-4o",
        openai_tool,
        lambda body: body["messages"][2]["reasoning_content"],
    ),
    "anthropic": Provider(
        "anthropic/claude-sonnet-4-20250514",
        "",
        "/v1/messages",
        ("x-api-key", "sk"),
        provider_wires.ANTHROPIC.answer,
        "claude-sonnet-4-20250514",
        anthropic_tool,
        lambda body: body["messages"][1]["content"][0]["thinking"],
    ),
    "groq": Provider(
        "groq/llama-3.1-70b-versatile",
        "/openai/v1",
        "/openai/v1/chat/completions",
        ("authorization", "Bearer sk"),
        provider_wires.GROQ.answer,
        "llama-3.1-70b-versatile",
        openai_tool,
        lambda body: body["messages"][2]["reasoning_content"],
    ),
    "ollama": Provider(
        "ollama/llama2",
        "",
        "/api/chat",
        ("authorization", "Bearer sk"),
        provider_wires.OLLAMA.answer,
        "llama2",
        openai_tool,
        lambda body: body["messages"][2]["thinking"],
    ),
}
every_provider = pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)


def test_the_readme_names_the_providers_that_are_tested() -> None:
    readme = (Path(__file__).parents[5] / "README.md").read_text("utf-8")
    [named] = re.findall(r"^`--model` takes (.*?), any other that", readme, re.DOTALL | re.MULTILINE)
    models = [code.partition(" --base-url ")[0] for code in re.findall(r"`([^`]+)`", named)]
    assert models == [PROVIDERS[name].model for name in ("openai", "anthropic", "groq", "ollama")]
    assert len(models) == len(PROVIDERS)


def client_of(provider: Provider, endpoint: ModelEndpoint, key: str | None = "sk") -> Any:
    client = choice.make_llm_client(provider.model, key, endpoint.url.removesuffix("/v1") + provider.base_path)
    client.call_options.update(max_retries=0, timeout=20)
    return client


@pytest.mark.slow
@every_provider
async def test_a_tool_call_goes_there_and_back_on_the_providers_own_wire(provider: Provider) -> None:
    with ModelEndpoint(otherwise=provider.answer) as endpoint:
        async with client_of(provider, endpoint) as client:
            client.set_tools([ADD_TOOL])
            called = await client.chat_completions(QUESTION, temperature=0.5)
            [call] = called.tool_calls
            assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"a": 1, "b": 2})
            assert called.finish_reason == "tool_calls"
            assert called.message["reasoning_content"] == "Let me see."
            result = {"role": "tool", "tool_call_id": call["id"], "content": "3"}
            answered = await client.chat_completions([*QUESTION, called.message, result])
            metrics = client.get_metrics()
    assert answered.content == "The answer is 3.\n#### 3"
    assert answered.finish_reason == "stop"
    assert (metrics.num_llm_calls, metrics.prompt_tokens, metrics.response_tokens) == (2, 20, 10)
    first, second = endpoint.calls
    assert [first.path, second.path] == [provider.path] * 2
    header, value = provider.key_header
    assert first.headers[header] == value
    assert first.body["model"] == provider.sent_model
    name, schema = provider.tools(first.body)
    assert (name, schema["properties"], schema["required"]) == ("add", PARAMETERS["properties"], ["a", "b"])
    assert "0.5" in json.dumps(first.body)
    assert provider.thought(second.body) == "Let me see."


@pytest.mark.parametrize("key", ["a\nb", "a b", "\N{EN DASH}"])
def test_a_key_that_no_header_can_carry_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    with pytest.raises(SystemicProviderError, match=r"^The key of --api-key must be printable ASCII without spaces"):
        choice.check("gpt-4o", key, None)
    monkeypatch.delenv("LITELLM_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(SystemicProviderError, match=r"^The key of OPENAI_API_KEY must be printable ASCII"):
        choice.check("gpt-4o", None, None)


@every_provider
@pytest.mark.parametrize(
    ("answer", "is_systemic", "failure"),
    [
        (refuse(401), True, ProviderFailure.AUTHENTICATION),
        (refuse(404), True, ProviderFailure.UNKNOWN_MODEL),
        (refuse(400), False, ProviderFailure.REFUSED),
        (refuse(429, Retry_After="7"), False, ProviderFailure.RATE_LIMIT),
        (refuse(500), False, ProviderFailure.SERVER),
    ],
)
async def test_an_error_of_a_provider_is_what_it_says(
    provider: Provider, answer: Answer, is_systemic: bool, failure: ProviderFailure
) -> None:
    with ModelEndpoint(otherwise=lambda body: answer) as endpoint:
        async with client_of(provider, endpoint) as client:
            with pytest.raises(ProviderError, match="the reason") as raised:
                await client.chat_completions(QUESTION)
    assert raised.value.failure is failure
    assert isinstance(raised.value, SystemicProviderError) is is_systemic
    assert raised.value.retry_after_seconds == (7.0 if answer.headers else None)


@every_provider
@pytest.mark.parametrize(
    "content",
    [
        b"<html>hello",
        b"{}",
        b"[]",
        b'{"error": "out of memory"}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
    ],
)
async def test_a_reply_that_cannot_be_read_is_that_calls(provider: Provider, content: bytes) -> None:
    with ModelEndpoint(otherwise=lambda body: Answer(content)) as endpoint:
        async with client_of(provider, endpoint) as client:
            with pytest.raises(ProviderError) as raised:
                await client.chat_completions(QUESTION)
    assert not isinstance(raised.value, SystemicProviderError)
    assert "Cannot connect" not in str(raised.value)
    assert raised.value.is_transient


ANSWERED = [
    *QUESTION,
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": provider_wires.THOUGHT,
        "thinking_blocks": [
            {"type": "thinking", "thinking": provider_wires.THOUGHT, "signature": provider_wires.SIGNATURE}
        ],
        "x_state": provider_wires.STATE,
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "c", "content": "3"},
]
OF_THE_MESSAGE = ("choices", "content", "message")


@every_provider
async def test_a_whole_reply_may_lack_what_is_not_its_message(provider: Provider) -> None:
    def answer_of_the_message_alone(body: dict[str, Any]) -> Answer:
        whole = json.loads(provider.answer(body).content)
        return Answer(json.dumps({name: whole[name] for name in OF_THE_MESSAGE if name in whole}).encode())

    def answer_with_another_tier(body: dict[str, Any]) -> Answer:
        whole = json.loads(provider.answer(body).content)
        return Answer(json.dumps(whole | {"x_groq": {"id": "r"}, "usage": None, "service_tier": None}).encode())

    for answer in (answer_of_the_message_alone, answer_with_another_tier):
        with ModelEndpoint(otherwise=answer) as endpoint:
            async with client_of(provider, endpoint) as client:
                client.set_tools([ADD_TOOL])
                replied = await client.chat_completions(ANSWERED)
        assert (replied.content, replied.finish_reason) == ("The answer is 3.\n#### 3", "stop")


@pytest.mark.parametrize("provider", [PROVIDERS["openai"], PROVIDERS["groq"]], ids=["openai", "groq"])
@pytest.mark.parametrize("content", [18, [], {}, [{"type": "image_url"}], {"type": "thinking", "text": "3"}], ids=str)
async def test_a_message_that_nobody_can_read_is_no_empty_answer(provider: Provider, content: Any) -> None:
    reply = {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}
    with ModelEndpoint(otherwise=lambda body: Answer(json.dumps(reply).encode())) as endpoint:
        async with client_of(provider, endpoint) as client:
            with pytest.raises(ProviderError) as raised:
                await client.chat_completions(QUESTION)
    assert raised.value.failure is ProviderFailure.MALFORMED_REPLY


@every_provider
async def test_only_what_cannot_be_connected_to_cannot_be_connected_to(provider: Provider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    client = choice.make_llm_client(provider.model, "sk", address + provider.base_path)
    client.call_options.update(max_retries=0)
    with pytest.raises(SystemicProviderError, match=r"^Cannot connect to API endpoint") as raised:
        await client.chat_completions(QUESTION)
    await client.close()
    assert address in str(raised.value)
    assert "ssl" not in str(raised.value)


async def test_the_variable_of_a_provider_is_for_the_provider_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELLM_API_KEY", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of-anthropic\n")
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai")
    provider = PROVIDERS["anthropic"]
    with ModelEndpoint(otherwise=provider.answer) as endpoint:
        async with client_of(provider, endpoint, key=None) as client:
            await client.chat_completions(QUESTION)
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        async with client_of(provider, endpoint, key=None) as client:
            await client.chat_completions(QUESTION)
    assert [call.headers["x-api-key"] for call in endpoint.calls] == ["of-anthropic", "none"]


@pytest.mark.parametrize(
    ("model", "given", "trimmed"),
    [
        ("m", "http://h/v1/", "http://h/v1"),
        ("m", "http://h/v1/chat/completions", "http://h/v1"),
        ("Groq/m", "http://h/v1/chat/completions/", "http://h/v1"),
        ("anthropic/m", "http://h/v1", "http://h"),
        ("anthropic/m", "http://h/x/v1/messages", "http://h/x"),
        ("ollama/m", "http://h:11434/v1", "http://h:11434"),
        ("ollama/m", "http://h:11434/api/generate", "http://h:11434"),
        ("ollama_chat/m", "http://h:11434/", "http://h:11434"),
        ("groq/m", "http://h/openai/v1/chat/completions", "http://h/openai/v1"),
    ],
)
def test_a_base_url_that_says_too_much_is_put_right(model: str, given: str, trimmed: str) -> None:
    assert routes.trimmed_base_url(model, given) == trimmed


async def test_a_base_url_without_its_version_is_put_right() -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return say("x") if endpoint.calls[-1].path.startswith("/v1/") else refuse(404, "Not Found")

    with ModelEndpoint(otherwise=answer) as endpoint:
        async with choice.make_llm_client("m", None, endpoint.url.removesuffix("/v1")) as client:
            await client.preflight_check()
            await client.chat_completions(QUESTION)
    assert [call.path for call in endpoint.calls] == ["/chat/completions", *["/v1/chat/completions"] * 2]


async def test_a_base_url_without_a_version_may_be_right() -> None:
    with ModelEndpoint(otherwise=lambda body: say("x")) as endpoint:
        async with choice.make_llm_client("m", None, endpoint.url.removesuffix("/v1")) as client:
            await client.chat_completions(QUESTION)
    assert [call.path for call in endpoint.calls] == ["/chat/completions"]


async def test_a_model_that_is_nowhere_is_told_with_the_address() -> None:
    with ModelEndpoint(Answer(b'{"detail": "Not Found"}', 404), refuse(404, "no model m")) as endpoint:
        async with choice.make_llm_client("m", None, endpoint.url.removesuffix("/v1")) as client:
            with pytest.raises(SystemicProviderError, match="no model m") as raised:
                await client.chat_completions(QUESTION)
    assert f"{endpoint.url}/chat/completions" in str(raised.value)


def test_the_providers_of_the_table_are_litellms() -> None:
    import litellm

    known = {str(getattr(provider, "value", provider)) for provider in litellm.provider_list}
    assert set(routes._PROVIDERS_AT_ANY_ADDRESS.split()) <= known
