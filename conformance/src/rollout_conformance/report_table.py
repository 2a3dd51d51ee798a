"""A report for people. Lines are wrapped where a terminal shows them, and nowhere else: what is piped is searched.

A failure has its consequences under it. Texts that came from the server are made printable.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from rich.console import Console
from rich.text import Text

from rollout_conformance.coverage import coverage
from rollout_conformance.lateness import LATE_SECONDS
from rollout_conformance.text import printable
from rollout_conformance.usual_causes import cause_of
from rollout_conformance.vocabulary import Check, Report, Result, Status

PROTOCOL = "docs/protocol.md"
LEAST_TEXT_WIDTH = 30
_STYLES = {
    "pass": "green",
    "FAIL": "bold red",
    "warn": "yellow",
    "skip": "dim",
    "not exercised": "yellow",
    "known": "yellow",
    "BROKEN": "bold red",
}
_WORDS = {
    Status.PASSED: "pass",
    Status.FAILED: "FAIL",
    Status.SKIPPED: "skip",
    Status.NOT_EXERCISED: "not exercised",
    Status.BROKEN: "BROKEN",
}


def word_of(result: Result, report: Report) -> str:
    """How a result is shown: ``pass``, ``FAIL``, ``warn``, ``skip``, ``not exercised``, ``known`` or ``BROKEN``."""
    if result in report.known_failures:
        return "known"
    if result.is_warning and not report.strict:
        return "warn"
    return _WORDS[result.status]


class TablePrinter:
    """Writes to ``stream``: every check, or (``quiet``) only those that did not pass, and a summary."""

    def __init__(self, stream: IO[str], *, quiet: bool = False) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._quiet = quiet

    def print_report(self, report: Report) -> None:
        """The table, then one line that sums up."""
        shown = [one for one in report.results if not self._quiet or one.status is not Status.PASSED]
        shown = [one for one in shown if not one.cause]
        self._print_rows(
            ("check", "level", "", "section", "what holds, or why not"),
            ((self._cells(one, report), tuple(self._details(one, report))) for one in shown),
        )
        for line in (summary(report), str(coverage(report.results)), *notes(report)):
            self._console.print(Text(printable(line, self._encoding)), soft_wrap=True)

    def print_catalogue(self, checks: Sequence[Check]) -> None:
        """What there is to check."""
        rows = (((one.id, str(one.level), one.section, printable(one.summary, self._encoding)), ()) for one in checks)
        self._print_rows(("check", "level", "section", "what holds"), rows)

    def _cells(self, result: Result, report: Report) -> tuple[str, ...]:
        check = result.check
        text = printable(result.reason or check.summary, self._encoding)
        return check.id, str(check.level), word_of(result, report), check.section, text

    def _details(self, result: Result, report: Report) -> Iterator[str]:
        if result.status is not Status.FAILED:
            return
        told = {
            "promised": f"{result.check.summary} ({', '.join(result.check.sentences)})",
            "sent": result.sent,
            "seen": result.seen,
            "usually": cause_of(result),
        }
        yield from (f"{name}: {printable(text, self._encoding)}" for name, text in told.items() if text)
        following = [one for one in report.results if one.cause == result.check.id]
        for one in following:
            why = printable(one.reason, self._encoding)
            yield f"so too: {one.check.id} ({one.check.level}, {word_of(one, report)}): {why}"

    def _print_rows(self, heads: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
        every = [(heads, ()), *rows]
        if len(every) == 1:
            return
        widths = [max(len(cells[column]) for cells, _ in every) + 2 for column in range(len(heads) - 1)]
        indent = " " * sum(widths)
        for cells, details in every:
            line = Text()
            for cell, width in zip(cells[:-1], widths, strict=True):
                line.append(cell.ljust(width), _STYLES.get(cell, ""))
            for text in (cells[-1], *details):
                for part in self._wrapped(text, len(indent)):
                    line.append(part)
                    line.rstrip()
                    self._console.print(line, soft_wrap=True)
                    line = Text(indent if text is cells[-1] else indent + "  ")
                line = Text(f"{indent}  ")

    def _wrapped(self, text: str, indent: int) -> list[str]:
        if not self._console.is_terminal:
            return [text]
        width = max(LEAST_TEXT_WIDTH, self._console.width - indent - 2)
        return textwrap.wrap(text, width, break_long_words=True) or [""]


def summary(report: Report) -> str:
    """One line."""
    failed = [one for one in report.failures if one.status is not Status.NOT_EXERCISED]
    roots = {one.cause or one.check.id for one in failed}
    words = Counter(word_of(one, report) for one in report.results)
    counts = {
        "passed": words["pass"],
        "warnings": words["warn"],
        "known": words["known"],
        "not exercised": words["not exercised"],
        "skipped": words["skip"],
    }
    causes = f" of {len(roots)} cause{'s' * (len(roots) > 1)}" if len(roots) < len(failed) else ""
    parts = [f"{counts.pop('passed')} passed", f"{len(failed)} failed{causes}"]
    parts += [f"{count} {name}" for name, count in counts.items() if count]
    return (
        f"{report.server_url} {_verdict(report)}: {', '.join(parts)}, in {report.seconds:.1f} s "
        f"with {report.rollouts} rollouts. Sections are those of {PROTOCOL}."
    )


def _verdict(report: Report) -> str:
    if report.conforms:
        return "conforms"
    if report.is_success:
        return "is no worse than its baseline"
    if all(one.status is Status.NOT_EXERCISED for one in report.failures):
        return "is not known to conform" if report.failures else "was not tried"
    return "does not conform"


def notes(report: Report) -> Iterator[str]:
    """What may be done, a sentence each; and what the server said at its end."""
    if report.mended:
        yield f"Passed, though the baseline expects a failure; take it out: {', '.join(report.mended)}."
    if report.agent_failure and not report.conforms:
        yield (
            f"The agent itself failed ({report.agent_failure}): if it needs metadata or messages of its own, give"
            " --init FILE; if it needs replies of its own, --policy MODULE:ATTR."
        )
    if report.late_seconds >= LATE_SECONDS and not report.conforms:
        yield (
            f"This machine was busy: the kit itself was up to {report.late_seconds:.1f} s late. What came late, or not"
            " at all, may have done so too: run it again on an idle one."
        )
    yield from report.server_output
