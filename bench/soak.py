"""``python -m bench.soak``: a steady load for a long time. Do memory, CPU and latency stay as they are?

Records of rollouts that have ended are kept for ``--record-ttl`` seconds, the least that can be set by default, so that
what is held for a purpose has reached its level after two minutes.
"""

import argparse
import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.contenders.roster import Contender
from bench.load.generator import Generator
from bench.load.tally import quantile
from bench.machine import describe
from bench.report import machine_list
from bench.serving import API_KEY, Server, ServerError
from bench.table import table

WINDOW_SECONDS = 60.0
WARM_UP_SHARE = 0.1
"""Of the windows, left out of the verdict; two at least."""
WARM_UP_WINDOWS_MIN = 2
TURNS = 2
CHAT_DELAY_SECONDS = 0.02
SOAK_FILE = Path(__file__).with_name("SOAK.md")
_HEADER = (
    "minute", "rollouts", "CPU ms a rollout", "rollout p50 ms", "p99 ms", "added a turn p50 ms", "p99 ms", "RSS MB",
    "journal MB", "errors",
)  # fmt: skip


@dataclass(frozen=True)
class Window:
    """What a minute was like."""

    minute: float
    """Its end."""
    rollouts: int
    cpu_ms: float
    rollout_p50_ms: float
    rollout_p99_ms: float
    turn_p50_ms: float
    turn_p99_ms: float
    rss_mb: float
    journal_mb: float
    errors: Counter[str]

    def row(self) -> list[str]:
        """As text."""
        times = (self.cpu_ms, self.rollout_p50_ms, self.rollout_p99_ms, self.turn_p50_ms, self.turn_p99_ms)
        sizes = (self.rss_mb, self.journal_mb)
        row = [f"{self.minute:g}", f"{self.rollouts}", *(f"{time:.2f}" for time in times)]
        return [*row, *(f"{size:.1f}" for size in sizes), f"{self.errors.total()}"]


@dataclass(frozen=True)
class Limit:
    """How far the median of the last third of the windows may be above that of the first third."""

    name: str
    field: str
    unit: str
    growth_max: float


LIMITS = (
    Limit("memory", "rss_mb", "MB", 0.05),
    Limit("CPU a rollout", "cpu_ms", "ms", 0.15),
    Limit("added latency a turn (p50)", "turn_p50_ms", "ms", 0.25),
    Limit("rollout time (p50)", "rollout_p50_ms", "ms", 0.25),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak; 0 only if everything stayed flat and no rollout erred."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="osmosis-soak-") as folder:
        try:
            windows = uvloop.run(_soak(options, Path(folder)))
        except ServerError as error:
            sys.stderr.write(f"Error: {error}\n")
            return 1
    text, flat = verdict(windows)
    sys.stdout.write(f"\n{text}")
    if options.write:
        head = (
            f"# Soak: {options.minutes:g} minutes at {options.rate:g} rollouts a second\n\n{machine_list(describe())}"
        )
        SOAK_FILE.write_text(f"{head}\n{table(_HEADER, [one.row() for one in windows])}\n{text}", encoding="utf-8")
    return 0 if flat else 1


async def _soak(options: argparse.Namespace, folder: Path) -> list[Window]:
    environment = {
        "OSMOSIS_ROLLOUT_SERVER_RECORD_TTL_SECONDS": f"{options.record_ttl:g}",
        "OSMOSIS_ROLLOUT_SERVER_CLEANUP_INTERVAL_SECONDS": "10",
    }
    windows: list[Window] = []
    rollouts = max(1, round(options.rate * WINDOW_SECONDS))
    sys.stdout.write(f"{'  '.join(_HEADER)}\n")
    async with (
        Server(Contender[options.contender], folder, concurrency=1000, environment=environment) as server,
        Generator(server.port, API_KEY, turns=TURNS, chat_delay_seconds=CHAT_DELAY_SECONDS) as generator,
    ):
        for number in range(max(1, math.ceil(options.minutes * 60 / WINDOW_SECONDS))):
            before = server.usage()
            tally = await generator.run_at_rate(rollouts, options.rate)
            after = server.usage()
            window = Window(
                minute=(number + 1) * WINDOW_SECONDS / 60,
                rollouts=tally.completed,
                cpu_ms=(after.cpu_seconds - before.cpu_seconds) * 1000 / max(1, tally.completed),
                rollout_p50_ms=quantile(tally.rollout_seconds, 0.5) * 1000,
                rollout_p99_ms=quantile(tally.rollout_seconds, 0.99) * 1000,
                turn_p50_ms=quantile(tally.turn_seconds, 0.5) * 1000,
                turn_p99_ms=quantile(tally.turn_seconds, 0.99) * 1000,
                rss_mb=after.rss_bytes / 1e6,
                journal_mb=_journal_bytes(folder) / 1e6,
                errors=tally.errors,
            )
            windows.append(window)
            padded = (cell.rjust(len(name)) for name, cell in zip(_HEADER, window.row(), strict=True))
            sys.stdout.write(f"{'  '.join(padded)}\n")
            sys.stdout.flush()
    return windows


def _journal_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("journal.db*"))


def verdict(windows: Sequence[Window]) -> tuple[str, bool]:
    """The windows' last third against their first, in words, and whether all is flat and right."""
    errors = sum((one.errors for one in windows), Counter[str]())
    lines = [f"ERROR: {times} times {problem}\n" for problem, times in errors.items()]
    left_out = max(WARM_UP_WINDOWS_MIN, round(len(windows) * WARM_UP_SHARE))
    judged = windows[left_out:]
    third = len(judged) // 3
    if not third:
        return "".join([*lines, "Too short for a verdict: it takes five minutes at least.\n"]), not errors
    flat = True
    for limit in LIMITS:
        values = [getattr(one, limit.field) for one in judged]
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        growth = last / first - 1
        slope = statistics.linear_regression([one.minute / 60 for one in judged], values).slope
        is_flat = growth <= limit.growth_max
        flat &= is_flat
        word = "flat" if is_flat else "NOT FLAT"
        lines.append(
            f"- {limit.name}: {word}. {first:.2f} {limit.unit} in the first third, {last:.2f} in the last "
            f"({growth:+.1%}, {limit.growth_max:+.0%} allowed); slope {slope:+.2f} {limit.unit} an hour\n"
        )
    lines.append(f"- errors: {errors.total()} in {sum(one.rollouts for one in windows)} rollouts\n")
    head = f"The first {left_out} minutes are left out.\n\n"
    return head + "".join(lines), flat and not errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Does a server stay as it is?")
    add = parser.add_argument
    add("--minutes", type=float, default=30.0, metavar="N", help="[%(default)s]")
    add("--rate", type=float, default=50.0, metavar="N", help="rollouts a second [%(default)s]")
    add("--record-ttl", type=float, default=60.0, metavar="SECONDS", help="of ended rollouts [%(default)s]")
    names = [contender.name for contender in Contender if contender.is_ours]
    add("--contender", choices=names, default=Contender.OURS.name, help="[%(default)s]")
    add("--write", action="store_true", help=f"write the report to bench/{SOAK_FILE.name}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
