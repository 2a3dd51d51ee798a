import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.scrapes import Scrape

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.observe.exposition import FOLDER_VARIABLE, worker_metrics

WORKER = """
import sys
from osmosis_ai.rollout.observe.metrics import MetricsObserver
from osmosis_ai.rollout.core.watch import Accepted, ToolOutcome
observer = MetricsObserver("agent", slots=3)
watch = observer.accepted(Accepted("r", "http://trainer", [{"type": "function", "function": {"name": "add"}}]))
watch.enters("running")
watch.tool_ends(watch.tool_begins("add", "call"), ToolOutcome.OK)
observer.loop_lag(0.125 * float(sys.argv[1]))
print(observer.render("")[0].decode(), flush=True)
sys.stdin.read()
"""


class Worker:
    """A process that counts one running rollout, and tells what it sees."""

    def __init__(self, number: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("process_open_fds"):
            lines.append(self._process.stdout.readline())
        self.scrape = Scrape("".join(lines))

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.slow
def test_a_worker_tells_of_all() -> None:
    with worker_metrics():
        one, other = Worker(1), Worker(2)
        try:
            assert one.scrape("osmosis_rollouts", state="running") == 1
            assert other.scrape("osmosis_rollouts", state="running") == 2
            assert other.scrape("osmosis_rollout_slots") == 6
            assert other.scrape("osmosis_inits_accepted_total") == 2
            assert other.scrape("osmosis_tool_latency_seconds_count", tool="add", outcome="ok") == 2
            assert other.scrape("osmosis_event_loop_lag_max_seconds") == 0.25
            assert other.scrape("osmosis_build_info", agent="agent", version=PACKAGE_VERSION) == 1
        finally:
            one.end()
            other.end()


@pytest.mark.slow
def test_one_that_ended_leaves_its_counts_and_nothing_else() -> None:
    with worker_metrics() as metrics:
        one = Worker(1)
        one.end()
        metrics.ended(one.pid)
        other = Worker(0)
        other.end()
    assert other.scrape("osmosis_inits_accepted_total") == 2
    assert other.scrape("osmosis_rollouts", state="running") == 1
    assert other.scrape("osmosis_rollout_slots") == 3
    assert other.scrape("osmosis_event_loop_lag_max_seconds") == 0


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_the_folder_and_the_variable_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(FOLDER_VARIABLE, before)
    with worker_metrics():
        folder = Path(os.environ[FOLDER_VARIABLE])
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    assert os.environ.get(FOLDER_VARIABLE) == before


def test_the_parent_needs_no_library() -> None:
    code = (
        "import sys\nfrom osmosis_ai.rollout.observe.exposition import worker_metrics\n"
        "with worker_metrics() as m: m.ended(1)\nassert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
