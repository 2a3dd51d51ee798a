"""The report of an evaluation is for everybody: axe-core finds nothing in it, whatever it tells of, in any theme."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pypdf import PdfReader
from support.axe import violations_of
from support.browser import Browser, browser_tests
from support.evaluations import HOSTILE, evaluation

from osmosis_ai.rollout.run.evaluate import EvalResult
from osmosis_ai.rollout.run.evaluate.html_report import html_report

pytestmark = browser_tests()

ROWS = {number: {"user_prompt": f"What is {number} + 1? {HOSTILE}", "ground_truth": number + 1} for number in range(9)}
CONFIG = {"model": "the/model", "seed": 3, "note": HOSTILE}


def answered(result: EvalResult) -> EvalResult:
    for run in (run for row in result.rows for run in row.runs):
        run.answer = f"I say: {HOSTILE} {'a-word-without-an-end' * 20}"
    return result


def stopped() -> EvalResult:
    result = answered(evaluation([1.0, 0.5], [0.0, 0.0], error=HOSTILE))
    result.stopped_early, result.stop_reason = True, HOSTILE
    first = result.rows[0].runs[0]
    first.rewritten, first.event_loop_blocked = "message 1 (user) is gone", [{"place": "agent.py:3", "seconds": 2.0}]
    return result


REPORTS: dict[str, Callable[[], EvalResult]] = {
    "one sample": lambda: answered(evaluation([1.0])),
    "many rows": lambda: answered(evaluation(*([float(number % 2)] for number in range(9)))),
    "failing rows": lambda: answered(evaluation([1.0, 0.0], [0.0, 0.0], error=HOSTILE)),
    "stopped": stopped,
    "pass@k of four": lambda: answered(evaluation([1.0, 0.0, 1.0, 0.0], [0.0] * 4, [1.0] * 4)),
    "baseline": lambda: answered(evaluation([1.0, 0.0], [0.0, 1.0], baseline=[[0.0, 0.0], [1.0, 0.0]])),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing(page: Browser, axe: str, tmp_path: Path, scheme: str, width: int) -> None:
    page.resize(width, 900, mobile=width < 500)
    page.prefer(scheme)
    found = {}
    for name, made in REPORTS.items():
        path = tmp_path / "report.html"
        path.write_text(html_report(made(), CONFIG, ROWS))
        page.open("about:blank")
        page.open(path.as_uri())
        page.wait_for("document.readyState === 'complete' && document.querySelector('main h2')")
        if violations := violations_of(page, axe):
            found[name] = violations
        if not page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"):
            found[f"{name}, wider than the window"] = [width]
    assert found == {}, json.dumps(found, indent=1)


WIDE = "[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > innerWidth + 1).length"


def test_every_number_is_seen_without_scrolling_and_printed(page: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = answered(evaluation(*([1.0, float(number % 2), 0.0, 0.0] for number in range(9)), error=HOSTILE))
    for row in result.rows:
        row.runs[0].answer = "It is so. " * 300
    path.write_text(html_report(result, CONFIG | {"model": "a-provider/a-model-with-a-name-2.5-72b-instruct"}, ROWS))
    page.resize(1280, 800)
    page.open(path.as_uri())
    page.wait_for("document.readyState === 'complete' && document.querySelector('main h2')")
    scores = "document.querySelector('[aria-label=Scores]')"
    passes = "document.querySelector('[aria-label^=pass]')"
    for table in (scores, passes):
        assert page.evaluate(f"{table}.scrollWidth <= {table}.clientWidth"), table
    page.print(tmp_path / "report.pdf")
    printed = [one.extract_text().strip() for one in PdfReader(tmp_path / "report.pdf").pages]
    assert [one for one in printed[:-1] if len(one) < 200] == []
    assert [one for one in printed if one.endswith("Lowest rows, whole")] == []
    page.call("Emulation.setEmulatedMedia", media="print")
    page.resize(739, 1000)  # a Letter between its margins
    assert page.evaluate(WIDE) == 0
