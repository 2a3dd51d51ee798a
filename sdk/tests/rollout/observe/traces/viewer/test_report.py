"""The report: one file that needs nothing else, bounded in size, and safe whatever the traces hold."""

import json
import re
from pathlib import Path
from random import Random

import pytest
from support.traces import TraceMaker, random_trace, saying, write_random_traces

from osmosis_ai.cli import main
from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.viewer.report import write_report


def data_in(report: Path) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.read_text("utf-8"), re.S)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def test_it_holds_every_rollout_and_names_no_other_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_random_traces(tmp_path / "traces", 20)
    report = tmp_path / "new" / "report.html"
    assert main(["view", str(tmp_path / "traces"), "-o", str(report)]) == 0
    assert "20 of 20 rollouts, 20 with conversation and events" in capsys.readouterr().out
    data = data_in(report)
    assert (len(data["rows"]), len(data["details"])) == (20, 20)  # type: ignore[arg-type]
    page = report.read_text("utf-8")
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


def test_what_does_not_fit_is_left_out_failures_last(tmp_path: Path) -> None:
    for number in range(40):
        random_trace(number, Random(number), 40).write(tmp_path / "traces")  # noqa: S311
    index = TraceIndex(tmp_path / "traces")
    index.refresh()
    failed = {str(key) for key, one in enumerate(index.rollouts) if one.status == "ERROR"}
    assert 0 < len(failed) < 20
    rows, whole = write_report(index, tmp_path / "report.html", max_detail_bytes=80_000)
    assert rows == 40
    assert len(failed) <= whole < 40
    details = data_in(tmp_path / "report.html")["details"]
    assert isinstance(details, dict)
    assert failed <= set(details)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 2, "does not exist"),
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
