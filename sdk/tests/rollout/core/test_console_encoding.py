"""The console on streams of another encoding than UTF-8."""

import io
import os
import re
import subprocess
import sys
from typing import TextIO

import pytest

from osmosis_ai.rollout.core.console import Console

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def encoded_stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="", write_through=True)


def bytes_of(stream: TextIO) -> bytes:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


class TestEncoding:
    @pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "cp1252"])
    @pytest.mark.parametrize("force_terminal", [True, False])
    def test_a_stream_without_box_characters_gets_ascii_boxes(self, encoding: str, force_terminal: bool) -> None:
        stream = encoded_stream(encoding)
        used = Console(file=stream, force_terminal=force_terminal)
        used.panel("RolloutServer", "Agent: calculator")
        used.separator(width=5)
        used.table([("k", "v")], title="t")
        assert ANSI.sub("", bytes_of(stream).decode("ascii")).splitlines() == [
            "+- RolloutServer -----+",
            "|  Agent: calculator  |",
            "+---------------------+",
            "-----",
            "",
            "t:",
            "  k  v",
        ]

    @pytest.mark.parametrize(
        ("encoding", "text", "expected"),
        [
            ("ascii", "naïve 日", r"na\xefve \u65e5"),
            ("latin-1", "naïve 日", r"naïve \u65e5"),
            ("utf-8", "\ud800", r"\ud800"),
        ],
    )
    @pytest.mark.parametrize("force_terminal", [True, False])
    def test_what_the_stream_lacks_is_spelled_out(
        self, encoding: str, text: str, expected: str, force_terminal: bool
    ) -> None:
        stream = encoded_stream(encoding)
        used = Console(file=stream, force_terminal=force_terminal)
        used.print(text)
        used.separator(text)
        used.panel(text, text)
        used.table([(text, text)], title=text)
        assert ANSI.sub("", bytes_of(stream).decode(encoding)).count(expected) == 7

    def test_a_real_process_with_an_ascii_stdout_prints(self) -> None:
        code = "from osmosis_ai.rollout.core.console import console; console.panel('T', '日本')"
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
        assert done.stdout.splitlines()[1] == rb"|  \u65e5\u672c  |"
