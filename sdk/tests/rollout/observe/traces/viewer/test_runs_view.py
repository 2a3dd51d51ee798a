"""The runs, two of them compared: what changed from A to B, and where that leads."""

from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.processes import Program
from support.traces import TraceMaker, saying
from support.viewer import REWARDS, ROWS, run_name, texts

from osmosis_ai.cli import main

pytestmark = browser_tests()


@pytest.mark.usefixtures("two_runs")
class TestRuns:
    def test_it_says_what_changed_from_one_to_the_other(self, page: Browser) -> None:
        page.click("#to-runs")
        page.wait_for("document.querySelector('.comparison')")
        rows = page.evaluate("[...document.querySelectorAll('.runs tbody tr')].map(row => row.innerText.split('\\t'))")
        assert [tuple(row[at].strip() for at in (2, 5, 3, 4, 10)) for row in rows] == [
            (run_name("1700000001"), "16", "0.563\n0.183 to\xa00.880", "56%\n18% to\xa088%", "2 of 4"),
            (run_name("1700000002"), "16", "0.563\n0.183 to\xa00.880", "56%\n18% to\xa088%", "3 of 4"),
        ]
        assert [row[12] for row in rows] == ["5", "6"]  # weights
        assert page.text(".which") == f"A is {run_name('1700000001')}, B is {run_name('1700000002')}."
        page.wait_for("!document.querySelector('.comparison .alike-asks').hidden")
        asked = page.text(".comparison .alike-asks").removeprefix("What a sample of each was asked, of “What is ")
        assert asked[1:] == " + 2?”: Prompt, tools and sampling are the same."
        assert page.text(".verdict") == (
            "It may be chance: mean reward 0.000, from 0.563 to 0.563 over the 4 problems where both have rewards"
            " (95% interval -0.650 to +0.650, which includes 0)."
        )
        assert page.text(".rate") == (
            "Pass rate 0.0 points, from 56.3% to 56.3% (95% interval -65.0 to +65.0, which includes 0)."
        )
        assert texts(page, ".tally li") == [
            "1 problem better (0 beyond chance)",
            "2 problems equal",
            "1 problem worse (0 beyond chance)",
        ]
        assert texts(page, ".parts li") == ["format +0.25 (95% interval +0.25 to +0.25)"]
        pairs = page.evaluate(
            "[...document.querySelectorAll('.pairs tbody tr')].map(row => row.innerText.split('\\t'))"
        )
        assert pairs[0] == ["What is 3 + 2?\nrow 2\nworst of A | best of B\n", "0.50", "1.00", "+0.500\n± 0.919"]
        assert pairs[1] == ["What is 4 + 2?\nrow 3\nbest of A | worst of B\n", "0.75", "0.25", "-0.500\n± 0.865"]

    def test_a_chosen_run_narrows_neither_the_runs_nor_their_numbers(self, page: Browser) -> None:
        page.click("#to-runs")
        page.wait_for("document.querySelector('.comparison')")
        page.click(".runs .link")
        page.wait_for("document.querySelector('.shown').textContent === '16 of 32 shown'")
        page.press("3")
        page.wait_for("document.querySelector('.shown').textContent === '32 of 32 rollouts shown'")
        assert texts(page, ".filter") == []
        assert page.text(".card .value") == "32"
        page.press("1")
        page.wait_for("document.querySelector('.shown').textContent === '16 of 32 shown'")
        assert f"run {run_name('1700000001')}" in page.text(".filter")

    def test_a_and_b_can_be_chosen_and_a_problem_opens_its_samples(self, page: Browser) -> None:
        page.click("#to-runs")
        page.click("[data-key='1700000002'] input[name=side-a]")
        page.click("[data-key='1700000001'] input[name=side-b]")
        page.wait_for("document.querySelector('.pairs tbody tr').innerText.includes('-0.5')")
        assert "a=1700000002" in page.evaluate("location.hash")
        page.click(".pairs tbody .link")
        page.wait_for(f"{ROWS}.length === 8")
        page.click("#to-runs")
        page.click(".filter")
        page.click(".runs .link")
        page.wait_for(f"{ROWS}.length === 16 && {ROWS}.every(row => row.rollout.run === '1700000001')")

    def test_a_problem_opens_the_samples_of_a_and_then_those_of_b(self, page: Browser) -> None:
        page.click("#to-runs")
        page.click(".comparison h2 button")  # the later run is A
        page.wait_for("location.hash.includes('a=1700000002')")
        page.click(".pairs tbody .link")
        page.wait_for(f"{ROWS}.length === 8")
        letters = f"{ROWS}.map(row => [row.querySelector('.of-run')?.innerText, row.rollout.run])"
        assert page.evaluate(letters) == [["A", "1700000002"]] * 4 + [["B", "1700000001"]] * 4
        assert page.evaluate(f"{ROWS}.map(row => row.classList.contains('starts')).indexOf(true)") == 4
        assert page.text("#asked p") == "Asked: What is 3 + 2?"
        a, b = texts(page, "#asked li")
        assert a.startswith(f"A, {run_name('1700000002')}: ")
        assert b.startswith(f"B, {run_name('1700000001')}: ")
        page.click(".filter")
        page.wait_for(f"{ROWS}.length > 8 && document.querySelector('.of-run') === null")
        assert page.evaluate("document.querySelector('#asked').hidden")

    def test_a_sample_of_a_and_one_of_b_stand_side_by_side(self, page: Browser) -> None:
        page.click("#to-runs")
        page.wait_for("document.querySelector('.pairs')")
        offered = "[...document.querySelectorAll('.pairs tbody tr')].map(e => e.querySelector('.small')?.innerText)"
        up, down = "worst of A | best of B", "best of A | worst of B"
        assert page.evaluate(offered) == [up, down, None, None], "the other two are always, or never, right"
        for row, rewards in ((1, ["reward 0", "reward 1"]), (2, ["reward 1", "reward 0"])):
            page.click(f".pairs tbody tr:nth-child({row}) .small")
            page.wait_for("document.querySelector('.detail.double .differ')")
            assert texts(page, ".side .chip") == rewards
            runs = [run_name(run) in side for run, side in zip(REWARDS, texts(page, ".side"), strict=True)]
            assert runs == [True, True]
            page.press("Escape")
            page.wait_for("document.querySelector('#detail').hidden")
            assert page.evaluate("!document.querySelector('#view-runs').hidden")

    def test_what_stands_side_by_side_leaves_the_page_where_it_was(self, page: Browser) -> None:
        page.wait_for(f"{ROWS}.length > 5")  # the table of all, which is then hidden, would scroll to the row
        page.click("#to-runs")
        page.click(".comparison h2 button")  # B is of the earlier run then, far below
        page.wait_for("location.hash.includes('a=1700000002')")
        before = page.evaluate("(document.querySelector('.pairs .small').scrollIntoView(), window.scrollY)")
        page.evaluate("document.querySelector('.pairs .small').click()")
        page.wait_for("document.querySelector('.detail.double .differ')")
        assert page.evaluate("window.scrollY") == before

    def test_those_that_got_better_or_worse_are_listed_alone(self, page: Browser) -> None:
        page.click("#to-runs")
        page.wait_for("document.querySelector('.pairs')")
        pressed = "[...document.querySelectorAll('.tally button')].map(e => e.ariaPressed)"
        for word, problems in (("worse", ["What is 4 + 2?"]), ("better", ["What is 3 + 2?"])):
            page.click(f".tally .{word} button")
            page.wait_for(f"location.hash.includes('change={word}')")
            assert texts(page, ".pairs .link") == problems
            assert page.evaluate("document.querySelector('.pairs caption').firstChild.data") == (
                f"Problems, {word} alone, the most changed first"
            )
            assert page.evaluate(pressed) == [str(word == one).lower() for one in ("better", "equal", "worse")]
            assert page.evaluate("document.activeElement.closest('.tally') !== null"), "it keeps the focus"
        page.click(".tally .better button")
        page.wait_for("document.querySelectorAll('.pairs .link').length === 4")
        assert page.evaluate(pressed) == ["false"] * 3

    def test_they_are_swapped_and_swapped_back(self, page: Browser) -> None:
        page.click("#to-runs")
        for first, sign in (("1700000002", "-"), ("1700000001", "+"), ("1700000002", "-")):
            page.click(".comparison h2 button")
            page.wait_for(f"location.hash.includes('a={first}')")
            assert texts(page, ".parts li") == [f"format {sign}0.25 (95% interval {sign}0.25 to {sign}0.25)"]
            assert page.evaluate(f"document.querySelector(\"[data-key='{first}'] input[name=side-a]\").checked")


