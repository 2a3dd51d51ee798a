"""While rollouts arrive: whoever has chosen something on the page keeps it, wherever it has moved to."""

from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.processes import Program
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS, write_two_runs

pytestmark = browser_tests()

BUTTON = "best | worst of row {}, side by side"
# What may have the focus, by the address where it is.
PLACES = {
    "#view=problems": (".problems .row", ".problems .small", ".toggle", "#by", "#sort-by"),
    "#view=runs": (".runs .link", "input[name=side-b]:not(:checked)", ".pairs .link"),
    "#run=1700000001": (".filter", ".card.ok", ".reason", "figure g[tabindex='0']", "#table .row"),
}
NUMBERS = (".card.ok", ".reason", "figure g[tabindex='0']")
"""What says a number, which may be another now."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_two_runs(tmp_path / "traces")
    failing(0).write(tmp_path / "traces" / "1700000001")
    return tmp_path / "traces"


def failing(number: int) -> TraceMaker:
    maker = TraceMaker(f"failed-{number}", 1_600_000_000.0 + number).start("What?", metadata={"row_index": 9})
    return maker.end(status="ERROR", error_message="boom", extra_fields={"outcome": "agent_error"})


@pytest.mark.parametrize("address", PLACES)
def test_the_focus_stays_where_it_is(page: Browser, folder: Path, tmp_path: Path, address: str) -> None:
    page.resize(700, 900)  # narrow, as there a list chooses the order
    name = "(e => e.rollout?.id ?? e.rollout?.key ?? (e.id || e.getAttribute('aria-label') || e.innerText))"
    with Program(tmp_path, "view", str(folder)) as viewer:
        page.open(viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0] + address)
        page.wait_for(IS_READ)
        page.evaluate("document.querySelector('#charts').open = true")
        lost = {}
        for number, selector in enumerate(PLACES[address], 1):
            page.wait_for(f"document.querySelector({selector!r})")
            nth = f"[...document.querySelectorAll({selector!r})].indexOf(document.activeElement)"
            page.evaluate(f"document.querySelector({selector!r}).focus()")
            before = page.evaluate(f"[{nth}, {name}(document.activeElement)]")
            count = page.evaluate("document.querySelector('.card .value').innerText")
            failing(number).write(folder / "1700000001")
            page.wait_for(f"document.querySelector('.card .value').innerText !== {count!r}")
            after = page.evaluate(f"[{nth}, {name}(document.activeElement)]")
            if after[0] < 0 or (selector not in NUMBERS and before[1] != after[1]):
                lost[selector] = (before, after)
        page.open("about:blank")
    assert lost == {}


def test_the_button_that_has_the_focus_moves_with_its_problem(page: Browser, folder: Path, tmp_path: Path) -> None:
    for number in range(10, 60):  # more than are in view
        for reward in (0.0, 1.0):
            maker = TraceMaker(f"r{number}-{reward:.0f}").start(f"Number {number}?", metadata={"row_index": number})
            maker.turn(1, saying("so")).end(reward=reward).write(folder / "1700000001")
    page.resize(1280, 600)
    with Program(tmp_path, "view", str(folder)) as viewer:
        page.open(viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0] + "#view=problems")
        page.wait_for(f"{IS_READ} && {ROWS}.length > 5")
        page.evaluate("document.querySelector('.problems .c-prompt button').click()")
        button = f"document.querySelector('[aria-label=\"{BUTTON.format(3)}\"]')"
        page.wait_for(button)
        page.evaluate(f"{button}.focus()")
        # It becomes the last of all, far below.
        for sample in range(3):
            maker = TraceMaker(f"new-{sample}").start("What is 4 + 2?", metadata={"row_index": 3})
            maker.turn(1, saying("so")).end(reward=0.5).write(folder / "1700000002")
            other = TraceMaker(f"other-{sample}").start("Other?", metadata={"row_index": 1.5 + sample / 10})
            other.turn(1, saying("so")).end(reward=0.5).write(folder / "1700000002")
        page.evaluate("document.querySelector('.problems .c-n button').click()")
        page.evaluate(f"{button}?.focus()")
        page.wait_for(f"{ROWS}.find(row => row.innerText.includes('4 + 2'))?.querySelector('.c-n').innerText === '11'")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == BUTTON.format(3)
        page.press("Enter")
        page.wait_for("document.querySelector('.detail.double .differ')")
        assert "What is 4 + 2?" in page.text(".asked")
        page.open("about:blank")
