"""The harness against verifiers' real agent, interception server and client; a stub stands for the model."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calculator_taskset import CalculatorConfig
from osmosis_harness import OsmosisHarnessConfig
from support.live_server import LiveServer
from support.model_endpoint import HANG, ModelEndpoint, refuse
from verifiers.v1 import Agent, AgentConfig, EvalClientConfig, SamplingConfig, SubprocessConfig, Trace
from verifiers.v1.utils.loaders import load_harness, load_taskset

from osmosis_ai.rollout import (
    OpenAIFunctionToolSchema,
    RolloutAgentLoop,
    RolloutContext,
    RolloutRequest,
    RolloutResult,
    create_app,
)
from server import CalculatorAgentLoop

ROOT = Path(__file__).parents[3]
PROBLEMS = ROOT / "test_data.jsonl"


class Unscored(RolloutAgentLoop):
    """Says something, and has no reward for it."""

    name = "unscored"

    def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
        return []

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        reply = await ctx.chat(list(ctx.request.messages))
        return ctx.complete([*ctx.request.messages, reply.message])


class Waiting(Unscored):
    """Tells when it has ended."""

    def __init__(self) -> None:
        self.has_ended = threading.Event()

    async def run(self, ctx: RolloutContext) -> RolloutResult:
        try:
            return await super().run(ctx)
        finally:
            self.has_ended.set()


@pytest.fixture
def model() -> Iterator[ModelEndpoint]:
    with ModelEndpoint() as endpoint:
        yield endpoint


async def run(agent_loop: RolloutAgentLoop, model: ModelEndpoint, *, right: bool = True, **options: Any) -> Trace:
    with LiveServer(create_app(agent_loop)) as server:
        return await run_on(server, model, right=right, **options)


async def run_on(server: LiveServer, model: ModelEndpoint, *, right: bool = True, **options: Any) -> Trace:
    config = AgentConfig(
        harness=OsmosisHarnessConfig(server_url=server.url),
        runtime=SubprocessConfig(),
        model="stub",
        client=EvalClientConfig(base_url=model.url, api_key_var="STUB_KEY"),
        sampling=SamplingConfig(temperature=0.25),
        **options,
    )
    task = next(iter(load_taskset(CalculatorConfig(id="calculator_taskset", path=PROBLEMS))))
    async with Agent(config) as agent:
        return await agent.run(task if right else task.with_data(ground_truth="41"))


async def test_a_rollout_is_the_program(model: ModelEndpoint) -> None:
    trace = await run(CalculatorAgentLoop(), model)
    assert (trace.ok, trace.reward, trace.stop_condition) == (True, 1.0, "agent_completed"), trace.errors
    said = [(node.message.role, node.sampled) for node in trace.nodes]
    assert said == [("system", False), ("user", False), ("assistant", True), ("tool", False), ("assistant", True)]
    assert [call.name for call in trace.nodes[2].message.tool_calls] == ["add"]
    assert trace.nodes[4].message.content == "The answer is 42.\n#### 42"
    assert {tool.name for tool in trace.nodes[0].tools} == {"add", "subtract", "multiply", "divide"}


async def test_model_and_sampling_are_those_of_verifiers(model: ModelEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_KEY", "secret of the model")
    await run(CalculatorAgentLoop(), model)
    assert [(call.body["model"], call.body["temperature"]) for call in model.calls] == [("stub", 0.25)] * 2
    assert {call.headers["authorization"] for call in model.calls} == {"Bearer secret of the model"}


async def test_a_wrong_answer_is_a_real_zero(model: ModelEndpoint) -> None:
    trace = await run(CalculatorAgentLoop(), model, right=False)
    assert trace.ok
    assert trace.rewards["rollout"].score == 0.0


async def test_no_reward_is_a_failure_and_not_zero(model: ModelEndpoint) -> None:
    trace = await run(Unscored(), model)
    assert not trace.ok
    assert "rollout" not in trace.rewards
    assert "has no reward" in trace.last_error.message


async def test_stopped_by_a_limit_of_verifiers_is_no_zero_either(model: ModelEndpoint) -> None:
    trace = await run(CalculatorAgentLoop(), model, max_turns=1)
    assert (trace.ok, trace.stop_condition) == (False, "max_turns")
    assert "rollout" not in trace.rewards


async def test_what_the_model_server_said_is_the_error(model: ModelEndpoint) -> None:
    model.answers.append(refuse(400, "no such model"))
    trace = await run(CalculatorAgentLoop(), model)
    assert not trace.ok
    assert (trace.last_error.type, "no such model" in trace.last_error.message) == ("ProviderError", True)


async def test_an_agent_that_fails_is_a_failure() -> None:
    class Failing(Unscored):
        async def run(self, ctx: RolloutContext) -> RolloutResult:
            raise RuntimeError("the database is gone")

    with ModelEndpoint() as model:
        trace = await run(Failing(), model)
    assert not trace.ok
    assert "the database is gone" in trace.last_error.message
    assert "rollout" not in trace.rewards


async def test_a_run_that_is_cancelled_ends_its_rollout(model: ModelEndpoint) -> None:
    model.answers.append(HANG)
    waiting = Waiting()
    with LiveServer(create_app(waiting)) as server:
        running = asyncio.create_task(run_on(server, model))
        await asyncio.to_thread(model.wait_for_calls, 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.to_thread(waiting.has_ended.wait, 30)


async def test_found_by_its_name() -> None:
    assert load_harness(OsmosisHarnessConfig()).config.id == "osmosis_harness"


def test_the_command_of_the_page(model: ModelEndpoint, tmp_path: Path) -> None:
    with LiveServer(create_app(CalculatorAgentLoop())) as server:
        command = [
            *("calculator_taskset", "--env.taskset.path", str(PROBLEMS), "--select.limit", "3", "--push", "false"),
            *("--env.agent.harness.id", "osmosis_harness", "--env.agent.harness.server-url", server.url),
            *("--env.agent.runtime.type", "subprocess", "--model", "stub", "--client.base-url", model.url),
            *("--output-dir", str(tmp_path), "--run.name", "page", "--rich", "None"),
        ]
        ended = subprocess.run(
            [Path(sys.executable).with_name("vf-eval"), *command],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 0, ended.stderr
    (written,) = tmp_path.rglob("traces.jsonl")
    traces = [trace for line in written.read_text().splitlines() for trace in json.loads(line)["traces"]]
    assert [(trace["ok"], trace["rewards"]["rollout"]["score"]) for trace in traces] == [(True, 1.0)] * 3
