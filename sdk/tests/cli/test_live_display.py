"""test, eval and trainer on a terminal: one display, with the same things in it."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import IO

import pytest
from support.agent_files import PICKY_AGENT
from support.processes import own_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


ROW = {"system_prompt": "s", "user_prompt": "What is 1 + 1?", "ground_truth": "2"}
NOISE = "    async def run(self, ctx):\n        print('to an error file', file=sys.stderr)\n"


def seen_on_a_terminal(
    folder: Path, *arguments: str, errors: IO[bytes] | None = None, variables: dict[str, str] | None = None
) -> str:
    """All that is drawn on a terminal of 120 columns, without what moves the cursor or colours."""
    (folder / "picky_agent.py").write_text(
        "import sys\n" + PICKY_AGENT.replace("    async def run(self, ctx):\n", NOISE)
    )
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in (ROW, {**ROW, "fail": True}, ROW, ROW))
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    options = ("-m", "picky_agent:agent_loop", "-d", "rows.jsonl", "--model", "builtin/arithmetic")
    with subprocess.Popen(
        [sys.executable, "-m", "osmosis_ai", *arguments, *options, "--concurrency", "1"],
        cwd=folder,
        env=own_environment(**{"TERM": "xterm-256color", "COLUMNS": "", **(variables or {})}),
        stdin=theirs,
        stdout=theirs,
        stderr=errors or theirs,
    ) as process:
        os.close(theirs)
        drawn = b""
        try:
            while piece := os.read(ours, 65536):
                drawn += piece
        except OSError:  # Linux: nobody holds the other end any more
            pass
        os.close(ours)
        process.wait()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode(errors="replace"))


def has_bar(drawn: str, unit: str) -> bool:
    """Whether a live line came to its end, with all that it tells."""
    bars = [line for line in re.split(r"[\r\n]+", drawn) if f" {unit}/" in line and "━" in line]
    return any(re.search(r"━ 4/4 .*1 error \(\w+ 1\), mean reward 0\.50, \d+ tokens", bar) for bar in bars)


COMMANDS = pytest.mark.parametrize(("command", "unit"), [("test", "rows"), ("eval", "runs"), ("trainer", "rollouts")])


@COMMANDS
def test_a_bar_the_rate_the_time_left_and_errors_by_kind(tmp_path: Path, command: str, unit: str) -> None:
    drawn = seen_on_a_terminal(tmp_path, command)
    assert has_bar(drawn, unit), drawn


@COMMANDS
def test_errors_that_go_to_a_file_are_in_the_file_and_the_bar_on_the_terminal(
    tmp_path: Path, command: str, unit: str
) -> None:
    with (tmp_path / "errors.txt").open("wb") as errors:
        drawn = seen_on_a_terminal(tmp_path, command, errors=errors)
    assert has_bar(drawn, unit), drawn
    printed = 0 if command == "trainer" else 4  # what a server writes there is for --server-log
    assert (tmp_path / "errors.txt").read_text().count("to an error file") == printed
    assert "to an error file" not in drawn


@COMMANDS
@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_a_terminal_where_no_line_can_change_gets_one_a_run(
    tmp_path: Path, command: str, unit: str, name: str, value: str
) -> None:
    drawn = seen_on_a_terminal(tmp_path, command, variables={name: value})
    assert "[4/4] Row 3: OK" in drawn, drawn
    assert "━" not in drawn
