"""What is seen before anybody scrolls: the numbers, why rollouts failed, and the beginning of the list."""

import pytest
from support.browser import Browser, browser_tests
from support.traces import TraceMaker, saying
from support.viewer import IS_READ, ROWS, texts

from osmosis_ai.cli import main

pytestmark = browser_tests()

KINDS = ("Key", "Type", "Value", "Index", "Lookup", "Name", "Overflow", "ZeroDivision")
LISTED = "[...document.querySelectorAll('.row, .runs tbody tr')].filter(row => row.getClientRects().length)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two runs: half of the rollouts failed, for eight reasons, each long; a reward has three parts."""
    folder = tmp_path_factory.mktemp("first-screen")
    says = "what was asked for is not there " * 4
    for run in range(2):
        for number, kind in enumerate(KINDS):
            problem = f"What is {number} + 2, and why do you think that it is so, given what you know of numbers?"
            parts = {"correct": 1.0, "format": 1.0, "used_tool": 0.5}
            maker = TraceMaker(f"right-{run}-{number}", 1_700_000_000.0 + run * 100 + number).start(problem)
            maker.turn(1, saying("so")).end(
                reward=0.75, extra_fields={"outcome": "success", "reward_components": parts}
            ).write(folder / "traces" / f"170000000{run}")
            told = {"outcome": "agent_error", "where": ["agent.py:41 in run"]}
            maker = TraceMaker(f"failed-{run}-{number}", 1_700_000_050.0 + run * 100 + number).start(problem)
            maker.end(status="ERROR", error_message=f"{kind}Error: {says}", extra_fields=told).write(
                folder / "traces" / f"170000000{run}"
            )
    assert main(["view", str(folder / "traces"), "-o", str(folder / "report.html")]) == 0
    return (folder / "report.html").as_uri()


@pytest.mark.parametrize(("width", "height"), [(1400, 800), (390, 844)])
@pytest.mark.parametrize(("view", "least"), [("rollouts", 1), ("problems", 3), ("runs", 2)])
def test_the_list_begins_on_the_first_screen(
    page: Browser, report: str, width: int, height: int, view: str, least: int
) -> None:
    page.resize(width, height, mobile=width < 500)
    page.open("about:blank")
    page.open(f"{report}#view={view}")
    page.wait_for(f"{IS_READ} && {LISTED}.length > 1")
    assert page.evaluate(f"{LISTED}.filter(row => row.getBoundingClientRect().bottom <= innerHeight).length") >= least
    # Nothing is left out for that.
    assert page.evaluate("[...document.querySelectorAll('.card')].filter(e => !e.getClientRects().length).length") == 0
    if view == "rollouts":
        assert page.evaluate("innerHeight - document.querySelector('.failures').getBoundingClientRect().bottom") > 0
        assert len([one for one in texts(page, ".failures > ul .reason") if "agent.py:41 in run" in one]) == 6
        assert page.evaluate(f"{ROWS}.length") > 1
