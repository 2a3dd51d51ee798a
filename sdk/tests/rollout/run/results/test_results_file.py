import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.planted import a_device, a_fifo, a_folder, a_socket, mode_of

from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.driver import RunPlan
from osmosis_ai.rollout.run.results.results_file import ResultsFile

INPUTS = {"dataset": {"rows.jsonl": "sha256:1"}, "agent": {"server.py": "sha256:2"}, "settings": {"max_turns": 10}}


def results_at(path: Path | None, inputs: dict[str, Any] = INPUTS, resume: bool = False) -> ResultsFile:
    return ResultsFile(path, "test", RunPlan(), inputs, resume=resume)


def record(row_index: int, success: bool = True, **extra: Any) -> dict[str, Any]:
    return {"row_index": row_index, "repeat": 0, "success": success, **extra}


def earlier_rows(results: ResultsFile) -> list[int]:
    return [found["row_index"] for found in results.earlier_records()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "results.json"


def test_runs_are_on_disk_as_soon_as_they_end_and_in_order_at_the_end(path: Path) -> None:
    with results_at(path, INPUTS) as results:
        results.add(2, record(2, text="\ud800 caf\xe9"))
        results.add(0, record(0))
        lines = path.with_suffix(".jsonl").read_bytes().splitlines()
        assert [json.loads(line).get("row_index") for line in lines] == [None, 2, 0]
        assert not path.exists()
        results.publish({"summary": {"total": 2}, "config": {"model": "m"}}, finished=False)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert list(document) == ["summary", "config", "results"]
    assert [found["row_index"] for found in document["results"]] == [0, 2]
    assert sorted(file.name for file in path.parent.iterdir()) == ["results.json", "results.jsonl"]


def test_a_resumed_run_has_what_succeeded_and_does_the_rest_again(path: Path) -> None:
    with results_at(path, INPUTS) as results:
        results.add(0, record(0))
        results.add(1, record(1, success=False))
        results.add(3, record(3))
    with results_at(path, INPUTS, resume=True) as results:
        assert earlier_rows(results) == [0, 3]
        assert [results.has(slot) for slot in range(5)] == [True, False, False, True, False]
        results.add(1, record(1))
        results.publish({}, finished=False)
    assert [found["row_index"] for found in json.loads(path.read_text())["results"]] == [0, 1, 3]


@pytest.mark.parametrize(
    "torn", [b'{"row_index": 1, "rep', b'{"row_index": 1, "repeat": 0, "success": true}', b"\xff\xfe\n"]
)
def test_a_torn_last_line_is_cut_off(path: Path, torn: bytes) -> None:
    with results_at(path, INPUTS) as results:
        results.add(0, record(0))
    with path.with_suffix(".jsonl").open("ab") as file:
        file.write(torn)
    with results_at(path, INPUTS, resume=True) as results:
        assert earlier_rows(results) == [0]
        results.add(1, record(1))
        results.publish({}, finished=False)
    assert [found["row_index"] for found in json.loads(path.read_text())["results"]] == [0, 1]
    assert len(path.with_suffix(".jsonl").read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("group", "key", "name"),
    [
        ("dataset", "rows.jsonl", "rows.jsonl"),
        ("agent", "server.py", "server.py"),
        ("settings", "max_turns", "settings max_turns"),
    ],
)
def test_a_changed_input_is_refused_by_name(path: Path, group: str, key: str, name: str) -> None:
    results_at(path, INPUTS).__exit__(None, None, None)
    changed = {**INPUTS, group: {key: "other"}}
    with pytest.raises(CLIError, match="changed since it was written") as failure:
        results_at(path, changed, resume=True)
    assert f": {name};" in str(failure.value)


def test_a_file_of_another_kind_is_not_gone_on_with(path: Path) -> None:
    path.parent.mkdir()
    path.with_suffix(".jsonl").write_text('{"some": "data"}\n')
    with pytest.raises(CLIError, match="no results of 'osmosis test'"):
        results_at(path, INPUTS, resume=True)


@pytest.mark.parametrize("is_there", [False, True])
def test_resuming_nothing_starts_anew(path: Path, is_there: bool) -> None:
    if is_there:  # killed before the header
        path.parent.mkdir()
        path.with_suffix(".jsonl").touch()
    with results_at(path, INPUTS, resume=True) as results:
        assert earlier_rows(results) == []


def test_results_that_are_not_gone_on_with_are_kept_aside(path: Path) -> None:
    for _ in range(2):
        with results_at(path, INPUTS) as results:
            results.add(0, record(0))
    assert results.kept_aside is not None
    assert results.kept_aside.name == "results.unfinished-1.jsonl"
    with results_at(path, INPUTS) as results:
        results.add(0, record(0))
        results.publish({}, finished=True)
    with results_at(path, INPUTS) as results:
        assert results.kept_aside is not None
        assert results.kept_aside.name == "results.finished-1.jsonl"
    with results_at(path, INPUTS) as results:
        assert results.kept_aside is None, "there were no runs in it"


def test_more_runs_of_a_row_go_on_with_fewer_and_not_the_other_way_round(path: Path) -> None:
    with ResultsFile(path, "test", RunPlan(repeat=1), INPUTS) as results:
        for row_index in range(2):
            results.add(row_index, record(row_index))
    with ResultsFile(path, "test", RunPlan(repeat=2), INPUTS, resume=True) as results:
        assert [run["row_index"] for run in results.earlier_records()] == [0, 1]
        assert [results.has(slot) for slot in range(4)] == [True, False, True, False]
        results.add(1, record(0) | {"repeat": 1})
    with (
        ResultsFile(path, "test", RunPlan(repeat=1), INPUTS, resume=True) as results,
        pytest.raises(CLIError, match=r"it has run 2 of row 0, which --n 1 leaves out"),
    ):
        list(results.earlier_records())


def test_a_path_that_cannot_be_written_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "x.json"):
        with pytest.raises(CLIError, match="Cannot write"):
            results_at(path, INPUTS)


