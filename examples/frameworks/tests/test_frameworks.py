"""The same calculator in four kinds of agent: every row over the whole protocol, a server process and a trainer."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.rollout import get_message_role
from tests.commands import ROOT, serving

ROWS = 32
TOOL_CALLS, CHAT_CALLS = 62, 87  # what the script takes for them with any agent that calls all of a turn's tools
DEADLINE_SECONDS = 100
NEEDS = {
    "openai_sdk": "openai",
    "openai_agents": "agents",
    "pydantic_agent": "pydantic_ai",
    "langgraph_agent": "langchain_openai",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * DEADLINE_SECONDS)]

MAY_BLOCK = {"event_loop_blocked"}


@pytest.fixture(params=NEEDS)
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(NEEDS[name], reason=f"{name} needs the dependency group 'frameworks': uv sync --group dev")
    return name


def trained(results: Path, *options: str) -> tuple[dict[str, Any], str]:
    """What ``osmosis trainer`` writes and prints for the dataset of the calculator."""
    command = [sys.executable, "-m", "osmosis_ai", "trainer", "-d", "test_data.jsonl", "-o", str(results), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(results.read_text(encoding="utf-8")), done.stdout


def test_the_agent_as_it_is_runs_every_row(name: str, tmp_path: Path) -> None:
    server = f"uv run osmosis serve -m examples.frameworks.{name}:agent_loop --local --log /tmp/traces"
    with serving(server, tmp_path) as port:  # which moves /tmp to tmp_path
        document, printed = trained(tmp_path / "results.json", "--server", f"http://127.0.0.1:{port}")

    runs = document["results"]
    assert [run["reward"] for run in runs] == [1.0] * ROWS
    # A busy machine may warn of a blocked event loop: these SDKs take their time at the first call.
    assert (document["summary"]["rewrote_messages"], "changed or dropped" in printed) == (0, False)
    for run in runs:
        assert (run["metrics"]["num_llm_calls"], run["metrics"]["num_tool_calls"]) == (run["turns"], run["tool_calls"])
        assert run["metrics"]["tool_latency_ms"] > 0
        assert (run["extra_fields"]["outcome"], run["extra_fields"].keys() - MAY_BLOCK) == ("success", {"outcome"})
        roles = [get_message_role(message) for message in run["messages"]]
        assert (roles[:3], roles[-2:]) == (["system", "user", "assistant"], ["tool", "assistant"])
    assert (sum(run["tool_calls"] for run in runs), sum(run["turns"] for run in runs)) == (TOOL_CALLS, CHAT_CALLS)

    traces = list((tmp_path / "traces").rglob("*.jsonl"))
    events = [json.loads(line) for trace in traces for line in trace.read_text(encoding="utf-8").splitlines()]
    names = [event["event"] for event in events]
    assert len(traces) == names.count("trace_start") == names.count("rollout_result") == ROWS
    assert (names.count("chat_end"), names.count("tool_call")) == (CHAT_CALLS, TOOL_CALLS)
    assert not {"messages_rewritten", "rollout_error"} & set(names)
    # Nothing is written twice: a reply is in its `chat_end`, and comes back as it was.
    appended = [message for event in events if event["event"] == "chat_start" for message in event["appended"]]
    assert {get_message_role(message) for message in appended} == {"system", "user", "tool"}


def test_a_history_that_it_rewrites_is_named(name: str, tmp_path: Path) -> None:
    agent = f"examples.frameworks.tests.rewriting:{name}"
    document, printed = trained(tmp_path / "results.json", "-m", agent, "--limit", "2")

    assert document["summary"]["rewrote_messages"] == 2
    for run in document["results"]:
        told = "messages[2], a reply of the model, was changed (content was '' and is 'tidied') before chat call 2"
        assert told in run["extra_fields"]["messages_rewritten"][0]
        assert f"Row {run['row_index']}, rollout {run['rollout_id']}: {told}" in printed


def test_its_turns_are_limited_by_the_request(name: str, tmp_path: Path) -> None:
    agent = f"examples.frameworks.{name}:agent_loop"
    document, _ = trained(tmp_path / "results.json", "-m", agent, "--limit", "2", "--max-turns", "1")

    for run in document["results"]:
        assert (run["status"], run["finish_reason"], run["turns"], run["reward"]) == ("COMPLETED", "max_turns", 1, 0.0)


def test_its_tools_are_those_of_its_functions(name: str) -> None:
    loop = import_module(f"examples.frameworks.{name}").agent_loop
    tools = [tool.function for tool in loop.get_default_tools()]
    assert [tool.name for tool in tools] == ["add", "subtract", "multiply", "divide"]
    assert tools[0].description == "Add two numbers: a + b."
    assert tools[0].parameters.required == ["a", "b"]
    either = tools[0].parameters.properties["a"].model_dump()["anyOf"]
    assert either == [{"type": "integer"}, {"type": "number"}]  # a large whole number keeps its digits


@pytest.mark.parametrize("command", [("test",), ("eval", "--eval-fn", "rewards:compute_reward")])
def test_it_runs_without_a_trainer_too(command: tuple[str, ...]) -> None:
    pytest.importorskip("langchain_openai", reason="needs the dependency group 'frameworks': uv sync --group dev")
    options = ["-m", "examples.frameworks.langgraph_agent:agent_loop", "-d", "test_data.jsonl", "--limit", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "osmosis_ai", *command, *options, "--model", "builtin/arithmetic", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "appended to" not in done.stderr
    summary = json.loads(done.stdout)["summary"]
    mean = summary["mean_reward"] if "mean_reward" in summary else summary["eval_fns"]["rewards:compute_reward"]["mean"]
    assert (mean, summary["total_tokens"]) == (1.0, 1038)
