"""The whole path as a user runs it: two steps, an end, a resumption, the report, and the trained model served."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes import ServingProgram

from training import records
from training.loop import SERVER_KEY_VARIABLE

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
KEY = "key-of-the-test"
SETTINGS = """
problems_per_step = 2
samples = 4
eval_problems = 4
eval_greedy = false
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Path:
    """A run of one step on a server of its own, then resumed for a second on another one, with a KL term."""
    place = tmp_path_factory.mktemp("run")
    (place / "small.toml").write_text(SETTINGS)
    folder = place / "smoke"
    given = ("--config", str(place / "small.toml"), "--output", str(folder), "--model-cache", str(model_cache))
    assert "Report:" in run("--steps", "1", *given)
    before = json.loads((folder / records.EVALUATIONS).read_text())
    options = ("-m", "server:agent_loop", "-p", "0")
    with ServingProgram(place, *options, PYTHONPATH=str(ROOT), **{SERVER_KEY_VARIABLE: KEY}) as server:
        url = f"http://127.0.0.1:{server.wait_until_serving().port}"
        refused = run("--resume", str(folder), "--steps", "2", "--server", url, key="another-key", exit_code=1)
        assert "refused all 8 rollouts" in refused
        run("--resume", str(folder), "--steps", "2", "--kl", "0.01", "--server", url, key=KEY)
    assert json.loads((folder / records.EVALUATIONS).read_text())["before"] == before["before"]
    return folder


def run(*arguments: str, exit_code: int = 0, key: str = "") -> str:
    command = [sys.executable, "-m", "training", *arguments]
    environment = os.environ | ({SERVER_KEY_VARIABLE: key} if key else {})
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == exit_code, done.stderr
    return done.stdout + done.stderr


def test_each_step_and_each_rollout_has_its_line(run_folder: Path) -> None:
    steps = list(records.read_lines(run_folder / records.STEPS))
    assert [step["step"] for step in steps] == [1, 2]
    assert all(step["rewarded"] == step["rollouts"] == 8 for step in steps)
    assert all(step["outcomes"] == {"COMPLETED": 8} for step in steps)
    trained = [step["train"] for step in steps if step["train"]]
    assert all(stats["kl"] >= 0 for stats in trained)
    assert all(stats["gradient_norm"] > 0 and stats["entropy"] > 0 for stats in trained)
    attempts = list(records.read_lines(run_folder / records.ROLLOUTS))
    # Two steps of 8, and two sets of 4 measured before and, once more after the resumption, after. 8 with a wrong key.
    completed = [attempt for attempt in attempts if attempt["outcome"] == "COMPLETED"]
    assert len(completed) == 2 * 8 + 3 * 2 * 4
    assert all(attempt["reward"] is not None for attempt in completed)
    refused = [attempt for attempt in attempts if attempt not in completed]
    assert [(attempt["outcome"], attempt["reward"]) for attempt in refused] == [("REFUSED", None)] * 8


def test_the_report_stands_alone_and_shows_both_measures(run_folder: Path) -> None:
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "tool result right" in page
    assert "data:image/png;base64," in page
    assert not re.search(r"<script|src='http|href=", page)
    assert (run_folder / "reward.png").read_bytes().startswith(b"\x89PNG")


def test_the_trained_model_is_served(run_folder: Path, model_cache: Path) -> None:
    served = ("--serve", str(run_folder / records.MODEL), "--port", "0", "--model-cache", str(model_cache))
    server = subprocess.Popen([sys.executable, "-m", "training", *served], cwd=ROOT, stderr=subprocess.PIPE, text=True)
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
    tmp_path: Path, model_cache: Path
) -> None:
    (tmp_path / "small.toml").write_text(SETTINGS)
    folder = tmp_path / "stopped"
    given = ("--config", str(tmp_path / "small.toml"), "--output", str(folder), "--model-cache", str(model_cache))
    command = [sys.executable, "-m", "training", "--eval-problems", "0", *given]
    with (tmp_path / "said").open("w+") as said:
        training = subprocess.Popen(command, cwd=ROOT, stderr=said)
        try:
            wait_for_lines(training, folder / records.ROLLOUTS, 1)  # one of eight has ended, so others are in flight
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
    assert first["rewarded"] == first["rollouts"] == 8
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


def test_ctrl_c_in_an_evaluation_leaves_no_traceback_and_no_server(tmp_path: Path, model_cache: Path) -> None:
    folder = tmp_path / "interrupted"
    given = ("--eval-problems", "40", "--output", str(folder), "--model-cache", str(model_cache))
    with (tmp_path / "said").open("w+") as said:
        # A session of its own, so that Ctrl-C reaches the server too, as at a terminal.
        training = subprocess.Popen(
            [sys.executable, "-m", "training", *given], cwd=ROOT, stdout=said, stderr=said, start_new_session=True
        )
        try:
            wait_for_lines(training, folder / records.ROLLOUTS, 4)
            os.killpg(training.pid, signal.SIGINT)
            assert training.wait(120) == 130
        finally:
            training.kill()
        said.seek(0)
        lines = said.read().splitlines()
    assert lines[0].startswith("Numbers are ")
    assert any(line.endswith(": 4 of 40") for line in lines)
    assert [line for line in lines if "Traceback" in line or "Error" in line] == []
    assert not is_up(server_of(folder))


def test_the_minutes_hold_within_a_step(tmp_path: Path, model_cache: Path) -> None:
    # A step of 512 rollouts takes minutes on any two cores; without the bound it would be done, and be on record.
    given = ("--minutes", "0.1", "--problems-per-step", "64", "--eval-problems", "0", "--model-cache", str(model_cache))
    said = run(*given, "--output", str(tmp_path / "short"))
    assert "Step 1 was cut off, and is left out." in said
    assert not (tmp_path / "short" / records.STEPS).exists()
    assert (tmp_path / "short" / "report.html").is_file()


def test_wrong_use_is_one_sentence(run_folder: Path, tmp_path: Path) -> None:
    assert "holds a run already" in run("--output", str(run_folder), exit_code=2)
    assert "--eval-dataset" in run("--dataset", "rows.jsonl", "--output", str(tmp_path), exit_code=2)
    assert "--learning-rate" in run("--learning-rate", "-1", exit_code=2)
    assert "--callback-url" in run("--server", "http://127.0.0.1:1", "--callback-host", "::", exit_code=2)
    assert "holds no run to resume" in run("--resume", str(tmp_path), exit_code=2)
