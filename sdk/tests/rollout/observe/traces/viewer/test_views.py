"""Problems, two rollouts side by side, and the search: what each says of rollouts whose rewards are known."""

from pathlib import Path

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import ROWS, run_name, texts

from osmosis_ai.cli import main

pytestmark = browser_tests()

NAMES = f"{ROWS}.map(row => row.rollout.id)"


@pytest.mark.usefixtures("two_runs")
class TestProblems:
    def test_it_says_which_have_no_signal_and_why(self, page: Browser) -> None:
        page.click("#to-problems")
        page.wait_for(f"{ROWS}.length === 4")
        assert "2 of 4 problems have no signal (50%): 1 always right, 1 never right." in page.text("#problem-head")
        cells = "['prompt', 'n', 'pass', 'mean', 'spread', 'length', 'signal']"
        told = page.evaluate(f"{ROWS}.map(row => {cells}.map(name => row.querySelector('.c-' + name).innerText))")
        assert {row[0].split("\n")[0]: row[1:] for row in told} == {
            "What is 1 + 2?": ["8", "100%\n68% to\xa0100%", "1.000\n0.676 to\xa01.000", "0.000", "2", "no signal"],
            "What is 2 + 2?": ["8", "0%\n0% to\xa032%", "0.000\n0.000 to\xa00.324", "0.000", "2", "no signal"],
            "What is 3 + 2?": ["8", "75%\n41% to\xa093%", "0.750\n0.409 to\xa00.929", "0.433", "2", "none in 1 of 2"],
            "What is 4 + 2?": ["8", "50%\n22% to\xa078%", "0.500\n0.215 to\xa00.785", "0.500", "2", "signal"],
        }
        assert f"row 2 · 2 runs · always 1 in {run_name('1700000002')}" in texts(page, ".problems .why")
        assert page.text(".only") == "Show only no signal (2) none in some runs (1)"
        page.click(".toggle")
        page.wait_for(f"{ROWS}.length === 2")
        assert page.text(".shown") == "2 of 4 problems shown"
        page.click(".toggle + .toggle")
        page.wait_for(f"{ROWS}.length === 1")
        assert page.text(".shown") == "1 of 4 problems shown"
        assert page.text(".problems .row .id") == "What is 3 + 2?"
        assert page.evaluate("[...document.querySelectorAll('.toggle')].map(e => e.ariaPressed)")[:2] == [
            "false",
            "true",
        ]
        page.click(".toggle + .toggle")
        page.wait_for(f"{ROWS}.length === 4")

    def test_from_a_problem_to_its_samples_and_back(self, page: Browser) -> None:
        page.click("#to-problems")
        page.wait_for(f"{ROWS}.length === 4")
        page.evaluate(f"{ROWS}.find(row => row.innerText.includes('3 + 2')).click()")
        page.wait_for(f"{ROWS}.length === 8 && !document.querySelector('#view-rollouts').hidden")
        assert set(page.evaluate(NAMES)) == {f"r{run}-2-{sample}" for run in (0, 1) for sample in range(4)}
        assert "problem: What is 3 + 2?" in page.text(".filter")
        page.evaluate("history.back()")
        page.wait_for(f"{ROWS}.length === 4 && !document.querySelector('#view-problems').hidden")

    def test_they_are_told_apart_by_a_key_of_choice(self, page: Browser) -> None:
        page.click("#to-problems")
        page.wait_for(f"{ROWS}.length === 4")
        page.evaluate(
            "(by => { by.value = 'level'; by.dispatchEvent(new Event('change')) })(document.querySelector('#by'))"
        )
        page.wait_for(f"{ROWS}.length === 2")
        assert page.evaluate(f"{ROWS}.map(row => row.querySelector('.c-n').innerText)") == ["16", "16"]

    def test_best_and_worst_stand_side_by_side_with_what_differs(self, page: Browser) -> None:
        page.click("#to-problems")
        page.wait_for(f"{ROWS}.length === 4")
        page.click(".row .small")
        page.wait_for("document.querySelector('.detail.double .differ')")
        sides = texts(page, ".side")
        assert "reward 1" in sides[0]
        assert "reward 0" in sides[1]
        assert page.text(".detail .verdict") == "They part in turn 2."
        assert texts(page, ".differ h4") == ["Turn 2"]
        assert texts(page, ".same summary") == ["Turn 1: the same"]
        assert texts(page, "mark") == ["three.", "four."]

    def test_the_problem_whose_samples_are_compared_is_the_selected_one(self, page: Browser) -> None:
        page.click("#to-problems")
        page.wait_for(f"{ROWS}.length === 4")
        page.press("j")
        page.wait_for("document.querySelector('.problems .row.selected')")
        compared = f"{ROWS}.find(row => !row.classList.contains('selected') && row.querySelector('.small'))"
        prompt = page.evaluate(f"{compared}.rollout.prompt")
        page.evaluate(f"{compared}.querySelector('.small').click()")
        page.wait_for("document.querySelector('.detail.double .verdict')")
        assert page.evaluate("document.querySelector('.problems .row.selected').rollout.prompt") == prompt


