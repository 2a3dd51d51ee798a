"""The whole path as a user runs it: two steps, an end, a resumption, the report, and the trained model served.

It starts from the pupil, and what needs no process of its own is run in this one, as importing TRL takes longer.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import ServingProgram

from training import records
from training.cli import main
from training.loop import SERVER_KEY_VARIABLE
from training.problems import Level, Wordings, held_out_rows, training_rows, worked_examples, write_rows
from training.tests.pupil import PROBLEMS
from training.weights import Model

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
KEY = "key-of-the-test"
EVALUATED = 4


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, pupil: Model) -> Path:
    """A file of settings: the pupil, the problems that it can do, and others to measure."""
    place = tmp_path_factory.mktemp("settings")
    write_rows(training_rows(Level.ONE_STEP, PROBLEMS, seed=0), place / "rows.jsonl")
    write_rows(held_out_rows(Level.ONE_STEP, EVALUATED, Wordings.TRAINED), place / "held-out.jsonl")
    (place / "examples.json").write_text(json.dumps(worked_examples(Level.ONE_STEP)))
    (place / "small.toml").write_text(f"""
model = "{pupil.folder}"
dataset = "{place / "rows.jsonl"}"
eval_dataset = "{place / "held-out.jsonl"}"
examples = "{place / "examples.json"}"
problems_per_step = {PROBLEMS}
samples = 4
eval_greedy = false
threads = 1
""")
    return place / "small.toml"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, settings: Path) -> Path:
    """A run of one step on a server of its own, then resumed for a second on another one, with a KL term."""
    place = tmp_path_factory.mktemp("run")
    folder = place / "smoke"
    given = ("--config", settings, "--output", folder)
    assert "Report:" in run("--steps", 1, *given)
    before = json.loads((folder / records.EVALUATIONS).read_text())
    options = ("-m", "server:agent_loop", "-p", "0")
    with ServingProgram(place, *options, PYTHONPATH=str(ROOT), **{SERVER_KEY_VARIABLE: KEY}) as server:
        again = ("--resume", folder, "--steps", 2, "--server", f"http://127.0.0.1:{server.wait_until_serving().port}")
        assert "refused all 8 rollouts" in run(*again, key="another-key", exit_code=1)
        run(*again, "--kl", 0.01, key=KEY)
    assert json.loads((folder / records.EVALUATIONS).read_text())["before"] == before["before"]
    return folder


def run(*arguments: object, exit_code: int = 0, key: str = "") -> str:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setenv(SERVER_KEY_VARIABLE, key)
        assert main(list(map(str, arguments))) == exit_code, said.getvalue()
    return said.getvalue()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "training", *map(str, arguments)]


def test_each_step_and_each_rollout_has_its_line(run_folder: Path) -> None:
    steps = list(records.read_lines(run_folder / records.STEPS))
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["rewarded"] == step["rollouts"] == 8 for step in steps)
    assert all(step["outcomes"] == {"COMPLETED": 8} for step in steps)
    trained = [step["train"] for step in steps if step["train"]]
    assert trained
    assert all(stats["kl"] >= 0 for stats in trained)
    assert all(stats["gradient_norm"] > 0 and stats["entropy"] > 0 for stats in trained)
    attempts = list(records.read_lines(run_folder / records.ROLLOUTS))
    # Two steps of 8, and what is measured before and, once more after the resumption, after. 8 with a wrong key.
    completed = [attempt for attempt in attempts if attempt["outcome"] == "COMPLETED"]
    assert len(completed) == 2 * 8 + 3 * EVALUATED
    assert all(attempt["reward"] is not None for attempt in completed)
    refused = [attempt for attempt in attempts if attempt not in completed]
    assert [(attempt["outcome"], attempt["reward"]) for attempt in refused] == [("REFUSED", None)] * 8


def test_the_report_stands_alone_and_shows_both_measures(run_folder: Path) -> None:
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "tool result right" in page
    assert "data:image/png;base64," in page
    assert not re.search(r"<script|src='http|href=", page)
    assert (run_folder / "reward.png").read_bytes().startswith(b"\x89PNG")


def test_the_trained_model_is_served(run_folder: Path) -> None:
    served = command("--serve", run_folder / records.MODEL, "--port", 0)
    server = subprocess.Popen(served, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        base = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
        answer = chat(base, temperature=0, max_tokens=44)
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert answer["usage"]["completion_tokens"] > 0
        refused = httpx.post(base + CHAT, json={"messages": [], "n": 2}, timeout=60)
        assert (refused.status_code, "n:" in refused.text) == (400, True)
    finally:
        server.terminate()
        server.wait(timeout=20)


def chat(base: str, **sampling: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "What is 3 plus 4?"}]
    answer: dict[str, Any] = httpx.post(base + CHAT, json={"messages": messages, **sampling}, timeout=60).json()
    return answer


def test_a_killed_server_costs_no_reward_and_a_run_that_is_told_to_stop_keeps_what_it_has(
    tmp_path: Path, settings: Path
) -> None:
    folder = tmp_path / "stopped"
    # Eight at a time, so that most are still to come when the first has ended.
    given = ("--config", settings, "--output", folder, "--eval-problems", 0, "--samples", 64, "--concurrency", 8)
    with (tmp_path / "said").open("w+") as said:
        training = subprocess.Popen(command(*given), cwd=ROOT, stderr=said)
        try:
            wait_for_lines(training, folder / records.ROLLOUTS, 1)
            os.kill(server_of(folder), signal.SIGKILL)
            wait_for_lines(training, folder / records.STEPS, 1)
            training.send_signal(signal.SIGTERM)
            assert training.wait(120) == 130
        finally:
            training.kill()
        said.seek(0)
        assert "Traceback" not in said.read()
    cut_off = [line for line in records.read_lines(folder / records.ROLLOUTS) if line["outcome"] != "COMPLETED"]
    assert cut_off
    assert all(line["reward"] is None for line in cut_off)
    first = next(records.read_lines(folder / records.STEPS))
    assert first["rewarded"] == first["rollouts"] == PROBLEMS * 64
    assert [kept.name for kept in (folder / records.CHECKPOINTS).glob("checkpoint-*")] == ["checkpoint-1"]
    assert (folder / "report.html").is_file()
    assert not is_up(server_of(folder))


def server_of(folder: Path) -> int:
    pid: int = [line["pid"] for line in records.read_lines(folder / records.SERVER)][-1]
    return pid


def is_up(server: int) -> bool:
    """Whether a rollout server, and not another process since, has this id."""
    command = Path(f"/proc/{server}/cmdline")
    return command.exists() and b"server:agent_loop" in command.read_bytes()


def wait_for_lines(training: "subprocess.Popen[Any]", path: Path, count: int) -> None:
    while sum(1 for _ in records.read_lines(path)) < count:
        assert training.poll() is None
        time.sleep(0.05)


def test_ctrl_c_in_an_evaluation_leaves_no_traceback_and_no_server(tmp_path: Path, pupil: Model) -> None:
    folder = tmp_path / "interrupted"
    given = ("--model", pupil.folder, "--eval-problems", 400, "--concurrency", 8, "--output", folder)
    with (tmp_path / "said").open("w+") as said:
        # A session of its own, so that Ctrl-C reaches the server too, as at a terminal.
        training = subprocess.Popen(command(*given), cwd=ROOT, stdout=said, stderr=said, start_new_session=True)
        try:
            wait_for_lines(training, folder / records.ROLLOUTS, 40)
            os.killpg(training.pid, signal.SIGINT)
            assert training.wait(120) == 130
        finally:
            training.kill()
        said.seek(0)
        lines = said.read().splitlines()
    assert lines[0].startswith("Numbers are ")
    assert any(line.endswith(": 40 of 400") for line in lines)
    assert [line for line in lines if "Traceback" in line or "Error" in line] == []
    assert not is_up(server_of(folder))


def test_the_minutes_hold_within_a_step(tmp_path: Path, settings: Path) -> None:
    # No server runs 4,096 rollouts in three seconds; without the bound it would be done, and be on record.
    short = tmp_path / "short"
    given = ("--config", settings, "--minutes", 0.05, "--samples", 2048, "--eval-problems", 0, "--output", short)
    assert "Step 1 was cut off, and is left out." in run(*given)
    assert not (short / records.STEPS).exists()
    assert (short / "report.html").is_file()


def test_wrong_use_is_one_sentence(run_folder: Path, tmp_path: Path) -> None:
    assert "holds a run already" in run("--output", run_folder, exit_code=2)
    assert "--eval-dataset" in run("--dataset", "rows.jsonl", "--output", tmp_path, exit_code=2)
    assert "--learning-rate" in run("--learning-rate", -1, exit_code=2)
    assert "--callback-url" in run("--server", "http://127.0.0.1:1", "--callback-host", "::", exit_code=2)
    assert "holds no run to resume" in run("--resume", tmp_path, exit_code=2)
