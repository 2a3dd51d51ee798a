"""Where and when a result was measured."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.contenders.roster import PROJECT

_LIBRARIES = ("uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "httpx", "aiohttp")


@dataclass(frozen=True)
class Machine:
    """What a reader needs to judge the numbers."""

    date: str
    commit: str
    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    libraries: dict[str, str]
    load_average: float
    """Of the last minute, before the bench began: what else was going on."""


def describe() -> Machine:
    """This machine, now."""
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_commit(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        memory_gb=psutil.virtual_memory().total / 1e9,
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        libraries={name: version(name) for name in _LIBRARIES},
        load_average=psutil.getloadavg()[0],
    )


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)  # noqa: S603 - named here
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
