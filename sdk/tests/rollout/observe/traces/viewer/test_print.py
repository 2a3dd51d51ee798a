"""What is printed is what the screen shows: all of it up to a bound, with heads on each page, and no page blank."""

import re
from pathlib import Path

import pytest
from pypdf import PdfReader
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS, run_name, write_two_runs

from osmosis_ai.cli import main

pytestmark = browser_tests()


def colors_of(path: Path) -> set[str]:
    """What is filled with, as #rrggbb."""
    contents = [one.get_contents() for one in PdfReader(path).pages]
    drawn = " ".join(one.get_data().decode("latin-1") for one in contents if one is not None)
    fills = re.findall(r"([\d.]+) ([\d.]+) ([\d.]+) rg\b", drawn)
    return {"#" + "".join(f"{round(float(part) * 255):02x}" for part in fill) for fill in fills}


def pages_of(page: Browser, path: Path) -> list[str]:
    page.print(path)
    return [re.sub(r"\s+", " ", one.extract_text()) for one in PdfReader(path).pages]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_printed_is_what_the_screen_shows_without_blank_pages(
    page: Browser, tmp_path: Path, scheme: str
) -> None:
    write_two_runs(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.prefer(scheme)
    page.open((tmp_path / "report.html").as_uri())
    page.wait_for(f"{IS_READ} && {ROWS}.length === 32")
    printed = pages_of(page, tmp_path / "all.pdf")
    assert all(len(one) > 40 for one in printed)
    assert all(
        f"r{run}-{problem}-{sample}" in "".join(printed)
        for run in (0, 1)
        for problem in range(4)
        for sample in range(4)
    )
    assert all("Outcome Run Duration" in one for one in printed if "What is" in one)
    bars = re.sub(r".*?Reward (?=mean)|Reward over.*", "", "".join(printed))
    assert {"14", "18"} <= set(bars.split())  # how many have no reward and how many a whole one
    assert bars.count("0.563") == 3, "of all, and of each run"
    page.click("#to-problems")
    page.wait_for(f"{ROWS}.length === 4")
    [only] = pages_of(page, tmp_path / "problems.pdf")
    assert "2 of 4 problems have no signal" in only
    told = f"always 1 in {run_name('1700000002')}"  # which may go over the end of a line
    assert told.replace(" ", "") in only.replace(" ", "")
    page.call("Emulation.setEmulatedMedia", media="print")
    page.resize(739, 1000)  # a Letter between its margins
    longest = "document.querySelector('.row .c-signal .chip')"
    page.evaluate(f"{longest}.textContent = 'same in each run'")
    page.evaluate("document.querySelector('.problems .id').textContent = 'What is it, and of what? '.repeat(5)")
    cut = "filter(e => e.scrollWidth > e.clientWidth).map(e => [e.className, e.scrollWidth, e.clientWidth])"
    assert page.evaluate(f"[...document.querySelectorAll('.problems .row :is(.c-signal, .id, .why)')].{cut}") == []
    # What is drawn within a box is drawn as lines across the page, and a control is none on paper.
    assert page.evaluate("getComputedStyle(document.querySelector('.row.bad')).boxShadow") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('#by')).appearance") == "none"
    page.call("Emulation.setEmulatedMedia", media="")
    page.call("Emulation.clearDeviceMetricsOverride")
    page.prefer(scheme)
    page.click("#to-runs")
    page.wait_for("document.querySelector('.comparison')")
    page.call("Emulation.setEmulatedMedia", media="print")
    for whole in ("tr", "caption"):
        assert page.evaluate(f"getComputedStyle(document.querySelector('.pairs {whole}')).breakInside") == "avoid"
    page.call("Emulation.setEmulatedMedia", media="")
    page.prefer(scheme)
    assert "What changed from A to B" in "".join(pages_of(page, tmp_path / "runs.pdf"))
    page.click("#to-rollouts")
    page.click(".row")
    page.wait_for("document.querySelector('.conversation')")
    printed = pages_of(page, tmp_path / "one.pdf")
    assert all(len(one) > 40 for one in printed)
    assert "The answer is" in "".join(printed)
    page.call("Emulation.setEmulatedMedia", media="print")
    asked = "getComputedStyle(document.querySelector('.message.user')).borderTopColor"
    assert page.evaluate(asked) == page.evaluate(asked.replace("user", "system"))
    page.call("Emulation.setEmulatedMedia", media="")
    page.prefer(scheme)
    assert "with failed tools" not in "".join(printed)  # what lies behind it on the screen
    assert {"#2557d6", "#1a9a78"} <= colors_of(tmp_path / "one.pdf")  # the timeline's bars of model and tools
    page.press("Escape")
    page.click("#to-problems")
    page.wait_for("document.querySelector('.row .small')")
    page.click(".row .small")
    page.wait_for("document.querySelector('.detail.double mark')")
    page.print(tmp_path / "two.pdf")
    assert "#ffe3a3" in colors_of(tmp_path / "two.pdf")  # what differs
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate("new Set([...document.querySelectorAll('.side')].map(e => e.offsetTop)).size") == 1


