"""How long it takes until something happens: imports, the command line, a server's first answer."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.contenders.roster import PROJECT, Contender
from bench.serving import Server

_TIMED = "import time; started = time.perf_counter(); {statement}; print(time.perf_counter() - started)"
_STATEMENTS = (
    "import osmosis_ai",
    "import osmosis_ai.rollout",
    "from osmosis_ai.rollout import RolloutAgentLoop, RolloutContext, create_app",
)


@dataclass(frozen=True)
class StartUp:
    """One thing that was started several times."""

    what: str
    seconds: list[float]
    rss_mb: float | None = None
    """Of a server that has answered /health and nothing else."""

    @property
    def best_seconds(self) -> float:
        return min(self.seconds)

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)


async def measure(folder: Path, repeats: int) -> list[StartUp]:
    """Start each thing ``repeats`` times, after once to fill the caches."""
    imports = [StartUp(statement, _repeated(partial(_import_seconds, statement), repeats)) for statement in _STATEMENTS]
    nothing = [sys.executable, "-c", "pass"]
    osmosis = str(Path(sys.executable).with_name("osmosis"))
    commands = [
        StartUp("python -c pass, to compare", _repeated(partial(_seconds, nothing), repeats)),
        StartUp("osmosis --help", _repeated(partial(_seconds, [osmosis, "--help"]), repeats)),
    ]
    servers = [await _serve(contender, folder, repeats) for contender in (Contender.OURS, Contender.EXAMPLE)]
    return [*imports, *commands, *servers]


def _repeated(measure_once: Callable[[], float], repeats: int) -> list[float]:
    measure_once()
    return [measure_once() for _ in range(repeats)]


def _import_seconds(statement: str) -> float:
    return float(_output([sys.executable, "-c", _TIMED.format(statement=statement)]))


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    _output(command)
    return time.perf_counter() - started


def _output(command: list[str]) -> str:
    return subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ours


async def _serve(contender: Contender, folder: Path, repeats: int) -> StartUp:
    seconds, rss_mb = [], 0.0
    for number in range(repeats):
        async with Server(contender, folder / f"{contender.name}-{number}") as server:
            seconds.append(server.seconds_to_ready)
            rss_mb = server.usage().rss_bytes / 1e6
    return StartUp(f"osmosis serve to the first 200 of /health: {contender}", seconds, rss_mb)
