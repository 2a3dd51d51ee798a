"""For everybody: axe-core finds nothing, in any view and theme; all of it by keys; what is opened stays in view."""

from pathlib import Path

import pytest
from support.axe import violations_of
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, answer, call, calling, saying, write_random_traces
from support.viewer import IS_READ, ROWS, run_name, write_two_runs

from osmosis_ai.cli import main

pytestmark = browser_tests()

MARKDOWN = (
    "<think>hm</think>\n# Plan\n\n1. `a` and **b**\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1)\n```\n> so"
)
A_AND_B = "#view=runs&a=1700000001&b=1700000002"
# What each view is reached by, and how it is known that it is there.
VIEWS = {
    "rollouts": ("", [], f"{ROWS}.length > 5"),
    "problems": ("#view=problems", [], "document.querySelector('.problems .row')"),
    "runs": (A_AND_B, [], "document.querySelector('.pairs')"),
    "a and b": (A_AND_B, [".pairs .link"], "document.querySelector('.of-run')"),
    "one": ("#q=rich", [".row"], "document.querySelector('.fence')"),
    "failed": ("#status=ERROR", [".row"], "document.querySelector('.detail-head .problem + .facts')"),
    "turns": ("#tab=Turns", [".row"], "document.querySelector('.turns')"),
    "events": ("#tab=Events", [".row", ".raw summary"], "document.querySelector('.raw pre')"),
    "request": ("#tab=Request", [".row"], "document.querySelector('.request')"),
    "side by side": ("#view=problems", [".row .small"], "document.querySelector('.differ')"),
    "a beside b": (A_AND_B, [".pairs .small"], "document.querySelector('.differ')"),
    "asked others": ("#pin=traces/rich&rollout=1700000001/r0-0-0", [], "document.querySelector('.differ .notice')"),
    "help": ("", ["#help"], "document.querySelector('dialog').open"),
    "nothing": ("#q=nothing+of+this+kind", [], "!document.querySelector('#empty').hidden"),
}  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("access")
    write_two_runs(folder / "traces")
    write_random_traces(folder / "traces", 40)
    rich = TraceMaker("rich").start("Look.", metadata={"row_index": 1})
    rich.turn(1, calling(call(1, "add", a=1)), [answer(1, "Error: no")], outcome="error").turn(2, saying(MARKDOWN))
    rich.end(reward=0.5).write(folder / "traces")
    assert main(["view", str(folder / "traces"), "-o", str(folder / "report.html")]) == 0
    return (folder / "report.html").as_uri()


@pytest.fixture
def opened(page: Browser, report: str) -> Browser:
    page.open(report)
    page.wait_for(f"{IS_READ} && {ROWS}.length > 5")
    return page


@pytest.mark.parametrize("width", [1440, 800, 390])
def test_axe_finds_nothing(page: Browser, report: str, axe: str, width: int) -> None:
    page.resize(width, 900, mobile=width < 500)
    found = {}
    for name, (hash_, clicks, is_there) in VIEWS.items():
        page.open("about:blank")
        page.open(report + hash_)
        page.wait_for(IS_READ)
        for selector in clicks:
            page.click(selector)
        page.wait_for(is_there)
        if violations := violations_of(page, axe):
            found[name] = violations
    assert found == {}


def test_the_help_says_what_each_key_does(opened: Browser) -> None:
    opened.press("?")
    said = opened.text("dialog")
    assert "[object" not in said
    for line in (
        "next, previous row",
        "pin a rollout",
        "row_index:7",
        "key:value narrows to a field",
        "what a tool was called with",
    ):
        assert line in said
    keys = opened.evaluate("[...document.querySelectorAll('dialog kbd')].map(key => key.innerText)")
    assert {"j", "k", "Enter", "Esc", "/", "e", "n", "p", "[", "]", "c", "g", "G", "t", "?"} <= set(keys)
    opened.press("Escape")
    opened.wait_for("!document.querySelector('dialog').open")


def test_rows_are_reached_by_tab_and_opened_by_enter(opened: Browser) -> None:
    opened.evaluate("document.querySelector('#search').focus()")
    for _ in range(80):
        opened.press("Tab")
        if opened.evaluate("document.activeElement.classList.contains('row')"):
            break
    first = opened.evaluate("document.activeElement.rollout.id")
    assert first == opened.evaluate(f"{ROWS}[0].rollout.id")
    opened.press("ArrowDown")
    second = opened.wait_for(f"document.activeElement.rollout?.id !== {first!r} && document.activeElement.rollout.id")
    opened.press("Enter")
    opened.wait_for("document.querySelector('.conversation')")
    assert opened.text("#detail h2") == second
    opened.press("Escape")
    assert opened.wait_for("document.querySelector('#detail').hidden && document.activeElement.rollout.id") == second


def test_the_skip_link_leads_to_the_table(opened: Browser) -> None:
    opened.evaluate("document.querySelector('#skip').focus()")
    opened.press("Enter")
    opened.wait_for("document.activeElement.classList.contains('row')")
    assert opened.evaluate("location.hash") == ""


