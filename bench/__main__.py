"""``python -m bench``: see ``--help``. Loopback only; ends by itself, and with it all that it has started."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench.contenders.roster import Contender
from bench.contest import Cell, Line, contest
from bench.table import table

HEADER = (
    "contender", "CPU ms/rollout", "x floor", "rollouts/s", "rollout p50 ms", "p99 ms",
    "added ms/turn p50", "p99 ", "peak RSS MB", "load busy", "errors",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 1 if a rollout erred."""
    options = _parser().parse_args(arguments)
    contenders = [Contender[name.upper().replace("-", "_")] for name in options.only.split(",")]
    bad = False
    for concurrency in map(int, options.concurrency.split(",")):
        for turns in map(int, options.turns.split(",")):
            cell = Cell(concurrency, turns)
            with tempfile.TemporaryDirectory(prefix="osmosis-bench-") as folder:
                lines = uvloop.run(
                    contest(cell, contenders, Path(folder), rounds=options.rounds, seconds=options.seconds)
                )
            sys.stdout.write(f"\nConcurrency {concurrency}, {turns} calls to the model\n\n{_table(lines)}")
            for line in lines:
                for problem, times in line.errors.items():
                    sys.stdout.write(f"ERROR {line.contender}: {times} times {problem}\n")
            sys.stdout.flush()
            bad |= any(line.errors for line in lines)
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What does a rollout cost?")
    add = parser.add_argument
    add("--concurrency", default="64", help="rollouts in flight [%(default)s]")
    add("--turns", default="2", help="calls to the model in a rollout [%(default)s]")
    add("--only", default="ours,floor,fastapi,client-per-rollout", help="contenders [%(default)s]")
    add("--rounds", type=int, default=3, help="[%(default)s]")
    add("--seconds", type=float, default=2.0, help="of a round [%(default)s]")
    return parser


def _table(lines: list[Line]) -> str:
    floor = [line.median("cpu_ms") for line in lines if line.contender is Contender.FLOOR]
    rows = []
    for line in lines:
        cpu_ms = line.median("cpu_ms")
        row = [line.contender, f"{cpu_ms:.3f}", f"{cpu_ms / floor[0]:.2f}" if floor else "-"]
        row += [f"{line.median('per_second'):.0f}"]
        times = ("rollout_p50_ms", "rollout_p99_ms", "turn_p50_ms", "turn_p99_ms")
        row += [f"{line.median(name):.2f}" for name in times]
        row += [f"{line.median('peak_rss_mb'):.0f}", f"{line.median('load_busy'):.2f}", str(line.errors.total())]
        rows.append(row)
    return table(HEADER, rows)


if __name__ == "__main__":
    sys.exit(main())
