"""A report reads the same as a table, as JSON and as JUnit XML, and nothing in it can harm a terminal or a parser."""

import io
import json
from xml.etree import ElementTree

from rollout_conformance import Report, Result, Status, select
from rollout_conformance.report_formats import TablePrinter, to_json, to_junit

CHECKS = {check.id: check for check in select()}
HOSTILE = "expected x; got \x1b[2J\x00<script>]]> \ud83d \u202e"
RESULTS = (
    Result(CHECKS["init.accepted"], Status.PASSED, "", 0.25),
    Result(CHECKS["init.tools"], Status.FAILED, HOSTILE, 1.5),
    Result(CHECKS["chat.max_turns"], Status.FAILED, "expected at most 2; got 9"),
    Result(CHECKS["auth.missing"], Status.SKIPPED, "no key was given"),
    Result(CHECKS["ids.odd"], Status.BROKEN, "the kit itself failed: ValueError: x"),
)


def report(*, strict: bool = False) -> Report:
    return Report("http://127.0.0.1:9000", RESULTS, 12.5, strict, 7)


def table(*, strict: bool = False, quiet: bool = False) -> str:
    stream = io.StringIO()
    TablePrinter(stream, quiet=quiet).print_report(report(strict=strict))
    return stream.getvalue()


def test_a_should_is_a_warning_unless_the_run_is_strict() -> None:
    assert [result.check.id for result in report().failures] == ["init.tools", "ids.odd"]
    assert [result.check.id for result in report(strict=True).failures] == ["init.tools", "chat.max_turns", "ids.odd"]


def test_a_run_in_which_nothing_was_tried_is_no_success() -> None:
    assert not Report("http://x", (RESULTS[3],), 0.0).is_success
    assert Report("http://x", (RESULTS[0], RESULTS[3]), 0.0).is_success


def test_the_table_names_check_level_verdict_reason_and_section() -> None:
    line = next(line for line in table().splitlines() if "chat.max_turns" in line)
    assert line.split()[:3] == ["chat.max_turns", "SHOULD", "warn"]
    assert "got 9" in table()
    assert "3.1" in line
    assert "FAIL" in next(line for line in table(strict=True).splitlines() if "chat.max_turns" in line)
    assert "1 passed, 2 failed, 1 warnings, 1 skipped" in table()


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
    assert document["counts"] == {"passed": 1, "failed": 2, "skipped": 1, "broken": 1}
    assert [result["id"] for result in document["results"]] == [result.check.id for result in RESULTS]
    assert document["results"][0]["reason"] is None


def test_junit_is_what_a_ci_system_reads() -> None:
    suite = ElementTree.fromstring(to_junit(report())).find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "2",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases == {
        "init.accepted": [],
        "init.tools": ["failure"],
        "chat.max_turns": ["skipped"],
        "auth.missing": ["skipped"],
        "ids.odd": ["error"],
    }
