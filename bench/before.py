"""``python -m bench.before DIR``: this checkout beside another one, such as that of the commit before a change.

``DIR`` is a copy of the project with an environment in ``.venv`` (``git worktree add DIR COMMIT``, ``uv sync`` there).
Both are measured in rounds that take turns, so that the ratio holds on a machine that is not quiet.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import uvloop

from bench.contenders.roster import PROJECT, Contender
from bench.contest import Cell, Line, contest
from bench.report import cell_name
from bench.table import table

HEADER = ("contender", "CPU ms a rollout", "before", "times", "spread", "p99 times", "peak RSS times", "errors")
COMPARED = [contender for contender in Contender if contender.is_ours]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; 0 only if no rollout erred."""
    parser = argparse.ArgumentParser(prog="python -m bench.before", description="What did a change cost?")
    parser.add_argument("before", type=Path, metavar="DIR", help="the other checkout")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 64, 512], help="[1 64 512]")
    parser.add_argument("--turns", type=int, nargs="+", default=[2], help="calls to the model in a rollout [2]")
    parser.add_argument("--rounds", type=int, default=7, help="of each [7]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a round [1]")
    options = parser.parse_args(arguments)
    before = options.before.resolve()
    if not (before / ".venv" / "bin" / "python").exists():
        parser.error(f"{options.before} has no environment: run `uv sync` there.")
    cells = [Cell(concurrency, turns) for turns in options.turns for concurrency in options.concurrency]
    erred = False
    with tempfile.TemporaryDirectory(prefix="osmosis-bench-") as folder:
        for number, cell in enumerate(cells):
            place, rows = Path(folder, str(number)), []
            for contender in COMPARED:
                work = contest(
                    cell,
                    [contender],
                    place,
                    rounds=options.rounds,
                    seconds=options.seconds,
                    checkouts=(PROJECT, before),
                )
                now, then = uvloop.run(work)
                rows.append(_row(now, then))
                erred = erred or bool(now.errors or then.errors)
            sys.stdout.write(f"\n### {cell_name(cell)}\n\n{table(HEADER, rows)}")
            sys.stdout.flush()
    return int(erred)


def _row(now: Line, then: Line) -> list[str]:
    return [
        now.contender,
        f"{now.median('cpu_ms'):.3f}",
        f"{then.median('cpu_ms'):.3f}",
        f"{now.times(then, 'cpu_ms'):.3f}",
        f"{now.spread('cpu_ms'):.0%}",
        f"{now.times(then, 'rollout_p99_ms'):.2f}",
        f"{now.times(then, 'peak_rss_mb'):.2f}",
        f"{now.errors.total() + then.errors.total()}",
    ]


if __name__ == "__main__":
    sys.exit(main())