def test_why_a_rollout_failed_is_printed_whole(page: Browser, tmp_path: Path) -> None:
    says = "ToolExecutionError: divide: b must not be 0, and here it was 0"
    TraceMaker("r").start("Hi?").end(status="ERROR", error_message=says).write(tmp_path / "traces")
    TraceMaker("s").start("Hi?").turn(1, saying("so")).end(reward=1.0).write(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open((tmp_path / "report.html").as_uri())
    page.wait_for(f"{IS_READ} && {ROWS}.length === 2")
    page.call("Emulation.setEmulatedMedia", media="print")
    page.resize(739, 1000)
    cut = "filter(e => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight + 1).map(e => e.innerText)"
    assert page.evaluate(f"[...document.querySelectorAll('#table .row :is(.why, .c-status)')].{cut}") == []
    page.call("Emulation.setEmulatedMedia", media="")


def test_neither_the_help_nor_a_button_is_printed_and_a_and_b_are_letters(page: Browser, tmp_path: Path) -> None:
    write_two_runs(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    page.wait_for(f"{IS_READ} && document.querySelector('.comparison')")
    page.press("?")
    page.wait_for("document.querySelector('dialog').open")
    printed = " ".join(pages_of(page, tmp_path / "runs.pdf"))
    assert "What changed from A to B" in printed
    assert "next, previous row" not in printed
    rows = printed[: printed.index("Pass rate: the share")].replace("- ", "-")
    for letter, run in (("A", "1700000001"), ("B", "1700000002")):
        assert f" {letter} {run_name(run)} " in rows
    page.call("Emulation.setEmulatedMedia", media="print")
    radios = "[...document.querySelectorAll('input[type=radio]')].filter(e => e.getClientRects().length).length"
    assert page.evaluate(radios) == 0


def test_each_page_that_is_printed_has_the_heads_of_the_table(page: Browser, tmp_path: Path) -> None:
    for number in range(60):
        maker = TraceMaker(f"r{number:02}").start(f"Number {number:02}?", metadata={"row_index": number})
        maker.turn(1, saying("so")).end(reward=0.5).write(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    for view, heads in {"rollouts": "Status Rollout Reward", "problems": "Problem n Pass rate Mean"}.items():
        page.open("about:blank")
        page.open(f"{(tmp_path / 'report.html').as_uri()}#view={view}")
        page.wait_for(f"{IS_READ} && {ROWS}.length > 5")
        printed = pages_of(page, tmp_path / f"{view}.pdf")
        assert len(printed) in (2, 3, 4)
        assert [one for one in printed if "Number" in one and heads not in one] == []
        assert sum(one.count("Number ") for one in printed) == 60


def test_of_many_rollouts_the_first_100_are_printed_on_few_pages(page: Browser, tmp_path: Path) -> None:
    for number in range(130):
        TraceMaker(f"r{number}").start(f"Number {number}?").end(reward=0.5).write(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open((tmp_path / "report.html").as_uri())
    page.wait_for(f"{IS_READ} && {ROWS}.length > 5")
    printed = pages_of(page, tmp_path / "many.pdf")
    assert sum(one.count("Number ") for one in printed) == 100
    # Said once, before the first of them, with their order: on paper there is no column of the start.
    [before, after] = " ".join(printed).split("Of these 130 rows, by Started ▼, the top 100 are printed.")
    assert ("Number" in before, after.count("Number ")) == (False, 100)
    assert len(printed) <= 6
