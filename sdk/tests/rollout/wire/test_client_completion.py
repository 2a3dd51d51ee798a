"""How a rollout's client reports its result: once, whole, and never against an acknowledged one."""

import math
from contextlib import suppress
from typing import Any

import pytest
from support.http_peer import Answer, HttpPeer, drop, refuse, reply
from support.rollout_client import QUESTION, ROLLOUT_ID, SECRET

from osmosis_ai.rollout import (
    OsmosisServerError,
    OsmosisValidationError,
    RolloutMetrics,
)
from osmosis_ai.rollout.core.exceptions import (
    OsmosisNotFoundError,
    OsmosisProtocolError,
)
from osmosis_ai.rollout.wire.client import OsmosisLLMClient

pytestmark = pytest.mark.usefixtures("default_settings")


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
        peer.answer = refuse(404, '{"detail": "no such rollout"}')
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
        with suppress(OsmosisServerError):
            await client.complete_rollout("COMPLETED", QUESTION, reward=1.0)
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
