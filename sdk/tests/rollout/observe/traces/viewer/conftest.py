"""One browser for all of a worker's tests, and the viewer as a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser, chromium
from support.processes import Program
from support.traces import write_random_traces
from support.viewer import IS_READ, ROWS


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = chromium()
    assert executable is not None
    with Browser(executable, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Browser]:
    """The browser; a page that complains fails its test."""
    browser.complaints.clear()
    browser.expected.clear()
    browser.resize(1440, 900)
    browser.prefer("light")
    yield browser
    browser.open("about:blank")  # before its server is gone
    assert browser.complaints == []


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
