"""A trainer for a scripted server, and what it is to run."""

from typing import Any

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.trainer import (
    Completer,
    RetryPolicy,
    Trainer,
    TrainerLimits,
    completer_of,
)
from support.scripted_server import ScriptedServer

QUICK_RETRY = RetryPolicy(base_delay_seconds=0.001, max_delay_seconds=0.01, unreachable_seconds=0.05)
QUESTION = [{"role": "user", "content": "What is 1 + 2?"}]

arithmetic = completer_of(ArithmeticPolicy)


def request(number: int = 0, **fields: Any) -> RolloutRequest:
    return RolloutRequest(
        rollout_id=f"r{number}", server_url="http://placeholder", messages=QUESTION, completion_params={}, **fields
    )


def trainer_for(server: ScriptedServer, complete: Completer = arithmetic, **limits: Any) -> Trainer:
    return Trainer(
        complete,
        server_url=server.url,
        server_api_key="server-key",
        limits=TrainerLimits(**limits),
        retry=QUICK_RETRY,
    )