@pytest.mark.usefixtures("two_runs")
@pytest.mark.parametrize("view", ["rollouts", "problems", "runs"])
def test_a_filter_that_leaves_nothing_is_said_and_cleared(page: Browser, view: str) -> None:
    shown = "32 shown" if view == "rollouts" else "32 rollouts shown"  # where a row is no rollout
    page.click(f"#to-{view}")
    page.click("#search")
    page.type("nothing of this kind")
    page.wait_for(f"document.querySelector('.shown').textContent === '0 of {shown}'")
    page.wait_for("document.querySelector('.card .value').textContent === '0'")  # drawn once the typing pauses
    assert page.text("#empty") == "The filters leave no rollout.\n\nClear the filters"
    for wrong in ("With a second run", "0 of 0 problems"):
        assert wrong not in page.text("main")
    page.click("#clear")
    page.wait_for(f"document.querySelector('.shown').textContent === '32 of {shown}'")
    page.wait_for("document.querySelector('#empty').hidden && !document.querySelector('#charts').hidden")
    assert page.evaluate("document.querySelector('#search').value") == ""


@pytest.mark.usefixtures("two_runs")
class TestSearch:
    def test_words_and_facets_find(self, page: Browser) -> None:
        found = {
            "sum 6": 8,  # what a tool said
            "tool:sum": 32,
            'tool:"sum 4"': 8,
            "add": 32,  # what a tool is named
            "row_index:2": 8,
            "level:l1 reward:1": 4,
            "reward:>0.5": 18,
            "reward:0..0.5 run:1700000001": 7,
            "format:0.75": 16,
            "weights:6": 16,
            "status:completed turns:2": 32,
            "r1-3-2": 1,
            "what:is": 0,  # no key: a word
            "nothing of this kind": 0,
        }
        for query, count in found.items():
            page.click("#search")
            page.type(query)
            page.wait_for(f"document.querySelector('.shown').textContent === '{count} of 32 shown'")
            page.press("Escape")
            page.press("Escape")
            page.wait_for("document.querySelector('.shown').textContent === '32 of 32 shown'")


def test_two_rollouts_are_pinned_by_keys_and_stay_so_in_the_address(page: Browser, two_runs: str) -> None:
    page.press("j")
    page.press("Enter")
    page.wait_for("document.querySelector('.conversation')")
    page.press("c")
    page.press("j")
    page.wait_for("document.querySelectorAll('.side h3').length === 2")
    address = page.wait_for("location.hash.includes('pin=') && location.href")
    sides = texts(page, ".side h3")
    page.open("about:blank")
    page.open(address)
    page.wait_for("document.querySelectorAll('.side h3').length === 2")
    assert texts(page, ".side h3") == sides
    assert page.evaluate("location.href").startswith(two_runs)
    page.press("c")
    page.wait_for("!document.querySelector('.detail.double') && document.querySelector('.conversation')")


def test_an_opened_rollout_calls_its_run_what_the_other_views_do(page: Browser, two_runs: str) -> None:
    page.open("about:blank")
    page.open(f"{two_runs}#rollout=1700000001%2Fr0-0-0")
    facts = "[...document.querySelectorAll('#detail .fact')]"
    run = f"{facts}.find(e => e.innerText.startsWith('run'))?.querySelector('dd')"
    page.wait_for(run)
    assert page.evaluate(f"[{run}.innerText, {run}.title]") == [run_name("1700000001"), "1700000001"]


