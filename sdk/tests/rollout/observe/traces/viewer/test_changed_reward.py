"""Two runs between which somebody changed the reward: what the page says of it."""

from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS, run_name

from osmosis_ai.cli import main

pytestmark = browser_tests()

# Four samples of three problems: the second run pays for the form too, and three parts of a whole reward are one.
WHOLE = 0.7 + 0.2 + 0.1
BEFORE = ((1.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0))
AFTER = ((WHOLE, 0.3, WHOLE, 0.3), (0.3, 0.1, 0.3, 0.1), (WHOLE, WHOLE, WHOLE, WHOLE))


def test_what_changed_is_said(page: Browser, tmp_path: Path) -> None:
    assert WHOLE < 1
    for run, problems in enumerate((BEFORE, AFTER)):
        for row, rewards in enumerate(problems):
            for sample, reward in enumerate(rewards):
                maker = TraceMaker(f"r{run}-{row}-{sample}", 1_700_000_000.0 + run)
                maker.start(f"Number {row}?", metadata={"row_index": row}).turn(1, saying(f"#### {reward}"))
                told = {"outcome": "success", **({"reward_components": {"form": 0.5}} if run else {})}
                maker.end(reward=reward, extra_fields=told).write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    page.wait_for(f"{IS_READ} && document.querySelector('.comparison')")
    rates = "[...document.querySelectorAll('.runs [data-head=\"Pass rate\"]')].map(e => e.innerText)"
    assert [rate.split("\n")[0] for rate in page.evaluate(rates)] == ["50%", "50%"]
    assert page.text(".parts") == "form: only in B, mean 0.5"
    assert "made of different parts" in page.text(".comparison .notice")

    page.click("#to-problems")
    page.wait_for(f"{ROWS}.length === 3")
    assert page.text(".says") == (
        "1 of 3 problems have no signal (33%): 1 always right. 1 more has none in some of the runs."
    )
    page.evaluate(f"{ROWS}.find(row => row.innerText.includes('Number 1')).querySelector('.small').click()")
    page.wait_for("document.querySelector('.detail.double .differ')")
    chips = "[...document.querySelectorAll('.side .chip')].map(e => [e.innerText, e.className.trim()])"
    assert page.evaluate(chips) == [["reward 0.3", "chip"], ["reward 0.1", "chip"]], "of one run"
    assert "1 turn \u00b7" in page.text(".side p")


@pytest.mark.parametrize("weight", [0.9, 0.7])
def test_equal_parts_that_earn_another_reward_are_said_to(page: Browser, tmp_path: Path, weight: float) -> None:
    for run, of_right in enumerate((0.9, weight)):
        for row in range(3):
            for sample in range(4):
                parts = {"right": float(sample % 2), "form": 1.0}
                maker = TraceMaker(f"r{run}-{row}-{sample}", 1_700_000_000.0 + run)
                maker.start(f"Number {row}?", metadata={"row_index": row}).turn(1, saying("#### 3"))
                reward = of_right * parts["right"] + 1 - of_right if row else parts["right"]
                told = {"outcome": "success", "reward_components": parts}
                maker.end(reward=reward, extra_fields=told).write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    page.wait_for(f"{IS_READ} && document.querySelector('.comparison')")
    said = page.evaluate("[...document.querySelectorAll('.comparison .notice')].map(e => e.innerText)")
    changed = (
        "Equal parts earned another reward in 2 of 3 problems where both have such samples, as form 1, right 0: "
        "0.1 in A, 0.3 in B. What makes a reward of its parts may have changed, not the model."
    )
    assert said == ([] if weight == 0.9 else [changed])


def test_that_the_reward_changed_is_said_before_who_is_better(page: Browser, tmp_path: Path) -> None:
    for run in range(2):
        for row in range(4):
            for sample in range(4):
                maker = TraceMaker(f"r{run}-{row}-{sample}", 1_700_000_000.0 + run)
                maker.start(f"Number {row}?", metadata={"row_index": row}).turn(1, saying("so"))
                told = {"reward_components": {"form": 1.0, **({"right": 1.0} if run else {})}}
                maker.end(reward=run + row / 100 + sample / 10, extra_fields=told)
                maker.write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    said = page.text(".comparison")
    assert page.text(".verdict").startswith("The reward itself has changed, so this is not the model's alone: mean")
    assert "B is better" not in said
    assert said.index("made of different parts") < said.index("mean reward +1")


