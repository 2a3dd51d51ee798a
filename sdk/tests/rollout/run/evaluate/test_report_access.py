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
from osmosis_ai.rollout.run.evaluate.summary import summarize

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
    "stopped": stopped,
    "pass@k of four": lambda: answered(evaluation([1.0, 0.0, 1.0, 0.0], [0.0] * 4, [1.0] * 4)),
    "baseline": lambda: answered(evaluation([1.0, 0.0], [0.0, 1.0], baseline=[[0.0, 0.0], [1.0, 0.0]])),
}


@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing(page: Browser, axe: str, tmp_path: Path, width: int) -> None:
    page.resize(width, 900, mobile=width < 500)
    found: dict[str, object] = {}
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
    result.rows[0].runs[0].scores["fn"] = 1e100
    result.eval_summaries["fn"] = summarize("fn", result.rows, 4, 1.0)
    path.write_text(html_report(result, CONFIG | {"model": "a-provider/a-model-with-a-name-2.5-72b-instruct"}, ROWS))
    page.resize(1280, 800)
    page.open(path.as_uri())
    page.wait_for("document.readyState === 'complete' && document.querySelector('main h2')")
    scores = "document.querySelector('[aria-label=Scores]')"
    passes = "document.querySelector('[aria-label^=pass]')"
    assert "2.7027e+98" in page.text("[aria-label=Scores]")
    for table in (scores, passes):
        assert page.evaluate(f"{table}.scrollWidth - {table}.clientWidth") <= 0, table
    page.print(tmp_path / "report.pdf")
    printed = [one.extract_text().strip() for one in PdfReader(tmp_path / "report.pdf").pages]
    assert [one for one in printed[:-1] if len(one) < 200] == []
    assert [one for one in printed if one.endswith("Lowest rows, whole")] == []
    page.call("Emulation.setEmulatedMedia", media="print")
    page.resize(739, 1000)  # a Letter between its margins
    assert page.evaluate(WIDE) == 0


# The words of a table that stand in more than one line, joints within a name aside.
BROKEN = """[...document.querySelectorAll('th, td')].flatMap(cell => [...cell.childNodes].flatMap(node => {
    const text = node.nodeType === 3 ? node.data : '', found = [];
    for (const word of text.matchAll(/[\\p{L}\\d]+/gu)) {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map(box => box.top)).size > 1) found.push(word[0]);
    }
    return found; }))"""


def named(page: Browser, tmp_path: Path) -> None:
    """Open a report of two models with names of many parts, and a truth that is a long word."""
    path = tmp_path / "report.html"
    result = evaluation([1.0, 0.0], [0.0, 1.0], baseline=[[0.0, 0.0], [1.0, 0.0]], error="HTTP 503")
    for run in (run for row in result.rows for run in row.runs):
        run.answer = "It is so. " * 40
    rows = {number: {"user_prompt": "What is it? " * 20, "ground_truth": "Constantinople"} for number in range(2)}
    path.write_text(html_report(result, CONFIG, rows))
    page.open(path.as_uri())
    page.wait_for("document.readyState === 'complete' && document.querySelector('main h2')")


@pytest.mark.parametrize(("width", "medium"), [(1280, "screen"), (375, "screen"), (739, "print")])
def test_no_word_is_broken(page: Browser, tmp_path: Path, width: int, medium: str) -> None:
    page.resize(width, 800, mobile=width < 500)
    page.call("Emulation.setEmulatedMedia", media=medium)
    named(page, tmp_path)
    assert page.evaluate(BROKEN) == []
    keys = "[...document.querySelectorAll('.key')].map(e => getComputedStyle(e).printColorAdjust)"
    assert set(page.evaluate(keys)) == {"exact"}


def test_on_a_phone_all_is_seen_without_scrolling_sideways(page: Browser, tmp_path: Path) -> None:
    page.resize(375, 740, mobile=True)
    named(page, tmp_path)
    assert (
        page.evaluate("[...document.querySelectorAll('.table')].filter(e => e.scrollWidth > e.clientWidth).length") == 0
    )
    cells = "[...document.querySelectorAll('[aria-label=\"Lowest rows\"] td')].filter(e => e.getClientRects().length)"
    told = page.evaluate(f"{cells}.slice(0, 9).map(e => [e.dataset.head, e.innerText.slice(0, 20)])")
    assert ["Ground truth", "Constantinople"] in told
    assert ["fn", "0.000"] in told
    shown = "getComputedStyle(document.querySelector('[aria-label=Failures] td:nth-child(3)'), '::before').content"
    assert page.evaluate(shown) == '"First error"'
