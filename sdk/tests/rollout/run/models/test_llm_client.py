"""Through the real LiteLLM, to a real endpoint."""

import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from support.model_endpoint import Answer, ModelEndpoint, refuse, say

from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema
from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.models import litellm as _litellm_compat, llm_client, provider_errors
from osmosis_ai.rollout.run.models.llm_client import ExternalLLMClient

# LiteLLM takes seconds to import.
pytestmark = pytest.mark.slow

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is 1 + 2?"}]
ADD_TOOL = OpenAIFunctionToolSchema.model_validate(
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                "required": ["a", "b"],
            },
        },
    }
)


@asynccontextmanager
async def client_of(endpoint: ModelEndpoint, key: str | None = None) -> AsyncIterator[ExternalLLMClient]:
    async with ExternalLLMClient("some/model", key, endpoint.url) as client:
        client.call_options.update(max_retries=0)
        yield client


async def error_after(*answers: Answer) -> ProviderError:
    with ModelEndpoint(*answers) as endpoint:
        async with client_of(endpoint) as client:
            with pytest.raises(ProviderError) as failure:
                await client.chat_completions(QUESTION)
            return failure.value


async def test_a_tool_call_goes_round_and_all_but_nulls_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "meant for OpenAI")
    with ModelEndpoint() as endpoint:
        async with client_of(endpoint) as client:
            client.set_tools([ADD_TOOL])
            called = await client.chat_completions(QUESTION)
            assert called.message.keys() == {"role", "content", "tool_calls", "provider_specific_fields", "x"}
            assert called.message["content"] is None
            result = {"role": "tool", "tool_call_id": called.tool_calls[0]["id"], "content": "3"}
            answered = await client.chat_completions([*QUESTION, called.message, result])
    assert answered.content == "The answer is 3.\n#### 3"
    assert answered.usage == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert endpoint.calls[0].body["model"] == "some/model"
    assert "enum" not in str(endpoint.calls[0].body["tools"])
    assert endpoint.calls[0].headers["authorization"] == "Bearer none"
    metrics = client.get_metrics()
    assert (metrics.num_llm_calls, metrics.prompt_tokens, metrics.response_tokens) == (2, 20, 10)
    assert metrics.llm_latency_ms > 0


@pytest.mark.parametrize(
    ("answer", "start", "failure"),
    [
        (refuse(401), "Authentication failed", ProviderFailure.AUTHENTICATION),
        (refuse(403), "LLM API error (HTTP 403): ", ProviderFailure.AUTHENTICATION),
        (refuse(404), "LLM API error (HTTP 404): ", ProviderFailure.UNKNOWN_MODEL),
    ],
)
async def test_a_failure_of_every_call_is_systemic(answer: Answer, start: str, failure: ProviderFailure) -> None:
    error = await error_after(answer)
    assert isinstance(error, SystemicProviderError)
    assert str(error).startswith(start)
    assert "the reason" in str(error)
    assert error.failure is failure
    assert error.__cause__ is not None


@pytest.mark.parametrize(
    ("answer", "start", "failure"),
    [
        (refuse(429, Retry_After="7"), "Rate limit exceeded. Details: ", ProviderFailure.RATE_LIMIT),
        (refuse(500), "LLM API error (HTTP 500): ", ProviderFailure.SERVER),
        (refuse(529), "LLM API error (HTTP 529): ", ProviderFailure.SERVER),
        (
            refuse(400, "This model's maximum context length is 9 tokens."),
            "Context window exceeded",
            ProviderFailure.CONTEXT_WINDOW,
        ),
    ],
)
async def test_a_failure_of_one_call_is_a_provider_error(answer: Answer, start: str, failure: ProviderFailure) -> None:
    error = await error_after(answer)
    assert not isinstance(error, SystemicProviderError)
    assert str(error).startswith(start)
    assert error.failure is failure
    assert error.retry_after_seconds == (7.0 if answer.headers else None)


async def test_a_reply_without_choices_is_a_provider_error() -> None:
    error = await error_after(Answer(b'{"id": "x", "object": "chat.completion", "model": "m", "choices": []}'))
    assert not isinstance(error, SystemicProviderError)


async def test_nobody_at_the_address_is_systemic() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    async with ExternalLLMClient("m", api_base=url) as client:
        client.call_options.update(max_retries=0)
        with pytest.raises(SystemicProviderError, match=r"^Cannot connect to API endpoint"):
            await client.preflight_check()


async def test_the_check_before_a_run_costs_one_token() -> None:
    with ModelEndpoint(say("x"), refuse(401)) as endpoint:
        async with client_of(endpoint, "k") as client:
            client.set_tools([ADD_TOOL])
            await client.preflight_check()
            with pytest.raises(SystemicProviderError, match="Authentication failed"):
                await client.preflight_check()
    assert endpoint.calls[0].body["max_tokens"] == 1
    assert "tools" not in endpoint.calls[0].body
    assert client.get_metrics().num_llm_calls == 0


@pytest.mark.parametrize(
    ("model", "api_base", "routed"),
    [
        ("gpt-4o", None, "openai/gpt-4o"),
        ("anthropic/claude", None, "anthropic/claude"),
        ("Qwen/Qwen3", "http://x/v1", "openai/Qwen/Qwen3"),
        ("openai/m", "http://x/v1", "openai/m"),
        (" gpt-4o ", None, "openai/gpt-4o"),
    ],
)
def test_a_name_is_routed(model: str, api_base: str | None, routed: str) -> None:
    client = ExternalLLMClient(model, api_base=api_base)
    assert (client.model, client.display_name) == (routed, model.strip())


