"""Trace files: where they lie, what a line is, and that nothing about them can harm a rollout."""

import contextlib
import copy
import json
import logging
import os
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from osmosis_ai.rollout.core.trace import file as file_module, lines as lines_module
from osmosis_ai.rollout.core.trace.writer import MAX_FILE_NAME_BYTES, TraceWriter, trace_file_name

ANY_ID = st.text(st.characters(), min_size=1, max_size=300)
PATH_LIKE_ID = st.text(st.sampled_from("./\\~abc\0 :%"), min_size=1, max_size=12)
ORDINARY_ID = st.from_regex(r"[A-Za-z0-9._-]{1,200}", fullmatch=True).filter(lambda rollout_id: rollout_id.strip("."))
HOSTILE_IDS = ["../x", "/etc/passwd", "..", ".", "a/b", "a\\b", "a\0b", "x" * 256, "..\n", "é" * 200, "a~b", "\ud800"]


def lines_of(path: str | Path) -> list[dict[str, Any]]:
    """Every line of the file, as strict JSON."""

    def no_constants(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    content = Path(path).read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line, parse_constant=no_constants) for line in content.decode().split("\n")[:-1]]


class TestFileName:
    @given(ANY_ID | PATH_LIKE_ID)
    def test_it_is_a_name_and_never_a_path(self, rollout_id: str) -> None:
        name = trace_file_name(rollout_id)
        assert name == os.path.basename(name)  # noqa: PTH119 - what a path means to the system is the point
        assert name not in (".", "..")
        assert name.isascii()
        assert name.isprintable()
        assert len(name) <= MAX_FILE_NAME_BYTES
        assert name.endswith(".jsonl")

    @given(ANY_ID | PATH_LIKE_ID, ANY_ID | PATH_LIKE_ID)
    @example("a/b", "a_b")
    @example("a/b", "a\\b")
    @example("x" * 255, "x" * 256)
    def test_distinct_ids_have_distinct_names(self, one: str, other: str) -> None:
        assert (trace_file_name(one) == trace_file_name(other)) is (one == other)

    @given(ANY_ID | PATH_LIKE_ID)
    def test_no_id_takes_the_name_made_for_another(self, rollout_id: str) -> None:
        name = trace_file_name(rollout_id)
        impostor = name.removesuffix(".jsonl")
        assert impostor == rollout_id or trace_file_name(impostor) != name

    def test_ids_that_begin_alike_have_distinct_names(self) -> None:
        ids = [f"{'x' * 100}/{number}" for number in range(5000)]
        assert len({trace_file_name(rollout_id) for rollout_id in ids}) == len(ids)

    @given(ORDINARY_ID)
    def test_an_ordinary_id_keeps_its_name(self, rollout_id: str) -> None:
        assert trace_file_name(rollout_id) == f"{rollout_id}.jsonl"

    def test_the_beginning_of_another_id_can_still_be_read(self) -> None:
        assert trace_file_name("run 7/rollout 42").startswith("run_7_rollout_42~")
        assert trace_file_name("..").startswith("~")


