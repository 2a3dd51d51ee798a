"""The client to the trainer: what it sends, what it makes of a reply, and the one result."""

import asyncio
import dataclasses
import logging
import math
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from support.http_peer import CHAT_REPLY, HttpPeer, refuse, reply
from support.rollout_client import QUESTION, ROLLOUT_ID, SECRET

from osmosis_ai.rollout import (
    LLMClientProtocol,
    RolloutClientSettings,
    RolloutMetrics,
    RolloutSettings,
    configure,
)
from osmosis_ai.rollout.core.exceptions import (
    OsmosisProtocolError,
    OsmosisReplyError,
)
from osmosis_ai.rollout.wire.client import CompletionsResult, OsmosisLLMClient

pytestmark = pytest.mark.usefixtures("default_settings")


class TestCompletionsResult:
    def test_it_holds_five_fields_in_order_and_cannot_be_changed(self) -> None:
        result = CompletionsResult({"content": "hi"}, [1], [-0.1], {"prompt_tokens": 3}, "stop")
        assert [field.name for field in dataclasses.fields(result)][:5] == [
            "message",
            "token_ids",
            "logprobs",
            "usage",
            "finish_reason",
        ]
        with pytest.raises(AttributeError):
            setattr(result, "message", {})  # noqa: B010 - the assignment is what is tested

    @pytest.mark.parametrize(
        ("message", "tool_calls", "content"),
        [
            ({}, [], None),
            ({"content": None, "tool_calls": None}, [], None),
            ({"content": "hi", "tool_calls": []}, [], "hi"),
            ({"content": "", "tool_calls": [{"id": "a"}]}, [{"id": "a"}], ""),
            ({"tool_calls": "no list"}, [], None),
        ],
    )
    def test_its_properties_cope_with_what_is_absent_or_null(
        self, message: dict[str, Any], tool_calls: list[Any], content: str | None
    ) -> None:
        result = CompletionsResult(message, [], [], {}, "stop")
        assert (result.tool_calls, result.content) == (tool_calls, content)
        assert result.has_tool_calls is bool(tool_calls)


