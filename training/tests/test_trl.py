"""TRL trains the start model through a real server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.processes import ServingProgram

from examples.trl.train import SERVER_KEY_VARIABLE

ROOT = Path(__file__).parents[2]
KEY = "key-of-the-test"


def train(folder: Path, *arguments: object) -> list[dict[str, Any]]:
    """What TRL logs of each step of ``examples/trl``, through a server of its own."""
    variables = {"PYTHONPATH": str(ROOT), SERVER_KEY_VARIABLE: KEY}
    with ServingProgram(folder, "-m", "server:agent_loop", "-p", "0", **variables) as server:
        url = f"http://127.0.0.1:{server.wait_until_serving().port}"
        done = subprocess.run(
            [sys.executable, "-m", "examples.trl.train", "--server", url, "--output", folder, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {SERVER_KEY_VARIABLE: KEY},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Numbers are ")
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_trl_takes_a_step_on_rollouts_of_the_server(tmp_path: Path, model_cache: Path) -> None:
    small = ("--steps", 1, "--problems-per-step", 1, "--samples", 4)
    [step] = train(tmp_path, "--model-cache", model_cache, *small)
    assert step["step"] == 1
    assert 0 <= step["reward"] <= 1
    assert 0 < step["completions/mean_length"] <= 58  # sampled tokens alone
    assert (step["grad_norm"] > 0) is (step["reward_std"] > 0)
