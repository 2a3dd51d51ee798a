"""The parts of rewards through every command: the whole protocol, real processes, real files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.adder_project import AGENT, AGENT_OPTIONS, SCRIPT, results_of, row, write_rows

from osmosis_ai.cli import main

PARTS = '{"right": float(answer == ctx.request.metadata["ground_truth"]), "turns": len(messages) / 10}'
WITH_PARTS = re.sub(r"reward=float\(.*\)", lambda _: f"reward=1.0, reward_components={PARTS})", AGENT)
FUNCTIONS = """
def graded(messages, ground_truth, metadata):
    right = float(messages[-1]["content"].endswith(f"#### {ground_truth}"))
    return {"reward": right / 2, "right": right, "length": len(messages)}

def whole(result, ground_truth):
    calls, messages = result["metrics"]["num_llm_calls"], len(result["final_messages"])
    return {"reward": float(result["finish_reason"] == "stop"), "calls": calls, "messages": messages}
"""


@pytest.fixture(autouse=True)
def project(adder_project: Path) -> None:
    Path("agent.py").write_text(WITH_PARTS)
    Path("functions.py").write_text(FUNCTIONS)
    write_rows(row(1, 2), {**row(30, 4), "ground_truth": "no"})


def run(command: str, *arguments: str) -> int:
    return main([command, *AGENT_OPTIONS, *SCRIPT, *arguments])


def moments(mean: float, std: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "std": std, "min": low, "max": high, "count": 2}


@pytest.mark.slow
def test_the_trainer_shows_them_for_each_rollout_and_as_means_and_spreads(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trainer", "-o", "results.json", "--log", "traces") == 0
    shown = capsys.readouterr().out
    assert re.search(r"Row +Status +Reward +right +turns +Turns", shown)
    assert "    right: 0.50 ± 0.50 sd (0.00 to 1.00) over 2" in shown

    assert run("trainer", "-o", "results.json", "--resume") == 0, "what an earlier run left counts"
    document = results_of()
    assert document["summary"]["reward_components"]["right"] == moments(0.5, 0.5, 0.0, 1.0)
    assert document["summary"]["reward_std"] == 0.0
    assert [result["reward_components"]["right"] for result in document["results"]] == [1.0, 0.0]

    traces = [json.loads(line) for file in Path("traces").rglob("*.jsonl") for line in file.read_text().splitlines()]
    told = [event["extra_fields"]["reward_components"] for event in traces if event["event"] == "rollout_result"]
    assert sorted(parts["right"] for parts in told) == [0.0, 1.0]

    for source in ("results.json", "traces"):
        assert main(["rescore", source, "-m", "functions:graded", "-o", "again.json"]) == 0
        assert re.search(r"right: 0\.50 ± 0\.50 sd .* before, 0\.50 ± 0\.50 sd .* after", capsys.readouterr().out)
        after = results_of("again.json")["summary"]["reward_components"]
        assert after["length"] == moments(5.0, 0.0, 5.0, 5.0)
        assert main(["rescore", source, "-m", "functions:whole", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["summary"]["reward_components"]["calls"]["mean"] == 2.0


def test_test_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("test", "-o", "results.json") == 0
    shown = capsys.readouterr().out
    assert "reward 1.00, right 0.00, turns 0.50, 2 turns" in shown
    assert "    right: 0.50 ± 0.50 sd (0.00 to 1.00) over 2" in shown
    assert results_of()["summary"]["reward_components"]["right"] == moments(0.5, 0.5, 0.0, 1.0)


def test_eval_takes_them_from_its_functions_and_from_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    functions = ["--eval-fn", "functions:graded", "--eval-fn", "functions:whole"]
    assert run("eval", *functions, "-o", "eval.json") == 0
    shown = capsys.readouterr().out
    assert "right: 0.50 ± 0.50 sd (0.00 to 1.00) over 2" in shown
    assert "calls: 2.00 ± 0.00 sd" in shown

    document = results_of("eval.json")
    assert document["summary"]["eval_fns"]["functions:graded"]["components"]["right"] == moments(0.5, 0.5, 0.0, 1.0)
    [first] = document["rows"][0]["runs"]
    assert first["components"]["functions:whole"] == {"calls": 2.0, "messages": 5.0}
    assert first["reward_components"] == {"right": 1.0, "turns": 0.5}

    assert main(["rescore", "eval.json", "-m", "functions:graded"]) == 0
    assert re.search(r"right: 0\.50 ± 0\.50 sd .* before", capsys.readouterr().out)
