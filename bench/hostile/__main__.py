"""``python -m bench.hostile``: does a server stay small and prompt, whatever callers and trainers send? Loopback only.

Each attack is on a server that has just started, from a process of its own. ``/health`` is asked on a new connection
each time; one without an answer counts as long as it was waited for.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from bench.accounting import usage
from bench.faults.server import PROJECT, Server, python_of
from bench.hostile.attacks import CALLERS, CONTROL, LOOPBACK, OWED, OWED_RESULTS, TRAINERS
from bench.load.tally import quantile
from bench.serving import free_port, health_status
from bench.table import table
from osmosis_ai.rollout.journal import Acceptance, SqliteJournal

PEAK_MEMORY_BYTES = 300_000_000
HEALTH_P99_SECONDS = 0.25
HEALTH_INTERVAL_SECONDS = 0.02
HEALTH_TIMEOUT_SECONDS = 10.0
OWED_BYTES = 5_000_000
OWED_LIMITS = "-v 1000000"
"""Of ``ulimit``: 1 GB."""
OWED_SECONDS_MAX = 120.0


@dataclass(frozen=True)
class Outcome:
    """What an attack did to the server."""

    name: str
    seen: Counter[str]
    idle_bytes: int
    peak_bytes: int
    health_seconds: "array[float]"

    @property
    def problems(self) -> list[str]:
        """What is above its limit, or was not refused."""
        found = []
        if self.peak_bytes > PEAK_MEMORY_BYTES:
            found.append("memory")
        if quantile(self.health_seconds, 0.99) > HEALTH_P99_SECONDS:
            found.append("/health")
        if self.name in CALLERS and (self.seen["200"] or self.seen["202"]):
            found.append("accepted")
        if self.name == OWED and self.seen["delivered"] < OWED_RESULTS:
            found.append("not delivered")
        return found

    def row(self) -> list[str]:
        """As text."""
        p50, p99 = (quantile(self.health_seconds, share) * 1000 for share in (0.5, 0.99))
        sizes = [f"{size / 1e6:.0f}" for size in (self.idle_bytes, self.peak_bytes)]
        seen = ", ".join(f"{count} {what}" for what, count in self.seen.most_common())
        return [self.name, ", ".join(self.problems) or "ok", *sizes, f"{p50:.1f}", f"{p99:.1f}", seen]


HEADER = ("attack", "verdict", "RSS before MB", "peak RSS MB", "/health p50 ms", "p99 ms", "what it got")


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack; 0 only if the server held out against each."""
    names = [CONTROL, *CALLERS, *TRAINERS, OWED]
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description="Does a server hold out?")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="N", help="of each attack [%(default)s]")
    parser.add_argument("--only", choices=names, nargs="+", default=names, metavar="NAME", help="; ".join(names))
    parser.add_argument("--checkout", type=Path, default=PROJECT, metavar="DIR", help="attack the SDK of another one")
    options = parser.parse_args(arguments)
    outcomes = []
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="osmosis-hostile-") as folder:
            outcomes.append(asyncio.run(_attack(name, options.seconds, Path(folder), python_of(options.checkout))))
        sys.stderr.write(f"{'  '.join(outcomes[-1].row())}\n")
    sys.stdout.write(table(HEADER, [outcome.row() for outcome in outcomes], left_columns=2))
    return 1 if any(outcome.problems for outcome in outcomes) else 0


async def _attack(name: str, seconds: float, folder: Path, python: str) -> Outcome:
    key, trainer_port, journal = token_hex(), free_port(), folder / "journal.db"
    server = Server(journal, folder / "server.log", key, python=python)
    if name == OWED:
        await _owe(journal, f"http://{LOOPBACK}:{trainer_port}")
        seconds = OWED_SECONDS_MAX
    try:
        await server.start(OWED_LIMITS if name == OWED else "-c 0")
        idle = usage(server.pid)
        attacker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.hostile.attacks", name, "--port", str(server.port), "--key", key),
            *("--trainer-port", str(trainer_port), "--seconds", str(seconds)),
            cwd=PROJECT,
            stdout=asyncio.subprocess.PIPE,
        )
        health: array[float] = array("d")
        polling = asyncio.create_task(_poll(server.port, health))
        try:
            output, _ = await attacker.communicate()
        finally:
            polling.cancel()
        return Outcome(name, Counter(json.loads(output)), idle.rss_bytes, usage(server.pid).peak_rss_bytes, health)
    finally:
        await server.kill()


async def _poll(port: int, seconds: "array[float]") -> None:
    while True:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_SECONDS):
                answered = await health_status(port) == 200
        except TimeoutError:
            answered = False
        except asyncio.CancelledError:  # the attack is over before there was an answer
            seconds.append(time.perf_counter() - started)
            raise
        seconds.append(time.perf_counter() - started if answered else HEALTH_TIMEOUT_SECONDS)
        await asyncio.sleep(HEALTH_INTERVAL_SECONDS)


async def _owe(path: Path, trainer_url: str) -> None:
    """A journal of results that no trainer has taken."""
    text = "x" * OWED_BYTES
    async with SqliteJournal(path) as journal:
        for number in range(OWED_RESULTS):
            rollout_id, key = f"rollout-{number}", f"id:rollout-{number}"
            await journal.accept(Acceptance(key, rollout_id, "", trainer_url, None, b"{}", b'{"messages": []}'))
            result = {
                "rollout_id": rollout_id,
                "status": "COMPLETED",
                "final_messages": [{"role": "user", "content": text}],
                "finish_reason": "stop",
                "extra_fields": {"outcome": "success"},
            }
            await journal.finish(key, json.dumps(result).encode())


if __name__ == "__main__":
    sys.exit(main())
