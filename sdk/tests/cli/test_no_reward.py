"""A judge that is down, a policy that raises, an agent that raises: no reward, the cause on the terminal, the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.adder_project import AGENT, AGENT_OPTIONS, SCRIPT, results_of, row, write_rows
from support.processes import own_environment

JUDGED = re.sub(r"reward=float\(.*", 'reward=float(await ctx.judge(f"How good is {answer}?")))', AGENT)
pytestmark = pytest.mark.slow
POLICY = """
class Broken:
    def set_tools(self, tools): ...

    async def chat_completions(self, messages, **sampling):
        raise LookupError("no line of the script fits")
"""
DOWN = {
    "OSMOSIS_ROLLOUT_JUDGE_BASE_URL": "http://127.0.0.1:9/v1",
    "OSMOSIS_ROLLOUT_JUDGE_MODEL": "grader",
    "OSMOSIS_ROLLOUT_JUDGE_API_KEY": "judge-key-0123456789",
    "OSMOSIS_ROLLOUT_JUDGE_TIMEOUT_SECONDS": "0.2",
}


def run(command: str, *arguments: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "osmosis_ai", command, *AGENT_OPTIONS, *arguments],
        env=own_environment(PYTHONPATH=str(Path.cwd()), COLUMNS="300", **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def project(adder_project: Path) -> None:
    (adder_project / "policy.py").write_text(POLICY)
    write_rows(row(1, 2), row(30, 4))
    assert os.environ.get("OPENAI_API_KEY") is None


@pytest.mark.parametrize("command", ["trainer", "test"])
def test_a_judge_that_is_down(command: str) -> None:
    Path("agent.py").write_text(JUDGED)
    code, shown = run(command, *SCRIPT, "-o", "results.json", **DOWN)
    assert code == 1
    assert "The judge at http://127.0.0.1:9/v1 gave no answer within 0.2 s" in shown
    assert "at agent.py:" in shown
    document = results_of()
    assert [result["reward"] for result in document["results"]] == [None, None]
    assert document["summary"]["mean_reward"] is None
    if command == "trainer":
        assert {result["extra_fields"]["outcome"] for result in document["results"]} == {"reward_error"}
    assert DOWN["OSMOSIS_ROLLOUT_JUDGE_API_KEY"] not in shown + Path("results.json").read_text()


@pytest.mark.parametrize("command", ["trainer", "test"])
def test_a_policy_that_raises(command: str) -> None:
    code, shown = run(command, "--policy", "policy:Broken", "-o", "results.json")
    assert code == 1
    assert "LookupError: no line of the script fits" in shown
    assert "policy.py" in shown
    assert {result["reward"] for result in results_of()["results"]} <= {None}


@pytest.mark.parametrize("command", ["trainer", "test"])
def test_an_agent_that_raises(command: str) -> None:
    write_rows(row(1, 2, fail="the scales are broken"), row(30, 4))
    code, shown = run(command, *SCRIPT, "-o", "results.json")
    assert code == 1
    assert "the scales are broken (row 0)" in shown
    assert "at agent.py:" in shown
    assert [result["reward"] for result in results_of()["results"]] == [None, 1.0]
    assert results_of()["summary"]["mean_reward"] == 1.0, "a failure is no 0"
