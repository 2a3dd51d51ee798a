"""The client to the trainer, over real connections.

Spec: core.md, sections 8, 13 and 15.
"""

import asyncio
import dataclasses
import logging
import math
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import httpx
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from pydantic import ValidationError
from support.http_peer import CHAT_REPLY, Answer, HttpPeer, close_half_way, drop, hang, refuse, reply

from osmosis_ai.rollout import (
    LLMClientProtocol,
    OsmosisRolloutError,
    OsmosisServerError,
    OsmosisTimeoutError,
    OsmosisTransportError,
    OsmosisValidationError,
    RolloutClientSettings,
    RolloutMetrics,
    RolloutSettings,
    client as client_module,
    configure,
    reset_settings,
)
from osmosis_ai.rollout.client import CompletionsResult, OsmosisLLMClient
from osmosis_ai.rollout.core.exceptions import (
    OsmosisAuthenticationError,
    OsmosisNotFoundError,
    OsmosisPayloadTooLargeError,
    OsmosisProtocolError,
    OsmosisRateLimitError,
    OsmosisReplyError,
)
from osmosis_ai.rollout.transport import close_transports

ROLLOUT_ID = "run7-000042"
SECRET = "cb-token-1"
QUESTION = [{"role": "user", "content": "How many grams are in 3 ounces?"}]
SECRET_SAMPLES = ["clé", "two\nlines", "trailing ", "\x00"]


