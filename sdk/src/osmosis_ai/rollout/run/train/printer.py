"""A report for people: a bounded table and the summary, on a terminal or in a pipe."""

import os
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from osmosis_ai.rollout.core.text import counted, printable, shortened
from osmosis_ai.rollout.run.formats import format_number
from osmosis_ai.rollout.run.tally import MAX_ROWS_NAMED, warning_lines
from osmosis_ai.rollout.run.train.rollout_report import ReportLine, RolloutReport
from osmosis_ai.rollout.run.zero_reasons import zero_lines
from osmosis_ai.rollout.trainer.vocabulary import Ending

MAX_TABLE_LINES = 60
COLUMNS_OF_A_PIPE = 160
MAX_COMPONENT_COLUMNS = 4
"""The summary has all parts of the rewards."""

_WORDS = {
    Ending.ERROR: "error",
    Ending.REFUSED: "refused",
    Ending.TIMED_OUT: "timed out",
    Ending.LOST: "lost",
    Ending.CANCELLED: "cancelled",
}


class ReportPrinter:
    """Writes to ``stream``; every text from the wire is made safe for it."""

    def __init__(self, stream: IO[str]) -> None:
        # Rich takes 80 columns where nobody says: too few for a table with rewards in parts.
        width = None if stream.isatty() or os.environ.get("COLUMNS") else COLUMNS_OF_A_PIPE
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, width=width)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(printable(text, self._encoding), soft_wrap=True)

    def print_table(self, report: RolloutReport) -> None:
        """At most ``MAX_TABLE_LINES`` rollouts, those that went worst first chosen, in the order of the dataset."""
        repeats = [("Run", True)] if any(line.repeat for line in report.lines) else []
        components = list(report.components)[:MAX_COMPONENT_COLUMNS]
        names = ("Reward", *(printable(name, self._encoding) for name in components), "Turns", "Tool calls", "Latency")
        numbers = [(name, True) for name in names]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name, is_number in [("Row", True), *repeats, ("Status", False), *numbers, ("Finish reason", False)]:
            table.add_column(name, justify="right" if is_number else "left", no_wrap=name == "Status")
        if report.rewritten:
            table.add_column("Rewrote")
        shown = _worst(report.lines)
        for line in shown:
            cells: list[Text | str] = [
                str(line.row_index),
                *([str(line.repeat)] if repeats else []),
                Text(line.status, "green" if line.status == Ending.COMPLETED.value else "red"),
                _number(line.reward),
                *(_number((line.reward_components or {}).get(name)) for name in components),
                str(line.turns),
                str(line.tool_calls),
                _duration(line.duration_ms),
                printable(line.finish_reason or "-", self._encoding),
                *([Text("yes" if line.rewritten else "-", "yellow")] if report.rewritten else []),
            ]
            table.add_row(*cells)
        self._console.print(table)
        if hidden := len(report.lines) - len(shown):
            self.say(f"{hidden} more rollouts, none of them worse, are not shown.")

    def print_summary(self, report: RolloutReport) -> None:
        """Totals, failures by kind, and what the protocol does not allow."""
        ended = [f"{report.completed} of {report.planned} completed"]
        ended += [f"{report.counts[outcome]} {word}" for outcome, word in _WORDS.items() if report.counts[outcome]]
        if missing := report.planned - report.ended:
            ended.append(f"{missing} not finished")
        self.say(f"Rollouts: {', '.join(ended)}")
        if report.mean_reward is None:
            self.say("Mean reward: none (no completed rollout has a reward)")
        else:
            self.say(f"Mean reward: {format_number(report.mean_reward)} (over {counted(report.rewarded, 'rollout')})")
        if report.zeros:
            self.say(f"Scored 0 or less: {report.zeros}")
            for text in zero_lines(report.zero_reasons, report.zeros):
                self._console.print(f"    {text}", soft_wrap=True)
        for text in report.components.lines():
            self._console.print(f"    {printable(text, self._encoding)}", soft_wrap=True)
        groups, flat = report.flat_groups()
        if groups:
            named = ", ".join(map(str, flat[:MAX_ROWS_NAMED])) + (", ..." if len(flat) > MAX_ROWS_NAMED else "")
            rows = f" ({'rows' if len(flat) > 1 else 'row'} {named})" if flat else ""
            self.say(f"Groups: {groups}, of which {len(flat)} without signal: all samples earn the same{rows}")
        self.say(f"Time: {report.duration_ms / 1000:.2f} s, {report.rollouts_per_second:.1f} rollouts/s")
        told = report.stop_reason and shortened(report.stop_reason)  # by the command, at its end
        for problem in (problem for problem in report.problems if problem.text != told):
            row = "rows" if len(problem.rows) > 1 else "row"
            self.say(f"{problem.count} x {problem.kind}: {problem.text} ({row} {problem.named_rows})")
            for line in problem.told:
                self._console.print(f"    {printable(line, self._encoding)}", soft_wrap=True)
        for count, what in (
            (report.contradictions, "contradicted an earlier result of its rollout and was refused"),
            (report.late_results, "came after the trainer had given up on its rollout"),
        ):
            if count:
                self.say(f"Warning: {count} x a terminal callback {what}.")
        for text in warning_lines(report):
            self.say(text)


def _worst(lines: list[ReportLine]) -> list[ReportLine]:
    def badness(line: ReportLine) -> tuple[bool, float, int, int]:
        completed = line.status == Ending.COMPLETED.value
        return completed, line.reward if line.reward is not None else 0.0, line.row_index, line.repeat

    return sorted(sorted(lines, key=badness)[:MAX_TABLE_LINES], key=lambda line: (line.row_index, line.repeat))


def _number(value: float | None) -> str:
    return "-" if value is None else format_number(value)


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.1f} s"
