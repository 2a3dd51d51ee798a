"""A report as a table for people, as JSON, and as JUnit XML. Texts that came from the server are made printable."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import IO, Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rollout_conformance.coverage import coverage
from rollout_conformance.text import printable
from rollout_conformance.vocabulary import Check, Report, Result, Status

SUITE = "osmosis-conformance"
PROTOCOL = "docs/protocol.md"
JSON_VERSION = 1
_STYLES = {"pass": "green", "FAIL": "bold red", "warn": "yellow", "skip": "dim", "BROKEN": "bold red"}


def word_of(result: Result, *, strict: bool) -> str:
    """How a result is shown: ``pass``, ``FAIL``, ``warn``, ``skip`` or ``BROKEN``."""
    if result.is_warning and not strict:
        return "warn"
    words = {Status.PASSED: "pass", Status.FAILED: "FAIL", Status.SKIPPED: "skip", Status.BROKEN: "BROKEN"}
    return words[result.status]


class TablePrinter:
    """Writes to ``stream``: every check, or (``quiet``) only those that did not pass, and a summary."""

    def __init__(self, stream: IO[str], *, quiet: bool = False) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._quiet = quiet

    def print_report(self, report: Report) -> None:
        """The table, then one line that sums up."""
        shown = [result for result in report.results if not self._quiet or result.status is not Status.PASSED]
        if shown:
            self._console.print(self._table(shown, report.strict))
        self._console.print(Text(summary(report)), soft_wrap=True)
        self._console.print(Text(str(coverage(report.results))), soft_wrap=True)
        if report.agent_failure and not report.is_success:
            failure = printable(report.agent_failure, self._encoding)
            note = (
                f"The agent itself failed ({failure}): if it needs metadata or messages of its own, give --init FILE."
            )
            self._console.print(Text(note), soft_wrap=True)

    def _table(self, results: Iterable[Result], strict: bool) -> Table:
        table = _plain_table("check", "level", "", "what holds, or why not", "section")
        for result in results:
            word = word_of(result, strict=strict)
            text = printable(result.reason or result.check.summary, self._encoding)
            check = result.check
            table.add_row(check.id, str(check.level), Text(word, _STYLES[word]), Text(text), check.section)
        return table

    def print_catalogue(self, checks: Sequence[Check]) -> None:
        """What there is to check."""
        table = _plain_table("check", "level", "what holds", "section")
        for check in checks:
            table.add_row(check.id, str(check.level), Text(printable(check.summary, self._encoding)), check.section)
        self._console.print(table)


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for name in columns:
        is_text = name.startswith("what")
        table.add_column(name, no_wrap=not is_text, overflow="fold", ratio=1 if is_text else None)
    return table


def summary(report: Report) -> str:
    """One line."""
    warnings = 0 if report.strict else sum(result.is_warning for result in report.results)
    parts = [f"{report.count(Status.PASSED)} passed", f"{len(report.failures)} failed"]
    parts += [f"{warnings} warnings"] if warnings else []
    parts += [f"{skipped} skipped"] if (skipped := report.count(Status.SKIPPED)) else []
    verdict = "conforms" if report.is_success else "does not conform" if report.failures else "was not tried"
    return (
        f"{report.server_url} {verdict}: {', '.join(parts)}, in {report.seconds:.1f} s "
        f"with {report.rollouts} rollouts. Sections are those of {PROTOCOL}."
    )


def to_json(report: Report) -> str:
    """The report as one JSON object; keys are only ever added within a ``version``."""
    results = [
        {
            "id": result.check.id,
            "level": str(result.check.level),
            "status": str(result.status),
            "section": result.check.section,
            "sentences": list(result.check.sentences),
            "summary": result.check.summary,
            "reason": printable(result.reason) or None,
            "seconds": round(result.seconds, 3),
        }
        for result in report.results
    ]
    document: dict[str, Any] = {
        "version": JSON_VERSION,
        "server_url": report.server_url,
        "conforms": report.is_success,
        "strict": report.strict,
        "seconds": round(report.seconds, 3),
        "rollouts": report.rollouts,
        "counts": {str(status): report.count(status) for status in Status},
        "sentences": asdict(coverage(report.results)),
        "results": results,
    }
    return json.dumps(document, indent=2)


def to_junit(report: Report) -> bytes:
    """The report as JUnit XML: a suite, a case for each check; a warning is a case that was skipped."""
    failed = sum(result in report.failures and result.status is Status.FAILED for result in report.results)
    broken = report.count(Status.BROKEN)
    skipped = len(report.results) - failed - broken - report.count(Status.PASSED)
    counts = {
        "tests": str(len(report.results)),
        "failures": str(failed),
        "errors": str(broken),
        "skipped": str(skipped),
    }
    root = ElementTree.Element("testsuites", {"name": SUITE, **counts, "time": f"{report.seconds:.3f}"})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": SUITE, **counts, "time": f"{report.seconds:.3f}", "hostname": report.server_url}
    )
    for result in report.results:
        _add_case(suite, result, strict=report.strict)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _add_case(suite: ElementTree.Element, result: Result, *, strict: bool) -> None:
    check = result.check
    names = {"classname": f"{SUITE}.{check.group}", "name": check.id, "time": f"{result.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", names)
    tag = {"FAIL": "failure", "BROKEN": "error", "warn": "skipped", "skip": "skipped"}.get(
        word_of(result, strict=strict)
    )
    if tag is not None:
        is_warning = tag == "skipped" and result.is_warning
        reason = printable(f"SHOULD, but: {result.reason}" if is_warning else result.reason)
        detail = ElementTree.SubElement(case, tag, {"message": reason, "type": str(check.level)})
        detail.text = f"{reason}\n{check.summary}\n{PROTOCOL}, section {check.section}"