async def test_what_it_costs_is_known_where_litellm_has_a_price() -> None:
    async with ExternalLLMClient("gpt-4o", "k") as client:
        await client.chat_completions(QUESTION, mock_response="hello")
        assert client.cost_usd is not None
        assert 0 < client.cost_usd < 0.01
        client.reset_metrics()
        assert client.cost_usd is None


async def test_closing_twice_closes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = ModuleType("litellm")
    closed = []

    async def close() -> None:
        closed.append(1)
        raise RuntimeError("already gone")

    vars(stand_in).update(close_litellm_async_clients=close, _async_client_cleanup_registered=False)
    monkeypatch.setitem(sys.modules, "litellm", stand_in)
    client = ExternalLLMClient()
    assert client.display_name == "gpt-5-mini"
    assert vars(stand_in)["suppress_debug_info"] is True
    assert vars(stand_in)["_async_client_cleanup_registered"] is True
    await client.for_one_run().close()
    await client.close()
    await client.close()
    assert closed == [1]


def test_without_litellm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ProviderError, match=r"LiteLLM.*osmosis-ai\[llm\]"):
        llm_client._get_litellm()


def test_the_compat_names_are_litellms_own() -> None:
    import litellm

    for name in _litellm_compat.__all__:
        assert getattr(_litellm_compat, name) is getattr(litellm, name)


OFFLINE = """
import socket, sys
def refuse(*a, **k): raise AssertionError('network')
socket.socket.connect = refuse; socket.getaddrinfo = refuse
import osmosis_ai.rollout.run.models.litellm, osmosis_ai.rollout.run.models.llm_client
assert 'litellm' not in sys.modules
"""
LOADS_LITELLM = """
osmosis_ai.rollout.run.models.litellm.RateLimitError
assert 'litellm' in sys.modules
"""


@pytest.mark.parametrize("then", ["", pytest.param(LOADS_LITELLM, marks=pytest.mark.slow)], ids=["", "and its names"])
def test_importing_the_client_and_the_compat_module_loads_no_litellm_and_opens_no_socket(then: str) -> None:
    subprocess.run([sys.executable, "-c", OFFLINE + then], check=True)


class TestWhatAnErrorMeans:
    @pytest.mark.parametrize(
        ("text", "meaning", "is_systemic"),
        [
            ("Connection error.", "Cannot connect to API endpoint", True),
            ("Internal error", "LLM API error (HTTP 500)", False),
            ("OpenAIException - Missing credentials. Please pass", "Authentication failed", True),
        ],
    )
    def test_a_status_of_500_is_read_further(self, text: str, meaning: str, is_systemic: bool) -> None:
        from osmosis_ai.rollout.run.models.litellm import APIError

        error = APIError(500, text, "openai", "m")
        found = provider_errors.from_litellm(error, "openai/m", None)
        assert str(found).startswith(meaning)
        assert isinstance(found, SystemicProviderError) is is_systemic

    def test_a_package_that_litellm_lacks_is_named(self) -> None:
        from osmosis_ai.rollout.run.models.litellm import APIConnectionError

        error = APIConnectionError(message="x", llm_provider="openai", model="m")
        error.__context__ = ModuleNotFoundError("No module named 'mcp.types'", name="mcp.types")
        found = provider_errors.from_litellm(error, "openai/m", None)
        assert isinstance(found, SystemicProviderError)
        assert "package 'mcp'" in str(found)
        assert "osmosis-ai[llm]" in str(found)

    def test_an_unknown_provider_says_how_to_name_one(self) -> None:
        error = Exception("LLM Provider NOT provided. Pass in the LLM provider you are trying to call.\nSee docs")
        assert "use provider/model" in str(provider_errors.from_litellm(error, "foo/bar", None))
        custom = str(provider_errors.from_litellm(error, "openai/bar", "http://x"))
        assert custom.startswith("Cannot connect to custom endpoint (model='openai/bar', base_url='http://x')")
        assert "See docs" not in custom

    def test_litellms_noise_is_left_out(self) -> None:
        error = Exception("litellm.APIError: too " + "long " * 50 + "\nTraceback (most recent call last)")
        message = provider_errors.provider_message(error)
        assert message.startswith("too long")
        assert message.endswith("...")
        assert len(message) == 203
        assert provider_errors.provider_message(Exception("a\nReceived Model Group=x")) == "a"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("litellm.BadRequestError: ContextWindowExceededError: OpenAIException - too long", "too long"),
            ('litellm.InternalServerError: AnthropicException - {"error": {"message": "why"}}. Handle with', "why"),
            ('litellm.BadRequestError: GroqException - {"error": {"message": "why", "code": "x"}}', "why (x)"),
            (
                "litellm.APIError: OpenAIException - Invalid object Traceback (most recent call last):\n a",
                "Invalid object",
            ),
            ("litellm.APIConnectionError: 1 validation error\n  for Message", "1 validation error for Message"),
            ("ValueError: mine", "ValueError: mine"),
        ],
    )
    def test_the_providers_own_words_are_found(self, text: str, told: str) -> None:
        assert provider_errors.provider_message(Exception(text)) == told

    def test_a_reply_that_litellm_cannot_read_is_no_failure_of_the_server(self) -> None:
        error = Exception("litellm.InternalServerError: OpenAIException - 'content'")
        vars(error).update(status_code=500, message=str(error))
        error.__cause__ = KeyError("content")
        found = provider_errors.from_litellm(error, "openai/m", None)
        assert str(found).endswith("Details: KeyError: 'content'")
        assert found.failure is ProviderFailure.MALFORMED_REPLY

    @pytest.mark.parametrize(
        ("value", "seconds"), [("7", 7.0), ("0.5", 0.5), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", None)]
    )
    def test_retry_after_is_a_number_or_a_date(self, value: str, seconds: float | None) -> None:
        assert provider_errors.retry_after({"retry-after": value}) == seconds
