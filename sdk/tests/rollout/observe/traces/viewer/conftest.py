"""The viewer as a process, and as a report."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser
from support.processes import Program
from support.traces import write_random_traces
from support.viewer import IS_READ, ROWS, write_two_runs

from osmosis_ai.cli import main


@pytest.fixture
def view(tmp_path: Path, page: Browser) -> Iterator[Path]:
    """The folder that ``osmosis view`` shows, with 60 rollouts in it; the page is open."""
    folder = tmp_path / "traces"
    write_random_traces(folder, 60)
    with Program(tmp_path, "view", str(folder)) as viewer:
        page.open(viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0])
        page.wait_for(f"{IS_READ} && {ROWS}.length > 0")
        yield folder
        page.open("about:blank")


@pytest.fixture(params=["served", "report"])
def two_runs(tmp_path: Path, page: Browser, request: pytest.FixtureRequest) -> Iterator[str]:
    """The page with both runs in it, as a server shows it and as a report."""
    folder = tmp_path / "traces"
    write_two_runs(folder)
    if request.param == "report":
        assert main(["view", str(folder), "-o", str(tmp_path / "report.html")]) == 0
        url = (tmp_path / "report.html").as_uri()
        page.open(url)
        page.wait_for(f"{IS_READ} && {ROWS}.length > 0")
        yield url
        return
    with Program(tmp_path, "view", str(folder)) as viewer:
        url = viewer.wait_for(r"http://127\.0\.0\.1:\d+/")[0]
        page.open(url)
        page.wait_for(f"{IS_READ} && {ROWS}.length > 0")
        yield url
        page.open("about:blank")