class TestWriting:
    @pytest.mark.parametrize("rollout_id", HOSTILE_IDS)
    def test_the_file_lies_directly_in_the_directory_whatever_the_id(self, tmp_path: Path, rollout_id: str) -> None:
        directory = tmp_path / "outer" / "traces"
        TraceWriter(str(directory), rollout_id).write("pre_llm", {})
        assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [directory]

    def test_a_line_is_readable_by_others_as_soon_as_it_is_written(self, tmp_path: Path) -> None:
        writer = TraceWriter(str(tmp_path), "r")
        for count in range(1, 4):
            writer.write("pre_llm", {"turn": count})
            assert [line["turn"] for line in lines_of(writer.path)] == list(range(1, count + 1))

    def test_the_keys_are_event_and_id_then_data_in_order_then_the_time(self, tmp_path: Path) -> None:
        writer = TraceWriter(str(tmp_path), "r")
        writer.write("llm_response", {"z": 1, "a": [None, True], "text": "é\n😀"})
        (line,) = lines_of(writer.path)
        assert list(line) == ["event", "rollout_id", "z", "a", "text", "time"]
        assert line.items() >= {"event": "llm_response", "rollout_id": "r", "z": 1, "text": "é\n😀"}.items()
        assert isinstance(line["time"], float)

    def test_data_cannot_replace_what_is_ours(self, tmp_path: Path) -> None:
        writer = TraceWriter(str(tmp_path), "r")
        writer.write("real", {"event": "fake", "rollout_id": "fake", "time": "fake", "kept": 1})
        (line,) = lines_of(writer.path)
        assert (line["event"], line["rollout_id"], line["kept"]) == ("real", "r", 1)
        assert line["time"] != "fake"

    def test_what_json_cannot_express_is_written_through_str(self, tmp_path: Path) -> None:
        writer = TraceWriter(str(tmp_path), "r")
        cycle: list[Any] = []
        cycle.append(cycle)
        writer.write("mixed", {"day": date(2026, 1, 2), "nan": float("nan"), "keys": {(1, 2): 3}, "cycle": cycle})
        (line,) = lines_of(writer.path)
        assert line["day"] == "2026-01-02"
        assert line["nan"] == "nan"
        assert line["keys"] == {"(1, 2)": 3}

    @given(
        st.dictionaries(
            st.text(st.characters()),
            st.recursive(
                st.floats() | st.text(st.characters()) | st.binary() | st.integers() | st.builds(object),
                lambda values: st.lists(values) | st.dictionaries(st.integers() | st.text(st.characters()), values),
                max_leaves=5,
            ),
            max_size=3,
        ),
        st.text(st.characters(), max_size=5),
    )
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
    def test_every_event_is_one_line_of_strict_json(
        self, tmp_path: Path, data: dict[str, Any], event_type: str
    ) -> None:
        writer = TraceWriter(str(tmp_path), "r")
        before = len(lines_of(writer.path)) if Path(writer.path).exists() else 0
        writer.write(event_type, data)
        assert len(lines_of(writer.path)) == before + 1

    def test_an_existing_trace_is_continued(self, tmp_path: Path) -> None:
        for turn in (1, 2):
            TraceWriter(str(tmp_path), "r").write("pre_llm", {"turn": turn})
        assert [line["turn"] for line in lines_of(tmp_path / "r.jsonl")] == [1, 2]

    @pytest.mark.parametrize("moved_away", [False, True], ids=["removed", "moved away"])
    def test_a_file_that_is_gone_is_made_anew(self, tmp_path: Path, moved_away: bool) -> None:
        writer = TraceWriter(str(tmp_path / "traces"), "r")
        writer.write("one", {})
        if moved_away:
            (tmp_path / "traces").rename(tmp_path / "kept")
        else:
            Path(writer.path).unlink()
        writer.write("two", {})
        assert [line["event"] for line in lines_of(writer.path)] == ["two"]

    def test_threads_do_not_mix_their_lines(self, tmp_path: Path) -> None:
        writer = TraceWriter(str(tmp_path), "r")
        everybody = threading.Barrier(8)

        def work(number: int) -> None:
            everybody.wait()
            for turn in range(50):
                writer.write("tool_results", {"number": number, "turn": turn, "text": "x" * 5000})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = lines_of(writer.path)
        for number in range(8):
            assert [line["turn"] for line in lines if line["number"] == number] == list(range(50))

    def test_a_copy_writes_to_the_same_file(self, tmp_path: Path) -> None:
        writer = TraceWriter(str(tmp_path), "r")
        writer.write("one", {})
        twin = copy.deepcopy(writer)
        writer.write("two", {})
        twin.write("three", {})
        assert [line["event"] for line in lines_of(writer.path)] == ["one", "two", "three"]


