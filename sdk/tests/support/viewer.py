"""Folders of traces to look at: two runs of four problems, whose rewards and differences are known."""

from datetime import UTC, datetime
from pathlib import Path

from osmosis_ai.cli import main
from support.browser import Browser
from support.traces import TraceMaker, answer, call, calling, saying

ROWS = "[...document.querySelectorAll('.row')].filter(row => !row.hidden && row.getClientRects().length)"
IS_READ = "/live|report/.test(document.querySelector('.live')?.textContent)"
REWARDS = {
    "1700000001": ((1, 1, 1, 1), (0, 0, 0, 0), (0, 1, 0, 1), (1, 1, 1, 0)),
    "1700000002": ((1, 1, 1, 1), (0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 0)),
}
"""By run and problem: the first is always right, the second never, the third got better, the fourth worse."""


def run_name(run: str) -> str:
    """What the page calls a run that is named by the second of its start, in a year that is over."""
    return f"{datetime.fromtimestamp(int(run), UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def write_two_runs(folder: Path) -> None:
    """Four samples of each problem in each run; a right one says three, a wrong one four."""
    for run, (name, problems) in enumerate(REWARDS.items()):
        for problem, rewards in enumerate(problems):
            for sample, reward in enumerate(rewards):
                start = 1_700_000_000.0 + run * 1000 + problem * 10 + sample
                maker = TraceMaker(f"r{run}-{problem}-{sample}", start)
                maker.start(f"What is {problem + 1} + 2?", metadata={"row_index": problem, "level": f"l{problem % 2}"})
                maker.turn(1, calling(call(1, "add", a=problem + 1, b=2)), [answer(1, f"sum {problem + 3}")])
                maker.turn(2, saying(f"The answer is {'three' if reward else 'four'}."), weight_versions=[run + 5])
                told = {"outcome": "success", "reward_components": {"format": 0.5 + run / 4}}
                maker.end(reward=float(reward), extra_fields=told).delivered().write(folder / name)


def texts(page: Browser, selector: str) -> list[str]:
    """What each of the nodes says."""
    found: list[str] = page.evaluate(f"[...document.querySelectorAll({selector!r})].map(e => e.innerText)")
    return found


def shown(page: Browser, selector: str) -> list[str]:
    """The whole text of each of the nodes, that of folded ones too."""
    found: list[str] = page.evaluate(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent)")
    return found


def show(page: Browser, tmp_path: Path, *makers: TraceMaker) -> None:
    """Open the report of these rollouts."""
    for maker in makers:
        maker.write(tmp_path / "traces")
    open_report(page, tmp_path / "traces")
    page.wait_for(f"{ROWS}.length === {len(makers)}")


def open_report(page: Browser, folder: Path) -> None:
    """Open the report of a folder, which is written beside it."""
    report = folder.parent / "report.html"
    assert main(["view", str(folder), "-o", str(report)]) == 0
    page.open(report.as_uri())
    page.wait_for(f"{IS_READ} && {ROWS}.length > 0")