@pytest.fixture(autouse=True)
def _default_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    configure(RolloutSettings())
    yield
    reset_settings()


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with HttpPeer() as peer:
        yield peer
        await close_transports()


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client would have slept; it does not."""
    slept: list[float] = []
    really_sleep = asyncio.sleep

    async def note(delay: float) -> None:
        if delay:
            slept.append(delay)
        await really_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    return slept


@pytest.fixture
def client(peer: HttpPeer, delays: list[float]) -> OsmosisLLMClient:
    return OsmosisLLMClient(peer.url, ROLLOUT_ID, api_key=SECRET)


def unused_url() -> str:
    with SocketOfNobody() as url:
        return url


class SocketOfNobody:
    """A port that was free a moment ago."""

    def __enter__(self) -> str:
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0))
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()


class TestCompletionsResult:
    def test_it_holds_five_fields_in_order_and_cannot_be_changed(self) -> None:
        result = CompletionsResult({"content": "hi"}, [1], [-0.1], {"prompt_tokens": 3}, "stop")
        assert [field.name for field in dataclasses.fields(result)] == [
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
        messages = [
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
        further = {"top_k": 20, "seed": 7, "min_p": 0.05, "logit_bias": {"50256": -100}, "vendor.x": [1, None]}
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
        caplog.set_level(logging.DEBUG, "osmosis_ai.rollout.client")
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
        peer.answer = reply({"choices": [{"message": {"role": "assistant"}, "finish_reason": None}], **optional})
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
            clock.now += 500.0

        monkeypatch.setattr(asyncio, "sleep", sleep)
        monkeypatch.setattr("time.perf_counter", lambda: clock.now)
        peer.answers = [refuse(503)]
        await client.chat_completions(QUESTION)
        assert client.get_metrics().llm_latency_ms < 500_000


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "error_class"),
        [
            (400, OsmosisValidationError),
            (401, OsmosisAuthenticationError),
            (403, OsmosisAuthenticationError),
            (404, OsmosisNotFoundError),
            (410, OsmosisNotFoundError),
            (413, OsmosisPayloadTooLargeError),
            (422, OsmosisValidationError),
        ],
    )
    async def test_a_4xx_is_final(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int, error_class: type[OsmosisValidationError]
    ) -> None:
        peer.answer = refuse(status, "that will not do")
        with pytest.raises(OsmosisValidationError, match="that will not do") as caught:
            await client.chat_completions(QUESTION)
        assert type(caught.value) is error_class
        assert caught.value.status_code == status
        assert len(peer.requests) == 1

    @pytest.mark.parametrize(
        ("status", "error_class"),
        [
            (408, OsmosisRateLimitError),
            (425, OsmosisRateLimitError),
            (429, OsmosisRateLimitError),
            (500, OsmosisServerError),
            (503, OsmosisServerError),
            (599, OsmosisServerError),
        ],
    )
    async def test_a_passing_trouble_is_retried_until_the_attempts_run_out(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int, error_class: type[OsmosisRolloutError]
    ) -> None:
        peer.answer = refuse(status, "busy")
        with pytest.raises(error_class, match=f"busy .*HTTP {status}.*attempt 4 of 4"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == client.max_retries + 1 == 4

    @pytest.mark.parametrize("trouble", [refuse(500), refuse(429), drop, close_half_way], ids=str)
    async def test_a_call_that_succeeds_later_succeeds(
        self, client: OsmosisLLMClient, peer: HttpPeer, trouble: Answer
    ) -> None:
        peer.answers = [trouble, trouble]
        result = await client.chat_completions(QUESTION)
        assert result.content == "About 85 grams."
        assert client.get_metrics().num_llm_calls == 1

    @pytest.mark.parametrize("status", [201, 204, 302, 304])
    async def test_any_other_status_is_named_and_final(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int
    ) -> None:
        peer.answer = reply(b"", status, {"Location": "/v1/rollout/completed", "Content-Length": "0"})
        with pytest.raises(OsmosisValidationError, match=f"Unexpected status code {status}") as caught:
            await client.chat_completions(QUESTION)
        assert caught.value.status_code == status
        assert len(peer.requests) == 1

    @pytest.mark.parametrize("trouble", [drop, close_half_way])
    async def test_a_broken_connection_is_a_transport_error_with_its_cause(
        self, client: OsmosisLLMClient, peer: HttpPeer, trouble: Answer
    ) -> None:
        peer.answer = trouble
        with pytest.raises(OsmosisTransportError, match=r"RemoteProtocolError: .*attempt 4 of 4") as caught:
            await client.chat_completions(QUESTION)
        assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)

    @pytest.mark.usefixtures("delays")
    async def test_a_trainer_that_is_not_there_is_a_transport_error(self) -> None:
        url = unused_url()
        with pytest.raises(OsmosisTransportError, match=rf"ConnectError: .*POST {url}/v1/chat/completions"):
            await OsmosisLLMClient(url, ROLLOUT_ID).chat_completions(QUESTION)

    async def test_a_trainer_that_says_nothing_is_a_timeout(self, peer: HttpPeer, delays: list[float]) -> None:
        peer.answer = hang
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID, timeout_seconds=0.05, max_retries=1)
        with pytest.raises(OsmosisTimeoutError, match=rf"ReadTimeout \(POST {peer.url}.*attempt 2 of 2") as caught:
            await client.chat_completions(QUESTION)
        assert isinstance(caught.value.__cause__, httpx.ReadTimeout)
        assert len(peer.requests) == 2

    async def test_the_last_of_several_troubles_is_told(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answers = [drop, refuse(500, "one"), refuse(429, "two"), refuse(502, "three")]
        with pytest.raises(OsmosisServerError, match="three"):
            await client.chat_completions(QUESTION)

    async def test_the_trainers_text_is_cut_short_and_stripped_of_secrets(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        peer.answer = refuse(400, f"{SECRET} Bearer other-token, " * 10_000)
        with pytest.raises(OsmosisValidationError) as caught:
            await client.chat_completions(QUESTION)
        message = str(caught.value)
        assert len(message) < 800
        assert SECRET not in message
        assert "other-token" not in message

    @pytest.mark.parametrize("url", ["http://trainer:99999", "http://trainer:port", "http://tr\nainer", "http://[::1"])
    async def test_a_url_that_cannot_be_called_is_a_transport_error_at_once(
        self, delays: list[float], url: str
    ) -> None:
        with pytest.raises(OsmosisTransportError):
            await OsmosisLLMClient(url, ROLLOUT_ID).chat_completions(QUESTION)
        assert delays == []

    @pytest.mark.parametrize("key", SECRET_SAMPLES)
    async def test_a_key_that_is_no_header_is_a_transport_error_that_keeps_it_secret(
        self, peer: HttpPeer, caplog: pytest.LogCaptureFixture, key: str
    ) -> None:
        caplog.set_level(logging.DEBUG)
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID, api_key=f"s3cret{key}")
        with pytest.raises(OsmosisTransportError, match="api_key") as caught:
            await client.chat_completions(QUESTION)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + caplog.text
        assert peer.requests == []

    async def test_no_failure_writes_the_key_anywhere(
        self, client: OsmosisLLMClient, peer: HttpPeer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        peer.answers = [drop, refuse(500, SECRET), close_half_way, reply(f"no JSON, {SECRET}".encode())]
        with pytest.raises(OsmosisReplyError) as caught:
            await client.chat_completions(QUESTION)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("osmosis_ai")]
        assert SECRET not in "".join(ours)

    async def test_with_a_negative_retry_count_no_attempt_is_made(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        client.max_retries = -1
        with pytest.raises(OsmosisTransportError, match="No attempts made"):
            await client.chat_completions(QUESTION)
        assert peer.requests == []


class TestBackoff:
    async def test_delays_double_up_to_the_cap_and_are_spread_downwards(
        self, peer: HttpPeer, delays: list[float]
    ) -> None:
        settings = RolloutClientSettings(max_retries=6, retry_base_delay=1.0, retry_max_delay=10.0)
        peer.answer = refuse(500)
        with pytest.raises(OsmosisServerError):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
        full = [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        assert len(delays) == len(full)
        assert all(most / 2 <= delay <= most for delay, most in zip(delays, full, strict=True))

    async def test_two_rollouts_do_not_retry_in_step(self, peer: HttpPeer, delays: list[float]) -> None:
        peer.answer = refuse(500)
        for _ in range(4):
            with pytest.raises(OsmosisServerError):
                await OsmosisLLMClient(peer.url, ROLLOUT_ID, max_retries=1).chat_completions(QUESTION)
        assert len(set(delays)) > 1

    @pytest.mark.parametrize(("header", "delay"), [("7", 7.0), ("0.25", 0.25), (" 3 ", 3.0), ("9" * 400, 30.0)])
    async def test_retry_after_in_seconds_is_honoured_up_to_the_cap(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float], header: str, delay: float
    ) -> None:
        peer.answers = [refuse(429, headers={"Retry-After": header})]
        await client.chat_completions(QUESTION)
        assert delays == [delay]

    async def test_retry_after_as_a_date_is_honoured(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float]
    ) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=20)
        peer.answers = [refuse(503, headers={"Retry-After": format_datetime(soon, usegmt=True)})]
        await client.chat_completions(QUESTION)
        assert len(delays) == 1
        assert 10 < delays[0] <= 20

    async def test_a_date_without_a_zone_is_taken_as_utc(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float]
    ) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=20)
        peer.answers = [refuse(503, headers={"Retry-After": soon.strftime("%a, %d %b %Y %H:%M:%S -0000")})]
        await client.chat_completions(QUESTION)
        assert 10 < delays[0] <= 20

    @pytest.mark.parametrize("header", ["soon", "", "-5", "1e3", "Fri, 99 Feb 2026 99:00:00 GMT", "²"])
    async def test_any_other_retry_after_is_ignored(
        self, client: OsmosisLLMClient, peer: HttpPeer, delays: list[float], header: str
    ) -> None:
        peer.answers = [refuse(503, headers={"Retry-After": header})]
        await client.chat_completions(QUESTION)
        assert len(delays) == 1
        assert 0.5 <= delays[0] <= 1.0

    @given(
        header=st.text(max_size=40)
        | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d+:\d+:\d+ [+-]\d{1,6}")
    )
    @hypothesis_settings(max_examples=200, deadline=None)
    async def test_no_retry_after_can_break_a_call(self, header: str) -> None:
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID, max_retries=0)
        client._client = stand_in(MagicMock(status_code=503, text="busy", headers={"retry-after": header}))
        with pytest.raises(OsmosisServerError) as caught:
            await client.chat_completions(QUESTION)
        assert caught.value.retry_after_seconds is None or caught.value.retry_after_seconds >= 0

    async def test_the_client_tells_while_it_backs_off(
        self, client: OsmosisLLMClient, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[bool] = []

        async def look(delay: float) -> None:
            seen.append(client.backing_off)

        monkeypatch.setattr(asyncio, "sleep", look)
        peer.answers = [refuse(500)]
        await client.chat_completions(QUESTION)
        assert seen == [True]
        assert client.backing_off is False

    async def test_a_cancelled_backoff_is_over(
        self, client: OsmosisLLMClient, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(asyncio, "sleep", AsyncMock(side_effect=asyncio.CancelledError))
        peer.answers = [refuse(500)]
        with pytest.raises(asyncio.CancelledError):
            await client.chat_completions(QUESTION)
        assert client.backing_off is False

    async def test_no_retry_starts_after_the_deadline_of_the_call(self, peer: HttpPeer, delays: list[float]) -> None:
        settings = RolloutClientSettings(call_deadline_seconds=10.0)
        peer.answer = refuse(503, "come back later", {"Retry-After": "25"})
        with pytest.raises(OsmosisServerError, match="come back later"):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
        assert delays == []
        assert len(peer.requests) == 1

    async def test_the_deadline_of_the_call_ends_an_attempt(self, peer: HttpPeer, delays: list[float]) -> None:
        settings = RolloutClientSettings()
        settings.call_deadline_seconds = 0.05
        peer.answer = hang
        with pytest.raises(OsmosisTimeoutError, match="attempt 1 of 4"):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID, settings=settings).chat_completions(QUESTION)
        assert len(peer.requests) == 1


class TestIdempotency:
    async def test_retries_of_one_call_carry_one_id_and_other_calls_another(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        peer.answers = [refuse(500), drop]
        await client.chat_completions(QUESTION)
        await client.chat_completions(QUESTION)
        first, second, third, other = peer.sent("Idempotency-Key")
        assert first == second == third
        assert first
        assert other not in (None, first)

    async def test_calls_at_the_same_time_keep_their_ids_apart(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answers = [refuse(500)] * 4
        await asyncio.gather(*(client.chat_completions([{"role": "user", "content": str(i)}]) for i in range(4)))
        ids_of_call: dict[str, set[str | None]] = {}
        for request in peer.requests:
            ids_of_call.setdefault(request.json["messages"][0]["content"], set()).add(
                request.headers["idempotency-key"]
            )
        assert all(len(ids) == 1 for ids in ids_of_call.values())
        assert len(set.union(*ids_of_call.values())) == 4

    async def test_a_result_carries_the_same_id_from_every_process(self, peer: HttpPeer) -> None:
        for _ in range(2):
            await OsmosisLLMClient(peer.url, ROLLOUT_ID).complete_rollout("COMPLETED", QUESTION)
        await OsmosisLLMClient(peer.url, "other").complete_rollout("COMPLETED", QUESTION)
        first, again, other = peer.sent("Idempotency-Key")
        assert first == again != other


class TestCompletion:
    async def test_it_is_the_one_of_the_protocol(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        metrics = RolloutMetrics(
            total_latency_ms=2140.5,
            llm_latency_ms=1890.0,
            tool_latency_ms=3.2,
            num_llm_calls=2,
            num_tool_calls=1,
            prompt_tokens=118,
            response_tokens=39,
        )
        final_messages = [*QUESTION, {"role": "assistant", "content": "About 85 grams.", "refusal": None}]
        await client.complete_rollout("COMPLETED", final_messages, metrics=metrics, reward=1.0)
        (request,) = peer.requests
        assert (request.method, request.target) == ("POST", "/v1/rollout/completed")
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert request.json == {
            "rollout_id": ROLLOUT_ID,
            "status": "COMPLETED",
            "final_messages": final_messages,
            "finish_reason": "stop",
            "reward": 1.0,
            "metrics": {**metrics.model_dump(), "max_context_tokens": 0},
            "extra_fields": {},
        }

    async def test_an_error_has_its_message_and_the_clients_own_metrics(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        await client.chat_completions(QUESTION)
        await client.complete_rollout("ERROR", [], "error", "division by zero")
        body = peer.bodies[-1]
        assert body.pop("metrics") == client.get_metrics().model_dump()
        assert body == {
            "rollout_id": ROLLOUT_ID,
            "status": "ERROR",
            "final_messages": [],
            "finish_reason": "error",
            "error_message": "division by zero",
            "extra_fields": {},
        }

    async def test_extra_fields_travel_as_they_are(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        await client.complete_rollout("COMPLETED", [], extra_fields={"outcome": "success", "n": [1, None]})
        assert peer.bodies[0]["extra_fields"] == {"outcome": "success", "n": [1, None]}

    @pytest.mark.parametrize("status", ["completed", "DONE", "", None])
    async def test_an_unknown_status_is_a_value_error(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: Any
    ) -> None:
        with pytest.raises(ValueError, match="RolloutStatus"):
            await client.complete_rollout(status, [])
        assert peer.requests == []

    @pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
    async def test_a_reward_that_is_not_finite_is_refused(
        self, client: OsmosisLLMClient, peer: HttpPeer, reward: float
    ) -> None:
        with pytest.raises(ValueError, match="reward must be a finite number"):
            await client.complete_rollout("COMPLETED", [], reward=reward)
        assert peer.requests == []

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    async def test_any_2xx_is_an_acknowledgement_whatever_its_body(
        self, client: OsmosisLLMClient, peer: HttpPeer, status: int
    ) -> None:
        peer.answer = reply(b"" if status == 204 else b"thanks", status)
        await client.complete_rollout("COMPLETED", QUESTION)
        assert len(peer.requests) == 1

    async def test_a_4xx_is_final(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answer = refuse(404, "no such rollout")
        with pytest.raises(OsmosisNotFoundError, match="no such rollout"):
            await client.complete_rollout("COMPLETED", QUESTION)
        assert len(peer.requests) == 1

    async def test_a_redirect_is_named_and_final(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        peer.answer = refuse(307, headers={"Location": "/elsewhere"})
        with pytest.raises(OsmosisValidationError, match="Unexpected status code 307"):
            await client.complete_rollout("COMPLETED", QUESTION)
        assert len(peer.requests) == 1

    async def test_it_has_its_own_number_of_retries_and_repeats_the_same_payload(
        self, peer: HttpPeer, delays: list[float]
    ) -> None:
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID, max_retries=0, complete_rollout_retries=4)
        peer.answers = [refuse(500), drop, refuse(429), refuse(502)]
        await client.complete_rollout("COMPLETED", QUESTION, reward=0.5)
        assert len(peer.requests) == 5
        assert all(body == peer.bodies[0] for body in peer.bodies)


class TestExactlyOneResult:
    async def test_no_chat_call_follows_a_result(self, client: OsmosisLLMClient, peer: HttpPeer) -> None:
        await client.complete_rollout("COMPLETED", QUESTION)
        with pytest.raises(OsmosisProtocolError, match="completed"):
            await client.chat_completions(QUESTION)
        assert len(peer.requests) == 1

    @pytest.mark.parametrize("answer", [reply(), refuse(500)], ids=["acknowledged", "unanswered"])
    async def test_an_error_never_follows_a_completed_result(
        self, client: OsmosisLLMClient, peer: HttpPeer, answer: Answer
    ) -> None:
        peer.answer = answer
        try:
            await client.complete_rollout("COMPLETED", QUESTION, reward=1.0)
        except OsmosisServerError:
            peer.requests.clear()
        else:
            peer.requests.clear()
        with pytest.raises(OsmosisProtocolError, match="exactly one"):
            await client.complete_rollout("ERROR", [], "error", "oops")
        assert peer.requests == []

    async def test_a_result_may_be_repeated_until_it_is_acknowledged(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        peer.answers = [refuse(500)] * 3
        with pytest.raises(OsmosisServerError):
            await client.complete_rollout("COMPLETED", QUESTION, reward=1.0)
        await client.complete_rollout("COMPLETED", QUESTION, reward=1.0)
        with pytest.raises(OsmosisProtocolError):
            await client.complete_rollout("COMPLETED", QUESTION, reward=1.0)
        assert len(peer.requests) == 4

    @pytest.mark.parametrize("content", [math.nan, "\ud800", object()], ids=["nan", "surrogate", "object"])
    async def test_a_result_that_was_never_sent_does_not_stand_in_the_way_of_another(
        self, client: OsmosisLLMClient, peer: HttpPeer, content: Any
    ) -> None:
        with pytest.raises(OsmosisProtocolError, match="cannot be written as JSON"):
            await client.complete_rollout("COMPLETED", [{"role": "tool", "content": content}])
        await client.complete_rollout("ERROR", QUESTION, "error", "a message was not JSON")
        assert [body["status"] for body in peer.bodies] == ["ERROR"]


class TestLifeCycle:
    async def test_with_yields_the_client_itself_and_closes_it(self, peer: HttpPeer) -> None:
        client = OsmosisLLMClient(peer.url, ROLLOUT_ID)
        async with client as entered:
            assert entered is client
            assert client._client is None
            await client.chat_completions(QUESTION)
            http_client = client._client
        assert http_client is not None
        assert http_client.is_closed
        assert client._client is None

    async def test_closing_is_harmless_at_any_time_and_a_later_call_opens_a_new_client(
        self, client: OsmosisLLMClient, peer: HttpPeer
    ) -> None:
        await client.close()
        await client.chat_completions(QUESTION)
        await client.close()
        await client.close()
        await client.chat_completions(QUESTION)
        assert len(peer.requests) == 2

    async def test_one_http_client_serves_first_calls_at_the_same_time_and_is_closed_once(
        self, client: OsmosisLLMClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[Any] = []

        class Counted(httpx.AsyncClient):
            def __init__(self, **arguments: Any) -> None:
                super().__init__(**arguments)
                self.closings = 0
                made.append(self)

            async def aclose(self) -> None:
                self.closings += 1
                await super().aclose()

        monkeypatch.setattr(client_module.httpx, "AsyncClient", Counted)
        got = await asyncio.gather(*(client._get_client() for _ in range(5)))
        await asyncio.gather(*(client.chat_completions(QUESTION) for _ in range(5)))
        assert all(one is client._client for one in got)
        await asyncio.gather(client.close(), client.close())
        assert [counted.closings for counted in made] == [1]

    async def test_the_http_client_has_the_documented_limits_and_headers(self) -> None:
        settings = RolloutClientSettings(timeout_seconds=42, max_connections=7, max_keepalive_connections=3)
        http_client = await OsmosisLLMClient("http://trainer", ROLLOUT_ID, SECRET, settings=settings)._get_client()
        assert http_client.timeout == httpx.Timeout(42, connect=10)
        assert http_client.headers["Content-Type"] == "application/json"
        assert http_client.headers["Authorization"] == f"Bearer {SECRET}"
        assert http_client.follow_redirects is False
        hasty = await OsmosisLLMClient("http://trainer", ROLLOUT_ID, timeout_seconds=2)._get_client()
        assert hasty.timeout.connect == 2


def stand_in(*answers: Any) -> Any:
    """An HTTP client as other code puts one in place."""
    client = AsyncMock()
    client.post = AsyncMock(side_effect=list(answers))
    return client


class TestStandIn:
    async def test_requests_are_one_url_and_one_plain_dict(self) -> None:
        client = OsmosisLLMClient("http://trainer/", ROLLOUT_ID)
        ok = MagicMock(status_code=200, text="{}")
        ok.json.return_value = CHAT_REPLY
        client._client = http_client = stand_in(ok, ok)
        assert (await client.chat_completions(QUESTION)).content == "About 85 grams."
        await client.complete_rollout("COMPLETED", QUESTION)
        chat, completed = http_client.post.await_args_list
        assert chat.args == ("http://trainer/v1/chat/completions",)
        assert completed.args == ("http://trainer/v1/rollout/completed",)
        for call in (chat, completed):
            assert set(call.kwargs) == {"json"}
            assert type(call.kwargs["json"]) is dict
        await client.close()
        http_client.aclose.assert_awaited_once()
        assert client._client is None

    async def test_a_recorded_request_does_not_grow_with_the_conversation(self) -> None:
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID)
        ok = MagicMock(status_code=200, json=lambda: CHAT_REPLY)
        client._client = http_client = stand_in(ok)
        messages = [{"role": "user", "content": "one", "meta": {"n": 1}}]
        await client.chat_completions(messages)
        messages[0]["content"] = "changed"
        messages.append({"role": "user", "content": "two"})
        sent = http_client.post.await_args.kwargs["json"]
        assert sent["messages"] == [{"role": "user", "content": "one", "meta": {"n": 1}}]

    @pytest.mark.parametrize("kind", [MagicMock, AsyncMock, SimpleNamespace])
    async def test_of_a_reply_only_status_json_and_text_need_to_be_real(
        self, delays: list[float], recwarn: pytest.WarningsRecorder, kind: Callable[..., Any]
    ) -> None:
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID)
        busy = kind(status_code=503, text="busy", json=lambda: {})
        client._client = stand_in(busy, kind(status_code=200, text="", json=lambda: CHAT_REPLY))
        await client.chat_completions(QUESTION)
        assert len(delays) == 1
        assert [str(warning.message) for warning in recwarn if "never awaited" in str(warning.message)] == []

    @pytest.mark.parametrize(
        ("raised", "error_class", "text"),
        [
            (httpx.ReadTimeout("too slow"), OsmosisTimeoutError, "too slow"),
            (TimeoutError(), OsmosisTimeoutError, "TimeoutError"),
            (httpx.ConnectError("refused"), OsmosisTransportError, "ConnectError: refused"),
            (httpx.ReadError(""), OsmosisTransportError, "ReadError "),
        ],
    )
    async def test_errors_of_httpx_become_ours(
        self, delays: list[float], raised: Exception, error_class: type[Exception], text: str
    ) -> None:
        client = OsmosisLLMClient("http://trainer", ROLLOUT_ID, max_retries=1)
        client._client = stand_in(raised, raised)
        with pytest.raises(error_class) as caught:
            await client.chat_completions(QUESTION)
        assert str(caught.value).startswith(text)
        assert caught.value.__cause__ is raised
