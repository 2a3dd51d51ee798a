"""A report reads the same as a table, as JSON and as JUnit XML, and nothing in it can harm a terminal or a parser."""

import io
import json
from collections.abc import Collection
from dataclasses import replace
from xml.etree import ElementTree

from rollout_conformance import Report, Result, Status, select
from rollout_conformance.catalogue import GROUPS
from rollout_conformance.report_formats import to_json, to_junit
from rollout_conformance.report_table import TablePrinter, notes, summary
from rollout_conformance.usual_causes import CAUSES, usual_cause

CHECKS = {check.id: check for check in select()}
HOSTILE = "expected x; got \x1b[2J\x00<script>]]> \ud83d \u202e"
RESULTS = (
    Result(CHECKS["init.accepted"], Status.PASSED, "", 0.25),
    Result(CHECKS["init.tools"], Status.FAILED, HOSTILE, 1.5),
    Result(CHECKS["chat.max_turns"], Status.FAILED, "expected at most 2; got 9"),
    Result(CHECKS["auth.missing"], Status.SKIPPED, "no key was given"),
    Result(CHECKS["load.overload"], Status.NOT_EXERCISED, "the server took 300 rollouts"),
    Result(CHECKS["tools.answered"], Status.FAILED, "expected a; got b", sent="POST /x {}", seen="the init: 202"),
    Result(CHECKS["tools.parallel"], Status.FAILED, "expected c; got d", cause="tools.answered"),
    Result(CHECKS["ids.odd"], Status.BROKEN, "the kit itself failed: ValueError: x"),
)


def report(*, strict: bool = False, expected: Collection[str] = ()) -> Report:
    return Report("http://127.0.0.1:9000", RESULTS, 12.5, strict, 7, expected_failures=frozenset(expected))


def table(*, strict: bool = False, quiet: bool = False, expected: Collection[str] = ()) -> str:
    stream = io.StringIO()
    TablePrinter(stream, quiet=quiet).print_report(report(strict=strict, expected=expected))
    return stream.getvalue()


def test_a_should_is_a_warning_unless_the_run_is_strict() -> None:
    failures = ["init.tools", "tools.answered", "tools.parallel", "ids.odd"]
    assert [result.check.id for result in report().failures] == failures
    strict = {result.check.id for result in report(strict=True).failures}
    assert strict == {*failures, "chat.max_turns", "load.overload"}


def test_a_run_in_which_nothing_was_tried_is_no_success() -> None:
    assert not Report("http://x", (RESULTS[3],), 0.0).is_success
    assert not Report("http://x", (RESULTS[4],), 0.0).is_success
    assert Report("http://x", (RESULTS[0], RESULTS[3]), 0.0).is_success


def test_a_machine_that_was_too_busy_is_told_where_something_failed() -> None:
    late, well = replace(report(), late_seconds=4.25), Report("http://x", RESULTS[:1], 0.0, late_seconds=4.25)
    [line] = [line for line in notes(late) if line.startswith("This machine was busy: ")]
    assert "up to 4.2 s late" in line
    assert [*notes(well)] == [*notes(report())] == []
    assert json.loads(to_json(late))["late_seconds"] == 4.25


def test_the_table_names_check_level_verdict_reason_and_section() -> None:
    line = next(line for line in table().splitlines() if "chat.max_turns" in line)
    assert line.split()[:3] == ["chat.max_turns", "SHOULD", "warn"]
    assert "got 9" in table()
    assert "3.1" in line
    assert "FAIL" in next(line for line in table(strict=True).splitlines() if "chat.max_turns" in line)
    assert "1 passed, 4 failed of 3 causes, 1 warnings, 1 not exercised, 1 skipped" in table()


def test_what_was_not_exercised_is_no_failure_in_the_words_of_a_strict_report_and_fails_it_all_the_same() -> None:
    assert "does not conform: 1 passed, 5 failed of 4 causes, 1 not exercised, 1 skipped" in table(strict=True)
    untried = Report("http://x", (RESULTS[0], RESULTS[4]), 0.0, strict=True)
    assert not untried.is_success
    assert "http://x is not known to conform: 1 passed, 0 failed, 1 not exercised, in " in summary(untried)
    known = replace(untried, expected_failures=frozenset([RESULTS[4].check.id]))
    assert "http://x is no worse than its baseline: 1 passed, 0 failed, 1 known, in " in summary(known)


