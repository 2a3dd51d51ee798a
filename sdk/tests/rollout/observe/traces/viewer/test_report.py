"""The report: one file that needs nothing else, bounded in size, and safe whatever the traces hold."""

import base64
import gzip
import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.traces import TraceMaker, random_trace, saying, write_random_traces

from osmosis_ai.cli import main
from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.viewer import report
from osmosis_ai.rollout.observe.traces.viewer.report import write_report


def data_in(report: Path) -> dict[str, Any]:
    """The data of a report, its rows and blocks unpacked; ``whole`` by key."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.read_text("utf-8"), re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    blocks = [unpacked(block) for block in data["blocks"]]
    whole = {key: blocks[block][place] for key, (block, place) in data["places"].items()}
    return {**data, "rows": unpacked(data["rows"]), "whole": whole}


def unpacked(packed: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_it_holds_every_rollout_and_names_no_other_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_random_traces(tmp_path / "traces", 20)
    path = tmp_path / "new" / "report.html"
    assert main(["view", str(tmp_path / "traces"), "-o", str(path)]) == 0
    assert "20 of 20 rollouts, 20 with conversation and events" in capsys.readouterr().out
    data = data_in(path)
    assert (len(data["rows"]), len(data["whole"])) == (20, 20)
    position = data["columns"].index("id")
    assert all(data["whole"][str(row[0])][0]["rollout_id"] == row[position] for row in data["rows"])
    page = path.read_text("utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)="(?!data:,|#)', page)
    assert not re.search(r"@import|url\(", page)


def test_text_cannot_leave_its_place(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><!--"
    TraceMaker("r1").start(hostile).turn(1, saying(hostile)).end().write(tmp_path / "traces")
    index = TraceIndex(tmp_path / "traces")
    index.refresh()
    write_report(index, tmp_path / "report.html")
    assert hostile not in (tmp_path / "report.html").read_text("utf-8")
    assert hostile in json.dumps(data_in(tmp_path / "report.html"))


def test_what_does_not_fit_is_left_out_failures_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        random_trace(number, Random(number), 40).write(tmp_path / "traces")  # noqa: S311 - test data
    index = TraceIndex(tmp_path / "traces")
    index.refresh()
    failed = {str(key) for key, one in enumerate(index.rollouts) if one.status == "ERROR"}
    assert 0 < len(failed) < 20
    everything = write_report(index, tmp_path / "all.html")
    assert (everything.rows, everything.whole) == (40, 40)
    rows = len(re.search(r'"rows":"([^"]*)"', (tmp_path / "all.html").read_text("utf-8"))[1])  # type: ignore[index]
    monkeypatch.setattr(report, "BLOCK_BYTES", 10_000)
    told = write_report(index, tmp_path / "report.html", max_bytes=rows + 8_000)
    assert told.rows == 40
    assert len(failed) <= told.whole < 40
    assert failed <= set(data_in(tmp_path / "report.html")["whole"])


@pytest.mark.slow
def test_500_rollouts_take_less_than_10_mb_and_what_is_left_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = Random(7)  # noqa: S311 - test data
    words = [f"word{number}" for number in range(5000)]
    sampled: dict[str, Any] = {
        "token_ids": [random.randrange(100_000) for _ in range(400)],
        "logprobs": [random.random() for _ in range(400)],
    }
    for number in range(50):  # each stands for ten
        maker = TraceMaker(f"r{number}").start(" ".join(random.choices(words, k=40)))
        for turn in range(1, 6):
            maker.turn(turn, saying(" ".join(random.choices(words, k=300))), **sampled)
        maker.end(reward=1.0).write(tmp_path / "traces")
    path = tmp_path / "report.html"
    assert main(["view", str(tmp_path / "traces"), "-o", str(path)]) == 0
    assert path.stat().st_size * 10 < 10_000_000
    assert "without token ids and log-probabilities" in capsys.readouterr().out
    data = data_in(path)
    assert data["leftOut"] == "token ids and log-probabilities"
    assert not any("token_ids" in event or "logprobs" in event for one in data["whole"].values() for event in one)


@pytest.mark.slow
def test_it_is_never_larger_than_10_mb(tmp_path: Path) -> None:
    random = Random(7)  # noqa: S311 - test data
    for number in range(6):
        maker = TraceMaker(f"r{number}").start("Go on.")
        maker.turn(1, saying(random.randbytes(1_500_000).hex())).end(reward=1.0).write(tmp_path / "traces")
    index = TraceIndex(tmp_path / "traces")
    index.refresh()
    told = write_report(index, tmp_path / "report.html")
    assert 0 < told.whole < 6
    assert (tmp_path / "report.html").stat().st_size < 10_000_000


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 2, "does not exist"),
        (["x" * 300], 2, "cannot be read (File name too long)"),
        ([".", "-o", "report.html"], 1, "holds no rollouts"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["view", *arguments]) == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_json_tells_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_random_traces(tmp_path / "traces", 5)
    path = tmp_path / "report.html"
    assert main(["view", str(tmp_path / "traces"), "-o", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": str(path), "bytes": path.stat().st_size, "rollouts": 5, "listed": 5, "whole": 5}
