"""The reward function of an agent that is made of MCP tools."""

import functools
from pathlib import Path
from typing import Any

import pytest
from support.mcp_agents import (
    OldServer,
    ScriptedPolicy,
    context_for,
    saying,
)

from osmosis_ai.rollout.mcp import MCPAgentLoop
from osmosis_ai.rollout.mcp.agent_loop import MCPLoadError, load_mcp_agent


class TestReward:
    @pytest.mark.parametrize("takes_metadata", [True, False])
    async def test_of_the_last_answer_by_a_function_of_ones_own(self, takes_metadata: bool) -> None:
        seen: list[Any] = []

        def of_two(solution_str: str, ground_truth: str) -> float:
            return float(ground_truth in solution_str)

        async def of_three(solution_str: str, ground_truth: str, extra_info: dict[str, Any]) -> float:
            seen.append(extra_info)
            return of_two(solution_str, ground_truth)

        loop = MCPAgentLoop(OldServer(), reward=of_three if takes_metadata else of_two)
        for answer, reward in (("#### 4", 1.0), ("#### 5", 0.0)):
            ctx = context_for(loop, ScriptedPolicy(saying(answer)))
            ctx.request.metadata = {"ground_truth": "4", "level": 1}
            assert (await loop.run(ctx)).reward == reward
        assert seen == ([{"ground_truth": "4", "level": 1}] * 2 if takes_metadata else [])

    def test_one_that_takes_other_arguments_is_refused_where_it_is_written(self) -> None:
        def of_one(solution_str: str) -> float:
            return 1.0

        def of_names(*, answer: str, truth: str) -> float:
            return 1.0

        @functools.wraps(of_one)
        def wrapped(*args: Any) -> float:
            return 1.0

        line = of_one.__code__.co_firstlineno
        for reward in (of_one, of_names, wrapped):
            with pytest.raises(MCPLoadError, match=r"cannot be called as of_.*solution_str, ground_truth") as told:
                MCPAgentLoop(OldServer(), reward=reward)
            assert (f"test_reward.py:{line} in " in str(told.value)) is (reward is not of_names)

    async def test_none_without_a_function_or_a_ground_truth(self) -> None:
        def scores(solution_str: str, ground_truth: str) -> float:
            raise AssertionError("there is nothing to compare with")

        for loop in (MCPAgentLoop(OldServer()), MCPAgentLoop(OldServer(), reward=scores)):
            assert (await loop.run(context_for(loop, ScriptedPolicy(saying("4"))))).reward is None

    async def test_compute_reward_of_main_is_that_of_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "scoring.py").write_text(
            "def compute_reward(solution_str, ground_truth, extra_info=None): return 0.5"
        )
        (tmp_path / "main.py").write_text(
            "from fastmcp import FastMCP\nfrom scoring import compute_reward\nmcp = FastMCP('m')"
        )
        loop = load_mcp_agent(tmp_path)
        ctx = context_for(loop, ScriptedPolicy(saying("4")))
        ctx.request.metadata = {"ground_truth": "4"}
        assert (await loop.run(ctx)).reward == 0.5