def test_what_differs_in_what_two_runs_were_asked_is_said(page: Browser, tmp_path: Path) -> None:
    for place, (run, temperature) in enumerate({"before": 0.8, "after": 0.3}.items()):
        maker = TraceMaker(run, 1_700_000_000.0 + place)
        maker.start("Which?", completion_params={"temperature": temperature})
        if place:  # another agent's system prompt makes no other problem
            maker.lines[0] = maker.lines[0].replace("careful calculator", "quick calculator")
        maker.turn(1, saying("so")).end(reward=1.0).write(tmp_path / "traces" / run)
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    for values in ("0.8 | 0.3", "0.3 | 0.8"):
        told = f"Sampling differs: temperature {values}."
        page.wait_for(f"document.querySelector('.comparison .alike-asks')?.innerText.includes('{told}')")
        assert page.text(".comparison .alike-asks") == (
            "What a sample of each was asked, of “Which?”: Only the system prompt differs in what they were asked."
            f" {told} Tools are the same."
        )
        page.click(".comparison h2 button")


def write_one_each(folder: Path, temperature: float, questions: tuple[str, str] = ("Which?", "Which?")) -> None:
    """A sample of one row in each of two runs, the later one with ``temperature``."""
    for place, (run, question) in enumerate(zip(("before", "later"), questions, strict=True)):
        maker = TraceMaker(run, 1_700_000_000.0 + place)
        maker.start(question, metadata={"row": 3}, completion_params={"temperature": temperature if place else 0.8})
        maker.turn(1, saying("so")).end(reward=1.0).write(folder / run)


