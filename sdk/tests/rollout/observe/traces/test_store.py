"""What is kept beside the traces: a second opening reads nothing twice, and nothing that is wrong with it matters."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.processes import own_environment
from support.trace_index import fresh, opened, told
from support.traces import TraceMaker, answer, call, calling, saying, write_random_traces

from osmosis_ai.rollout.observe.traces.index import TraceIndex
from osmosis_ai.rollout.observe.traces.store import STORE_NAME, Kept, Store, _sum_of, checked


def made(rollout_id: str, reward: float = 1.0, **request: Any) -> TraceMaker:
    maker = TraceMaker(rollout_id).start("What is 1 + 2?", **request)
    maker.turn(1, calling(call(1, "add", a=1, b=2)), [answer(1, "Three")], weight_versions=[7, 8])
    return maker.turn(2, saying("#### 3"), weight_versions=[8]).end(reward=reward).delivered()


class TestKeeping:
    def test_what_has_not_changed_is_not_read_again(self, tmp_path: Path) -> None:
        path = made("r1", metadata={"row_index": 4, "level": "hard", "deep": {"a": 1}}).write(tmp_path / "1")
        first = opened(tmp_path)
        before = path.stat()
        path.write_bytes(b"x" * before.st_size)  # no reader could make anything of it
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        second = opened(tmp_path)
        assert told(second) == told(first)
        [one] = second.rollouts
        assert (one.run, one.metadata, one.weights) == ("1", {"row_index": 4, "level": "hard"}, ["7", "8"])
        assert "add" in one.tool_text
        assert "three" in one.tool_text

    def test_of_what_has_grown_only_the_rest_is_read(self, tmp_path: Path) -> None:
        maker = TraceMaker("r1").start("What is 1 + 2?").turn(1, saying("#### 3"))
        path = maker.write(tmp_path)
        opened(tmp_path)
        beginning = path.read_bytes()
        maker.end(reward=0.5)
        whole = "".join(f"{line}\n" for line in maker.lines).encode()
        path.write_bytes(b"x" * (len(beginning) - 1) + b"\n" + whole[len(beginning) :])
        [one] = opened(tmp_path).rollouts
        assert (one.rollout_id, one.prompt, one.turns, one.reward) == ("r1", "What is 1 + 2?", 1, 0.5)

    def test_another_file_of_the_same_name_and_size_is_read(self, tmp_path: Path) -> None:
        path = made("r1", 0.25).write(tmp_path)
        opened(tmp_path)
        changed = path.stat().st_mtime_ns
        made("r1", 0.75).write(tmp_path)
        os.utime(path, ns=(changed + 1, changed + 1))
        assert [one.reward for one in opened(tmp_path).rollouts] == [0.75]

    def test_what_is_gone_is_forgotten_and_what_is_new_is_read(self, tmp_path: Path) -> None:
        made("r1").write(tmp_path / "1")
        opened(tmp_path)
        (tmp_path / "1" / "r1.jsonl").unlink()
        made("r2").write(tmp_path / "2")
        assert [one.run for one in opened(tmp_path).rollouts] == ["2"]
        assert set(Store(tmp_path).load()) == {"2/r2.jsonl"}

    def test_a_folder_that_was_moved_is_known(self, tmp_path: Path) -> None:
        made("r1").write(tmp_path / "here" / "1")
        opened(tmp_path / "here")
        (tmp_path / "here").rename(tmp_path / "there")
        assert set(Store(tmp_path / "there").load()) == {"1/r1.jsonl"}
        [one] = opened(tmp_path / "there").rollouts
        assert Path(one.file).exists()

    def test_a_run_is_its_folder_however_it_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = made("r1").write(tmp_path / "logs" / "1795")
        monkeypatch.chdir(path.parent)
        for root in (tmp_path / "logs", path.parent, Path(), path):
            index = TraceIndex(root)
            index.refresh()
            assert [one.run for one in index.rollouts] == ["1795"]

    def test_names_that_are_no_text_are_kept(self, tmp_path: Path) -> None:
        made("r1").write(tmp_path)
        (tmp_path / "r1.jsonl").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl"))
        opened(tmp_path)
        assert len(Store(tmp_path).load()) == 1
        assert told(opened(tmp_path)) == fresh(tmp_path)

    def test_only_its_owner_can_read_it_and_only_a_folder_has_one(self, tmp_path: Path) -> None:
        path = made("r1").write(tmp_path)
        index = TraceIndex(path, keep=True)
        index.refresh()
        TraceIndex(tmp_path).refresh()
        assert not (tmp_path / STORE_NAME).exists()
        opened(tmp_path)
        assert (tmp_path / STORE_NAME).stat().st_mode & 0o777 == 0o600

    def test_a_word_is_kept_once_there_is_a_store(self, tmp_path: Path) -> None:
        made("r1").write(tmp_path)
        index = TraceIndex(tmp_path, keep=True)
        assert index.store is not None
        index.store.keep_note("port", "4711")
        assert not (tmp_path / STORE_NAME).exists()
        index.refresh()
        assert Store(tmp_path).note("port") == "4711"
        index.store.keep_note("port", "4712")
        assert Store(tmp_path).note("port") == "4712"
        assert Store(tmp_path).note("none") is None


def test_nobody_waits_for_what_is_kept(tmp_path: Path) -> None:
    write_random_traces(tmp_path, 20)
    index = TraceIndex(tmp_path, keep=True)
    index.refresh(limit_seconds=60)
    assert len(index.rollouts) >= 20
    assert not (tmp_path / STORE_NAME).exists()
    index.refresh(limit_seconds=60)
    assert len(Store(tmp_path).load()) == 20
    assert told(opened(tmp_path)) == fresh(tmp_path)


def test_what_is_kept_is_checked_a_few_files_at_a_time_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_random_traces(tmp_path, 20)
    opened(tmp_path)
    asked = []

    def counted(contents: list[bytes]) -> list[Kept | None]:
        asked.append(len(contents))
        return checked(contents)

    monkeypatch.setattr("osmosis_ai.rollout.observe.traces.index.CHECKED_AT_ONCE", 6)
    monkeypatch.setattr("osmosis_ai.rollout.observe.traces.index.checked", counted)
    assert told(opened(tmp_path)) == fresh(tmp_path)
    assert asked == [6, 6, 6, 2]


def _other_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 1")
    database.close()


def _wrong_sum(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE files SET known = CAST(replace(known, 'COMPLETED', 'COMPLETEX') AS BLOB)")
    database.close()


def _no_tables(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE files")
    database.close()


def _of_gigabytes(path: Path) -> None:
    os.truncate(path, 50 * 1024**3)  # of holes: it takes no room


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no database at all " * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:100] + bytes(path.stat().st_size - 100)),
        _other_version,
        _wrong_sum,
        _no_tables,
        _of_gigabytes,
    ],
    ids=[
        "empty",
        "foreign",
        "cut",
        "zeroes",
        "of another version",
        "a value fell over",
        "without its table",
        "of gigabytes",
    ],
)
def test_a_damaged_store_is_made_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    write_random_traces(tmp_path, 8)
    opened(tmp_path)
    damage(tmp_path / STORE_NAME)
    assert told(opened(tmp_path)) == fresh(tmp_path)
    assert len(Store(tmp_path).load()) == 8
    assert told(opened(tmp_path)) == fresh(tmp_path)


@pytest.mark.parametrize("states", [None, {}, "x", [[]], [[1, 2]], ["x"], "turns"], ids=repr)
def test_what_somebody_else_wrote_into_it_harms_nothing(tmp_path: Path, states: Any) -> None:
    path = made("r1").write(tmp_path)
    made("r2").write(tmp_path)
    index = opened(tmp_path)
    file = index._files[os.fspath(path)]
    file.rollouts[0].turns = "<b>"  # type: ignore[assignment]
    kept = file.kept() if states == "turns" else file.kept()._replace(states=states)
    Store(tmp_path).save([("r1.jsonl", kept)])
    assert known_in(tmp_path) == {"r2.jsonl"}
    assert told(opened(tmp_path)) == fresh(tmp_path)


def known_in(folder: Path) -> set[str]:
    """The files of which the store tells what can be used."""
    known = Store(folder).load()
    return {path for path, kept in zip(known, checked([*known.values()]), strict=True) if kept is not None}


@pytest.mark.parametrize("field", Kept._fields[:-1])
@pytest.mark.parametrize("value", ["x", None, 0.5, 7], ids=repr)
def test_a_value_of_another_type_harms_nothing_whatever_its_sum(tmp_path: Path, field: str, value: Any) -> None:
    path = made("r1").write(tmp_path)
    index = opened(tmp_path)
    [file] = index._files.values()
    Store(tmp_path).save([("r1.jsonl", file.kept()._replace(**{field: value}))])
    with path.open("ab") as growing:
        growing.write(b"{}\n")
    assert [one.rollout_id for one in opened(tmp_path).rollouts] == ["r1"]


@pytest.mark.parametrize("column", ["path", "known"])
@pytest.mark.parametrize("value", ["x", None, 7, b"x", b"", b"[", b"[" * 9999, b"\xff", b"[],[]"], ids=repr)
def test_a_row_that_is_none_is_passed_over_and_those_beside_it_are_known(
    tmp_path: Path, column: str, value: Any
) -> None:
    write_random_traces(tmp_path, 5)
    opened(tmp_path)
    with closing(sqlite3.connect(tmp_path / STORE_NAME)) as database:
        [had] = database.execute("SELECT path, known FROM files WHERE rowid = 3")
        row = (value, had[1]) if column == "path" else (had[0], value)
        total = _sum_of(*row) if all(isinstance(one, bytes) for one in row) else None
        database.execute("UPDATE files SET (path, known, sum) = (?, ?, ?) WHERE rowid = 3", (*row, total))
        database.commit()
    assert len(known_in(tmp_path) & {f"1795600000/step0-{number:06d}.jsonl" for number in range(5)}) == 4
    assert told(opened(tmp_path)) == fresh(tmp_path)


@pytest.mark.parametrize("what", ["link", "fifo", "folder", pytest.param("in use", marks=pytest.mark.slow)])
def test_without_a_store_of_its_own_it_goes_on(tmp_path: Path, what: str) -> None:
    folder, other = tmp_path / "traces", tmp_path / "other"
    made("r1").write(folder)
    path = folder / STORE_NAME
    lock = None
    match what:
        case "link":
            path.symlink_to(other)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            opened(folder)
            made("r2").write(folder)
            lock = sqlite3.connect(path)
            lock.execute("BEGIN EXCLUSIVE")
    assert told(opened(folder)) == fresh(folder)
    assert not other.exists()
    if lock is not None:
        lock.close()


KEEPS_READING = """
import sys
from osmosis_ai.rollout.observe.traces import index as module

module.KEPT_AT_ONCE = 20
index = module.TraceIndex(sys.argv[1], keep=True)
print("reading", flush=True)
while True:
    index.refresh(0.001)
"""


def kept_files(folder: Path) -> int:
    """How many are in the store; looked up without making it, or its tables, before its owner does."""
    try:
        with closing(sqlite3.connect(f"{(folder / STORE_NAME).as_uri()}?mode=ro", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM files").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_a_store_that_is_whole(tmp_path: Path) -> None:
    write_random_traces(tmp_path, 400)
    expected = fresh(tmp_path)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPS_READING, str(tmp_path)], env=own_environment(), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        known = kept_files(tmp_path)
        while kept_files(tmp_path) in (known, 0) and known < 400:
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with sqlite3.connect(tmp_path / STORE_NAME) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.close()
    assert told(opened(tmp_path)) == expected
