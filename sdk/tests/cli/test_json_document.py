"""With `--json` there is one JSON document on standard output, whatever happens."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.cli import main

AGENT = ("-m", "user_agent:agent_loop")
SCRIPT = ("--model", "builtin/arithmetic")
ROW = json.dumps({"user_prompt": "What is 1 + 1?", "ground_truth": "2"}) + "\n"

PRINTING_AGENT = """
import os
from osmosis_ai.rollout import RolloutAgentLoop

print("imported")

class Loop(RolloutAgentLoop):
    name = "printing"

    def get_tools(self, request):
        return []

    async def run(self, ctx):
        print("ran")
        os.write(1, b"and wrote\\n")
        reply = await ctx.chat(list(ctx.request.messages))
        return ctx.complete([*ctx.request.messages, reply.message], reward=1.0)

agent_loop = Loop()
"""


def document(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, Any, str]:
    """The exit code, the only document on standard output, and standard error."""
    capsys.readouterr()
    try:
        code = main(list(command))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    told = capsys.readouterr()
    return code, json.loads(told.out), told.err


@pytest.mark.parametrize(
    ("command", "exit_code", "word"),
    [
        (["test", *AGENT, "-d", "none.jsonl", *SCRIPT], 2, "none.jsonl"),
        (["test", *AGENT, "-d", "bad.jsonl", *SCRIPT], 1, "bad.jsonl"),
        (["eval", *AGENT, "-d", "bad.jsonl", *SCRIPT], 1, "bad.jsonl"),
        (["trainer", *AGENT, "-d", "bad.jsonl", *SCRIPT], 1, "bad.jsonl"),
        (["test", "-m", "nowhere:agent", "-d", "rows.jsonl", *SCRIPT], 1, "nowhere"),
        (["trainer", *AGENT, "-d", "rows.jsonl", "--model", "builtin/none"], 2, "builtin/none"),
        pytest.param(
            ["test", *AGENT, "-d", "rows.jsonl", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"],
            1,
            "127.0.0.1:9",
            marks=pytest.mark.slow,
        ),
        (["test", *AGENT], 2, "--dataset"),
        (["eval", *AGENT, "-d", "rows.jsonl", "--limit", "0"], 2, "--limit"),
        (["eval", "compare", "a.json", "b.json"], 2, "a.json"),
        (["rescore", "none", "-m", "a:b"], 2, "none"),
        (["validate", "-m", "nowhere:agent"], 1, "nowhere"),
        (["journal", "list", "--journal", "none.db"], 2, "none.db"),
    ],
)
def test_a_command_that_fails_before_its_first_run_has_a_document(
    user_agent: str,
    working_directory: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    exit_code: int,
    word: str,
) -> None:
    (working_directory / "bad.jsonl").write_text("{\n")
    (working_directory / "rows.jsonl").write_text(ROW)
    code, found, errors = document(capsys, *command, "--json")
    assert code == found["exit_code"] == exit_code
    assert word in found["error"]
    assert word in errors


def test_a_setting_that_cannot_be_used_is_in_the_document(
    working_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (working_directory / ".env").write_bytes(b"\xff\xfe")
    code, found, _ = document(capsys, "test", *AGENT, "-d", "rows.jsonl", "--json")
    assert (code, found["exit_code"]) == (code, code)
    assert ".env" in found["error"]
    (working_directory / ".env").unlink()
    monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_MAX_CONCURRENT_ROLLOUTS", "abc")
    code, found, _ = document(capsys, "test", *AGENT, "-d", "rows.jsonl", "--json")
    assert (code, found["exit_code"]) == (2, 2)
    assert "MAX_CONCURRENT_ROLLOUTS" in found["error"]


@pytest.mark.parametrize("command", ["test", "eval"])
def test_what_an_agent_prints_is_not_in_the_document(
    working_directory: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (working_directory / "printing_agent.py").write_text(PRINTING_AGENT)
    (working_directory / "rows.jsonl").write_text(ROW)
    options = ("-m", "printing_agent:agent_loop", "-d", "rows.jsonl", *SCRIPT)
    code, found, errors = document(capsys, command, *options, "--json")
    assert (code, found["summary"]["total" if command == "test" else "total_runs"]) == (0, 1)
    assert "imported\nran\n" in errors


@pytest.mark.slow
def test_what_is_written_past_python_is_not_in_the_document(working_directory: Path) -> None:
    (working_directory / "printing_agent.py").write_text(PRINTING_AGENT)
    (working_directory / "rows.jsonl").write_text(ROW)
    options = ["-m", "printing_agent:agent_loop", "-d", "rows.jsonl", *SCRIPT, "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "osmosis_ai.cli", "test", *options], capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout)["summary"]["total"] == 1
    assert "and wrote" in ended.stderr


def test_a_crash_has_a_document_too(
    working_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("osmosis_ai.rollout.run.test.options.Options.check", crash)
    capsys.readouterr()
    with pytest.raises(ZeroDivisionError):
        main(["test", *AGENT, "-d", "rows.jsonl", "--json"])
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1
