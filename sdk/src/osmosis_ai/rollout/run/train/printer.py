"""A report for people: a bounded table and the summary, on a terminal or in a pipe."""

import os
from typing import IO

from rich import box
from rich.console import Console
from rich.text import Text

from osmosis_ai.rollout.core.text import counted, encodable, printable, shortened
from osmosis_ai.rollout.run.fitted_table import Column, fitted_table
from osmosis_ai.rollout.run.formats import format_duration, format_number, format_rate
from osmosis_ai.rollout.run.tally import MAX_ROWS_NAMED, problem_lines, warning_lines
from osmosis_ai.rollout.run.train.rollout_report import ReportLine, RolloutReport
from osmosis_ai.rollout.run.zero_reasons import zero_lines
from osmosis_ai.rollout.trainer.vocabulary import Ending

MAX_TABLE_LINES = 60
COLUMNS_OF_A_PIPE = 160
MAX_COMPONENT_COLUMNS = 4
"""The summary has all parts of the rewards."""

_WORD_COLUMNS = ("Status", "Finish reason", "Rewrote")
_STYLES = {ending.value: "green" if ending is Ending.COMPLETED else "red" for ending in Ending} | {"yes": "yellow"}
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
        shown = _worst(report.lines)
        components = list(report.components)[:MAX_COMPONENT_COLUMNS]
        columns: list[tuple[str, list[str]]] = [("Row", [str(line.row_index) for line in shown])]
        if any(line.repeat for line in report.lines):
            columns.append(("Run", [str(line.repeat) for line in shown]))
        columns += [("Status", [line.status for line in shown]), ("Reward", [_number(line.reward) for line in shown])]
        for name in components:
            columns.append((name, [_number((line.reward_components or {}).get(name)) for line in shown]))
        columns += [
            ("Turns", [str(line.turns) for line in shown]),
            ("Tool calls", [str(line.tool_calls) for line in shown]),
            ("Latency", [format_duration(line.duration_ms) for line in shown]),
            ("Finish reason", [line.finish_reason or "-" for line in shown]),
        ]
        if report.rewritten:
            columns.append(("Rewrote", ["yes" if line.rewritten else "-" for line in shown]))
        fitted = [self._column(name, cells) for name, cells in columns]
        style = {"box": box.SIMPLE_HEAD, "pad_edge": False, "collapse_padding": True}
        self._console.print(fitted_table(self._console, fitted, **style), crop=False)
        if hidden := len(report.lines) - len(shown):
            self.say(f"{hidden} more rollouts, none of them worse, are not shown.")

    def _column(self, name: str, cells: list[str]) -> Column:
        texts = [Text(text := printable(cell, self._encoding), _STYLES.get(text, "")) for cell in cells]
        return Column(printable(name, self._encoding), texts, is_number=name not in _WORD_COLUMNS)

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
        self.say(f"Time: {report.duration_ms / 1000:.2f} s, {format_rate(report.rollouts_per_second, 'rollouts')}")
        told = report.stop_reason and shortened(report.stop_reason)  # by the command, at its end
        for line in problem_lines([problem for problem in report.problems if problem.text != told]):
            self._console.print(encodable(line.removeprefix("  "), self._encoding), soft_wrap=True)
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
