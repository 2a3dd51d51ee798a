"""The file of a trace: private, regular, never waited for; one that is none of this spoils no other."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.planted import PLANTED, a_fifo, mode_of
from support.rollouts import INIT, ScriptedAgent, chat_once, client_of, init_body, settings_of
from support.scrapes import Scrape

from osmosis_ai.rollout.core.trace.writer import TraceWriter
from osmosis_ai.rollout.observe.traces.buffer import BufferedTrace, trace_buffer
from osmosis_ai.rollout.server.app import create_app

KINDS = pytest.mark.parametrize("trace_class", [TraceWriter, BufferedTrace])


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@KINDS
def test_it_is_its_owners_alone_and_so_are_new_folders(tmp_path: Path, trace_class: Any) -> None:
    tmp_path.chmod(0o755)
    for _ in range(2):
        trace_class(str(tmp_path / "new" / "folder"), "r").write("pre_llm", {})
    trace_buffer().flush()
    assert mode_of(tmp_path / "new" / "folder" / "r.jsonl") == 0o600
    assert {mode_of(tmp_path / "new"), mode_of(tmp_path / "new" / "folder")} == {0o700}
    assert mode_of(tmp_path) == 0o755


@KINDS
@pytest.mark.parametrize("plant", PLANTED)
def test_what_is_no_regular_file_ends_this_trace_alone_and_says_so_once(
    tmp_path: Path,
    trace_class: Any,
    plant: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "bad.jsonl")
    before = (tmp_path / "bad.jsonl").lstat()
    bad, good = trace_class(str(tmp_path), "bad"), trace_class(str(tmp_path), "good")
    for turn in range(3):
        bad.write("pre_llm", {"turn": turn})
        good.write("pre_llm", {"turn": turn})
        trace_buffer().flush()
    assert [json.loads(line)["turn"] for line in Path(good.path).read_bytes().splitlines()] == [0, 1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        f"Trace '{bad.path}' is not written: what lies there is no regular file."
    ]
    assert (tmp_path / "bad.jsonl").lstat() == before
    assert not (tmp_path / "gone").exists()
    if (tmp_path / "precious").exists():
        assert (tmp_path / "precious").read_text() == "untouched"


@KINDS
def test_a_fifo_with_a_reader_gets_nothing(tmp_path: Path, trace_class: Any) -> None:
    a_fifo(tmp_path / "r.jsonl")
    reader = os.open(tmp_path / "r.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        trace_class(str(tmp_path), "r").write("pre_llm", {})
        trace_buffer().flush()
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)


async def test_a_rollout_whose_trace_is_refused_and_its_neighbours_are_delivered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a_fifo(tmp_path / "planted.jsonl")
    app = create_app(ScriptedAgent(chat_once), settings=settings_of(), debug_dir=str(tmp_path))
    with FakeTrainer() as trainer:
        async with client_of(app) as client:
            for rollout_id in ("planted", "r1", "r2"):
                await client.post(INIT, json=init_body(rollout_id, server_url=trainer.url))
            for rollout_id in ("planted", "r1", "r2"):
                assert (await trainer.result(rollout_id))["status"] == "COMPLETED"
            metrics = Scrape((await client.get("/metrics")).text)
    assert metrics("osmosis_traces_incomplete_total", reason="refused") == 1
    assert metrics.total("osmosis_traces_incomplete_total") == 1
    assert "not on disk" not in caplog.text
    assert caplog.text.count("no regular file") == 1
    assert all(b"rollout_result" in (tmp_path / f"{name}.jsonl").read_bytes() for name in ("r1", "r2"))
