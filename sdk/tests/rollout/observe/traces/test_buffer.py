"""Buffered traces: when lines can be read, what a crash costs, and that nothing waits for a disk."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from osmosis_ai.rollout.core.files import open_regular
from osmosis_ai.rollout.core.trace import file as file_module
from osmosis_ai.rollout.observe.traces import buffer as buffer_module
from osmosis_ai.rollout.observe.traces.buffer import BufferedTrace, trace_buffer


def events_in(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def wait_for_events(path: str, count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if Path(path).exists() and len(events := events_in(path)) >= count:
            return events
        time.sleep(0.01)
    raise AssertionError(f"{path} has fewer than {count} events")


class HangingDisk:
    """Opening a file whose name begins with ``hangs`` waits until the disk works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.works = threading.Event()
        monkeypatch.setattr(file_module, "open_regular", self.open)

    def open(self, path: str, flags: int) -> int:
        if Path(path).name.startswith("hangs"):
            assert self.works.wait(60)
        return open_regular(path, flags)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingDisk]:
    disk = HangingDisk(monkeypatch)
    yield disk
    disk.works.set()


class TestWhenLinesCanBeRead:
    def test_by_themselves_after_a_moment(self, tmp_path: Path) -> None:
        trace = BufferedTrace(str(tmp_path / "a" / "b"), "r")
        for turn in range(3):
            trace.write("pre_llm", {"turn": turn})
        assert [event["turn"] for event in wait_for_events(trace.path, 3)] == [0, 1, 2]

    async def test_at_once_when_somebody_waits_for_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(buffer_module, "FLUSH_SECONDS", 3600.0)
        traces = [BufferedTrace(str(tmp_path), f"r{number}") for number in range(20)]
        for turn in range(5):
            for trace in traces:
                trace.write("pre_llm", {"turn": turn})
        await asyncio.gather(*(trace.flushed() for trace in traces[:10]))
        assert all([event["turn"] for event in events_in(trace.path)] == [0, 1, 2, 3, 4] for trace in traces[:10])
        assert not set(os.listdir(tmp_path)) & {f"{trace.rollout_id}.jsonl" for trace in traces[10:]}  # noqa: PTH208 - a Path is refused in async code
        trace_buffer().flush()
        assert all(len(events_in(trace.path)) == 5 for trace in traces)

    async def test_waiting_for_nothing_takes_no_time(self, tmp_path: Path) -> None:
        trace = BufferedTrace(str(tmp_path), "r")
        await trace.flushed()
        trace.write("pre_llm", {})
        await trace.flushed()
        await trace.flushed()
        assert len(events_in(trace.path)) == 1

    async def test_threads_and_waiters_keep_the_order(self, tmp_path: Path) -> None:
        trace = BufferedTrace(str(tmp_path), "r")

        def work(number: int) -> None:
            for turn in range(200):
                trace.write("tool_results", {"number": number, "turn": turn})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            await trace.flushed()
        await trace.flushed()
        events = events_in(trace.path)
        for number in range(4):
            assert [event["turn"] for event in events if event["number"] == number] == list(range(200))

    @pytest.mark.slow
    def test_at_the_end_of_the_process(self, tmp_path: Path) -> None:
        code = f"""
from osmosis_ai.rollout.observe.traces import buffer
buffer.FLUSH_SECONDS = 3600.0
buffer.BufferedTrace({str(tmp_path)!r}, "r").write("pre_llm", {{"turn": 1}})
"""
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        assert [event["turn"] for event in events_in(tmp_path / "r.jsonl")] == [1]

    def test_a_kill_costs_at_most_the_last_second(self, tmp_path: Path) -> None:
        code = f"""
import time
from osmosis_ai.rollout.observe.traces.buffer import BufferedTrace
trace = BufferedTrace({str(tmp_path)!r}, "r")
number = 0
while True:
    trace.write("tick", {{"number": number, "at": time.time()}})
    number += 1
    time.sleep(0.005)
"""
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            wait_for_events(str(tmp_path / "r.jsonl"), 200)
            killed_at = time.time()
            process.send_signal(signal.SIGKILL)
        lines = (tmp_path / "r.jsonl").read_bytes().split(b"\n")
        events = [json.loads(line) for line in lines[:-1]]
        assert [event["number"] for event in events] == list(range(len(events)))
        assert killed_at - events[-1]["at"] < 1.0


class TestNothingIsHarmed:
    def test_a_directory_that_cannot_be_made_is_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").touch()
        bad, good = BufferedTrace(str(tmp_path / "file" / "x"), "r"), BufferedTrace(str(tmp_path), "r")
        bad.write("pre_llm", {})
        good.write("pre_llm", {})
        trace_buffer().flush()
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert len(events_in(good.path)) == 1

    def test_a_symbolic_link_is_not_followed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "precious").write_text("untouched")
        (tmp_path / "r.jsonl").symlink_to(tmp_path / "precious")
        BufferedTrace(str(tmp_path), "r").write("pre_llm", {})
        trace_buffer().flush()
        assert (tmp_path / "precious").read_text() == "untouched"
        assert len(caplog.records) == 1

    @pytest.mark.parametrize("rollout_id", ["../x", "/etc/passwd", "..", "a\0b", "x" * 300, "\ud800"])
    def test_an_id_decides_no_path(self, tmp_path: Path, rollout_id: str) -> None:
        directory = tmp_path / "outer" / "traces"
        BufferedTrace(str(directory), rollout_id).write("pre_llm", {})
        trace_buffer().flush()
        assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [directory]

    async def test_a_disk_that_hangs_holds_nobody_up_for_long(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, disk: HangingDisk
    ) -> None:
        monkeypatch.setattr(buffer_module, "PATIENCE_SECONDS", 0.05)
        trace = BufferedTrace(str(tmp_path), "hangs")
        trace.write("pre_llm", {"turn": 1})
        await trace.flushed()
        assert "not on disk" in caplog.text
        disk.works.set()
        assert wait_for_events(trace.path, 1)[0]["turn"] == 1

    def test_what_the_disk_does_not_take_is_bounded_and_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: HangingDisk
    ) -> None:
        lacks: list[str] = []
        hanging, trace = BufferedTrace(str(tmp_path), "hangs"), BufferedTrace(str(tmp_path), "r", lacks.append)
        hanging.write("pre_llm", {})
        hanging.hurry()
        monkeypatch.setattr(buffer_module, "MAX_PENDING_BYTES", 10_000)
        for turn in range(1000):
            trace.write("pre_llm", {"turn": turn, "text": "x" * 100})
        disk.works.set()
        trace_buffer().flush()
        trace.write("pre_llm", {"turn": 1000})
        trace_buffer().flush()
        events = events_in(trace.path)
        lost = next(event["count"] for event in events if event["event"] == "events_lost")
        assert len(events) - 1 + lost == 1001
        assert lost > 900
        assert events[-1]["turn"] == 1000
        assert lacks == ["dropped"]

    def test_no_file_stays_open(self, tmp_path: Path) -> None:
        for number in range(10):
            BufferedTrace(str(tmp_path), f"r{number}").write("pre_llm", {})
        trace_buffer().flush()
        files = {(path.stat().st_dev, path.stat().st_ino) for path in tmp_path.iterdir()}
        for descriptor in Path("/dev/fd").iterdir():
            with contextlib.suppress(OSError):
                status = os.fstat(int(descriptor.name))
                assert (status.st_dev, status.st_ino) not in files