class TestConstruction:
    def test_it_needs_no_event_loop_and_takes_its_numbers_from_the_settings(self) -> None:
        configure(RolloutSettings(client=RolloutClientSettings(timeout_seconds=7, max_retries=5)))
        client = OsmosisLLMClient("http://trainer:1//", ROLLOUT_ID)
        assert (client.server_url, client.rollout_id, client.api_key) == ("http://trainer:1", ROLLOUT_ID, None)
        assert (client.timeout_seconds, client.max_retries, client.complete_rollout_retries) == (7, 5, 2)

    def test_arguments_win_over_settings_and_may_be_positional(self) -> None:
        settings = RolloutClientSettings(timeout_seconds=7, max_retries=5, complete_rollout_retries=6)
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID, SECRET, 2.5, 0, 0, settings)
        assert (client.timeout_seconds, client.max_retries, client.complete_rollout_retries) == (2.5, 0, 0)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"timeout_seconds": 0},
            {"timeout_seconds": -1},
            {"timeout_seconds": math.nan},
            {"max_retries": -1},
            {"complete_rollout_retries": -1},
        ],
    )
    def test_a_number_out_of_bounds_is_refused_by_name(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            OsmosisLLMClient("http://trainer", ROLLOUT_ID, **arguments)

    def test_it_is_a_policy_for_an_agent(self) -> None:
        assert isinstance(OsmosisLLMClient("http://trainer", ROLLOUT_ID), LLMClientProtocol)

    def test_its_repr_names_the_trainer_and_not_the_key(self) -> None:
        shown = repr(OsmosisLLMClient("http://trainer", ROLLOUT_ID, api_key=SECRET))
        assert ROLLOUT_ID in shown
        assert SECRET not in shown


class TestChatRequest:
    async def test_it_is_the_one_of_the_protocol(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "How many grams are in 3 ounces?"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "tc_1", "type": "function"}]},
            {"role": "tool", "tool_call_id": "tc_1", "content": "85.05"},
        ]
        await client.chat_completions(messages, temperature=0.8, top_p=0.95, max_tokens=400, logprobs=True)
        (request,) = peer.requests
        assert (request.method, request.target) == ("POST", "/v1/chat/completions")
        assert request.headers["content-type"] == "application/json"
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert request.json == {
            "model": "default",
            "rollout_id": ROLLOUT_ID,
            "messages": messages,
            "temperature": 0.8,
            "top_p": 0.95,
            "max_tokens": 400,
            "logprobs": True,
        }

    async def test_a_trainer_below_a_path_is_called_below_it(self, peer: HttpPeer) -> None:
        await OsmosisLLMClient(f"{peer.url}/train/", ROLLOUT_ID).chat_completions(QUESTION)
        assert peer.requests[0].target == "/train/v1/chat/completions"

    @pytest.mark.parametrize("api_key", [None, ""])
    async def test_without_a_key_no_credentials_are_sent(self, peer: HttpPeer, api_key: str | None) -> None:
        await OsmosisLLMClient(peer.url, ROLLOUT_ID, api_key=api_key).chat_completions(QUESTION)
        assert peer.sent("Authorization") == [None]

    async def test_the_named_fields_have_defaults(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        await client.chat_completions(QUESTION)
        assert peer.bodies[0] == {
            "model": "default",
            "rollout_id": ROLLOUT_ID,
            "messages": QUESTION,
            "temperature": 1.0,
            "top_p": 1.0,
            "max_tokens": 512,
            "logprobs": True,
        }

    async def test_every_further_sampling_field_is_sent_unchanged(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        further: dict[str, Any] = {
            "top_k": 20,
            "seed": 7,
            "min_p": 0.05,
            "logit_bias": {"50256": -100},
            "vendor.x": [1, None],
        }
        await client.chat_completions(QUESTION, model="policy-3", **further)
        assert peer.bodies[0].items() >= {"model": "policy-3", **further}.items()

    async def test_a_null_sampling_field_means_its_default_or_nothing(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        nulls: dict[str, Any] = dict.fromkeys(
            ["temperature", "top_p", "max_tokens", "stop", "logprobs", "model", "seed"]
        )
        await client.chat_completions(QUESTION, **nulls)
        await client.chat_completions(QUESTION)
        assert peer.bodies[0] == peer.bodies[1]

    async def test_tools_and_a_foreign_rollout_id_are_left_out_and_the_log_says_so(
        self, client: OsmosisLLMClient, peer: HttpPeer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "osmosis_ai.rollout.wire.chat")
        await client.chat_completions(QUESTION, tools=[{"type": "function"}], rollout_id="somebody-else")
        assert peer.bodies[0]["rollout_id"] == ROLLOUT_ID
        assert "tools" not in peer.bodies[0]
        assert "'tools'" in caplog.text

    @pytest.mark.parametrize(
        ("stop", "sent"),
        [("END", ["END"]), (["a", "b"], ["a", "b"]), (("a", None), ["a"]), ([], []), ("", [""])],
    )
    async def test_stop_is_sent_as_a_list(
        self, client: OsmosisLLMClient, peer: HttpPeer, stop: Any, sent: list[str]
    ) -> None:
        await client.chat_completions(QUESTION, stop=stop)
        assert peer.bodies[0]["stop"] == sent

    @pytest.mark.parametrize(
        "arguments",
        [
            {"messages": "hello"},
            {"messages": None},
            {"messages": ["hello"]},
            {"messages": QUESTION, "temperature": "warm"},
            {"messages": QUESTION, "max_tokens": 1.5},
            {"messages": QUESTION, "model": 7},
        ],
    )
    async def test_an_invalid_value_is_a_validation_error_before_any_request(
        self, client: OsmosisLLMClient, peer: HttpPeer, arguments: dict[str, Any]
    ) -> None:
        with pytest.raises(ValidationError):
            await client.chat_completions(**arguments)
        assert peer.requests == []

    @pytest.mark.parametrize(
        "content", [math.nan, "\ud800", object(), b"\xff"], ids=["nan", "surrogate", "object", "bytes"]
    )
    async def test_a_message_that_is_not_json_is_refused_in_our_words_before_any_request(
        self, client: OsmosisLLMClient, peer: HttpPeer, content: Any
    ) -> None:
        with pytest.raises(OsmosisProtocolError, match="cannot be written as JSON"):
            await client.chat_completions([{"role": "user", "content": content}])
        assert peer.requests == []

    async def test_a_date_in_a_message_is_sent_as_text(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        await client.chat_completions([{"role": "tool", "content": {"on": datetime(2026, 1, 2, tzinfo=UTC)}}])
        assert peer.bodies[0]["messages"][0]["content"] == {"on": "2026-01-02T00:00:00Z"}


class TestChatReply:
    async def test_message_and_finish_reason_come_from_the_first_choice(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        message = {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}], "reasoning": {"a": None}}
        peer.answer = reply(
            {
                "choices": [{"message": message, "finish_reason": "length"}, {"message": {}}],
                "token_ids": [1, 2],
                "logprobs": [-0.5, -0.25],
                "usage": {"prompt_tokens": 10, "completion_tokens": 2},
            }
        )
        assert await client.chat_completions(QUESTION) == CompletionsResult(
            message, [1, 2], [-0.5, -0.25], {"prompt_tokens": 10, "completion_tokens": 2}, "length"
        )

    @pytest.mark.parametrize(
        ("logprobs", "expected"),
        [
            ({"content": [{"token": "a", "logprob": -0.5}, {"logprob": 0}]}, [-0.5, 0]),
            ({"content": [{"token": "a"}, {"logprob": -0.25}]}, [-9.0]),
            ({"content": None}, [-9.0]),
            (None, [-9.0]),
        ],
    )
    async def test_token_ids_and_log_probabilities_stand_in_the_choice(
        self, client: OsmosisLLMClient, peer: HttpPeer, logprobs: Any, expected: list[float]
    ) -> None:
        choice = {"message": {"role": "assistant"}, "token_ids": [1, 2], "logprobs": logprobs}
        peer.answer = reply({"choices": [choice], "token_ids": [9], "logprobs": [-9.0]})
        result = await client.chat_completions(QUESTION)
        assert (result.token_ids, result.logprobs) == ([1, 2], expected)

    @pytest.mark.parametrize(
        "optional",
        [
            {},
            {"usage": None, "token_ids": None, "logprobs": None},
            {"usage": {"prompt_tokens": None, "completion_tokens": None}},
            {"usage": "lots", "token_ids": "abc", "logprobs": {"content": []}},
        ],
    )
    async def test_all_but_the_message_may_be_absent_null_or_nonsense(
        self, client: OsmosisLLMClient, peer: HttpPeer, optional: dict[str, Any]
    ) -> None:
        peer.answer = reply({"choices": [{"message": {"role": "assistant"}}], **optional})
        result = await client.chat_completions(QUESTION)
        assert result == CompletionsResult({"role": "assistant"}, [], [], {}, "stop")
        assert client.get_metrics().num_llm_calls == 1
        assert client.get_metrics().prompt_tokens == 0

    @pytest.mark.parametrize(
        "body",
        [
            b"<html>",
            b"",
            b"\xff\xfe",
            b"[" * 100_000,
            [],
            None,
            {},
            {"choices": None},
            {"choices": []},
            {"choices": {}},
            {"choices": ["text"]},
            {"choices": [{}]},
            {"choices": [{"message": None}]},
            {"choices": [{"message": "text"}]},
        ],
        ids=lambda body: repr(body)[:40],
    )
    async def test_a_reply_without_a_message_is_one_clear_error_and_counts_for_nothing(
        self, client: OsmosisLLMClient, peer: HttpPeer, body: Any
    ) -> None:
        peer.answer = reply(body)
        with pytest.raises(
            OsmosisReplyError, match=r"The reply of POST http://127\.0\.0\.1.*/v1/chat/completions"
        ) as caught:
            await client.chat_completions(QUESTION)
        assert caught.value.status_code == 200
        assert len(peer.requests) == 1
        assert client.get_metrics() == RolloutMetrics()


class TestMetrics:
    async def test_calls_and_tokens_add_up_and_the_largest_prompt_is_kept(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        usages = [(100, 5), (300, 7), (200, 9)]
        peer.answers = [
            reply({**CHAT_REPLY, "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})
            for prompt, completion in usages
        ]
        for _ in usages:
            await client.chat_completions(QUESTION)
        metrics = client.get_metrics()
        assert metrics.num_llm_calls == 3
        assert (metrics.prompt_tokens, metrics.response_tokens, metrics.max_context_tokens) == (600, 21, 300)
        assert metrics.llm_latency_ms > 0
        assert (metrics.total_latency_ms, metrics.tool_latency_ms, metrics.num_tool_calls) == (0, 0, 0)

    async def test_every_call_gives_a_new_object(self, client: OsmosisLLMClient) -> None:
        first = client.get_metrics()
        first.num_llm_calls = 99
        assert client.get_metrics() == RolloutMetrics()

    async def test_backoff_is_no_latency(
        self, client: OsmosisLLMClient, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SimpleNamespace(now=1000.0)

        async def sleep(delay: float) -> None:
            clock.now += 500.0 if delay else 0.0  # which is a turn for others

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr("time.perf_counter", lambda: clock.now)
        peer.answers = [refuse(503)]
        await client.chat_completions(QUESTION)
        assert client.get_metrics().llm_latency_ms == 0.0
