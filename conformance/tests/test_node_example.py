"""The server in Node, the protocol's worked example in another language, passes every check."""

import shutil
import socket
from pathlib import Path

import pytest

from rollout_conformance import KitOptions, Status, run, select

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "examples" / "node"
KEY = "the-key-of-the-server"
DRAIN_SECONDS = 6
NODE = shutil.which("node")


def test_it_is_small_and_needs_nothing() -> None:
    text = (FOLDER / "server.mjs").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300
    imported = [line.rpartition("from ")[2].strip("'") for line in text.splitlines() if line.startswith("import ")]
    assert [name for name in imported if not name.startswith("node:")] == ["./agent.mjs"]


@pytest.mark.skipif(NODE is None, reason="there is no node on the path")
async def test_it_passes_every_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_API_KEY", KEY)
    monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS", str(DRAIN_SECONDS))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (str(NODE), str(FOLDER / "server.mjs"), "--port", str(port), "--journal", str(tmp_path / "journal"))
    options = KitOptions(f"http://127.0.0.1:{port}", KEY, server_command=command, drain_seconds=DRAIN_SECONDS)
    report = await run(options, select(), strict=True)
    unkept = {result.check.id: result.reason for result in report.results if result.status is not Status.PASSED}
    assert unkept == {}
