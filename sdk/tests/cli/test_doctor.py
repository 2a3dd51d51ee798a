"""``osmosis doctor`` as a user meets it: what it prints, its exit codes, and that it is done in three seconds."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.processes import own_environment
from support.trainer_peer import TrainerPeer

from osmosis_ai.cli import main
from osmosis_ai.rollout.tooling.doctor.examination import CHECKS

Captured = pytest.CaptureFixture[str]

KEY = "Zq3v_8Lr-1sT6wXb9yNd2kQe"
PATIENT = ("--timeout", "20")
# A script for the model, so that no provider's key is asked for.
HEALTHY = ("-p", "0", "--local", "--log", "logs", "--model", "builtin/arithmetic", *PATIENT)


@pytest.fixture(autouse=True)
def _environment(working_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "ROLLOUT_DEBUG_DIR"):
        monkeypatch.delenv(name, raising=False)
    # The command beside this Python is the one that is found.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))


def diagnose(capsys: Captured, *arguments: str) -> tuple[int, dict[str, Any]]:
    exit_code = main(["doctor", "--json", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    return exit_code, {check.pop("id"): check for check in document["checks"]}


def test_all_is_well(user_agent: str, capsys: Captured, working_directory: Path) -> None:
    (working_directory / "rows.jsonl").write_text('{"question": "1 + 1", "answer": "2"}')
    before = sorted(working_directory.iterdir())
    arguments = [*HEALTHY, "-m", user_agent, "-d", "rows.jsonl"]
    with TrainerPeer(key=KEY) as trainer:
        exit_code, checks = diagnose(capsys, *arguments, "--trainer", trainer.url, "--trainer-key", KEY)
    assert {name: check for name, check in checks.items() if check["status"] != "ok"} == {}
    assert list(checks) == [check.id for check in CHECKS]
    assert exit_code == 0
    assert sorted(path for path in working_directory.iterdir() if path.name != "__pycache__") == before


@pytest.mark.slow
def test_a_problem_is_a_line_with_its_fix_below_and_exit_code_1(user_agent: str, capsys: Captured) -> None:
    assert main(["doctor", *HEALTHY, "-m", "user_agent:agent_lop", "--journal", "/proc/journal.db"]) == 1
    lines = capsys.readouterr().out.splitlines()
    [number] = [number for number, line in enumerate(lines) if line.startswith("problem      agent-loop ")]
    assert "has no attribute 'agent_lop'" in lines[number]
    assert lines[number + 1].lstrip().startswith("Fix: Name an instance")
    assert any(line.startswith("not checked  trainer-url, ") and "--trainer URL" in line for line in lines)
    assert lines[-1].startswith("2 problems, 0 warnings, ")


@pytest.mark.slow
def test_a_warning_is_no_failure(user_agent: str, capsys: Captured) -> None:
    assert main(["doctor", *HEALTHY, "-m", user_agent, "--journal", "off"]) == 0
    assert "\nwarning      journal " in capsys.readouterr().out


@pytest.mark.slow
def test_several_misconfigurations_at_once(
    working_directory: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (working_directory / ".env").write_bytes(b"OSMOSIS=\xff")
    (working_directory / "broken.py").write_text("import no_such_package\n")
    (working_directory / "logs").touch()
    monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_APIKEY", "x")
    monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS", "-1")
    with TrainerPeer(get=404, key="another") as trainer:
        exit_code, checks = diagnose(
            capsys,
            *("-m", "broken:agent_loop", "--local", "--host", "192.0.2.7", "--journal", "logs/journal.db"),
            *("--log", "logs", "--trainer", trainer.url, "--model", "openai/", *PATIENT),
        )
    problems = {name for name, check in checks.items() if check["status"] == "problem"}
    assert exit_code == 1
    assert problems == {
        *("dotenv", "settings", "variables", "key", "host", "agent-import", "trainer-paths", "journal", "traces"),
        "model-key",
    }
    for name in problems:
        assert checks[name]["message"]
        assert checks[name]["fix"]


def test_a_dotenv_that_cannot_be_read_stops_other_commands_only(working_directory: Path, capsys: Captured) -> None:
    (working_directory / ".env").write_bytes(b"OSMOSIS=\xff")
    assert main(["--version"]) == 1
    assert "cannot be read" in capsys.readouterr().err
    _, checks = diagnose(capsys, *PATIENT)
    assert checks["dotenv"]["status"] == "problem"


@pytest.mark.slow
@pytest.mark.parametrize("agent", [["-m", "quick:agent_loop"], ["-m", "slow:agent_loop", "--timeout", "1"]], ids=str)
def test_it_is_done_in_three_seconds_though_nothing_answers(working_directory: Path, agent: list[str]) -> None:
    """An agent that hangs is given longer, unless a time is named."""
    (working_directory / "quick.py").touch()
    (working_directory / "slow.py").write_text("import time\ntime.sleep(600)\n")
    arguments = [*agent, "--trainer", "http://192.0.2.7:8000", "--trainer-key", KEY, "-p", "0"]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "osmosis_ai", "doctor", *arguments],
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    seconds = time.monotonic() - started
    # Where other tests have the cores, there may be no time left to find the trainer silent.
    assert done.returncode in (0, 1), done.stderr
    assert "trainer-reachable" in done.stdout
    assert KEY not in done.stdout
    # By itself it takes less than 3 s; other tests use the cores meanwhile.
    assert seconds < 30


@pytest.mark.parametrize("arguments", [["-m", "x:y", "--mcp", "tools"], ["-p", "70000"], ["--timeout", "0"]])
def test_a_command_line_that_contradicts_itself_exits_2(arguments: list[str], capsys: Captured) -> None:
    try:
        code: Any = main(["doctor", *arguments])
    except SystemExit as exited:
        code = exited.code
    assert code == 2
    assert "Error: " in capsys.readouterr().err
