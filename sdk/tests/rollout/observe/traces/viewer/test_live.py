"""While rollouts arrive: whoever has chosen something on the page keeps it, wherever it has moved to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.processes import Program
from support.traces import TraceMaker, saying, write_random_traces
from support.viewer import IS_READ, ROWS, write_two_runs

pytestmark = browser_tests()

BUTTON = "best | worst of row 3: What is 4 + 2?, side by side"
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
        button = f"document.querySelector('[aria-label=\"{BUTTON}\"]')"
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
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == BUTTON
        page.press("Enter")
        page.wait_for("document.querySelector('.detail.double .differ')")
        assert "What is 4 + 2?" in page.text(".asked")
        page.open("about:blank")


def arriving(folder: Path, name: str, count: int) -> None:
    """Rollouts that come before all others in the order of the table, whole from the first moment."""
    for number in range(count):
        maker = TraceMaker(f"{name}-{number}", 1_900_000_000.0 + number)
        maker.start(f"Asked {name} {number}?", metadata={"row_index": f"0-{name}-{number}"})
        maker.turn(1, saying("so")).end(reward=0.5).write(folder.parent / "elsewhere")
    (folder.parent / "elsewhere").rename(folder / f"1900000000-{name}")


@pytest.fixture
def long(tmp_path: Path, page: Browser) -> Iterator[Path]:
    """A folder of more rollouts than a window shows; the page is open."""
    folder = tmp_path / "traces"
    write_two_runs(folder)
    write_random_traces(folder / "1600000000", 60)
    page.resize(1280, 800)
    with Program(tmp_path, "view", str(folder)) as viewer:
        page.open(viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0])
        page.wait_for(f"{IS_READ} && {ROWS}.length > 5")
        yield folder
        page.open("about:blank")


def shown(page: Browser, count: int) -> None:
    page.wait_for(f"document.querySelector('.shown').textContent.includes('of {count} ')")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


SEEN = f"""{ROWS}.map(row => [row.rollout.key, row.getBoundingClientRect()])
    .filter(([, box]) => box.top >= 40 && box.bottom < innerHeight).map(([key, box]) => [key, box.top])"""


def is_there(page: Browser, seen: list[tuple[str, float]]) -> None:
    """The rows that were seen stand where they stood, but for a pixel."""
    now = dict(page.evaluate(SEEN))
    inner = dict(seen[1:-1])  # what is at an edge may be on either side of it
    assert {key: now.get(key) for key in inner} == pytest.approx(inner, abs=1)


def test_what_is_opened_stays_where_it_is(page: Browser, long: Path) -> None:
    for _ in range(4):
        page.press("j")
    page.press("Enter")
    page.wait_for("document.querySelector('.conversation')")
    place, opened = "document.querySelector('.row.selected').getBoundingClientRect().top", page.text("#detail h2")
    before = page.evaluate(place)
    arriving(long, "one", 40)
    shown(page, 132)
    assert page.evaluate(place) == pytest.approx(before, abs=1)
    assert page.text("#detail h2") == opened
    # Whoever has scrolled on from it stays there.
    page.evaluate("window.scrollBy(0, 1500)")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seen = page.evaluate(SEEN)
    arriving(long, "two", 40)
    shown(page, 172)
    is_there(page, seen)


@pytest.mark.parametrize("view", ["rollouts", "problems"])
def test_what_is_under_the_eye_stays_there(page: Browser, long: Path, view: str) -> None:
    page.click(f"#to-{view}")
    if view == "problems":
        page.click(".problems .c-prompt button")
    page.wait_for(f"{ROWS}.length > 5")
    page.evaluate("window.scrollTo(0, 900)")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seen = page.evaluate(SEEN)
    assert len(seen) > 5
    arriving(long, "one", 40)
    shown(page, 132)
    is_there(page, seen)


def test_at_the_top_of_the_table_the_newest_are_seen(page: Browser, long: Path) -> None:
    arriving(long, "one", 3)
    shown(page, 95)
    assert page.evaluate(f"{ROWS}[0].rollout.id") == "one-2"
    assert page.evaluate("scrollY") == 0


def test_what_is_read_of_two_runs_stays_there(page: Browser, long: Path) -> None:
    page.evaluate("location.hash = '#view=runs&a=1700000001&b=1700000002'")
    page.wait_for("document.querySelector('.pairs')")
    page.resize(1280, 400)
    page.evaluate("document.querySelector('.comparison h2').scrollIntoView()")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.verdict'))")
    place = "[document.querySelector('.comparison h2').getBoundingClientRect().top, String(getSelection())]"
    top, selected = page.evaluate(place)
    assert "mean reward" in selected
    arriving(long, "one", 3)
    shown(page, 95)
    assert page.evaluate(place) == [pytest.approx(top, abs=1), selected]


@pytest.mark.parametrize("pinned", [False, True])
def test_what_is_selected_and_unfolded_in_a_rollout_that_goes_on_stays(page: Browser, long: Path, pinned: bool) -> None:
    maker = TraceMaker("going", 1_950_000_000.0).start(
        "What do 5 plums cost? " + "Many words. " * 400, metadata={"row_index": 1}
    )
    maker.turn(1, saying("<think>Well.</think>So, plums.")).write(long / "1950000000")
    shown(page, 93)
    page.evaluate(f"location.hash = '#rollout=1950000000/going{'&pin=1700000001/r0-0-0' if pinned else ''}'")
    selected = ".differ .said" if pinned else ".message.user .text"
    page.wait_for(f"document.querySelector({selected!r})")
    if not pinned:
        page.click(".message .reasoning summary")
        page.click(".message .more")
        unfolded = "document.querySelector('.conversation').innerText.match(/Many words/g).length"
        assert page.evaluate(unfolded) == 400
        page.evaluate("document.querySelector('#detail').scrollTop = 150")
    page.evaluate(f"getSelection().selectAllChildren(document.querySelector({selected!r}))")
    told = "[String(getSelection()), document.querySelector('#detail').scrollTop]"
    before = page.evaluate(told)
    assert len(before[0]) > 10
    maker.turn(2, saying("They cost 10.")).write(long / "1950000000")
    page.wait_for("document.querySelector('#detail').innerText.includes('They cost 10.')")
    assert page.evaluate(told) == before
    if not pinned:
        assert page.evaluate(unfolded) == 400
        assert page.evaluate("document.querySelector('.reasoning').open")
        maker.end(reward=1.0).write(long / "1950000000")
        page.wait_for("document.querySelector('#detail .chip').innerText === 'Completed'")
        assert page.evaluate(told)[0] == before[0]