def test_a_failure_says_what_was_sent_what_was_seen_and_the_usual_cause_and_has_its_consequences_under_it() -> None:
    lines = [line.strip() for line in table().splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("tools.answered"))
    promised, sent, seen, usually, consequence = lines[start + 1 : start + 6]
    assert promised == f"promised: {CHECKS['tools.answered'].summary} ({', '.join(CHECKS['tools.answered'].sentences)})"
    assert (sent, seen) == ("sent: POST /x {}", "seen: the init: 202")
    assert usually.startswith("usually: an exception in a tool")
    assert consequence == "so too: tools.parallel (MUST, FAIL): expected c; got d"
    assert not any(line.startswith("tools.parallel") for line in lines)


def test_what_is_piped_is_not_wrapped() -> None:
    long = "x " * 200
    stream = io.StringIO()
    TablePrinter(stream).print_report(Report("http://x", (Result(CHECKS["init.tools"], Status.FAILED, long),), 0.0))
    assert any(line.count("x ") + line.endswith("x") >= 200 for line in stream.getvalue().splitlines())


def test_what_a_baseline_expects_is_known_and_fails_nothing() -> None:
    expected = ["init.tools", "tools.answered", "tools.parallel", "ids.odd", "init.accepted"]
    assert report(expected=expected).is_success
    assert not report(expected=expected).conforms
    assert not report(expected=expected[1:]).is_success
    shown = table(expected=expected)
    assert next(line for line in shown.splitlines() if "init.tools" in line).split()[:3] == [
        "init.tools",
        "MUST",
        "known",
    ]
    assert "is no worse than its baseline: 1 passed, 0 failed, 1 warnings, 4 known" in shown
    assert "take it out: init.accepted." in shown


def test_every_check_has_a_usual_cause() -> None:
    assert [check for check in CHECKS if not usual_cause(check)] == []
    assert [name for name in CAUSES if name not in CHECKS and name not in GROUPS] == []


def test_a_quiet_table_leaves_out_what_passed() -> None:
    assert "init.accepted" not in table(quiet=True)
    assert "init.tools" in table(quiet=True)


def test_text_of_the_server_does_no_harm() -> None:
    for text in (table(), to_json(report()), to_junit(report()).decode("utf-8")):
        assert "\x1b" not in text
        assert "\x00" not in text


def test_json_has_every_result() -> None:
    document = json.loads(to_json(report()))
    assert document["conforms"] is False
    assert document["counts"] == {"passed": 1, "failed": 4, "skipped": 1, "not_exercised": 1, "broken": 1}
    assert [result["id"] for result in document["results"]] == [result.check.id for result in RESULTS]
    assert document["results"][0]["reason"] is None
    root, consequence = document["results"][5:7]
    assert (root["sent"], root["seen"], root["follows_from"]) == ("POST /x {}", "the init: 202", None)
    assert consequence["follows_from"] == "tools.answered"


def test_junit_is_what_a_ci_system_reads() -> None:
    suite = ElementTree.fromstring(to_junit(report())).find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "8",
        "failures": "3",
        "errors": "1",
        "skipped": "3",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {
        "init.accepted": [],
        "init.tools": ["failure"],
        "chat.max_turns": ["skipped"],
        "auth.missing": ["skipped"],
        "load.overload": ["skipped"],
        "tools.answered": ["failure"],
        "tools.parallel": ["failure"],
        "ids.odd": ["error"],
    }


def test_what_a_server_printed_before_an_end_of_its_own_is_in_every_form() -> None:
    said = Report("http://x", RESULTS[:1], 0.0, server_output=("It ended:", "No \x1b[2Jroom."))
    stream = io.StringIO()
    TablePrinter(stream).print_report(said)
    assert stream.getvalue().splitlines()[-2:] == ["It ended:", "No room."]
    assert json.loads(to_json(said))["server_output"] == ["It ended:", "No room."]
    assert ElementTree.fromstring(to_junit(said)).findtext(".//system-err") == "It ended:\nNo room."  # noqa: S314 - our own
