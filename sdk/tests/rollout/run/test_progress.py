import io
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
    for part in ("2/4", " rollouts/s", "1,200 tokens", "1 error (timeout 1)", "mean reward 0.50", " left"):
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
    assert "0.2 rollouts/s" in stream.getvalue()
    assert "0:10 left" in stream.getvalue()
