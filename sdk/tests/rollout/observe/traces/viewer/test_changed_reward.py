"""Two runs between which somebody changed the reward: what the page says of it."""

from pathlib import Path

from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS

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
    assert page.evaluate(rates) == ["50%", "50%"]
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
    assert page.evaluate(chips) == [["reward 0.3", "chip"], ["reward 0", "chip"]]
    assert "1 turn \u00b7" in page.text(".side p")
