"""On a phone: all that a wide page shows is there, without scrolling sideways, and nothing is cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS, run_name, texts, write_two_runs

from osmosis_ai.cli import main
from osmosis_ai.rollout.observe.traces.viewer.page import SCRIPTS, static_file

pytestmark = browser_tests()

IS_SEEN = "(box => box.width > 0 && box.left >= 0 && box.right <= innerWidth + 0.5)(e.getBoundingClientRect())"
IS_CUT = "(e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)"


@pytest.fixture(params=[375, 320])
def phone(page: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browser]:
    write_two_runs(tmp_path / "traces")
    parts = {"right": 0.123456, "used_tool": 0.987654}
    for sample in range(3):
        maker = TraceMaker(f"parts-{sample}").start("Convert 12 yards to feet, please. " * 8, metadata={"row_index": 7})
        maker.turn(1, saying("so")).end(
            reward=sample / 2, extra_fields={"outcome": "success", "reward_components": parts}
        ).write(tmp_path / "traces" / "a-run-of-a-rather-long-name" / "1700000003")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.resize(request.param, 740, mobile=True)
    page.open((tmp_path / "report.html").as_uri())
    page.wait_for(f"{IS_READ} && {ROWS}.length > 0")
    yield page
    page.open("about:blank")


def nothing_is_cut(page: Browser, selector: str) -> None:
    all_of_them = f"[...document.querySelectorAll({selector!r})].filter(e => e.getClientRects().length)"
    assert page.evaluate(f"{all_of_them}.length") > 0
    assert page.evaluate(f"{all_of_them}.filter(e => !{IS_SEEN} || {IS_CUT}).map(e => e.outerHTML)") == []
    assert page.evaluate("innerWidth === screen.width")  # a page that is too wide is shown smaller


def test_the_samples_of_a_problem_are_set_side_by_side_by_a_tap(phone: Browser) -> None:
    phone.click("#to-problems")
    phone.wait_for("document.querySelector('.problems .small')")
    nothing_is_cut(phone, ".problems .small")
    nothing_is_cut(phone, ".problems :is(.c-n, .c-pass, .c-mean, .c-signal, .c-spread, .c-length, .c-written)")
    tall = "[...document.querySelectorAll('.problems .small')].every(e => e.getBoundingClientRect().height >= 36)"
    assert phone.evaluate(tall)
    # The button lies beside what was asked, not upon it.
    assert phone.evaluate(
        "[...document.querySelectorAll('.problems .row')].every(row => {"
        " const button = row.querySelector('.small')?.getBoundingClientRect(), range = document.createRange();"
        " range.selectNodeContents(row.querySelector('.id'));"
        " return !button || range.getBoundingClientRect().right <= button.left; })"
    )
    phone.click(".problems .small")
    phone.wait_for("document.querySelector('.detail.double .differ')")
    nothing_is_cut(phone, ".side")
    nothing_is_cut(phone, ".differ .pair > div")
    # One below the other, each says whose it is.
    assert texts(phone, ".differ .whose") == texts(phone, ".side h3")
    assert len(set(texts(phone, ".side h3"))) == 2


def test_a_problem_is_told_from_others_by_its_row_and_has_the_width_of_the_page(phone: Browser) -> None:
    phone.click("#to-problems")
    phone.wait_for("document.querySelector('.problems .small')")
    phone_width = phone.evaluate("innerWidth")
    phone.resize(740, 900, mobile=True)
    phone.wait_for(f"{ROWS}.some(row => row.querySelector('.why').innerText.includes('always 1 in'))")
    nothing_is_cut(phone, ".problems .why")
    phone.resize(phone_width, 844, mobile=True)
    phone.wait_for("document.querySelector('.problems .of-first').getClientRects().length")
    nothing_is_cut(phone, ".problems .why, .problems .why span")
    shown = phone.evaluate(f"{ROWS}.map(row => row.querySelector('.why').innerText)")
    shown = [" ".join(one.split()) for one in shown]
    assert sorted(shown) == [
        *("row 0 · 2 runs", "row 1 · 2 runs"),
        f"row 2 · 2 runs always 1 in {run_name('1700000002')}",
        *("row 3 · 2 runs", "row 7"),
    ]
    phone.click("#to-runs")
    phone.evaluate("document.querySelector('[data-key=\"1700000001\"] [name=side-b]').click()")
    phone.wait_for("document.querySelector('.pairs')")
    widths = "[...document.querySelectorAll('.pairs, .pairs th[scope=row]')].map(e => e.getBoundingClientRect().width)"
    table, *problems = phone.evaluate(widths)
    assert len(problems) == 4
    assert {table} == set(problems)


def test_of_many_runs_without_signal_one_is_named_and_the_others_are_counted(phone: Browser, tmp_path: Path) -> None:
    for run in range(13):
        for sample in range(2):
            maker = TraceMaker(f"r{sample}", 1_700_000_000.0 - run).start("Hi? " * 40, metadata={"row_index": 0})
            maker.turn(1, saying("so")).end(reward=float(sample and not run))
            maker.write(tmp_path / "many" / f"17000000{run + 10}")
    assert main(["view", str(tmp_path / "many"), "-o", str(tmp_path / "many.html")]) == 0
    phone.open(f"{(tmp_path / 'many.html').as_uri()}#view=problems")
    phone.wait_for(f"{IS_READ} && {ROWS}.length === 1")
    told = " ".join(phone.text(".problems .of-first").split())
    assert told == f"always 0 in {run_name('1700000011')} + 11 more"
    nothing_is_cut(phone, ".problems .why, .problems .why span, .problems .row .c-signal")
    top, bottom = phone.evaluate(
        "['.c-n', '.of-first'].map((one, end) => document.querySelector(`.problems .row ${one}`)"
        ".getBoundingClientRect()[end ? 'bottom' : 'top'])"
    )
    assert bottom <= top + 1, "it lies above the numbers, not upon them"


@pytest.mark.parametrize("names", [("baseline", "longer-prompt"), ("a" * 40, "b" * 40)])
def test_runs_are_named_whole_on_one_line_where_there_is_room(
    phone: Browser, tmp_path: Path, names: tuple[str, str]
) -> None:
    for run, name in enumerate(names):
        for sample in range(2):
            maker = TraceMaker(f"r{sample}", 1_700_000_000.0 + run).start("Hi? " * 40, metadata={"row_index": 0})
            maker.turn(1, saying("so")).end(reward=float(run)).write(tmp_path / "two" / name)
    assert main(["view", str(tmp_path / "two"), "-o", str(tmp_path / "two.html")]) == 0
    phone.open(f"{(tmp_path / 'two.html').as_uri()}#view=problems")
    phone.wait_for(f"{IS_READ} && {ROWS}.length === 1")
    line = "document.querySelector('.problems .of-first')"
    assert phone.evaluate(f"{line}.textContent") == f"always 0 in {names[0]}, 1 in {names[1]}"
    assert phone.evaluate(f"{line}.getBoundingClientRect().height < 24 && {line}.scrollWidth <= {line}.clientWidth")
    starts = "[...document.querySelectorAll('.of-first .id-start')].map(e => e.scrollWidth > e.clientWidth)"
    assert phone.evaluate(starts) == [len(name) > 20 for name in names]


def test_between_a_phone_and_a_desk_no_table_is_wider_than_the_page(phone: Browser) -> None:
    for width in (740, 820):
        phone.resize(width, 900, mobile=True)
        for view, numbers in {"rollouts": ".c-reward", "problems": ".c-mean", "runs": ".scroll + p"}.items():
            phone.click(f"#to-{view}")
            phone.wait_for(f"!document.querySelector('#view-{view}').hidden")
            nothing_is_cut(phone, numbers)
    phone.click("#to-problems")
    nothing_is_cut(phone, ".problems .row :is(.c-n, .c-pass, .c-mean, .c-signal, .c-spread, .small)")


def test_of_problems_three_are_on_the_first_screen(phone: Browser) -> None:
    phone.resize(390, 844, mobile=True)
    phone.click("#to-problems")
    phone.wait_for(f"{ROWS}.length === 5")
    phone.evaluate("window.scrollTo(0, 0)")
    whole = f"{ROWS}.filter(row => row.getBoundingClientRect().bottom <= innerHeight).length"
    assert phone.evaluate(whole) >= 3
    nothing_is_cut(phone, ".problems .row :is(.c-n, .c-pass, .c-mean, .c-signal, .c-spread, .c-length, .c-written)")
    # No cell lies upon another.
    boxes = f"{ROWS}.map(row => [...row.children].filter(e => e.innerText).map(e => e.getBoundingClientRect()))"
    upon = "a !== b && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1"
    within = "boxes.slice(1)"  # the first is the prompt's, which leaves room for two of them
    assert phone.evaluate(f"{boxes}.filter(boxes => {within}.some(a => {within}.some(b => {upon}))).length") == 0


def test_a_filter_of_many_words_keeps_the_sign_that_removes_it(phone: Browser) -> None:
    phone.click("#to-problems")
    phone.evaluate(f"{ROWS}.find(row => row.innerText.includes('12 yards')).click()")
    phone.wait_for(f"{ROWS}.length === 3")
    nothing_is_cut(phone, ".filter [aria-hidden]")
    assert phone.evaluate("(e => e.scrollWidth > e.clientWidth)(document.querySelector('.filter .says'))")


def test_charts_are_folded_where_the_style_says_so_and_nowhere_else(phone: Browser) -> None:
    address = phone.evaluate("location.href")
    for width, is_open in ((800, False), (801, True)):
        phone.resize(width, 900)
        phone.open("about:blank")
        phone.open(address)
        phone.wait_for(f"{IS_READ} && document.querySelector('#charts')")
        assert phone.evaluate("document.querySelector('#charts').open") is is_open
    assert [name for name in SCRIPTS if "max-width" in static_file(name)] == []


def test_two_rollouts_are_pinned_by_taps(phone: Browser) -> None:
    phone.click("#table .row")
    phone.click("[aria-label^='Pin,']")
    phone.click("#close")
    phone.wait_for("document.querySelector('#detail').hidden")
    phone.evaluate("document.querySelectorAll('#table .row')[1].click()")
    phone.wait_for("document.querySelectorAll('.side h3').length === 2")


def test_each_run_is_a_card_with_all_its_numbers(phone: Browser) -> None:
    phone.click("#to-runs")
    phone.wait_for("document.querySelector('.runs')")
    nothing_is_cut(phone, ".runs :is(td, th[scope=row])")
    [first, *_] = phone.evaluate(
        "[...document.querySelectorAll('.runs tbody tr')].map(row => [...row.children].map("
        "cell => [cell.dataset.head ?? 'Run', cell.innerText.trim()]))"
    )
    told = dict(first)
    assert {
        "Run": run_name("1700000001"),
        "Mean reward": "0.563\n0.183 to\xa00.880",
        "Pass rate": "56%\n18% to\xa088%",
        "Rollouts": "16",
        "Failed": "0",
    }.items() <= (told.items())
    shown = "getComputedStyle(document.querySelector('.runs td:nth-child(4)'), '::before').content"
    assert phone.evaluate(shown) == '"Mean reward"'
    # A finger beside it finds it too.
    size = "(box => Math.min(box.width, box.height))(e.getBoundingClientRect())"
    assert phone.evaluate(f"Math.min(...[...document.querySelectorAll('.pick label')].map(e => {size}))") >= 40
    phone.click("[data-key='1700000001'] .pick label:has([name=side-a])")
    phone.wait_for("location.hash.includes('a=1700000001')")
    upon = "[...document.querySelectorAll('.runs tr:has(td)')].filter(row => { const range = document.createRange();"
    upon += " range.selectNodeContents(row.querySelector('.link')); const link = range.getBoundingClientRect();"
    upon += " return [...row.querySelectorAll('.pick')].some(e => e.getBoundingClientRect().left < link.right); })"
    assert phone.evaluate(f"{upon}.length") == 0


def test_cards_say_their_numbers_whole(phone: Browser) -> None:
    nothing_is_cut(phone, ".card, .card .value")


def test_tabs_stand_in_one_line(phone: Browser) -> None:
    phone.click("#table .row")
    phone.wait_for("document.querySelector('.conversation')")
    nothing_is_cut(phone, ".detail .tabs button")
    nothing_is_cut(phone, ".fact dd:not(.id)")
    # A run is told from others by its end.
    assert phone.evaluate("document.querySelector('.fact .id .id-end').innerText") == run_name("1700000003")[-10:]
    heights = "[...document.querySelectorAll('.detail .tabs button')].map(e => e.getBoundingClientRect().height)"
    assert phone.evaluate(f"new Set({heights}).size") == 1


def test_the_help_begins_at_its_beginning(phone: Browser) -> None:
    phone.click("#help")
    phone.wait_for("document.querySelector('dialog').open")
    assert phone.evaluate("document.querySelector('dialog').scrollTop") == 0
    nothing_is_cut(phone, "dialog dd")
    phone.press("Escape")
    phone.wait_for("!document.querySelector('dialog').open")
