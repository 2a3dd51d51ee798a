"""Rewards of many digits: each is shown, short and never cut, and what is reckoned of them is a number."""

from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS

from osmosis_ai.cli import main
from osmosis_ai.rollout.run.evaluate.statistics import mean_interval

pytestmark = browser_tests()

RUNS = ((1e300, -1e300, 1.7e308, -1234567890.125), (1234567890.125, 2e300, -1.7e308, 1e300))
NUMBERS = ".cell.number, .card .value, .runs td, .pairs td, .fact dd, .axis span, figcaption span, .parts li, .verdict"
IS_CUT = "e.getClientRects().length && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)"


@pytest.mark.parametrize("width", [1280, 375])
def test_no_digit_is_cut_and_nothing_is_infinite(page: Browser, tmp_path: Path, width: int) -> None:
    for run, rewards in enumerate(RUNS):
        for sample, reward in enumerate(rewards):
            for row in range(2):
                maker = TraceMaker(f"r{run}-{row}-{sample}", 1_700_000_000.0 + run)
                maker.start(f"Number {row}?", metadata={"row_index": row}).turn(1, saying("so"))
                maker.end(reward=reward, extra_fields={"reward_components": {"right": reward, "brief": -reward}})
                maker.write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.resize(width, 900, mobile=width < 500)
    url = (tmp_path / "report.html").as_uri()
    for hash_, sign in {"": ".card", "view=problems": ".problems .row", "view=runs": ".pairs"}.items():
        page.open("about:blank")
        page.open(f"{url}#{hash_}")
        page.wait_for(f"{IS_READ} && document.querySelector('{sign}')")
        cut = f"[...document.querySelectorAll('{NUMBERS}')].filter(e => {IS_CUT}).map(e => e.outerHTML)"
        assert page.evaluate(cut) == []
        said = str(page.evaluate("document.body.innerText"))
        assert not {"NaN", "Infinity"} & set(said.replace("-", " ").split())
        assert page.evaluate("[...document.querySelectorAll('svg *')].every(e => !e.outerHTML.includes('NaN'))")
        assert page.evaluate("innerWidth === screen.width") or width > 500
    page.open("about:blank")
    page.open(f"{url}#q=reward:>1e9")
    page.wait_for("document.querySelector('.shown')?.textContent === '10 of 16 shown'")
    rewards = page.evaluate(f"{ROWS}.map(row => (c => [c.innerText, c.title])(row.querySelector('.c-reward')))")
    assert ["1.235e9", "1234567890.125"] in rewards
    assert ["1.7e308", "1.7e+308"] in rewards