def test_how_many_changed_by_more_than_chance_is_said_and_coloured(page: Browser, tmp_path: Path) -> None:
    before = ((0.0,) * 8, (0.0, 1.0) * 4, (1.0,) * 8, (1.0,) * 8)
    after = ((1.0,) * 7 + (0.0,), (1.0,) * 5 + (0.0,) * 3, (0.0,) * 8, (1.0,) * 8)
    page.open(f"{report_of(tmp_path, before, after)}#view=runs")
    page.wait_for(f"{IS_READ} && document.querySelector('.comparison')")
    tally = "[...document.querySelectorAll('.tally li')].map(e => e.innerText)"
    assert page.evaluate(tally) == [
        "2 problems better (1 beyond chance)",
        "1 problem equal",
        "1 problem worse (1 beyond chance)",
    ]
    assert page.evaluate("[...document.querySelectorAll('.pairs tbody tr')].map(e => e.className)") == [
        "worse",
        "better",
        "",
        "",
    ]


# What a right answer earns where the reward pays for brevity too: never quite 1.
BEST = 0.7 + 0.2 + 0.084
PARTLY = {
    "with right and wrong": ((BEST, 0.2955), (BEST, BEST), (0.973, 0.973), (0.2955,) * 8),
    "below nothing": ((1.0, -1.0), (-1.0, -1.0), (0.0, 0.0), (1.0, 1.0)),
    "beyond one": ((5.0, 1.0), (1.0, 1.0), (2.0, 2.0), (0.0, 0.0)),
    "nothing": ((0.0, 1.0), (0.0, 0.0), (0.0, 0.0), (1.0, 1.0)),
}
SAID = {
    "with right and wrong": "3 always the same in a run (rewards 0.296 to 0.984). "
    "No reward reaches 1, the best is 0.984: so each pass rate is 0%.",
    "below nothing": "3 always the same in a run (rewards -1 to 1).",
    "beyond one": "3 always the same in a run (rewards 0 to 2).",
    "nothing": "1 always right, 2 never right.",
}


def report_of(folder: Path, *runs: tuple[tuple[float, ...], ...]) -> str:
    """A report of the runs, each of problems of samples' rewards."""
    for run, problems in enumerate(runs):
        for row, rewards in enumerate(problems):
            for sample, reward in enumerate(rewards):
                maker = TraceMaker(f"r{run}-{row}-{sample}", 1_700_000_000.0 + run)
                maker.start(f"Number {row}?", metadata={"row_index": row}).turn(1, saying(f"#### {reward}"))
                maker.end(reward=reward).write(folder / "traces" / f"170000000{run}")
    assert main(["view", str(folder / "traces"), "-o", str(folder / "report.html")]) == 0
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize("kind", PARTLY)
def test_right_and_wrong_are_said_of_rewards_that_tell_it(page: Browser, tmp_path: Path, kind: str) -> None:
    page.open(f"{report_of(tmp_path, PARTLY[kind])}#view=problems")
    page.wait_for(f"{IS_READ} && {ROWS}.length === 4")
    assert page.text(".says") == f"3 of 4 problems have no signal (75%): {SAID[kind]}"
    # Eight times 0.2955 has a spread of 6e-17: none of them is the best.
    assert page.evaluate(f"{ROWS}.filter(row => row.querySelector('.small')).map(row => row.rollout.row)") == [0]


def test_a_pass_rate_that_says_nothing_is_explained(page: Browser, tmp_path: Path) -> None:
    page.open(f"{report_of(tmp_path, PARTLY['nothing'], PARTLY['with right and wrong'])}#view=runs")
    page.wait_for(f"{IS_READ} && document.querySelector('.comparison')")
    assert page.text(".scroll + p") == (
        "Pass rate: the share of rewards that are at least 1. No reward of "
        f"{run_name('1700000001')} is: its best is 0.984."
    )
    page.click("#to-problems")
    page.wait_for(f"{ROWS}.length === 4")
    assert "In 1 of 2 runs no reward reaches 1, which lowers the pass rates: choose one run." in page.text(".says")
    page.click("#to-runs")
    title = "document.querySelector('.runs th:nth-child(5)').title"
    assert page.evaluate(title).startswith("Share of the rewards that are at least 1")


def test_a_facet_finds_what_is_whole_but_for_rounding(page: Browser, tmp_path: Path) -> None:
    page.open(report_of(tmp_path, ((WHOLE, 1.0, 0.5),)))
    for query, count in {"reward:1": 2, "reward:>=1": 2, "reward:1..2": 2, "reward:<1": 1, "reward:>1": 0}.items():
        page.open("about:blank")
        page.open(f"{(tmp_path / 'report.html').as_uri()}#q={query}")
        page.wait_for(f"document.querySelector('.shown')?.textContent === '{count} of 3 shown'")