def test_another_suffix_gets_its_lines_beside_it(tmp_path: Path) -> None:
    with results_at(tmp_path / "results.jsonl", INPUTS) as results:
        assert results.lines_path.name == "results.jsonl.jsonl"


def test_without_a_name_the_document_can_still_be_had() -> None:
    with results_at(None, INPUTS) as results:
        results.add(0, record(0))
        assert json.loads("".join(results.document({"summary": {"total": 1}})))["results"] == [record(0)]


def test_a_file_of_somebody_else_is_moved_aside_and_the_dataset_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "results.jsonl"
    other.write_text('{"one": "row"}\n')
    with results_at(tmp_path / "results.json") as results:
        assert results.kept_aside is not None
        assert results.kept_aside.read_text() == '{"one": "row"}\n'
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text('{"one": "row"}\n')
    for path in (dataset, dataset.with_suffix(".json")):
        with pytest.raises(CLIError, match=r"rows\.jsonl is the dataset; name another file"):
            results_at(path, {**INPUTS, "dataset": {str(dataset): "sha256:1"}})
    assert dataset.read_text() == '{"one": "row"}\n'


def test_a_record_that_is_no_json_is_written_as_text(path: Path) -> None:
    with results_at(path) as results:
        results.add(0, record(0, reward=float("nan"), of=object))
        results.publish({}, finished=True)
    [found] = json.loads(path.read_text())["results"]
    assert (found["reward"], found["of"]) == ("nan", "<class 'object'>")


class TestLimit:
    """Which rows there are does not change what a run of one of them is."""

    def results_of(self, path: Path, limit: int | None) -> ResultsFile:
        return ResultsFile(path, "test", RunPlan(offset=3, limit=limit), INPUTS, resume=True)

    @pytest.mark.parametrize("limit", [2, 5, None])
    def test_a_larger_one_goes_on(self, path: Path, limit: int | None) -> None:
        with self.results_of(path, 2) as results:
            results.add(0, record(3))
            results.add(1, record(4))
            results.publish({}, finished=True)
        with self.results_of(path, limit) as results:
            assert earlier_rows(results) == [3, 4]
            results.add(2, record(5))
            results.publish({}, finished=True)
        assert [found["row_index"] for found in json.loads(path.read_text())["results"]] == [3, 4, 5]

    def test_a_smaller_one_would_lose_runs(self, path: Path) -> None:
        with self.results_of(path, None) as results:
            results.add(0, record(3))
            results.add(2, record(5))
        before = path.with_suffix(".jsonl").read_bytes()
        with (
            self.results_of(path, 2) as results,
            pytest.raises(CLIError, match=r"results.jsonl: it has row 5, which --limit 2 leaves out; give a larger"),
        ):
            earlier_rows(results)
        assert path.with_suffix(".jsonl").read_bytes() == before


class TestPlace:
    def test_both_files_are_their_owners_alone(self, path: Path) -> None:
        before = os.umask(0)
        try:
            with results_at(path) as results:
                results.add(0, record(0))
                results.publish({}, finished=True)
        finally:
            os.umask(before)
        assert {mode_of(path), mode_of(path.with_suffix(".jsonl"))} == {0o600}
        assert mode_of(path.parent) == 0o700

    @pytest.mark.parametrize("resume", [False, True])
    @pytest.mark.parametrize("plant", [a_fifo, a_socket, a_device, a_folder])
    def test_lines_go_to_no_other_thing_than_a_file(
        self, path: Path, plant: Any, resume: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.parent.mkdir()
        monkeypatch.chdir(path.parent)
        plant(path.with_suffix(".jsonl"))
        with pytest.raises(CLIError, match=r"^Cannot write .*/results.json: it is not a regular file\.$"):
            results_at(path, resume=resume)
