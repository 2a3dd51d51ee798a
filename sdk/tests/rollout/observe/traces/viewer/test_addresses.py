"""Addresses that last: what the page shows is in them, and they show it again, also after a restart."""

import signal
from pathlib import Path
from urllib.parse import unquote

import pytest
from support.browser import Browser, browser_tests
from support.processes import Program
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS, run_name, write_two_runs

pytestmark = browser_tests()

OPENED = "document.querySelector('.conversation') && document.querySelector('#detail h2').innerText"


def address_of(viewer: Program) -> str:
    return str(viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0])


def test_a_link_names_its_rollout_after_a_restart_with_more_folders(page: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    write_two_runs(folder)
    # The same id in one run twice, in another run, and one that is no plain name.
    for reward in (0.25, 0.75):
        twice = TraceMaker("twice").start("Again?").turn(1, saying(f"It is {reward}.")).end(reward=reward)
        with (folder / "1700000001" / "twice.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in twice.lines))
    TraceMaker("twice").start("Again?").turn(1, saying("It is 0.5.")).end(reward=0.5).write(folder / "1700000002")
    odd = TraceMaker("a b/ü&#%~2?").start("Odd?").turn(1, saying("It is 0.9."))
    odd.rollout_id = "odd"
    odd.end(reward=0.9).write(folder / "1700000002")
    links = {}
    with Program(tmp_path, "view", str(folder)) as viewer:
        first = address_of(viewer)
        page.open(first)
        page.wait_for(f"{IS_READ} && {ROWS}.length > 0")
        page.press("g")
        for steps in (0, 1, 1, 1, 8, 12, 12):  # the newest come first: those that share an id, then the odd one
            for _ in range(steps):
                page.press("j")
            page.press("Enter")
            name = page.wait_for(OPENED)
            links[page.evaluate("location.href")] = (name, page.text(".fact.strong dd"), page.text(".conversation"))
            page.press("Escape")
            page.wait_for("document.querySelector('#detail').hidden")
        page.open("about:blank")  # it would go on to ask
        viewer.signal(signal.SIGINT)
    assert len(links) == 7
    assert {name for name, _, _ in links.values()} > {"twice", "a b/ü&#%~2?"}
    for name in ("1600000000", "1800000000"):
        for number in range(20):
            TraceMaker(f"r0-0-{number}").start("Other?").turn(1, saying("no")).end(reward=0.1).write(folder / name)
    with Program(tmp_path, "view", str(folder)) as viewer:
        assert address_of(viewer) == first  # the port is that of the last time
        for link, (name, *facts) in links.items():
            page.open("about:blank")
            page.open(link)
            assert page.wait_for(OPENED) == name
            assert [page.text(".fact.strong dd"), page.text(".conversation")] == facts


def test_of_one_id_twice_in_a_run_each_has_its_address(page: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    for reward in (0.25, 0.75):
        twice = TraceMaker("twice").start("Again?").turn(1, saying(f"It is {reward}.")).end(reward=reward)
        with (folder / "twice.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in twice.lines))
    with Program(tmp_path, "view", str(folder)) as viewer:
        for suffix, shown in (("", "0.25"), ("~2", "0.75")):
            page.open("about:blank")
            page.open(f"{address_of(viewer)}#rollout=traces/twice{suffix}")
            page.wait_for(OPENED)
            assert page.text(".fact.strong dd") == shown


def test_a_link_to_what_is_not_there_says_so(page: Browser, tmp_path: Path) -> None:
    write_two_runs(tmp_path / "traces")
    with Program(tmp_path, "view", str(tmp_path / "traces")) as viewer:
        for link in ("rollout=1700000001/none", "rollout=nope%2Fx", "pin=nope&rollout=nope", "pin=1700000001/gone"):
            page.open("about:blank")
            page.open(f"{address_of(viewer)}#{link}")
            page.wait_for("!document.querySelector('#notice').hidden")
            assert f"The rollout {unquote(link.rpartition('=')[2])}," in page.text("#notice")
        page.evaluate("location.hash = '#pin=nope&rollout=1700000001/r0-0-0'")
        page.wait_for(OPENED)
        page.wait_for("document.querySelector('#notice').innerText.startsWith('The rollout nope,')")
        page.open("about:blank")


def test_filters_views_and_tabs_go_back_and_forward(view: Path, page: Browser) -> None:
    everything = "document.querySelector('.shown').textContent.startsWith('60 of')"
    page.press("e")
    page.wait_for(f"{ROWS}.every(row => row.rollout.failed) && location.hash === '#status=ERROR'")
    page.click(".row")
    page.wait_for("document.querySelector('.conversation')")
    page.click("#tab-Turns")
    page.wait_for("document.querySelector('.turns') && location.hash.includes('tab=Turns')")
    link = page.evaluate("location.href")
    page.evaluate("history.back()")
    page.wait_for("document.querySelector('.conversation')")
    page.evaluate("history.back()")
    page.wait_for(f"document.querySelector('#detail').hidden && {ROWS}.every(row => row.rollout.failed)")
    page.evaluate("history.back()")
    page.wait_for(everything)
    page.evaluate("history.forward()")
    page.wait_for(f"{ROWS}.length > 0 && {ROWS}.every(row => row.rollout.failed)")
    assert page.evaluate("document.querySelector('.card.bad').getAttribute('aria-pressed')") == "true"
    page.evaluate("history.forward()")
    page.wait_for("document.querySelector('.conversation')")
    page.evaluate("history.forward()")
    page.wait_for("document.querySelector('.turns')")
    page.open("about:blank")
    page.open(link)
    page.wait_for(f"document.querySelector('.turns') && {ROWS}.every(row => row.rollout.failed)")
    page.open("about:blank")
    page.open(link.partition("#")[0])
    page.wait_for(everything.replace("')", "')?", 1))
    page.click("figure g[tabindex='0'] .hit")
    page.wait_for("location.hash.includes('reward=')")
    link, count = page.evaluate("location.href"), page.text(".shown")
    page.open("about:blank")
    page.open(link)
    page.wait_for(f"document.querySelector('.shown')?.textContent === {count!r}")


def test_a_viewer_that_is_started_anew_shows_the_same_rollout_in_a_page_that_stayed_open(
    page: Browser, tmp_path: Path
) -> None:
    folder = tmp_path / "traces"
    write_two_runs(folder)
    page.expected.add("ERR_CONNECTION_REFUSED")
    with Program(tmp_path, "view", str(folder)) as viewer:
        page.open(f"{address_of(viewer)}#rollout=1700000002/r1-2-1")
        page.wait_for(OPENED)
        viewer.signal(signal.SIGINT)
    page.wait_for("document.querySelector('.live').textContent === 'not connected'")
    TraceMaker("new").start("New?").turn(1, saying("no")).end(reward=0.1).write(folder / "1600000000")
    with Program(tmp_path, "view", str(folder)):
        page.wait_for("document.querySelector('.shown').textContent === '33 of 33 shown'")
        assert page.wait_for(OPENED) == "r1-2-1"
        assert "three" in page.text(".conversation")
        page.open("about:blank")


def test_runs_that_are_picked_stay_those_two(page: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    write_two_runs(folder)
    chosen = "['a', 'b'].map(side => document.querySelector(`input[name=side-${side}]:checked`)?.ariaLabel)"
    pair = [f"{run_name('1700000001')} is A", f"{run_name('1700000002')} is B"]
    with Program(tmp_path, "view", str(folder)) as viewer:
        page.open(f"{address_of(viewer)}#view=runs")
        page.wait_for("document.querySelector('.comparison')")
        page.click("[data-key='1700000002'] input[name=side-a]")
        page.click("[data-key='1700000001'] input[name=side-a]")  # the other side was never touched
        page.wait_for("location.hash.includes('a=1700000001') && location.hash.includes('b=1700000002')")
        link, verdict = page.evaluate("location.href"), page.text(".verdict")
        maker = TraceMaker("later", 1_800_000_000.0).start("Later?", metadata={"row_index": 0})
        maker.turn(1, saying("no")).end(reward=0.1).write(folder / "1800000000")
        page.wait_for("document.querySelectorAll('.runs tbody tr').length === 3")
        assert (page.evaluate(chosen), page.text(".verdict")) == (pair, verdict)
        page.open("about:blank")
        page.open(link)
        page.wait_for("document.querySelectorAll('.runs tbody tr').length === 3")
        assert (page.evaluate(chosen), page.text(".verdict")) == (pair, verdict)
        # A run that is not there is not taken for another.
        page.open("about:blank")
        page.open(link.replace("b=1700000002", "b=1600000000"))
        page.wait_for("document.querySelectorAll('.runs tbody tr').length === 3")
        missing = f"The run {run_name('1600000000')}, which is to be B, is not among those shown."
        assert page.text("#run-list .notice") == missing
        assert page.evaluate("document.querySelector('.comparison')") is None
        page.open("about:blank")


@pytest.mark.parametrize("view", ["rollouts", "problems"])
def test_the_order_of_a_table_is_in_the_address(page: Browser, tmp_path: Path, view: str) -> None:
    write_two_runs(tmp_path / "traces")
    with Program(tmp_path, "view", str(tmp_path / "traces")) as viewer:
        page.open(f"{address_of(viewer)}#view={view}")
        page.wait_for(f"{IS_READ} && {ROWS}.length > 3")
        head = (
            "[...document.querySelectorAll('[role=columnheader]')].find(e => e.offsetParent && e.ariaSort !== 'none')"
        )
        told = f"[{head}.innerText, {head}.ariaSort, ...{ROWS}.map(row => row.rollout.key)]"
        before = page.evaluate(told)
        column = {"rollouts": "#table .c-id", "problems": ".problems .c-prompt"}[view]
        for _ in range(2):
            page.click(f"{column} button")
        page.wait_for(f"{head}.ariaSort === 'descending'")
        link, after = page.evaluate("location.href"), page.evaluate(told)
        assert after != before
        page.open("about:blank")
        page.open(link)
        page.wait_for(f"{IS_READ} && {ROWS}.length > 3")
        assert page.evaluate(told) == after
        page.evaluate("(location.hash = '#view=' + " + repr(view) + ")")
        page.wait_for(f"JSON.stringify({told}) === JSON.stringify({before!r})".replace("None", "null"))
        page.open("about:blank")


def test_whoever_opens_a_link_to_two_side_by_side_has_pinned_nothing(page: Browser, tmp_path: Path) -> None:
    write_two_runs(tmp_path / "traces")
    with Program(tmp_path, "view", str(tmp_path / "traces")) as viewer:
        page.open(f"{address_of(viewer)}#pin=1700000001/r0-2-1&rollout=1700000001/r0-2-0")
        page.wait_for("document.querySelector('.detail.double .differ')")
        page.press("Escape")
        page.wait_for("document.querySelector('#detail').hidden")
        assert "pin=" not in page.evaluate("location.hash")
        page.evaluate("history.back()")
        page.wait_for("document.querySelector('.detail.double .differ')")
        page.press("Escape")
        page.wait_for("document.querySelector('#detail').hidden")
        assert "pin=" not in page.evaluate("location.hash")
        page.open("about:blank")


def test_a_link_names_the_runs_that_are_compared_though_nobody_picked_them(page: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    write_two_runs(folder)
    with Program(tmp_path, "view", str(folder)) as viewer:
        page.open(f"{address_of(viewer)}#view=runs")
        link = page.wait_for("location.hash === '#view=runs&a=1700000001&b=1700000002' && location.href")
        page.click("#to-problems")
        page.wait_for("location.hash === '#view=problems'")
        page.click("#to-runs")
        page.wait_for("location.hash === '#view=runs&a=1700000001&b=1700000002'")
        # One who stays sees the latest two.
        TraceMaker("later", 1_800_000_000.0).start("Other?").end(reward=0.1).write(folder / "1800000000")
        page.wait_for("location.hash === '#view=runs&a=1700000002&b=1800000000'")
        page.open("about:blank")
        page.open(link)
        page.wait_for(f"{IS_READ} && document.querySelectorAll('.runs tbody tr').length === 3")
        chosen = "[...document.querySelectorAll('.runs :checked')].map(e => [e.name, e.closest('tr').dataset.key])"
        assert page.evaluate(chosen) == [["side-a", "1700000001"], ["side-b", "1700000002"]]
        page.open("about:blank")