def test_what_is_reckoned_of_them_is_right(page: Browser, tmp_path: Path) -> None:
    TraceMaker("r").start("?").turn(1, saying("so")).end(reward=1.0).write(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open((tmp_path / "report.html").as_uri())
    page.wait_for(IS_READ)
    for said, expected in {
        "Stats.mean([1e308, 1.5e308, 1e308]) / 1e308": 3.5 / 3,
        "Stats.mean([1.7e308, -1.7e308])": 0,
        "Stats.spread([1e300, 3e300]) / 1e300": 1,
        "Stats.spread([5e307, -5e307]) / 1e307": 5,
        "Stats.spread([1, 0])": 0.5,
        "Stats.spread([1, 0], 1)": 0.5**0.5,
    }.items():
        assert page.evaluate(said) == pytest.approx(expected), said
    # The interval of a mean is that of `osmosis eval`: of problems that are alike, not, whole, huge, alone, or none.
    for rows in (
        [[1.0, 0.0, 1.0], [1.0], [0.0, 0.0]],
        [[1.0] * 8] * 5,
        [[0.25, 0.5], [0.75]],
        [[3.0, -1.0], [2.5], [-7.0, 1.0]],
        [[2.0], [2.0]],
        [[1.5e300], [-1e300, 1e300], [2e299]],
        [[1.0]],
        [[2.0]],
        [],
    ):
        scale = 1e-290 if sum(map(sum, rows)) > 1e200 else 1
        known = mean_interval([[value * scale for value in row] for row in rows])
        found = page.evaluate(f"Stats.interval({rows})")
        ends = None if known is None else [known.low / scale, known.high / scale]
        assert found is None if ends is None else found == pytest.approx(ends, rel=2e-3), rows
    # Student's t, by integration: Welch's degrees of freedom need not be whole.
    for degrees, expected in {
        1: 12.706,
        1.35: 7.048,
        1.75: 4.949,
        2.5: 3.575,
        3.61: 2.899,
        4.9: 2.586,
        24: 2.064,
    }.items():
        assert page.evaluate(f"Stats.quantile({degrees})") == pytest.approx(expected, rel=0.006), degrees
    assert page.evaluate(
        "[0.5, -0.25, 12.34, 99999.5, 1e5, -1234567.8, 1e21, 1e300, 1.7976e308, NaN, null].map(v => Text.reward(v))"
    ) == ["0.5", "-0.25", "12.34", "99999.5", "1e5", "-1.235e6", "1e21", "1e300", "> 1.8e308", "\u2013", "\u2013"]


def test_numbers_of_a_column_are_written_alike_and_what_differs_is_seen(page: Browser, tmp_path: Path) -> None:
    rewards = {0: (0.2956, 0.2951, 0.5, 1.0), 1: (0.99996, 1.0, 1.0, 1.0), 2: (1.0, 1.0, 1.0, 1.0), 3: (0.5, 1 / 3)}
    for run in range(2):
        for row, samples in rewards.items():
            for sample, reward in enumerate(samples):
                maker = TraceMaker(f"r{run}-{row}-{sample}", 1_700_000_000.0 + run)
                maker.start(f"Number {row}?", metadata={"row_index": row}).turn(1, saying("so"))
                maker.end(reward=reward - run * row * 1e-4).write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    url = (tmp_path / "report.html").as_uri()
    columns = {
        "#table .row .c-reward": ("", ["0.29510", "0.29560"]),
        "#problem-table .row .c-mean": ("#view=problems", ["0.4165", "0.5227", "0.9999"]),
        "#problem-table .row .c-spread": ("#view=problems", ["0.0001", "0.0833", "0.2880"]),
        ".pairs td:nth-child(3)": ("#view=runs", ["0.4164", "0.5227", "0.9998", "0.9999"]),
        ".runs td:nth-child(4)": ("#view=runs", ["0.7802", "0.7803"]),
    }
    for selector, (hash_, expected) in columns.items():
        page.open("about:blank")
        page.open(url + hash_)
        page.wait_for(f"{IS_READ} && document.querySelector('{selector}')")
        told = page.evaluate(f"[...document.querySelectorAll('{selector}')].map(e => e.innerText.split('\\n')[0])")
        assert len({len(number) for number in told}) == 1, (selector, told)
        assert sorted(set(told))[: len(expected)] == expected, selector
    # Nothing else is as the whole reward, and a title has all digits.
    page.open("about:blank")
    page.open(f"{url}#q=row_index:1")
    page.wait_for(f"{ROWS}.length === 8")
    told = page.evaluate(f"{ROWS}.map(row => (c => [c.innerText, c.title])(row.querySelector('.c-reward')))")
    assert ["0.99996", ""] in told
    assert sum(number == "1.00000" for number, _ in told) == 3
    page.open("about:blank")
    page.open(f"{url}#q=row_index:3")
    page.wait_for(f"{ROWS}.length === 4")
    titles = page.evaluate(f"{ROWS}.map(row => row.querySelector('.c-reward').title)")
    assert "0.3333333333333333" in titles
    assert page.evaluate(
        "[[0.25, 1], [4e-9, 1], [0, 1], [1234.5, 0.25], [1/8, 1]].map(([v, w]) => Text.column([v, w])(v))"
    ) == ["0.25", "4e-9", "0", "1234.5", "0.125"]
    assert page.evaluate(
        "[[0, 0.5], [0.125, 0.5], [0.004, 0.5], [0.999, 1]].map(([v, w]) => Text.percents([v, w])(v))"
    ) == ["0%", "13%", "0.4%", "99.9%"]


def test_a_change_of_groups_that_are_all_alike_is_of_every_sample(page: Browser, tmp_path: Path) -> None:
    for run, reward in (("1700000001", 0.3), ("1700000002", 0.1)):
        for sample in range(2):
            maker = TraceMaker(f"r{sample}").start("1 + 1?").turn(1, saying("2"))
            maker.end(reward=reward).write(tmp_path / "traces" / run)
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open("about:blank")
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    page.wait_for("document.querySelector('.pairs td.change')")
    assert page.evaluate("document.querySelector('.pairs td.change').innerText") == "-0.2\nevery sample"