def test_tabs_go_by_arrows_and_name_what_they_show(opened: Browser) -> None:
    opened.click("#to-rollouts")
    opened.press("ArrowRight")
    opened.wait_for("document.querySelector('.problems .row')")
    assert opened.evaluate("document.activeElement.id") == "to-problems"
    opened.press("ArrowRight")
    opened.wait_for("document.querySelector('.comparison')")
    opened.press("ArrowRight")
    opened.wait_for("!document.querySelector('#view-rollouts').hidden")
    opened.click(".row")
    opened.wait_for("document.querySelector('.conversation')")
    opened.click("#tab-Conversation")
    for name, inside in (("Turns", ".turns"), ("Events", ".events"), ("Request", ".request")):
        opened.press("ArrowRight")
        opened.wait_for(f"document.querySelector('#tab-body {inside}')")
        assert opened.evaluate("document.activeElement.id") == f"tab-{name}"
    chosen = "[...document.querySelectorAll('#detail [role=tab][aria-selected=true]')].map(tab => tab.innerText)"
    assert opened.evaluate(chosen) == ["Request"]
    assert opened.evaluate("document.querySelector('[role=tabpanel]#tab-body').getAttribute('aria-labelledby')") == (
        "tab-Request"
    )


def test_what_is_opened_stays_in_view(opened: Browser) -> None:
    seen = """(row => {
        const box = row?.getBoundingClientRect(), head = document.querySelector('#table .head').getBoundingClientRect();
        return box && box.top >= head.bottom - 1 && box.bottom <= window.innerHeight + 1;
    })(document.querySelector('.row.selected'))"""
    opened.press("G")
    last = opened.wait_for(f"{seen} && document.querySelector('.row.selected').rollout.id")
    opened.press("Enter")  # the page beside the table makes it narrower, and what is above it taller
    opened.wait_for("document.querySelector('.conversation')")
    opened.wait_for(seen)
    for _ in range(12):
        opened.press("k")
    opened.wait_for(f"document.querySelector('#detail h2').innerText !== {last!r} && {seen}")
    link = opened.evaluate("location.href")
    opened.open("about:blank")
    opened.open(link)
    opened.wait_for(f"document.querySelector('.conversation') && {seen}")


def test_ids_lose_their_middle_and_numbers_nothing_on_a_phone(page: Browser, tmp_path: Path) -> None:
    names = [f"trainer-of-a-very-long-name-{'x' * 40}-{number}-end" for number in (1, 2)]
    for name in names:
        TraceMaker(name).start("Hi?").turn(1, saying("x"), ms=123456.0).end(reward=-123.456789).write(tmp_path / "t")
    assert main(["view", str(tmp_path / "t"), "-o", str(tmp_path / "r.html")]) == 0
    page.resize(360, 740, mobile=True)
    page.open((tmp_path / "r.html").as_uri())
    page.wait_for(f"{IS_READ} && {ROWS}.length === 2")
    cut = "e => e.scrollWidth > e.clientWidth + 1"
    assert page.evaluate(f"[...document.querySelectorAll('.cell.number, .card')].filter({cut}).length") == 0
    ends = page.evaluate(
        "[...document.querySelectorAll('.row .c-id .id-end')].map(e => [e.innerText, e.getBoundingClientRect().right <="
        " e.closest('.id').getBoundingClientRect().right + 1])"
    )
    assert ends == [["xxxx-2-end", True], ["xxxx-1-end", True]] or ends == [["xxxx-1-end", True], ["xxxx-2-end", True]]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.click(".row")
    page.wait_for("document.querySelector('.conversation')")
    end = "document.querySelector('#detail h2 .id-end').getBoundingClientRect()"
    assert page.evaluate(f"{end}.right <= window.innerWidth && {end}.left > 0")


@pytest.mark.parametrize(("width", "is_phone"), [(1280, False), (375, True)])
def test_runs_lose_their_middle_and_their_mean_is_on_a_phone(
    page: Browser, tmp_path: Path, width: int, is_phone: bool
) -> None:
    for run in ("a", "b"):
        maker = TraceMaker("x").start("Hi?", metadata={"sample": f"a-sample-of-a-long-name-{run}"})
        maker.turn(1, saying("x")).end(reward=0.5).write(tmp_path / "t" / f"run-of-a-long-name-{run}" / "1700000001")
    assert main(["view", str(tmp_path / "t"), "-o", str(tmp_path / "r.html")]) == 0
    page.resize(width, 740, mobile=is_phone)
    page.open((tmp_path / "r.html").as_uri())
    page.wait_for(f"{IS_READ} && {ROWS}.length === 2")
    whole = """selector => [...document.querySelectorAll(selector)].filter(e => e.getClientRects().length).map(e => [
        e.innerText, e.getBoundingClientRect().right <= e.closest('.id').getBoundingClientRect().right + 1])"""
    if not is_phone:
        assert page.evaluate(f"({whole})('.c-run .id-end')") == [[run_name("1700000001")[-10:], True]] * 2
    page.click(".row")
    page.wait_for("document.querySelector('.conversation')")
    [run, sample] = page.evaluate(f"({whole})('.fact .id-end')")
    assert run == [run_name("1700000001")[-10:], True]
    assert sample in (["ong-name-a", True], ["ong-name-b", True])
    page.press("Escape")
    page.click("#to-runs")
    page.wait_for("document.querySelector('.runs')")
    seen = "e => e.getClientRects().length && e.getBoundingClientRect().right <= innerWidth"
    names = page.evaluate(f"[...document.querySelectorAll('.runs th[scope=row]')].filter({seen}).map(e => e.innerText)")
    assert names == [f"run-of-a-long-name-{run}/{run_name('1700000001')}" for run in "ab"]