def test_what_was_asked_is_told_anew_where_a_trace_is_written_anew(page: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    write_one_each(folder, 0.2)
    with Program(tmp_path, "view", str(folder)) as viewer:
        page.open(viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0] + "#view=runs")
        for temperature in (0.2, 0.5):
            write_one_each(tmp_path / "new", temperature)
            for file in (tmp_path / "new/later").iterdir():
                file.rename(folder / "later" / file.name)
            told = f"temperature 0.8 | {temperature}."
            page.wait_for(f"document.querySelector('.comparison .alike-asks')?.innerText.includes('{told}')")
        page.open("about:blank")


def test_two_that_are_one_problem_by_a_key_alone_are_compared_in_what_they_were_asked(
    page: Browser, tmp_path: Path
) -> None:
    write_one_each(tmp_path / "traces", 0.8, ("Which?", "Which one?"))
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs&by=row")
    page.wait_for("document.querySelector('.comparison .alike-asks')?.hidden === false")
    assert page.text(".comparison .alike-asks") == (
        "What a sample of each was asked, of “Which?”: They were asked different things, from message 2 on."
        " Tools and sampling are the same."
    )


@pytest.mark.usefixtures("two_runs")
def test_a_filter_that_leaves_one_run_is_no_folder_of_one(page: Browser) -> None:
    page.click("#to-runs")
    page.click("#search")
    page.type("run:1700000001")
    page.wait_for("document.querySelectorAll('.runs tbody tr').length === 1")
    page.wait_for("!document.querySelector('.comparison')")
    assert "With a second run among those shown, both can be compared here." in page.text("main")


MORE = "a problem with more rewards counts more"
LESS = f"{MORE}, and what failed has none"


@pytest.mark.parametrize(
    ("rows", "means", "causes"),
    [
        ((("x", (1, 1)), ("y", (0,))), "1.000 and 0.667", MORE),
        ((("x", (1, 1)), ("y", (0, None))), "1.000 and 0.667", LESS),
        ((("x", (1, 1, 1, None)), ("y", (0, 0))), "1.000 and 0.600", LESS),  # the one that failed counts more
        (
            (("x", (1, 1)), ("y", (1, 1)), ("z", (0, 0))),
            "1.000 and 0.667", "problems that have rewards in one run alone count too",
        ),
    ],
)  # fmt: skip
def test_why_the_table_has_other_means_is_said(
    page: Browser, tmp_path: Path, rows: tuple[tuple[str, tuple[float | None, ...]], ...], means: str, causes: str
) -> None:
    for run, problems in (("before", (("x", (1, 1)), ("y", (1, 1)))), ("later", rows)):
        for problem, rewards in problems:
            for sample, reward in enumerate(rewards):
                maker = TraceMaker(f"{problem}-{sample}", 1_700_000_000.0 + (run == "later")).start(problem)
                ended = {"status": "ERROR", "error_message": "no"} if reward is None else {"reward": float(reward)}
                maker.turn(1, saying("so")).end(**ended).write(tmp_path / "traces" / run)
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    page.wait_for("document.querySelector('.tally + .dim')")
    told = f"The table's means, {means}, are over rollouts: there, {causes}."
    assert page.text(".tally + .dim").endswith(told)
