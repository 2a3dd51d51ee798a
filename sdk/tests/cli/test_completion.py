"""Completion in the shell: a real bash asks the program, and the program loads nothing heavy to answer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import own_environment

from osmosis_ai.cli.app import COMMANDS

pytestmark = pytest.mark.slow

HEAVY = ("fastapi", "httpx", "litellm", "pyarrow", "requests", "starlette", "uvicorn")


def answer(line: str, **variables: str) -> list[str]:
    """What the program offers after ``line``, by the protocol that its script speaks with it."""
    words = line.split(" ")
    asked = {"_OSMOSIS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    script = (
        "import sys; from osmosis_ai.cli import main\n"
        "try: main()\n"
        f"finally: assert not set({HEAVY}) & set(sys.modules), sys.modules.keys()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**own_environment(), **asked, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("osmosis tr", ["trainer", "traces"]),
        ("osmosis journal re", ["redeliver"]),
        ("osmosis serve --log-f", ["--log-format"]),
        ("osmosis serve --log-format ", ["text", "json"]),
        ("osmosis trainer --server-k", ["--server-key"]),
        ("osmosis trainer --ap", []),
    ],
)
def test_commands_flags_and_choices_are_offered(line: str, offered: list[str]) -> None:
    assert answer(line) == offered


def test_every_command_is_offered() -> None:
    assert set(answer("osmosis ")) == {*COMMANDS, "journal", "traces"}


@pytest.mark.slow
def test_an_unreadable_dotenv_is_no_reason_to_fail(working_directory: Path) -> None:
    (working_directory / ".env").write_bytes(b"A=\xff")
    assert answer("osmosis tr") == ["trainer", "traces"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="asks a bash")
def test_a_bash_completes_with_the_script_that_is_shown(tmp_path: Path) -> None:
    source = """
        eval "$(_OSMOSIS_COMPLETE=source_bash osmosis)"
        complete -p osmosis
        COMP_WORDS=(osmosis journal re) COMP_CWORD=2
        _osmosis_completion osmosis
        echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "--norc", "-c", source],
        env={**own_environment(), "PATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "complete -o default -F _osmosis_completion osmosis\nredeliver\n", ended.stderr
