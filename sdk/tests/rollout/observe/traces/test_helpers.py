"""Processes that read for an index: what they read is what it would have, and they end when it does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.processes import own_environment
from support.trace_index import fresh, opened, told
from support.traces import write_random_traces

from osmosis_ai.rollout.observe.traces import helpers
from osmosis_ai.rollout.observe.traces.followed import FollowedFile
from osmosis_ai.rollout.observe.traces.helpers import Helpers
from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.reader import trace_files
from osmosis_ai.rollout.observe.traces.store import Store


class TestHelpers:
    """A folder that is large for these tests, as ``MANY_FILES`` is small."""

    @pytest.fixture(autouse=True)
    def many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.observe.traces.index.MANY_FILES", 200)
        monkeypatch.setattr("osmosis_ai.rollout.observe.traces.helpers.BATCH_FILES", 10)
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
        write_random_traces(tmp_path, 200)

    def test_what_helpers_read_is_what_the_index_reads(self, tmp_path: Path) -> None:
        expected = fresh(tmp_path)
        index = TraceIndex(tmp_path, keep=True)
        helped = 0
        while not helped or index.is_behind:
            index.refresh(0.01)
            helped += index.is_behind and index._helpers is not None
        assert told(index) == expected
        assert index._helpers is None
        assert index.store is not None
        index.keep()
        index.store.close()
        assert len(Store(tmp_path).load()) == 200
        assert told(opened(tmp_path)) == expected

    def test_a_folder_of_which_a_part_is_known_is_told_whole(self, tmp_path: Path) -> None:
        opened(tmp_path)
        write_random_traces(tmp_path / "later", 220)
        assert told(opened(tmp_path)) == fresh(tmp_path)

    @pytest.mark.parametrize(
        "start",
        [
            "raise SystemExit(3)",
            "import sys; sys.stdin.buffer.read(9); print('no')",
            f"print('Welcome to this machine.', flush=True); {helpers.START}",
        ],
    )
    def test_helpers_that_fail_cost_no_rollout(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
    ) -> None:
        monkeypatch.setattr("osmosis_ai.rollout.observe.traces.helpers.START", start)
        assert told(opened(tmp_path)) == fresh(tmp_path)

    def test_a_helper_reads_no_more_rollouts_than_it_can_hold(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = f"from {helpers.__name__} import help_out; help_out.__globals__['MAX_BATCH_ROLLOUTS'] = 3; help_out()"
        monkeypatch.setattr("osmosis_ai.rollout.observe.traces.helpers.START", start)
        asked = Helpers()
        asked.ask([FollowedFile(entry.path) for entry in trace_files(tmp_path)][:10])
        assert [told is not None for _, told in asked.answered(None)] == [True] * 3 + [False] * 7
        asked.close()
        assert told(opened(tmp_path)) == fresh(tmp_path)


def test_a_helper_starts_without_what_it_does_not_need() -> None:
    code = (
        "import sys, osmosis_ai.rollout.observe.traces.helpers\n"
        "print({'asyncio', 'pydantic.main', 'httpx'} & sys.modules.keys())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=own_environment(), capture_output=True, text=True, check=True
    )
    assert told.stdout == "set()\n"


HELPED = """
import os, sys
os.cpu_count = lambda: 3
from osmosis_ai.rollout.observe.traces.helpers import Helpers
helpers = Helpers()
print(*[one.pid for one in helpers._idle], flush=True)
sys.stdin.read()
"""


def has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
def test_helpers_end_with_the_process_of_their_index() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HELPED], env=own_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        helpers = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        assert len(helpers) == 2
        process.kill()
    while not all(map(has_ended, helpers)):
        time.sleep(0.01)
