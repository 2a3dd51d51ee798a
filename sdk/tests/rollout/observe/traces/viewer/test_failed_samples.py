"""Two runs, in the second of which samples failed: what the page says of them, and of two that said nothing."""

from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, run_name, texts

from osmosis_ai.cli import main

pytestmark = browser_tests()

NO_REWARD = "none"
# By run and row, the rewards of its samples; None failed before its first turn.
SAMPLES: dict[str, dict[str, tuple[float | str | None, ...]]] = {
    "1700000000": {"lost": (1.0, 1.0), "half": (0.5, 0.5), "whole": (0.0, 0.5), "gained": (None, None), "gone": (1.0,)},
    "1700000001": {"lost": (None, None), "half": (1.0, None), "whole": (0.5, 1.0, NO_REWARD), "gained": (1.0, 0.0)},
}
REFUSED = (
    'OsmosisServerError: {"detail": "The policy failed: ValueError: no \\"reply\\" for this (policy.py:12 in reply)",'
    ' "code": "policy_failed"} (HTTP 500, chat call, http://127.0.0.1:9/v1/chat/completions)'
)


@pytest.fixture
def failed(tmp_path: Path, page: Browser) -> str:
    """The address of a report of both runs, which is open."""
    for run, rows in SAMPLES.items():
        for row, rewards in rows.items():
            for sample, reward in enumerate(rewards):
                maker = TraceMaker(f"{row}-{sample}", float(run)).start(f"{row}?", metadata={"ground_truth": "84"})
                if reward is None:
                    told = {"outcome": "llm_error"}
                    maker.end(status="ERROR", error_message=REFUSED, final_messages=[], extra_fields=told)
                else:
                    scored = {} if reward == NO_REWARD else {"reward": reward}
                    maker.turn(1, saying(f"#### {reward}")).end(**scored)
                maker.write(tmp_path / "traces" / run)
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    address = (tmp_path / "report.html").as_uri()
    page.open(address)
    page.wait_for(IS_READ)
    return address


@pytest.mark.usefixtures("failed")
def test_a_problem_that_lost_its_rewards_is_the_first_that_changed(page: Browser) -> None:
    page.click("#to-runs")
    page.wait_for("document.querySelector('.pairs')")
    cells = "[...row.cells].map(cell => (cell.querySelector('.link') ?? cell).innerText.trim().replace(/\\s+/g, ' '))"
    told = page.evaluate(f"[...document.querySelectorAll('.pairs tbody tr')].map(row => [row.className, {cells}])")
    assert [tuple(row) for row in told] == [
        ("", ["lost?", "1.00", "\u2013 2 of 2 failed", "\u2013"]),
        ("", ["gained?", "\u2013 2 of 2 failed", "0.50", "\u2013"]),
        ("", ["half?", "0.50", "1.00 1 of 2 failed", "+0.500"]),
        ("", ["whole?", "0.25", "0.75 1 of 3 without a reward", "+0.500 \u00b1 1.521"]),
    ]
    assert page.text(".comparison .dim").startswith(
        "2 problems in both; 1 only in A, 1 without a reward in A, 1 without a reward in B."
    )


@pytest.mark.usefixtures("failed")
def test_of_how_many_a_mean_is_and_what_is_counted_is_said(page: Browser) -> None:
    labels = texts(page, ".card .label")
    assert {"mean reward of 12", "duration, median · p95"} <= set(labels)  # 5 failed, and 1 has no reward
    page.click("#to-problems")
    page.wait_for("document.querySelector('.shown').textContent === '18 of 18 rollouts shown'")
    page.click("#to-runs")
    page.wait_for("document.querySelector('.scroll + .dim')")
    assert page.text(".scroll + .dim") == (
        "Pass rate: the share of rewards that are at least 1. What failed without a reward is neither in it nor in the"
        " mean."
    )
    page.evaluate("location.hash = '#q=status:completed+reward:>0'")
    page.wait_for("document.querySelector('.card .value').innerText === '10'")
    assert "mean reward" in texts(page, ".card .label")


@pytest.mark.usefixtures("failed")
def test_what_is_left_out_is_said_with_what_it_would_change(page: Browser) -> None:
    page.click("#to-runs")
    page.wait_for("document.querySelector('.pairs')")
    assert page.evaluate("document.querySelector('.verdict + .failing') !== null")
    assert page.text(".failing") == (
        "2 of A's 9 samples failed (22%) and 3 of B's 9 samples failed (33%): they are left out. With a failure as 0"
        " the change would be 0.000 (95% interval -1.125 to +1.125, which includes 0), 2 better and 1 worse."
    )


def test_on_a_phone_what_failed_leaves_room_for_the_problem(page: Browser, failed: str) -> None:
    page.resize(390, 844, mobile=True)
    page.open("about:blank")
    page.open(f"{failed}#view=runs")
    page.wait_for("document.querySelector('.pairs .of-failed')")
    widths = "[...document.querySelectorAll('.pairs, .pairs thead th')].map(e => e.getBoundingClientRect().width)"
    table, problem, *_ = page.evaluate(widths)
    assert problem > table / 3
    assert page.evaluate("document.querySelector('.comparison').scrollWidth - innerWidth") <= 0