class TestNothingIsRaised:
    def warnings(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    def test_a_directory_that_cannot_be_made_is_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").touch()
        TraceWriter(str(tmp_path / "file" / "traces"), "r").write("pre_llm", {})
        assert len(self.warnings(caplog)) == 1

    def test_a_directory_in_the_place_of_the_file_is_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "r.jsonl").mkdir()
        TraceWriter(str(tmp_path), "r").write("pre_llm", {})
        assert len(self.warnings(caplog)) == 1

    def test_a_directory_name_that_is_none_is_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        TraceWriter("nul\0", "r").write("pre_llm", {})
        assert len(self.warnings(caplog)) == 1

    def test_a_symbolic_link_is_not_followed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        target = tmp_path / "precious"
        target.write_text("untouched")
        (tmp_path / "r.jsonl").symlink_to(target)
        TraceWriter(str(tmp_path), "r").write("pre_llm", {})
        assert target.read_text() == "untouched"
        assert len(self.warnings(caplog)) == 1

    def test_a_link_put_in_the_place_of_an_open_file_is_not_followed(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        target = tmp_path / "precious"
        target.write_text("untouched")
        writer = TraceWriter(str(tmp_path), "r")
        writer.write("pre_llm", {})
        Path(writer.path).unlink()
        Path(writer.path).symlink_to(target)
        writer.write("pre_llm", {})
        assert target.read_text() == "untouched"
        assert len(self.warnings(caplog)) == 1

    def test_a_value_whose_str_fails_is_named(self, tmp_path: Path) -> None:
        class Unprintable:
            def __str__(self) -> str:
                raise RuntimeError("no")

        writer = TraceWriter(str(tmp_path), "r")
        writer.write("pre_llm", {"value": Unprintable(), "other": 1})
        (line,) = lines_of(writer.path)
        assert line.items() >= {"value": "<unprintable Unprintable>", "other": 1}.items()

    def test_a_disk_that_was_full_for_a_while_spoils_one_line_only(self, tmp_path: Path) -> None:
        code = f"""
import resource, signal
from osmosis_ai.rollout.core.trace.writer import TraceWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = TraceWriter({str(tmp_path)!r}, "r")
writer.write("one", {{}})
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
writer.write("too much", {{"text": "x" * 2000}})
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
writer.write("two", {{}})
writer.write("three", {{}})
"""
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        lines = (tmp_path / "r.jsonl").read_text().split("\n")
        assert len(lines[1]) + len(lines[0]) + 1 == 1000
        assert [json.loads(line)["event"] for line in (lines[0], lines[2], lines[3])] == ["one", "two", "three"]


class TestBounds:
    def test_no_file_stays_open(self, tmp_path: Path) -> None:
        writers = [TraceWriter(str(tmp_path), f"r{number}") for number in range(6)]
        for turn in (1, 2):
            for writer in writers:
                writer.write("pre_llm", {"turn": turn})
        assert _open_files_in(tmp_path) == 0
        assert all([line["turn"] for line in lines_of(writer.path)] == [1, 2] for writer in writers)

    def test_an_event_that_is_too_large_is_left_out_and_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lines_module, "MAX_EVENT_BYTES", 1000)
        writer = TraceWriter(str(tmp_path), "r")
        writer.write("llm_response", {"text": "x" * 1000})
        (line,) = lines_of(writer.path)
        assert line["event"] == "llm_response"
        assert "bytes left out" in line["truncated"]

    def test_a_trace_that_is_too_large_ends_and_the_log_says_so_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(file_module, "MAX_FILE_BYTES", 1000)
        writer = TraceWriter(str(tmp_path), "r")
        for turn in range(100):
            writer.write("pre_llm", {"turn": turn})
        assert Path(writer.path).stat().st_size <= 1000
        assert [line["turn"] for line in lines_of(writer.path)][:2] == [0, 1]
        assert len(caplog.records) == 1


def _open_files_in(directory: Path) -> int:
    """How many descriptors of this process lead to a file of ``directory``."""
    files = {(status.st_dev, status.st_ino) for status in (file.stat() for file in directory.iterdir())}
    count = 0
    for descriptor in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):
            status = os.fstat(int(descriptor.name))
            count += (status.st_dev, status.st_ino) in files
    return count
