"""``--resume`` after a ``kill -9`` in the middle, with the commands as real processes."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from osmosis_ai.cli import main

DEADLINE_SECONDS = 60.0
ROWS, REPEATS = 4, 3

AGENT = """
import asyncio
import os
from pathlib import Path

import helpers
from osmosis_ai.rollout import RolloutAgentLoop


Path("agent.pid").write_text(str(os.getpid()))


class Counting(RolloutAgentLoop):
    name = "counting"

    def get_tools(self, request):
        return []

    async def run(self, ctx):
        reply = await ctx.chat(ctx.request.messages)
        with open("ran", "a") as file:
            file.write(f"{ctx.request.metadata['row_index']}\\n")
        if not Path("go on").exists() and Path("ran").read_text().count("\\n") > 5:
            Path("in the middle").touch()
            await asyncio.Event().wait()
        return ctx.complete([*ctx.request.messages, reply.message], reward=helpers.reward())


agent_loop = Counting()
"""

COMMANDS = {
    "test": ["test", "-m", "agent:agent_loop", "--model", "builtin/arithmetic", "--repeat"],
    "eval": ["eval", "-m", "agent:agent_loop", "--model", "builtin/arithmetic", "--eval-fn", "helpers:score", "--n"],
    "trainer": ["trainer", "-m", "agent:agent_loop", "--repeat"],
}


def command(name: str, *more: str) -> list[str]:
    options = ["-d", "rows.jsonl", "-o", "results.json", "--concurrency", "2"]
    return [sys.executable, "-m", "osmosis_ai", *COMMANDS[name], str(REPEATS), *options, *more]


def ended(name: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(name, *more), capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS, env=ENVIRONMENT
    )


ENVIRONMENT = {**os.environ, "OSMOSIS_NO_DOTENV": "1"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent and its rows, in the current directory."""
    monkeypatch.chdir(tmp_path)
    Path("agent.py").write_text(AGENT)
    Path("helpers.py").write_text("def reward():\n    return 1.0\n\ndef score(solution_str):\n    return 1.0\n")
    rows = [{"system_prompt": "s", "user_prompt": f"What is {n} + 1?", "ground_truth": f"{n + 1}"} for n in range(ROWS)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(params=COMMANDS)
def killed(request: pytest.FixtureRequest, project: None) -> str:
    """The name of a command that was killed when some of its runs had ended, in the current directory."""
    with subprocess.Popen(command(request.param), stdout=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        wait_for(lambda: Path("in the middle").exists() and process.poll() is None)
        wait_for(lambda: len(saved_runs()) >= 4)
        process.kill()
    wait_for(lambda: not psutil.pid_exists(int(Path("agent.pid").read_text())))  # a trainer's server ends with it
    assert not Path("results.json").exists()
    return str(request.param)


def wait_for(condition: Any) -> None:
    deadline_seconds = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline_seconds
        time.sleep(0.01)


def saved_runs() -> list[dict[str, Any]]:
    if not Path("results.jsonl").exists():
        return []
    return [json.loads(line) for line in Path("results.jsonl").read_text().splitlines() if '"row_index"' in line]


def documented_runs() -> list[tuple[int, int]]:
    document = json.loads(Path("results.json").read_text())
    if "rows" in document:
        return [(row["row_index"], run["run_index"]) for row in document["rows"] for run in row["runs"]]
    return [(run["row_index"], run["repeat"]) for run in document["results"]]


@pytest.mark.slow
def test_every_run_is_there_once_and_none_that_had_ended_is_made_again(killed: str) -> None:
    before = saved_runs()
    helpers = Path("helpers.py").read_text()
    Path("helpers.py").write_text(helpers + "\n")
    refused = ended(killed, "--resume", "--max-turns", "7")
    assert refused.returncode == 1
    assert refused.stderr == (
        "Error: Cannot go on with results.jsonl: changed since it was written: helpers.py, settings max_turns; undo"
        " that, or leave out --resume to start anew.\n"
    )
    assert saved_runs() == before
    Path("helpers.py").write_text(helpers)

    with Path("results.jsonl").open("a") as file:
        file.write('{"row_index": 3, "rep')  # as a crash of the machine leaves it
    Path("ran").unlink()
    Path("go on").touch()
    resumed = ended(killed, "--resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert f"Going on with results.jsonl: {len(before)} of {ROWS * REPEATS} runs are there." in resumed.stdout
    assert documented_runs() == [(row, repeat) for row in range(ROWS) for repeat in range(REPEATS)]
    made_now = Counter(map(int, Path("ran").read_text().split()))
    assert made_now == Counter(dict.fromkeys(range(ROWS), REPEATS)) - Counter(run["row_index"] for run in before)

    ended(killed, "--resume")
    assert Counter(map(int, Path("ran").read_text().split())) == made_now, "nothing was left to do"


@pytest.mark.usefixtures("project")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["test", "eval", "trainer"])
def test_a_larger_limit_goes_on_with_the_new_rows_alone(name: str) -> None:
    Path("go on").touch()
    assert ended(name, "--limit", "2").returncode == 0
    Path("ran").unlink()
    resumed = ended(name, "--limit", "3", "--resume")
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert f"Going on with results.jsonl: {2 * REPEATS} of {3 * REPEATS} runs are there." in resumed.stdout
    assert Counter(map(int, Path("ran").read_text().split())) == {2: REPEATS}
    assert documented_runs() == [(row, repeat) for row in range(3) for repeat in range(REPEATS)]

    before = Path("results.jsonl").read_bytes()
    refused = ended(name, "--limit", "1", "--resume")
    assert refused.returncode == 1
    assert refused.stderr == (
        "Error: Cannot go on with results.jsonl: it has row 1, which --limit 1 leaves out; give a larger one, or leave"
        " out --resume to start anew.\n"
    )
    assert Path("results.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", COMMANDS)
def test_there_must_be_a_file_to_go_on_with(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMANDS[name], "1", "-d", "rows.jsonl", "--resume"]) != 0
    assert capsys.readouterr().err == "Error: --resume needs -o FILE: the results of the run to go on with.\n"
