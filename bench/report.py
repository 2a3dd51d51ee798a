"""The results as Markdown, for the terminal and for ``bench/RESULTS.md``."""

from collections.abc import Iterator
from itertools import groupby

from bench.contenders.roster import Contender
from bench.contest import Cell, Line
from bench.criteria import judge
from bench.machine import Machine
from bench.results import Results
from bench.scenarios import Outcome
from bench.startup import StartUp
from bench.table import table
from bench.workers import WorkersOutcome

_LINE_HEADER = (
    "contender", "CPU ms a rollout", "spread", "times (a)", "(c) is times", "rollouts/s", "rollout p50 ms", "p99 ms",
    "p99 times (b)", "added a turn p50 ms", "p99 ms", "peak RSS MB", "load busy", "errors",
)  # fmt: skip
_OUTCOME_HEADER = (
    "contender", "completed", "seconds", "CPU ms a rollout", "rollout p50 ms", "p99 ms", "/health p50 ms", "p99 ms",
    "max ms", "idle RSS MB", "peak RSS MB", "errors",
)  # fmt: skip
_WORKERS_HEADER = (
    "workers", "rollouts/s", "CPU ms a rollout", "of the busiest process", "rollouts/s, a core each", "load busy",
    "repeated inits", "errors or duplicates",
)  # fmt: skip


def whole(results: Results) -> str:
    """The report of a run that has ended."""
    parts = [_head(results), verdicts(results)]
    if results.lines:
        parts.append("## Rollouts side by side\n")
        parts += [cell_table(list(lines)) for _, lines in groupby(results.lines, key=lambda line: line.cell)]
    if results.outcomes:
        parts.append("## Many in flight\n")
        parts += [outcome_table(list(same)) for _, same in groupby(results.outcomes, key=lambda one: one.scenario)]
    if results.workers:
        parts.append(workers_table(results.workers))
    if results.startup:
        parts.append(startup_table(results.startup))
    return "\n".join(parts)


def verdicts(results: Results) -> str:
    """The targets, and everything that went wrong."""
    rows = [(one.target, one.measured, "met" if one.is_met else "NOT MET") for one in judge(results)]
    text = f"## Targets\n\n{table(('target', 'measured', ''), rows, left_columns=3)}" if rows else ""
    if results.errors:
        text += "\n## ERRORS: the numbers of these runs do not count\n\n"
        text += "".join(f"- {problem}\n" for problem in results.errors)
    return text


def cell_table(lines: list[Line]) -> str:
    """One cell: contenders side by side."""
    by_contender = {line.contender: line for line in lines}
    rows = [_line_row(line, by_contender) for line in lines]
    return f"### {cell_name(lines[0].cell)}\n\n{table(_LINE_HEADER, rows)}"


def cell_name(cell: Cell) -> str:
    """What was measured, in words."""
    parts = [f"{cell.concurrency:,} in flight", f"{cell.turns} {'call' if cell.turns == 1 else 'calls'} to the model"]
    if cell.reply_bytes:
        parts.append(f"replies of {cell.reply_bytes:,} bytes")
    if cell.chat_delay_seconds:
        parts.append(f"a model of {cell.chat_delay_seconds * 1000:g} ms")
    return ", ".join(parts)


def outcome_table(outcomes: list[Outcome]) -> str:
    """One scenario."""
    rows = [
        (
            one.contender,
            f"{one.completed}",
            f"{one.seconds:.1f}",
            f"{one.cpu_ms:.3f}",
            f"{one.rollout_p50_ms:.0f}",
            f"{one.rollout_p99_ms:.0f}",
            f"{one.health_p50_ms:.1f}",
            f"{one.health_p99_ms:.1f}",
            f"{one.health_max_ms:.1f}",
            f"{one.idle_rss_mb:.0f}",
            f"{one.peak_rss_mb:.0f}",
            f"{one.errors.total()}",
        )
        for one in outcomes
    ]
    return f"### {outcomes[0].scenario.name}\n\n{table(_OUTCOME_HEADER, rows)}"


def workers_table(outcomes: list[WorkersOutcome]) -> str:
    """Processes of one server."""
    rows = [
        (
            str(one.workers),
            f"{one.median('per_second'):.0f}",
            f"{one.median('cpu_ms'):.3f}",
            f"{one.median('busiest_cpu_ms'):.3f}",
            f"{one.median('per_second_with_own_cores'):.0f}",
            f"{one.median('load_busy'):.2f}",
            f"{one.repeated_inits}",
            f"{one.errors.total()}",
        )
        for one in outcomes
    ]
    return (
        f"## Workers\n\nAfter the rounds every init was sent twice, at the same time.\n\n{table(_WORKERS_HEADER, rows)}"
    )


def startup_table(starts: list[StartUp]) -> str:
    """Imports, the command line, the first answer."""
    rows = [
        (
            one.what,
            f"{one.best_seconds:.3f}",
            f"{one.median_seconds:.3f}",
            f"{len(one.seconds)}",
            f"{one.rss_mb:.0f}" if one.rss_mb else "",
        )
        for one in starts
    ]
    return f"## Start-up\n\n{table(('what', 'best s', 'median s', 'times', 'idle RSS MB'), rows)}"


def machine_list(machine: Machine) -> str:
    """The machine, a line for each thing."""
    libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    return (
        f"- {machine.date}, commit {machine.commit}\n"
        f"- {machine.cpu}, {machine.cores} cores, {machine.memory_gb:.0f} GB, {machine.system}\n"
        f"- {machine.python}, {libraries}\n"
    )


def _head(results: Results) -> str:
    average = f"{results.machine.load_average:.1f} before and {results.load_average:.1f} at the end"
    return (
        f"# Results of the benchmarks\n\nWritten by `{results.command}` in {results.seconds / 60:.0f} minutes. "
        f"How to read them: [README.md](README.md).\n\n{machine_list(results.machine)}"
        f"- load average {average}; server and load share the cores\n"
    )


def _line_row(line: Line, by_contender: dict[Contender, Line]) -> list[str]:
    def times(other: Contender, name: str, inverse: bool = False) -> Iterator[str]:
        against = by_contender.get(other)
        if against is None or line.contender is other:
            yield ""
        else:
            yield f"{against.times(line, name) if inverse else line.times(against, name):.2f}"

    return [
        line.contender,
        f"{line.median('cpu_ms'):.3f}",
        f"{line.spread('cpu_ms'):.0%}",
        *times(Contender.FLOOR, "cpu_ms"),
        *times(Contender.CLIENT_PER_ROLLOUT, "cpu_ms", inverse=True),
        f"{line.median('per_second'):.0f}",
        f"{line.median('rollout_p50_ms'):.2f}",
        f"{line.median('rollout_p99_ms'):.2f}",
        *times(Contender.FASTAPI, "rollout_p99_ms"),
        f"{line.median('turn_p50_ms'):.3f}",
        f"{line.median('turn_p99_ms'):.2f}",
        f"{max(line.values('peak_rss_mb'), default=float('nan')):.0f}",
        f"{line.median('load_busy'):.2f}",
        f"{line.errors.total()}",
    ]