def test_rollouts_without_metadata_are_grouped_by_what_was_asked(page: Browser, tmp_path: Path) -> None:
    long = "the same beginning " * 40
    for number in range(6):
        maker = TraceMaker(f"r{number}").start(f"{long}{number % 3}").turn(1, saying("#### 3"))
        maker.end(reward=float(number < 3)).write(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=problems")
    page.wait_for(f"{ROWS}.length === 3")
    assert "0 of 3 problems have no signal" in page.text("#problem-head")


def test_a_prompt_has_the_width_and_is_whole(page: Browser, tmp_path: Path) -> None:
    prompt = "A train leaves at nine, another at ten and twice as fast. " * 5 + "When does it pass?"
    for run in range(2):
        for sample in range(4):
            maker = TraceMaker(f"r{run}-{sample}", 1_700_000_000.0 + run).start(prompt)
            if sample == 3:
                maker.end(status="ERROR", error_message="no").write(tmp_path / "traces" / f"170000000{run}")
            else:
                maker.turn(1, saying("so")).end(reward=sample / 2).write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.resize(1280, 800)
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=runs")
    shown = prompt[:300] + "..."  # as much as a row has
    assert page.text(".pairs tbody .link") == page.evaluate("document.querySelector('.pairs .link').title") == shown
    widths = page.evaluate("[...document.querySelectorAll('.pairs, .pairs thead th')].map(e => e.offsetWidth)")
    assert widths[1] > 0.6 * widths[0]
    lines = "getComputedStyle(document.querySelector('.pairs .of-failed')).lineHeight"
    assert page.evaluate(f"document.querySelector('.pairs .of-failed').offsetHeight < 1.5 * parseFloat({lines})")
    page.click("#to-problems")
    page.wait_for(f"{ROWS}.length === 1")
    assert page.evaluate("document.querySelector('.problems .id').title") == shown
    page.click(".problems .row")
    page.wait_for(f"{ROWS}.length === 8")
    page.wait_for(f"document.querySelector('#asked p').innerText === {('Asked: ' + prompt)!r}")


def test_the_samples_of_a_problem_are_told_by_their_answers(page: Browser, tmp_path: Path) -> None:
    asked = {"before": "Use the tools.", "after": "Be brief."}
    for run, instruction in asked.items():
        for sample in range(6):
            maker = TraceMaker(f"{run}-{sample}")
            maker.start(
                "What is 1 + 2?",
                messages=[{"role": "system", "content": instruction}, {"role": "user", "content": "What is 1 + 2?"}],
                metadata={"ground_truth": "3", "kind": "sum"},
            )
            if sample == 5:
                maker.end(status="ERROR", error_message="no")
            else:
                is_right = run == "before" or sample == 0
                maker.turn(1, saying(f"Let me see.\n\n#### {3 if is_right else 4}\n")).end(reward=float(is_right))
            maker.write(tmp_path / "traces" / run)
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=problems")
    # Another system prompt is the agent's matter: the dataset asked the same.
    page.wait_for(f"{ROWS}.length === 1")
    page.click(".problems .row")
    page.wait_for(f"{ROWS}.length === 12")
    assert texts(page, "#asked li") == [
        "after: 4 said #### 4 (reward 0), 1 said #### 3 (reward 1), 1 failed best | worst",
        "before: 5 said #### 3 (reward 1), 1 failed",
    ]
    told = page.evaluate(f"{ROWS}.map(row => [row.rollout.id, row.querySelector('.why').innerText])")
    assert dict(told)["after-0"] == "Answer: #### 3"
    assert dict(told)["after-1"] == "Answer: #### 4"
    assert dict(told)["after-5"] == "no"
    page.click(".filter")
    page.wait_for("document.querySelector('#asked').hidden")
    assert "mean, 2 runs; 2 unscored" in page.text("#plots")
    page.click("#to-runs")
    page.wait_for("document.querySelector('.pairs caption')?.innerText.includes('luck alone makes about one problem')")
    page.click("#to-rollouts")
    page.wait_for(f"{ROWS}.length === 12")
    assert page.evaluate(f"{ROWS}.find(row => row.rollout.id === 'after-1').querySelector('.why').innerText") == (
        "What is 1 + 2?"
    )
    page.open("about:blank")
    page.open(f"{(tmp_path / 'report.html').as_uri()}#q=answer:4")
    page.wait_for(f"{ROWS}.length === 4")


@pytest.mark.parametrize("part", [".c-prompt .known", ".c-pass .chance", ".c-signal .chip"])
def test_a_problem_is_opened_wherever_it_is_clicked(page: Browser, two_runs: str, part: str) -> None:
    page.open("about:blank")
    page.open(f"{two_runs}#view=problems")
    page.wait_for(f"{ROWS}.length === 4")
    page.click(f".problems .row {part}")
    page.wait_for(f"!document.querySelector('#view-rollouts').hidden && {ROWS}.length === 8")


def test_one_row_of_two_datasets_is_two_problems(page: Browser, tmp_path: Path) -> None:
    long = "the same beginning " * 40
    asked = {  # by run: what its rows 0, 1, ... ask, with the truth
        "1700000001": [("What is 1 + 2?", "3"), (f"{long}a", "A"), (f"{long}b", "A"), ("Which letter?", "A")],
        "1700000002": [("What is 1 + 2?", "3"), (f"{long}b", "A"), (f"{long}a", "A"), ("Which letter?", "B")],
    }
    for name, rows in asked.items():
        for row, (prompt, truth) in enumerate(rows):
            for sample in range(2):
                maker = TraceMaker(f"r{name}-{row}-{sample}")
                maker.start(prompt, metadata={"row_index": row, "ground_truth": truth, "nested": {"run": name}})
                if name == "1700000002":  # another agent's system prompt makes no other problem
                    maker.lines[0] = maker.lines[0].replace("careful calculator", "quick calculator")
                maker.turn(1, saying("#### 3")).end(reward=float(sample)).write(tmp_path / "traces" / name)
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=problems")
    page.wait_for(f"{ROWS}.length === 7")
    told = sorted(page.evaluate(f"{ROWS}.map(row => row.querySelector('.c-prompt .why').innerText)"))
    assert told == ["row 0 · 2 runs", *(f"row {row}" for row in (1, 1, 2, 2, 3, 3))]
    page.click("#to-runs")
    page.wait_for("document.querySelector('.comparison')")
    assert "1 problem in both; 3 only in A, 3 only in B" in page.text(".comparison .dim")
    page.click(".pairs tbody .link")
    page.wait_for(f"{ROWS}.length === 4")
    assert page.evaluate(f"new Set({ROWS}.map(row => row.rollout.run)).size") == 2


@pytest.mark.parametrize("medium", ["screen", "print"])
def test_of_how_many_groups_there_is_no_signal_is_not_cut(page: Browser, tmp_path: Path, medium: str) -> None:
    for run in range(20):
        for sample in range(2):
            maker = TraceMaker(f"r{sample}").start("Hi?", metadata={"row_index": 0}).turn(1, saying("#### 3"))
            maker.end(reward=float(sample and run > 10)).write(tmp_path / "traces" / f"17000000{run + 10}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=problems")
    page.wait_for(f"{ROWS}.length === 1")
    page.call("Emulation.setEmulatedMedia", media=medium)
    cell = "document.querySelector('.row .c-signal')"
    assert page.evaluate(f"{cell}.innerText") == "none in 11 of 20"
    assert page.evaluate(f"{cell}.scrollWidth <= {cell}.clientWidth")


def test_a_spread_from_run_to_run_is_said_to_be_no_signal(page: Browser, tmp_path: Path) -> None:
    for run in range(2):
        for sample in range(2):
            maker = TraceMaker(f"r{run}-{sample}", 1_700_000_000.0 + run).start("Hi?", metadata={"row_index": 0})
            maker.turn(1, saying("#### 3")).end(reward=float(run)).write(tmp_path / "traces" / f"170000000{run}")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=problems")
    page.wait_for(f"{ROWS}.length === 1")
    assert page.text(".says") == (
        "1 of 1 problems have no signal (100%): 1 the same within each run but not between runs."
    )
    told = page.evaluate(f"['spread', 'signal'].map(name => {ROWS}[0].querySelector('.c-' + name).innerText)")
    assert told == ["0.5", "same in each run"]
    known = f"2 runs · always 0 in {run_name('1700000000')}, 1 in {run_name('1700000001')}"
    assert page.text(".row .why").endswith(known)
    page.click(".row .small")  # what differs between the runs can be looked at all the same
    page.wait_for("document.querySelector('.detail.double .differ, .detail.double .verdict')")
    assert texts(page, ".side h3") == ["r1-0", "r0-0"]  # the best, whose run is B: on the left, so no letter is told
    page.press("Escape")
    page.click("#to-runs")
    page.wait_for("document.querySelector('.pairs')")
    page.click(".pairs .small")
    page.wait_for("document.querySelector('.detail.double .verdict')")
    assert texts(page, ".side h3") == ["r0-0", "r1-0"]
    assert page.evaluate("!document.querySelector('#view-runs').hidden")
    assert page.evaluate("document.querySelector('.pairs .small').ariaLabel") == (
        "worst of A | best of B, of Hi?, side by side"
    )


def test_tab_goes_from_each_best_and_worst_to_the_next(page: Browser, tmp_path: Path) -> None:
    for number in range(30):
        for reward in (0.0, 1.0):
            maker = TraceMaker(f"r{number}-{reward:.0f}").start(f"Number {number}?", metadata={"row_index": number})
            maker.turn(1, saying("so")).end(reward=reward).write(tmp_path / "traces")
    assert main(["view", str(tmp_path / "traces"), "-o", str(tmp_path / "report.html")]) == 0
    page.resize(1280, 600)
    page.open(f"{(tmp_path / 'report.html').as_uri()}#view=problems")
    page.wait_for("document.querySelector('.row .small')")
    page.evaluate("document.querySelector('.row .small').focus()")
    for number in range(30):
        label = f"best | worst of row {number}: Number {number}?, side by side"
        page.wait_for(f"document.activeElement.ariaLabel === {label!r}")
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        page.press("Tab")
