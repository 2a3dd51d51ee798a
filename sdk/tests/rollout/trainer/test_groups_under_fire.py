"""Groups over the whole protocol, with a server that is killed and a policy that fails now and then."""

import json
import os
import random
import signal
from pathlib import Path

import pytest

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.run.data.dataset import dataset_row_to_request
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.trainer import (
    ChatCall,
    Ending,
    Group,
    RedispatchPolicy,
    ServerKeeper,
    Trainer,
    TrainerLimits,
    completer_of,
)

ROOT = Path(__file__).parents[4]
GROUPS, SIZE, PER_UPDATE, MAX_LAG = 96, 8, 16, 1
FAILING = 0.05


@pytest.mark.slow
async def test_every_group_is_whole_no_lag_is_beyond_the_bound_and_no_failure_has_a_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    chance = random.Random(17)  # noqa: S311 - guards nothing
    arithmetic = completer_of(ArithmeticPolicy)

    async def complete(call: ChatCall) -> CompletionsResult:
        if call.rollout_id.endswith("-3") and chance.random() < 0.5:
            raise LookupError("no such weights")  # and so it stays, until the server gives the rollout up
        if chance.random() < FAILING:
            raise ConnectionError("the model server hiccups")
        return await arithmetic(call)

    rows = [json.loads(line) for line in (ROOT / "test_data.jsonl").read_text("utf-8").splitlines()]

    def problem(number: int) -> RolloutRequest:
        row = rows[number % len(rows)]
        return dataset_row_to_request(row, number, completion_params={"temperature": 1.0}, rollout_id=f"p{number}")

    keeper = ServerKeeper(("-m", "server:agent_loop"), journal=tmp_path / "journal.db")
    taken: list[Group] = []
    async with (
        Trainer(
            complete,
            server_url=keeper.url,
            server_api_key=keeper.api_key,
            limits=TrainerLimits(concurrency=64, rollout_timeout_seconds=60),
        ) as trainer,
        keeper.serving(trainer),
        trainer.groups(
            map(problem, range(GROUPS)),
            SIZE,
            per_update=PER_UPDATE,
            max_lag=MAX_LAG,
            redispatch=RedispatchPolicy(max_attempts=20),
        ) as groups,
    ):
        async for group in groups:
            taken.append(group)
            if len(taken) in (PER_UPDATE + 3, 3 * PER_UPDATE + 3):
                os.kill(keeper.pid or 0, signal.SIGKILL)
            if len(taken) % PER_UPDATE == 0:
                async with trainer.weights_update():
                    pass
        assert trainer.weights_version == GROUPS // PER_UPDATE
    assert len(keeper.restarts) == 2
    assert sorted(group.problem.rollout_id for group in taken) == sorted(f"p{n}" for n in range(GROUPS))
    assert all(group.is_whole for group in taken)
    assert {group.lag for group in taken} <= {0, MAX_LAG}
    assert all(group.rewards == (1.0,) * SIZE for group in taken)
    failures = [failure for group in taken for failure in group.failures]
    assert {failure.outcome for failure in failures} <= {Ending.ERROR, Ending.LOST, Ending.TIMED_OUT}
    assert failures
    assert [failure.reward for failure in failures if failure.reward is not None] == []
    assert trainer.contradictions == 0
