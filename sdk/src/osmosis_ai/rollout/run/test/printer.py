"""A batch for people: a line a run as it ends, and the summary."""

from collections.abc import Iterator

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.text import fitted, printable
from osmosis_ai.rollout.run.formats import format_duration, format_tokens
from osmosis_ai.rollout.run.results.results_file import Record
from osmosis_ai.rollout.run.tally import Problem
from osmosis_ai.rollout.run.test.batch_report import SOLVED_REWARD, BatchReport, RunVerdict, verdict_of

MAX_ERROR_CHARACTERS = 50
MAX_PROBLEMS_SHOWN = 10

_STYLES = {RunVerdict.PASSED: "green", RunVerdict.SCORED_ZERO: "yellow", RunVerdict.FAILED: "red"}


class BatchPrinter:
    """Prints on ``console``; text from the model, the agent or the dataset is made safe for it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str = "", style: str | None = None) -> None:
        """One line, taken literally."""
        self._console.print(self._console.escape(text), style=style, highlight=False, soft_wrap=True)

    def print_run(self, record: Record, ended: int, planned: int, repeats: int) -> None:
        """``[<i>/<n>] Row <index>: <verdict> (<duration>, <tokens> tokens)`` and what else there is to tell."""
        console = self._console
        verdict = verdict_of(record)
        which = f"Row {record['row_index']}" + (f" #{record['repeat'] + 1}" if repeats > 1 else "")
        tokens = format_tokens(record["token_usage"].get("total_tokens", 0))
        line = "".join(
            (
                console.escape(f"[{ended}/{planned}] {which}: "),
                console.format_styled(verdict.value, _STYLES[verdict]),
                console.escape(f" ({format_duration(record['duration_ms'])}, {tokens} tokens){_details(record)}"),
            )
        )
        console.print(line, highlight=False, soft_wrap=True)

    def print_summary(self, report: BatchReport) -> None:
        """Totals, reward, cost and the failures by kind."""
        self.say()
        self.say("Summary:", "bold")
        counts = report.counts
        missing = report.planned - report.ended
        self._total("Total", f"{report.ended}" + (f" of {report.planned}" if missing else ""))
        self._total("Passed", str(counts[RunVerdict.PASSED]), "green" if counts[RunVerdict.PASSED] else None)
        if counts[RunVerdict.SCORED_ZERO]:
            self._total("Scored 0", str(counts[RunVerdict.SCORED_ZERO]), "yellow")
        self._total("Failed", str(counts[RunVerdict.FAILED]), "red" if counts[RunVerdict.FAILED] else None)
        if report.mean_reward is not None:
            self._total("Mean reward", f"{report.mean_reward:.2f} (over {_count(report.rewarded, 'run')})")
            self._total("Solved", f"{report.solved} of {report.rewarded} (reward {SOLVED_REWARD:g} or more)")
        self._total("Duration", format_duration(report.duration_ms))
        self._total("Total tokens", format_tokens(report.total_tokens))
        if report.cost_usd is not None:
            self._total("Cost", f"${report.cost_usd:.4f}")
        if report.rate_limit_waits:
            self._total("Rate limits", f"{_count(report.rate_limit_waits, 'call')} had to wait")
        for line in _problem_lines(report.problems):
            self.say(line)
        if report.stop_reason is not None:
            reason = printable(report.stop_reason)
            self.say(f"  Stopped early due to systemic provider error. Reason: {reason}", "red")

    def _total(self, name: str, value: str, style: str | None = None) -> None:
        self.say(f"  {name}: {value}", style)


def _details(record: Record) -> str:
    if not record["success"]:
        return f" - {fitted(printable(record['error']), MAX_ERROR_CHARACTERS)}" if record["error"] else ""
    details = [] if record["reward"] is None else [f"reward {record['reward']:.2f}"]
    details += [_count(record["turns"], "turn"), _count(record["tool_calls"], "tool call")]
    return " " + ", ".join(details)


def _problem_lines(problems: list[Problem]) -> Iterator[str]:
    if problems:
        yield "  Errors by kind:"
    for problem in problems[:MAX_PROBLEMS_SHOWN]:
        yield f"    {problem.count} x {printable(problem.kind)}: {problem.text} (row {problem.named_rows})"
    if len(problems) > MAX_PROBLEMS_SHOWN:
        yield f"    and {len(problems) - MAX_PROBLEMS_SHOWN} more kinds"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
