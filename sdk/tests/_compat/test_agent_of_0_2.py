"""An agent file that was written for the 0.2 line runs here as it is."""

import json
import subprocess
import sys
from pathlib import Path

from support.processes import own_environment

AGENT = Path(__file__).parents[1] / "fixtures" / "agent_of_0_2"
DATASET = Path(__file__).parents[3] / "test_data.jsonl"


def test_a_trainer_drives_it(tmp_path: Path) -> None:
    environment = own_environment() | {"PYTHONPATH": str(AGENT), "PYTHONWARNINGS": "error::DeprecationWarning:agent"}
    command = [sys.executable, "-m", "osmosis_ai.cli", "trainer", "-m", "agent:agent_loop", "-d", str(DATASET)]
    done = subprocess.run(
        [*command, "--limit", "8", "--log", "logs"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 of 8 completed" in done.stdout
    assert "Mean reward: 1.00" in done.stdout
    traces = list((tmp_path / "logs").rglob("*.jsonl"))
    assert len(traces) == 8
    events = [json.loads(line)["event"] for line in traces[0].read_text(encoding="utf-8").splitlines()]
    assert {"pre_llm", "llm_response", "tool_results", "rollout_complete"} <= set(events)
