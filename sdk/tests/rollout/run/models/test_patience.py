import asyncio
from typing import Any

import pytest
from support.model_endpoint import HANG_UP, Answer, ModelEndpoint, refuse, say

from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.models.endpoint import EndpointLLMClient
from osmosis_ai.rollout.run.models.patience import Gate, Patience, PatientClient

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
QUICK = Patience(max_retries=2, first_delay_seconds=0.001, max_rate_limited_seconds=5)


async def ask(endpoint: ModelEndpoint, patience: Patience = QUICK, gate: Gate | None = None) -> str | None:
    async with EndpointLLMClient("m", None, endpoint.url) as client:
        result = await PatientClient(client, gate or Gate(), patience).chat_completions(QUESTION)
        return result.content


@pytest.mark.parametrize("answer", [refuse(500), refuse(529), refuse(408), HANG_UP, Answer(b"{")])
async def test_what_may_pass_is_tried_again(answer: Answer) -> None:
    with ModelEndpoint(answer, answer, say("there")) as endpoint:
        assert await ask(endpoint) == "there"


async def test_attempts_are_bounded_and_the_last_error_is_told() -> None:
    with (
        ModelEndpoint(refuse(500), refuse(500), refuse(500, "for good")) as endpoint,
        pytest.raises(ProviderError, match="for good"),
    ):
        await ask(endpoint)
    assert len(endpoint.calls) == 3


@pytest.mark.parametrize("answer", [refuse(400), refuse(401), refuse(404), refuse(429, "no", "insufficient_quota")])
async def test_what_will_not_pass_is_not_tried_again(answer: Answer) -> None:
    with ModelEndpoint(answer) as endpoint, pytest.raises(ProviderError):
        await ask(endpoint)
    assert len(endpoint.calls) == 1


async def test_a_call_that_breaks_every_connection_is_no_failure_of_the_others() -> None:
    with ModelEndpoint(*[HANG_UP] * 3, say("hello")) as endpoint, pytest.raises(ProviderError) as raised:
        await ask(endpoint)
    assert not isinstance(raised.value, SystemicProviderError)
    assert [call.body.get("max_tokens") for call in endpoint.calls] == [None, None, None, 1]


async def test_an_endpoint_that_breaks_every_connection_is_systemic() -> None:
    with (
        ModelEndpoint(otherwise=lambda body: HANG_UP) as endpoint,
        pytest.raises(SystemicProviderError, match=r"The connection broke .*127\.0\.0\.1") as raised,
    ):
        await ask(endpoint)
    assert raised.value.failure is ProviderFailure.CONNECTION


async def test_one_that_always_says_to_wait_for_nothing_is_asked_less_and_less() -> None:
    with (
        ModelEndpoint(otherwise=lambda body: refuse(429, Retry_After="0")) as endpoint,
        pytest.raises(ProviderError, match="Rate limit exceeded"),
    ):
        await ask(endpoint, Patience(max_rate_limited_seconds=0.2))
    assert len(endpoint.calls) < 9


async def test_rate_limits_are_waited_out_however_many() -> None:
    gate = Gate()
    with ModelEndpoint(*[refuse(429, Retry_After="0.001")] * 6, say("there")) as endpoint:
        assert await ask(endpoint, gate=gate) == "there"
    assert gate.waits == 6


async def test_a_rate_limit_longer_than_the_patience_is_told_at_once() -> None:
    with (
        ModelEndpoint(refuse(429, Retry_After="3600")) as endpoint,
        pytest.raises(ProviderError, match="Rate limit exceeded"),
    ):
        await ask(endpoint)


async def test_whoever_shares_the_gate_waits_too() -> None:
    gate = Gate()
    gate.close_for(3600)
    with ModelEndpoint(say("there")) as endpoint:
        waiting = asyncio.create_task(ask(endpoint, gate=gate))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting, 0.05)
    assert endpoint.calls == []


async def test_everything_else_is_the_clients_own() -> None:
    async with EndpointLLMClient("m", None, "http://127.0.0.1:1/v1") as client:
        patient = PatientClient(client, Gate())
        patient.set_tools([{"type": "function"}])
        assert client._tools == [{"type": "function"}]
        patient.clear_tools()
        patient.reset_metrics()
        assert patient.get_metrics().num_llm_calls == 0
        assert patient.display_name == "m"
