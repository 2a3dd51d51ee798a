"""A store that somebody else planted beside traces: what SQLite would do with it harms nothing and comes to an end."""

import os
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.processes import Program
from support.trace_index import fresh, opened, told
from support.traces import write_random_traces

from osmosis_ai.rollout.observe.traces import store
from osmosis_ai.rollout.observe.traces.store import STORE_NAME, Store

JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
PAGE_BYTES, SECTOR_BYTES = 4096, 512
ENDLESS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT n, n, n FROM numbers"
LARGE = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 9) SELECT zeroblob(9e8)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight traces, and the store that was made of them."""
    folder = tmp_path / "traces"
    write_random_traces(folder, 8)
    opened(folder)
    return folder


def is_made_anew(folder: Path) -> None:
    assert told(opened(folder)) == fresh(folder)
    assert len(Store(folder).load()) == 8
    assert [one.name for one in folder.iterdir() if one.name.startswith(".")] == [STORE_NAME]
    assert (folder / STORE_NAME).stat().st_size < 100_000
    with closing(sqlite3.connect(folder / STORE_NAME)) as database:
        made = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")}
    assert made == {"files", "notes"}


@pytest.mark.parametrize("is_open", [False, True], ids=["before", "while it is open"])
def test_a_journal_cannot_have_another_file_removed(folder: Path, tmp_path: Path, is_open: bool) -> None:
    used = Store(folder)
    if is_open:
        used.keep_note("port", "1")
    precious = tmp_path / "precious"
    precious.write_text("A file of somebody's.\n")
    name, pages = os.fsencode(precious), (folder / STORE_NAME).stat().st_size // PAGE_BYTES
    header = JOURNAL_MAGIC + struct.pack(">5I", 0, 1, pages, SECTOR_BYTES, PAGE_BYTES)
    of_no_page = struct.pack(">I", 0x40000000 // PAGE_BYTES + 1)
    names = of_no_page + name + struct.pack(">II", len(name), sum(name)) + JOURNAL_MAGIC
    (folder / f"{STORE_NAME}-journal").write_bytes(header.ljust(SECTOR_BYTES, b"\0") + names)
    used.keep_note("port", "2")
    used.close()
    is_made_anew(folder)
    assert precious.read_text() == "A file of somebody's.\n"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_a_fifo_beside_it_keeps_nobody_waiting(folder: Path, suffix: str) -> None:
    os.mkfifo(folder / f"{STORE_NAME}{suffix}")
    is_made_anew(folder)


def test_one_in_wal_mode_is_made_anew(folder: Path) -> None:
    with closing(sqlite3.connect(folder / STORE_NAME)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    is_made_anew(folder)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "planted",
    [
        f"DROP TABLE files; CREATE VIEW files AS {ENDLESS}",
        f"DROP TABLE files; CREATE VIEW files (path, known, sum) AS {LARGE} AS path, zeroblob(9e8), 0 FROM numbers",
        f"CREATE TRIGGER planted AFTER INSERT ON files BEGIN INSERT INTO notes {ENDLESS}; END",
        "CREATE TABLE more (name TEXT)",
        "CREATE INDEX more ON files (hex(known))",
    ],
    ids=["an endless view", "a large view", "a trigger", "another table", "an index that reckons"],
)
def test_a_schema_that_is_not_ours_is_not_asked(folder: Path, planted: str) -> None:
    with closing(sqlite3.connect(folder / STORE_NAME)) as database:
        database.executescript(planted)
    is_made_anew(folder)


def _interior(child: int, cells: int) -> bytes:
    """A page of a table's tree that has one child, many times."""
    size = 5
    at = PAGE_BYTES - cells * size
    header = struct.pack(">BHHHBI", 5, 0, cells, at, 0, child)
    places = b"".join(struct.pack(">H", at + number * size) for number in range(cells))
    return (header + places).ljust(at, b"\0") + b"".join(struct.pack(">IB", child, 1) for _ in range(cells))


def _often_the_same_page(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        [(root,)] = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'files'")
    pages = [path.read_bytes()[at : at + PAGE_BYTES] for at in range(0, path.stat().st_size, PAGE_BYTES)]
    first = len(pages) + 1
    pages += [_interior(first + number + 1, 400) for number in range(5)] + [pages[root - 1]]
    pages[root - 1] = _interior(first, 400)
    pages[0] = pages[0][:28] + struct.pack(">I", len(pages)) + pages[0][32:]
    path.write_bytes(b"".join(pages))


def _often_what_is_no_row(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE files SET known = NULL")
        database.commit()
    _often_the_same_page(path)


def _a_row_larger_than_memory(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE files SET known = zeroblob(100000000) WHERE rowid = 1")
        database.commit()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("damage", [_often_the_same_page, _often_what_is_no_row, _a_row_larger_than_memory])
def test_pages_that_hold_more_than_a_store_can_are_not_read_to_their_end(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / STORE_NAME)
    is_made_anew(folder)


def test_a_status_that_there_is_not_is_not_believed(folder: Path) -> None:
    index = opened(folder)
    [name, file] = next((index._name_of(path), file) for path, file in index._files.items())
    file.rollouts[0].status = "constructor"  # type: ignore[assignment]
    Store(folder).save([(name, file.kept())])
    assert told(opened(folder)) == fresh(folder)


def test_a_port_of_thousands_of_digits_is_none(folder: Path, tmp_path: Path) -> None:
    Store(folder).keep_note("port", "9" * 5000)
    with Program(tmp_path, "view", str(folder)) as viewer:
        assert viewer.wait_for(r"http://127\.0\.0\.1:\d+/")


def test_of_many_states_that_are_none_the_first_is_enough() -> None:
    with pytest.raises(ValidationError) as refused:
        store._known().validate_json(b"[[1, 1, 1, 1, [0, 0, 0, 0]]]")
    assert refused.value.error_count() == 1
