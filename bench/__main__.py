"""``python -m bench``: see ``--help``. Loopback only; ends by itself, and with it all that it has started."""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import uvloop

from bench import report, startup, workers
from bench.contenders.roster import Contender
from bench.contest import contest
from bench.machine import describe
from bench.plan import FULL, QUICK, Part, Plan
from bench.results import Results
from bench.scenarios import play
from bench.serving import ServerError
from bench.soak import SOAK_FILE

RESULTS_FILE = Path(__file__).with_name("RESULTS.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 only if no rollout erred."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    options = parser.parse_args(given)
    try:
        plan, parts = _plan(options), [Part(name) for name in options.parts] or list(Part)
    except ValueError as error:
        parser.error(str(error))
    results = Results(describe(), shlex.join(["uv", "run", "python", "-m", "bench", *given]))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="osmosis-bench-") as folder:
        try:
            uvloop.run(_measure(plan, parts, results, Path(folder)))
        except ServerError as error:
            sys.stderr.write(f"Error: {error}\n")
            return 1
    results.seconds, results.load_average = time.monotonic() - started, psutil.getloadavg()[0]
    sys.stdout.write(f"\n{report.verdicts(results)}")
    if options.json is not None:
        options.json.write_text(json.dumps(results.as_dict(), indent=1), encoding="utf-8")
    if options.write:
        soak = f"\nThe soak: [{SOAK_FILE.name}]({SOAK_FILE.name}).\n" if SOAK_FILE.exists() else ""
        RESULTS_FILE.write_text(report.whole(results) + soak, encoding="utf-8")
    return 1 if results.errors else 0


async def _measure(plan: Plan, parts: Sequence[Part], results: Results, folder: Path) -> None:
    if Part.ROLLOUTS in parts:
        for number, cell in enumerate(plan.cells):
            place, contenders = folder / f"cell-{number}", plan.contenders_of(cell)
            lines = await contest(cell, contenders, place, rounds=plan.rounds, seconds=plan.seconds)
            results.lines += lines
            _show(report.cell_table(lines))
    if Part.SCENARIOS in parts:
        for number, scenario in enumerate(plan.scenarios):
            outcomes = await play(scenario, plan.scenario_contenders, folder / f"scenario-{number}")
            results.outcomes += outcomes
            _show(report.outcome_table(outcomes))
    if Part.WORKERS in parts:
        place = folder / "workers"
        results.workers += await workers.compare(place, rollouts=plan.worker_rollouts, rounds=plan.worker_rounds)
        _show(report.workers_table(results.workers))
    if Part.STARTUP in parts:
        results.startup += await startup.measure(folder / "startup", plan.startup_repeats)
        _show(report.startup_table(results.startup))


def _show(text: str) -> None:
    sys.stdout.write(f"\n{text}")
    sys.stdout.flush()


def _plan(options: argparse.Namespace) -> Plan:
    """The full or the quick plan, with what the options change.

    Raises:
        ValueError: an option names something unknown.
    """
    plan = QUICK if options.quick else FULL
    if options.concurrency or options.turns:
        concurrencies = _numbers("--concurrency", options.concurrency) or [64]
        turns = _numbers("--turns", options.turns) or [2]
        cells = [
            replace(plan.cells[0], concurrency=in_flight, turns=length)
            for length in turns
            for in_flight in concurrencies
        ]
        plan = replace(plan, cells=cells)
    if options.only:
        contenders = tuple(_contender(name) for name in options.only.split(","))
        plan = replace(plan, contenders=contenders, scenario_contenders=contenders)
    changes = {"rounds": options.rounds, "seconds": options.seconds}
    return replace(plan, **{name: value for name, value in changes.items() if value is not None})


def _contender(name: str) -> Contender:
    known = {contender.name.lower().replace("_", "-"): contender for contender in Contender}
    if name not in known:
        raise ValueError(f"argument --only: {name!r} is none of {', '.join(known)}")
    return known[name]


def _numbers(option: str, text: str | None) -> list[int]:
    numbers = text.split(",") if text else []
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise ValueError(f"argument {option}: {text!r} is no list of numbers above 0, such as 1,64")
    return [int(number) for number in numbers]


def _above_zero(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What does a rollout cost?")
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(Part)} [all]")
    add("--quick", action="store_true", help="two-call rollouts and a few scenarios, in about two minutes")
    add("--only", metavar="NAMES", help="contenders, such as ours,floor,fastapi,client-per-rollout")
    add("--concurrency", metavar="NUMBERS", help="rollouts in flight, such as 1,64 [64, if --turns is given]")
    add(
        "--turns",
        metavar="NUMBERS",
        help="calls to the model, such as 1,3 [2, if --concurrency is given]",
    )
    add("--rounds", type=_above_zero(int), metavar="N", help=f"of each contender in a cell [{FULL.rounds}]")
    add(
        "--seconds",
        type=_above_zero(float),
        metavar="N",
        help=f"of a round [{FULL.seconds:g}; --quick: {QUICK.seconds:g}]",
    )
    add("--json", type=Path, metavar="FILE", help="write all numbers to a file")
    add("--write", action="store_true", help=f"write the report to bench/{RESULTS_FILE.name}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