def test_what_is_counted_beyond_chance_is_coloured_failed_samples_or_not(page: Browser, tmp_path: Path) -> None:
    changes: dict[str, tuple[tuple[float | None, ...], ...]] = {
        "up": ((0.0,) * 4, (1.0,) * 4),
        "up, with a failure": ((0.0,) * 4, (1.0, 1.0, 1.0, None)),
        "down, with a failure": ((1.0,) * 4, (0.0, 0.0, 0.0, None)),
        "perhaps": ((0.0, 1.0), (1.0, 1.0)),
        "of one sample": ((0.0,), (1.0,)),
    }
    for name, runs in changes.items():
        for run, rewards in enumerate(runs):
            for sample, reward in enumerate(rewards):
                maker = TraceMaker(f"{run}-{name}-{sample}", 1_700_000_000.0 + run).start(name).turn(1, saying("so"))
                ended = {"status": "ERROR", "error_message": "no"} if reward is None else {"reward": reward}
                maker.end(**ended).write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    page.wait_for("document.querySelector('.pairs')")
    rows = "[...document.querySelectorAll('.pairs tbody tr')]"
    assert dict(page.evaluate(f"{rows}.map(row => [row.querySelector('.link').innerText, row.className])")) == {
        "up": "better",
        "up, with a failure": "better",
        "down, with a failure": "worse",
        "perhaps": "",
        "of one sample": "",
    }
    tally = page.evaluate("[...document.querySelectorAll('.tally li')].map(e => e.innerText)")
    assert tally == ["4 problems better (2 beyond chance)", "0 problems equal", "1 problem worse (1 beyond chance)"]


@pytest.mark.usefixtures("failed")
def test_what_no_mean_is_of_is_told_of_each_problem(page: Browser) -> None:
    page.click("#to-problems")
    page.wait_for("document.querySelector('.problems .row')")
    told = page.evaluate("[...document.querySelectorAll('.problems .row')].map(row => row.innerText)")
    for name, lacking in (("whole?", "1 of 5 without a reward"), ("lost?", "2 of 4 failed")):
        assert any(row.startswith(name) and f"{lacking} \u00b7 2 runs" in row for row in told)


SAID = 'The policy failed: ValueError: no "reply" for this (policy.py:12 in reply)'


@pytest.mark.usefixtures("failed")
def test_where_nothing_has_a_reward_that_is_said_and_no_chart_is_empty(page: Browser) -> None:
    page.press("e")
    page.wait_for("document.querySelector('.shown').textContent === '5 of 18 shown'")
    assert page.text("#plots p") == "None of these rollouts has a reward."
    titles = "[...document.querySelectorAll('#plots figcaption b')].map(e => e.innerText)"
    assert page.evaluate(titles) == ["Length over rollouts", "Latency over rollouts"]
    page.press("e")
    page.wait_for("document.querySelector('.shown').textContent === '18 of 18 shown'")
    assert page.evaluate(f"{titles}.includes('Reward')")
    assert page.evaluate("document.querySelector('#plots p')") is None


@pytest.mark.usefixtures("failed")
def test_why_it_failed_begins_with_what_was_said(page: Browser) -> None:
    assert page.text(".reason .says").startswith(SAID)
    assert page.text(".row.bad .why").startswith(SAID)


def test_side_by_side_the_truth_is_told_and_silence_is_no_agreement(page: Browser, failed: str) -> None:
    page.open("about:blank")
    page.open(f"{failed}#pin=1700000001%2Flost-0&rollout=1700000001%2Flost-1")
    page.wait_for("document.querySelector('.detail.double .verdict')")
    assert page.text(".detail .verdict") == "Neither said anything."
    assert page.text(".truth") == "Truth: 84"


def test_of_one_problem_the_truth_is_told_and_the_best_and_the_worst_of_a_run(page: Browser, failed: str) -> None:
    page.open("about:blank")
    page.open(f"{failed}#q=whole?")
    page.wait_for("document.querySelector('.row')")
    page.click("#to-problems")
    page.wait_for("document.querySelector('.problems .row')")
    page.click(".problems .row .id")
    page.wait_for("!document.querySelector('#asked').hidden")
    assert page.text("#asked .truth") == "Truth: 84"
    labels = page.evaluate("[...document.querySelectorAll('#asked .small')].map(e => e.ariaLabel)")
    assert labels == [f"best | worst of {run_name(run)}, side by side" for run in SAMPLES]
    page.click("#asked .small")
    page.wait_for("document.querySelector('.detail.double .verdict')")
    assert texts(page, ".side .chip") == ["reward 0.5", "reward 0"]


@pytest.mark.parametrize("lost", [False, True])
def test_the_numbers_of_what_changed_agree_with_each_other(page: Browser, tmp_path: Path, lost: bool) -> None:
    # Written with three digits they would be 0.596, 0.661 and 0.064.
    for run, rewards in enumerate(((0.2892, 0.5, 1.0), (0.4818, 0.5, 1.0))):
        for row, reward in enumerate(rewards):
            for sample in range(4):
                maker = TraceMaker(f"{row}-{sample}", 1_700_000_000.0 + run).start(f"{row}?").turn(1, saying("so"))
                is_lost = lost and run and row < 2 and sample
                ended = {"status": "ERROR", "error_message": "no"} if is_lost else {"reward": reward}
                maker.end(**ended).write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    page.wait_for("document.querySelector('.pairs')")
    assert page.text(".verdict").startswith(
        "It may be chance: mean reward +0.0642, from 0.5964 to 0.6606 over the 3 problems where both have rewards (95%"
    )
    others = "are over rollouts: there, a problem with more rewards counts more, and what failed has none."
    assert (others in page.text(".comparison")) is lost
    assert page.evaluate("document.querySelector('.failing')?.innerText.split(':')[0] ?? null") == (
        "6 of B's 12 samples failed (50%) and none of A's" if lost else None
    )
