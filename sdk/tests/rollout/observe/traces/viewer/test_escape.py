"""Where Escape leads: out of what stands side by side, of a problem, of the filters, of the search."""

from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS

from osmosis_ai.cli import main

pytestmark = browser_tests()


@pytest.mark.usefixtures("two_runs")
class TestEscape:
    """It ends what was begun last, and that alone."""

    def test_side_by_side_then_the_filters(self, page: Browser) -> None:
        page.click("#search")
        page.type("reward:>=0")
        page.press("Enter")
        page.click("#to-problems")
        page.wait_for("document.querySelector('.problems .row .small')")
        page.click(".problems .row .small")
        page.wait_for("document.querySelector('.verdict')")
        assert "Asked: What is" in page.text(".asked")
        page.press("?")
        page.wait_for("document.querySelector('dialog').open")
        page.press("Escape")
        page.wait_for("!document.querySelector('dialog').open")
        assert page.evaluate("!document.querySelector('#detail').hidden && !!document.querySelector('.verdict')")
        page.press("Escape")
        page.wait_for("document.querySelector('#detail').hidden")
        assert page.evaluate("document.querySelector('#search').value") == "reward:>=0"
        assert page.evaluate("!document.querySelector('#view-problems').hidden")
        page.press("Escape")
        page.wait_for("document.querySelector('#search').value === ''")
        assert page.evaluate("!document.querySelector('#view-problems').hidden")

    @pytest.mark.parametrize("view", ["problems", "runs"])
    def test_a_problem_is_left_for_where_it_was_opened(self, page: Browser, view: str) -> None:
        page.click(f"#to-{view}")
        opened = {"problems": ".problems .row .id", "runs": ".pairs tbody tr:nth-child(2) .link"}[view]
        page.wait_for(f"document.querySelector('{opened}')")
        before = page.evaluate("location.hash")
        prompt = page.text(opened)
        page.click(opened)
        page.wait_for(f"{ROWS}.length === 8 && document.activeElement.matches('#table .row')")
        page.press("Enter")
        page.wait_for("document.querySelector('.conversation')")
        page.press("Escape")
        page.wait_for("document.querySelector('#detail').hidden")
        page.press("Escape")
        page.wait_for(f"!document.querySelector('#view-{view}').hidden")
        assert prompt in page.evaluate("document.activeElement.innerText")
        assert page.evaluate("location.hash").split("&a=")[0] == before.split("&a=")[0], "and sorted as before"

    @pytest.mark.parametrize("from_runs", [False, True])
    def test_a_problem_that_a_link_opened_is_left_for_its_view(self, page: Browser, from_runs: bool) -> None:
        page.click("#to-runs" if from_runs else "#to-problems")
        page.click(".pairs .link" if from_runs else ".problems .row .id")
        page.wait_for(f"{ROWS}.length === 8")
        link = page.evaluate("location.href")
        page.open("about:blank")
        page.open(link)
        page.wait_for(f"{IS_READ} && {ROWS}.length === 8")
        page.press("Escape")
        page.wait_for(f"!document.querySelector('#view-{'runs' if from_runs else 'problems'}').hidden")

    def test_another_problem_closes_the_comparison_of_the_first(self, page: Browser) -> None:
        page.click("#to-problems")
        page.click(".problems .row .small")
        page.wait_for("document.querySelector('.detail.double .verdict')")
        page.press("j")
        page.press("Enter")
        page.wait_for(f"document.querySelector('#detail').hidden && {ROWS}.length === 8")
        assert "pin=" not in page.evaluate("location.hash")

    def test_the_search_is_left_and_what_was_typed_stays(self, page: Browser) -> None:
        page.click(".row")
        page.wait_for("document.querySelector('.conversation')")
        opened = page.text("#detail h2")
        page.press("/")
        page.type("r1-")
        page.wait_for("document.querySelector('.shown').textContent === '16 of 32 shown'")
        page.press("Escape")
        page.wait_for("document.activeElement.id !== 'search'")
        assert page.evaluate("document.querySelector('#search').value") == "r1-"
        assert (page.text("#detail h2"), page.text(".shown")) == (opened, "16 of 32 shown")
        page.press("Escape")
        page.wait_for("document.querySelector('#detail').hidden")
        assert page.text(".shown") == "16 of 32 shown"
        page.press("Escape")
        page.wait_for("document.querySelector('.shown').textContent === '32 of 32 shown'")


def test_best_and_worst_pin_nothing_once_they_are_closed(page: Browser, tmp_path: Path) -> None:
    for reward in (0.0, 1.0):
        maker = TraceMaker(f"r-{reward:.0f}").start("Which?", metadata={"row_index": 0})
        maker.turn(1, saying(f"so {reward}")).end(reward=reward).write(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=problems")
    page.wait_for("document.querySelector('.row .small')")
    page.click(".row .small")
    page.wait_for("document.querySelector('.differ')")
    page.press("Escape")
    page.wait_for("document.querySelector('#detail').hidden")
    page.click("#to-rollouts")
    page.click("#view-rollouts .row")
    page.wait_for("document.querySelector('.conversation')")
    assert page.evaluate("document.querySelector('.differ') === null")
