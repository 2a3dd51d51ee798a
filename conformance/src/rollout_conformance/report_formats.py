"""A report as JSON and as JUnit XML. Texts that came from the server are made printable."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from rollout_conformance.coverage import coverage
from rollout_conformance.report_table import PROTOCOL, word_of
from rollout_conformance.text import printable
from rollout_conformance.usual_causes import cause_of
from rollout_conformance.vocabulary import Check, Report, Result, Status

SUITE = "osmosis-conformance"
JSON_VERSION = 1


def to_json(report: Report) -> str:
    """The report as one JSON object; keys are only ever added within a ``version``."""
    results = [
        {
            **_named(result.check),
            "status": str(result.status),
            "reason": printable(result.reason) or None,
            "sent": printable(result.sent) or None,
            "seen": printable(result.seen) or None,
            "usual_cause": cause_of(result) if result.status is Status.FAILED else None,
            "follows_from": result.cause or None,
            "expected_failure": result in report.known_failures,
            "seconds": round(result.seconds, 3),
        }
        for result in report.results
    ]
    document: dict[str, Any] = {
        "version": JSON_VERSION,
        "server_url": report.server_url,
        "conforms": report.conforms,
        "is_success": report.is_success,
        "strict": report.strict,
        "seconds": round(report.seconds, 3),
        "rollouts": report.rollouts,
        "counts": {str(status): report.count(status) for status in Status},
        "sentences": asdict(coverage(report.results)),
        "late_seconds": round(report.late_seconds, 3),
        "server_output": [printable(line) for line in report.server_output],
        "results": results,
    }
    return json.dumps(document, indent=2)


def catalogue_to_json(checks: Sequence[Check]) -> str:
    """What there is to check, under the names of ``to_json``."""
    return json.dumps({"version": JSON_VERSION, "checks": [_named(check) for check in checks]}, indent=2)


def _named(check: Check) -> dict[str, Any]:
    return {
        "id": check.id,
        "level": str(check.level),
        "section": check.section,
        "sentences": list(check.sentences),
        "summary": check.summary,
    }


def to_junit(report: Report) -> bytes:
    """The report as JUnit XML: a suite, and a case for each check; what fails but does not count was skipped."""
    failed = sum(result.status is not Status.BROKEN for result in report.failures)
    broken = len(report.failures) - failed
    counts = {
        "tests": str(len(report.results)),
        "failures": str(failed),
        "errors": str(broken),
        "skipped": str(len(report.results) - failed - broken - report.count(Status.PASSED)),
    }
    root = ElementTree.Element("testsuites", {"name": SUITE, **counts, "time": f"{report.seconds:.3f}"})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": SUITE, **counts, "time": f"{report.seconds:.3f}", "hostname": report.server_url}
    )
    for result in report.results:
        _add_case(suite, result, report)
    if report.server_output:
        said = ElementTree.SubElement(suite, "system-err")
        said.text = "\n".join(printable(line) for line in report.server_output)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _add_case(suite: ElementTree.Element, result: Result, report: Report) -> None:
    check = result.check
    names = {"classname": f"{SUITE}.{check.group}", "name": check.id, "time": f"{result.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", names)
    if result.status is Status.PASSED:
        return
    is_failure = result in report.failures
    tag = "skipped" if not is_failure else "error" if result.status is Status.BROKEN else "failure"
    before = {"warn": "SHOULD, but: ", "known": "expected to fail: ", "not exercised": "not exercised: "}
    reason = printable(before.get(word_of(result, report), "") + result.reason)
    detail = ElementTree.SubElement(case, tag, {"message": reason, "type": str(check.level)})
    detail.text = "\n".join((reason, *explanation(result), f"{PROTOCOL}, section {check.section}"))


def explanation(result: Result) -> list[str]:
    """What the check is about and, of a failure, all that is known, a line each."""
    lines = [result.check.summary]
    if result.status is Status.FAILED:
        told = {
            "follows from": result.cause,
            "sent": result.sent,
            "seen": result.seen,
            "usually": cause_of(result),
        }
        lines += [f"{name}: {printable(text)}" for name, text in told.items() if text]
    return lines
