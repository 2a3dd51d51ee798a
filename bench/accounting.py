"""What a process and its children use: CPU seconds and memory."""

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Usage:
    """Since the start of the process; all its processes together."""

    cpu_seconds: float
    """User and system time, all threads, finished children included."""
    rss_bytes: int
    peak_rss_bytes: int
    """The highest since the start or the last ``forget_peak``; of several processes, the sum of each one's highest."""
    cpu_seconds_of: dict[int, float]
    """The same by process id."""


def usage(pid: int) -> Usage:
    """What process ``pid`` and its children have used so far; the clock behind it ticks every 10 ms."""
    cpu: dict[int, float] = {}
    rss = peak = 0
    finished = 0.0
    for process in _family(pid):
        with process.oneshot():
            times = process.cpu_times()
            cpu[process.pid] = times.user + times.system
            finished += times.children_user + times.children_system
            memory = process.memory_info()
        rss += memory.rss
        peak += _peak_rss_bytes(process.pid) or memory.rss
    return Usage(sum(cpu.values()) + finished, rss, peak, cpu)


def forget_peak(pid: int) -> None:
    """Let the peak of the memory begin anew (Linux only; elsewhere it is what is used when asked)."""
    for process in _family(pid):
        path = Path(f"/proc/{process.pid}/clear_refs")
        if path.exists():
            path.write_text("5")


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _peak_rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0
