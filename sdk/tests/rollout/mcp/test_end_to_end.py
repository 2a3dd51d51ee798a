"""A directory of MCP tools behind the real server, driven by the real trainer over sockets."""

from pathlib import Path

import pytest
from support.live_server import LiveServer
from support.mcp_agents import CALCULATOR, QUESTION

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings, reset_settings
from osmosis_ai.rollout.mcp.agent_loop import load_mcp_agent
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.server.app import create_app
from osmosis_ai.rollout.trainer import Outcome, RolloutOutcome, Trainer, TrainerLimits, completer_of

DEADLINE_SECONDS = 60.0


def answer_of(outcome: RolloutOutcome) -> float:
    assert outcome.result is not None
    text: str = outcome.result.final_messages[-1]["content"]
    return float(text.rpartition("####")[2])


async def test_a_trainer_drives_rollouts_over_mcp_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    reset_settings()
    questions = {"(3 + 4) * 2": 14.0, "10 / 4": 2.5, "2 * 3 - 8 / 2": 2.0}
    requests = [
        RolloutRequest(
            rollout_id=f"mcp-{number}",
            server_url="http://filled-in-by-the-trainer",
            messages=[{**QUESTION, "content": f"What is {expression}?"}],
            completion_params={},
        )
        for number, expression in enumerate(questions)
    ]
    settings = RolloutSettings(server=RolloutServerSettings(journal="off"))
    limits = TrainerLimits(rollout_timeout_seconds=DEADLINE_SECONDS)
    outcomes: list[RolloutOutcome] = []
    with LiveServer(create_app(load_mcp_agent(CALCULATOR), settings=settings)) as server:
        async with Trainer(completer_of(ArithmeticPolicy), server_url=server.url, limits=limits) as trainer:
            assert await trainer.run(requests, outcomes.append) is None
    assert {outcome.outcome for outcome in outcomes} == {Outcome.COMPLETED}
    answers = {outcome.request.messages[0]["content"]: answer_of(outcome) for outcome in outcomes}
    assert answers == {f"What is {expression}?": value for expression, value in questions.items()}
    assert all(outcome.tool_calls for outcome in outcomes)
