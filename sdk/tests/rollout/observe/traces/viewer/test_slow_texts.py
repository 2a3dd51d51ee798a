"""Texts that took a pattern of the page minutes: a page that hangs shows nothing."""

from pathlib import Path

from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import open_report, show

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


def test_of_very_many_messages_the_first_are_drawn_until_all_are_asked_for(page: Browser, tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("Go on.")
    for number in range(1, 701):
        maker.turn(number, saying(f"Said {number}."))
    show(page, tmp_path, maker.end())
    drawn = "document.querySelectorAll('.conversation .message').length"
    page.click(".row")
    page.wait_for(f"{drawn} === 500")
    assert page.text(".conversation > .more") == "Show all 702 messages"
    page.click(".conversation > .more")
    page.wait_for(f"{drawn} === 702 && !document.querySelector('.conversation > .more')")
    page.click("#tab-Events")
    page.wait_for("document.querySelectorAll('.events details').length === 500")
    page.click("#tab-Turns")
    page.click(".turns tbody tr:last-child .link")  # of a message that is not drawn yet
    page.wait_for("document.getElementById('turn-700')?.getBoundingClientRect().top < innerHeight")


def test_a_rollout_of_a_hundred_thousand_messages_can_be_read(page: Browser, tmp_path: Path) -> None:
    maker = TraceMaker("r1").start("Go on.")
    maker.end(final_messages=[*maker.messages, *[saying("Said.")] * 100_000])
    show(page, tmp_path, maker)
    page.click(".row")
    page.wait_for("document.querySelector('.conversation > .more').textContent === 'Show all 100,002 messages'")
    assert page.evaluate("document.querySelectorAll('.message').length") == 500
