"""The viewer as a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import Browser
from support.processes import Program
from support.traces import write_random_traces
from support.viewer import IS_READ, ROWS


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
