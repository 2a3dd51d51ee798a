"""Texts that took a pattern of the page minutes: a page that hangs shows nothing."""

from pathlib import Path

from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import open_report

pytestmark = browser_tests()


def test_a_heading_of_spaces_is_read_once(page: Browser, tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("Go on.")
    said = [saying(f"# Title{' ' * 19_000}x") for _ in range(400)]
    maker.end(final_messages=[*maker.messages, *said]).write(tmp_path / "traces")
    open_report(page, tmp_path / "traces")
    page.click(".row")
    page.wait_for("document.querySelectorAll('.conversation .heading').length === 400")


def test_a_number_of_dots_is_searched_for_at_once(page: Browser, tmp_path: Path) -> None:
    for number in range(200):
        TraceMaker(f"r{number}").start("Go on.").end(reward=0.5).write(tmp_path / "traces")
    open_report(page, tmp_path / "traces")
    page.evaluate(f"location.hash = 'q=reward:{'.' * 20_000}x'")
    page.wait_for("document.querySelector('.shown').textContent.startsWith('0 of')")
    page.evaluate("location.hash = 'q=reward:0.25..0.75'")
    page.wait_for("document.querySelector('.shown').textContent.startsWith('200 of')")
