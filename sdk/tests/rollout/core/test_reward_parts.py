"""A reward and its parts: what an agent may give, what the trainer gets, and what is made of foreign ones."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.fake_trainer import FakeTrainer
from support.rollouts import INIT, JsonObject, ScriptedAgent, client_of, init_body

from osmosis_ai import osmosis_reward
from osmosis_ai.rollout.core.base import RolloutContext, RolloutResult
from osmosis_ai.rollout.core.exceptions import RewardError
from osmosis_ai.rollout.core.reward_parts import checked_components, known_components, reaches
from osmosis_ai.rollout.server.app import create_app

MESSAGES: list[JsonObject] = [{"role": "user", "content": "2 + 2?"}]


async def result_of(trainer: FakeTrainer, **given_to_complete: Any) -> JsonObject:
    async def run(ctx: RolloutContext) -> RolloutResult:
        return ctx.complete(MESSAGES, **given_to_complete)

    return await result_of_run(trainer, run)


async def result_of_run(trainer: FakeTrainer, run: Any) -> JsonObject:
    async with client_of(create_app(ScriptedAgent(run))) as client:
        assert (await client.post(INIT, json=init_body(server_url=trainer.url))).status_code == 202
        return await trainer.result("rollout-1")


@osmosis_reward
def graded(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> Any:
    return {"reward": 0.75, "format": 1.0, "accuracy": 0.5}


@pytest.mark.parametrize(
    "given_to_complete",
    [
        {"reward": 0.75, "reward_components": {"format": 1, "accuracy": Decimal("0.5")}},
        {"reward": {"reward": 0.75, "format": True, "accuracy": 0.5, "speed": None}},
        {"reward": {"reward": 0.75, "accuracy": 0.5}, "reward_components": {"format": 1.0}},
        {"reward": graded("4", "4")},
    ],
)
async def test_parts_reach_the_trainer_beside_the_reward(
    trainer: FakeTrainer, given_to_complete: dict[str, Any]
) -> None:
    result = await result_of(trainer, **given_to_complete)
    assert (result["status"], result["reward"]) == ("COMPLETED", 0.75)
    assert result["extra_fields"] == {"outcome": "success", "reward_components": {"format": 1.0, "accuracy": 0.5}}


async def test_without_parts_nothing_is_added(trainer: FakeTrainer) -> None:
    assert (await result_of(trainer, reward=1.0, reward_components={}))["extra_fields"] == {"outcome": "success"}


@pytest.mark.parametrize(
    ("given_to_complete", "sentence"),
    [
        ({"reward": {"format": 1.0}}, "needs the key 'reward' beside its parts, got 'format'"),
        ({"reward": 1.0, "reward_components": [1.0]}, "must be a dict of numbers by name, got list"),
        ({"reward": 1.0, "reward_components": {"format": "good"}}, "'format' of a reward must be a finite number"),
        ({"reward": 1.0, "reward_components": {"format": float("nan")}}, "finite number, got nan"),
        ({"reward": 1.0, "reward_components": {1: 1.0}}, "needs a name of 1 to 64 characters"),
        ({"reward": 1.0, "reward_components": {"x" * 65: 1.0}}, "needs a name of 1 to 64 characters"),
        ({"reward": 1.0, "reward_components": {str(n): 1.0 for n in range(33)}}, "at most 32 parts, got 33"),
    ],
)
async def test_parts_that_are_none_are_a_reward_error_with_the_place(
    trainer: FakeTrainer, given_to_complete: dict[str, Any], sentence: str
) -> None:
    result = await result_of(trainer, **given_to_complete)
    assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "reward_error")
    assert sentence in result["error_message"]
    assert "reward" not in result
    assert "test_reward_parts.py" in result["extra_fields"]["where"][0]


async def test_an_error_has_no_parts_and_ill_made_ones_are_no_result(trainer: FakeTrainer) -> None:
    parts = {"reward_components": {"format": 1.0}, "seed": 7}

    async def failed(ctx: RolloutContext) -> RolloutResult:
        return RolloutResult("ERROR", MESSAGES, "error", error_message="no", extra_fields=parts)

    async def ill_made(ctx: RolloutContext) -> RolloutResult:
        return RolloutResult("COMPLETED", MESSAGES, "stop", extra_fields={"reward_components": {"format": "x"}})

    assert (await result_of_run(trainer, failed))["extra_fields"] == {"outcome": "agent_error", "seed": 7}
    with FakeTrainer() as other:
        result = await result_of_run(other, ill_made)
    assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "invalid_result")
    assert "must be a finite number" in result["error_message"]


async def test_whoever_cannot_compute_a_reward_says_so_with_a_reward_error(trainer: FakeTrainer) -> None:
    async def run(ctx: RolloutContext) -> RolloutResult:
        raise RewardError("the simulator gave no score")

    assert (await result_of_run(trainer, run))["extra_fields"]["outcome"] == "reward_error"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists) | st.binary())
def test_whatever_a_part_is_it_becomes_a_finite_number_or_a_sentence(value: Any) -> None:
    with suppress(RewardError):
        components = checked_components({"part": value})
        assert known_components({"reward_components": components}) == components


def test_of_foreign_parts_what_is_none_is_passed_over() -> None:
    foreign = {"ok": 1, "text": "1", "big": 10**400, "nan": float("nan"), "": 1.0, "x" * 65: 1.0, "list": []}
    assert known_components({"reward_components": foreign}) == {"ok": 1.0}
    assert known_components({"reward_components": {str(n): n for n in range(100)}}) == {str(n): n for n in range(32)}
    assert not any(map(known_components, (None, [], {}, {"reward_components": [1]})))


def test_a_reward_reaches_what_it_misses_by_rounding_alone() -> None:
    whole = 0.7 + 0.2 + 0.1
    assert whole < 1
    assert reaches(whole, 1.0)
    assert reaches(1.0, 1.0)
    assert not reaches(0.999999, 1.0)
