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

import pytest
from support.agent_files import PICKY_AGENT
from support.processes import own_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def seen_on_a_terminal(folder: Path, *arguments: str) -> str:
    """All that is drawn on a terminal of 120 columns, without what moves the cursor or colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "osmosis_ai", *arguments]
    environment = own_environment(TERM="xterm-256color")
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
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


@pytest.mark.parametrize(("command", "unit"), [("test", "rows"), ("eval", "runs"), ("trainer", "rollouts")])
def test_a_bar_the_rate_the_time_left_and_errors_by_kind(tmp_path: Path, command: str, unit: str) -> None:
    (tmp_path / "picky_agent.py").write_text(PICKY_AGENT)
    row = {"system_prompt": "s", "user_prompt": "What is 1 + 1?", "ground_truth": "2"}
    rows = (row, {**row, "fail": True}, row, row)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("-m", "picky_agent:agent_loop", "-d", "rows.jsonl", "--model", "builtin/arithmetic")
    drawn = seen_on_a_terminal(tmp_path, command, *options, "--concurrency", "1")
    bars = [line for line in re.split(r"[\r\n]+", drawn) if f" {unit}/s" in line and "━" in line]
    assert any(re.search(r"━.*4/4 .*\d tokens, 1 error \(\w+ 1\), mean reward 0\.50", bar) for bar in bars), drawn
