import io
import re
import time

import pytest
from rich.console import Console

from osmosis_ai.rollout.run.progress import RunProgress
from osmosis_ai.rollout.run.tally import Tally


def tally_of(ended: int, resumed: int = 0) -> Tally:
    tally = Tally(planned=4)
    tally.ended, tally.resumed, tally.total_tokens = ended, resumed, 1200
    tally.count_reward(0.5)
    return tally


def test_a_terminal_sees_how_many_how_fast_and_how_good() -> None:
    stream = io.StringIO()
    tally = tally_of(1, resumed=1)
    with RunProgress(tally, Console(file=stream, force_terminal=True, width=120), "rollouts") as progress:
        tally.ended = 2
        tally.count_problem("timeout", "the agent took longer than 5 s", 3)
        progress.advance()
    for part in ("2/4", " rollouts/", "1,200 tokens", "1 error (timeout 1)", "mean reward 0.50", " left"):
        assert part in stream.getvalue()


def test_without_a_terminal_nothing_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    with RunProgress(tally_of(1), None) as progress:
        progress.advance()
    assert capfd.readouterr() == ("", "")


def test_the_rate_counts_from_when_runs_could_begin() -> None:
    stream = io.StringIO()
    tally = tally_of(0)
    with RunProgress(tally, Console(file=stream, force_terminal=True, width=120), "rollouts") as progress:
        tally.started_seconds = time.monotonic() - 10.0
        tally.ended = 2
        progress.advance()
    assert re.search(r"1[12]\.\d rollouts/min, 0:1\d left", stream.getvalue())


@pytest.mark.parametrize("width", [30, 40, 80])
def test_however_narrow_a_terminal_nothing_is_cut(width: int) -> None:
    stream = io.StringIO()
    tally = tally_of(0)
    tally.count_problem("time limit", "No result within 5 s.", 3)
    terminal = Console(file=stream, force_terminal=True, width=width)
    with RunProgress(tally, terminal, "rollouts") as progress:
        tally.started_seconds = time.monotonic() - 1.0
        tally.ended = 2
        progress.advance()
        before = len(stream.getvalue())
        terminal.print("[2/4] Row 1: OK", soft_wrap=True, markup=False)
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()[before:])
    told = r"2/4 [\d.]+ rollouts/\w+, [\d:]+ left, 1 error \(time limit 1\), mean reward 0\.50, 1,200 tokens"
    assert re.search(f"━{{10}}─{{10}} {told}", " ".join(drawn.split()))
    assert max(map(len, drawn.splitlines())) < width


def test_while_nothing_ends_the_line_says_so() -> None:
    stream = io.StringIO()
    tally = tally_of(0)
    with RunProgress(tally, Console(file=stream, force_terminal=True, width=120), "rollouts"):
        tally.started_seconds = time.monotonic() - 70.0
    assert re.search(r"0/4 1:1\d so far", stream.getvalue())
    with RunProgress(tally, Console(file=stream, force_terminal=True, width=120), "rollouts") as progress:
        tally.ended = 2
        progress.advance()
        tally.started_seconds = time.monotonic() - 600.0
    assert re.search(r"0\.2 rollouts/min, 10:0\d left", stream.getvalue())
