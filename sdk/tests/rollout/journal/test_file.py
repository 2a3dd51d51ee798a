import asyncio
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.journal import an_acceptance, other_process

from osmosis_ai.rollout.journal import Clock, JournalError, Payload, SqliteJournal, Synchronous
from osmosis_ai.rollout.journal.file import APPLICATION_ID, SCHEMA_VERSION, FileOptions, OpenFile, open_file
from osmosis_ai.rollout.journal.occupancy import owners_directory
from osmosis_ai.rollout.journal.owner import lock


def make_journal(path: Path, *, records: int = 1, request_bytes: int = 1000) -> None:
    async def make() -> None:
        async with SqliteJournal(path) as journal:
            for number in range(records):
                await journal.accept(an_acceptance(f"key-{number}", request=bytes(request_bytes)))

    asyncio.run(make())


def refusal(path: Path, *, create: bool = True) -> str:
    """The sentence with which ``path`` is refused."""
    journal = SqliteJournal(path, create=create, busy_timeout_seconds=0.05)
    with pytest.raises(JournalError) as caught:
        asyncio.run(journal.open())
    (sentence,) = caught.value.args
    assert str(path) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return str(sentence)


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes_in(directory: Path) -> dict[str, int]:
    return {file.name: mode(file) for file in directory.iterdir()}


def test_the_file_and_its_directory_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state" / "journal.db"
    make_journal(path)
    assert path.is_file()
    assert mode(path.parent) == 0o700


async def test_nobody_else_can_read_what_is_made_whatever_the_umask(path: Path) -> None:
    with umask(0):
        async with SqliteJournal(path) as journal:
            await journal.accept(an_acceptance())
            assert modes_in(path.parent) == {
                "journal.db": 0o600,
                "journal.db-wal": 0o600,
                "journal.db-shm": 0o600,
                "journal.db.owners": 0o700,
            }
            assert set(modes_in(owners_directory(path)).values()) == {0o600}


def test_a_file_that_others_could_read_is_made_private(path: Path) -> None:
    make_journal(path)
    path.chmod(0o644)
    make_journal(path)
    assert mode(path) == 0o600


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch(mode=0o644)
    make_journal(path)
    assert mode(path) == 0o600


def test_a_journal_cut_off_while_it_was_made_is_made_anew(path: Path) -> None:
    path.with_name("journal.db.new").write_bytes(b"half of a journal")
    make_journal(path)
    assert not path.with_name("journal.db.new").exists()


@pytest.mark.parametrize("main", ["absent", "empty"])
def test_a_log_without_its_journal_is_neither_applied_nor_deleted(path: Path, main: str) -> None:
    log = path.with_name("journal.db-wal")

    async def log_of_an_open_journal() -> bytes:
        async with SqliteJournal(path) as journal:
            await journal.accept(an_acceptance("old"))
            return log.read_bytes()

    left = asyncio.run(log_of_an_open_journal())
    path.unlink()
    log.write_bytes(left)
    if main == "empty":
        path.touch()
    assert f"but its -wal is there: put it back, or bring out what it owes with 'osmosis journal salvage {path}" in (
        refusal(path)
    )
    assert log.read_bytes() == left


def test_an_absent_journal_can_be_required(tmp_path: Path) -> None:
    assert "There is no journal" in refusal(tmp_path / "absent" / "journal.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    execute(path, "PRAGMA journal_mode = WAL", "CREATE TABLE theirs (a)", "INSERT INTO theirs VALUES (1)")
    before = path.read_bytes()
    assert "not a rollout journal" in refusal(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_database_that_another_program_left_in_the_middle_is_not_recovered_by_us(tmp_path: Path, path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE theirs (a)")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", theirs)
    before = {file.name: file.read_bytes() for file in theirs.iterdir()}
    assert "not a rollout journal" in refusal(theirs / path.name)
    assert {file.name: file.read_bytes() for file in theirs.iterdir()} == before


@pytest.mark.parametrize(
    "content",
    [b"x", b"not a database\n" * 1000, bytes(8192), b"SQLite format 3\0" + b"\xff" * 8000],
    ids=["one byte", "text", "zeros", "a header of nonsense"],
)
def test_any_other_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    assert "not a rollout journal" in refusal(path)
    assert path.read_bytes() == content
    assert mode(path) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_journal_of_a_newer_sdk_is_refused(path: Path) -> None:
    make_journal(path)
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert f"schema {SCHEMA_VERSION + 1}" in refusal(path)


def overwrite_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(size // 4))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [overwrite_middle, cut_in_half])
def test_a_damaged_journal_is_refused(path: Path, damage: Callable[[Path], None]) -> None:
    make_journal(path, records=200)
    damage(path)
    assert f"is damaged: bring out what it owes with 'osmosis journal salvage {path} -o NEW'" in refusal(path)


async def loaded(journal: SqliteJournal, key: str) -> bytes | JournalError | None:
    try:
        return await journal.load(key, Payload.REQUEST)
    except JournalError as error:
        return error


async def test_damage_met_later_is_told_and_the_rest_stays_usable(path: Path) -> None:
    await asyncio.to_thread(make_journal, path, records=100, request_bytes=100_000)
    async with SqliteJournal(path) as journal:
        overwrite_middle(path)
        found = [await loaded(journal, f"key-{number}") for number in range(100)]
        assert any("is damaged" in str(each) for each in found if isinstance(each, JournalError))
        assert await journal.get("key-0") is not None
        with pytest.raises(JournalError, match="is damaged"):
            await journal.accept(an_acceptance("new"))
        assert "is damaged" in (journal.problem or "")
        assert await journal.finish("key-99", b"result")


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo", "device"])
def test_what_is_not_a_regular_file_is_refused(tmp_path: Path, path: Path, kind: str) -> None:
    match kind:
        case "symlink":
            make_journal(tmp_path / "real.db")
            path.symlink_to(tmp_path / "real.db")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/full")
    assert "not a regular file" in refusal(path)


def test_a_second_name_of_a_journal_is_refused(tmp_path: Path, path: Path) -> None:
    make_journal(path)
    (tmp_path / "second.db").hardlink_to(path)
    assert "second name" in refusal(path)


@pytest.mark.parametrize("name", ["file/journal.db", "file/deeper/journal.db"])
def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    assert "cannot be used (" in refusal(tmp_path / name)


def test_a_directory_that_cannot_be_written_is_told() -> None:
    assert "cannot be used (" in refusal(Path("/proc/journal.db"))


def test_a_journal_held_by_somebody_else_is_refused_after_a_while(path: Path) -> None:
    make_journal(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert "locked by another process" in refusal(path)
    make_journal(path)


def test_a_journal_that_somebody_else_is_opening_is_waited_for(path: Path) -> None:
    make_journal(path)
    with (owners_directory(path) / "opening").open() as file:
        assert lock(file.fileno(), exclusive=True)
        assert "is being opened by another process" in refusal(path)
    make_journal(path)


def test_after_work_that_does_not_wait_others_are_waited_for_again(path: Path) -> None:
    def busy_timeout_ms(file: OpenFile) -> int:
        (milliseconds,) = file.connection.execute("PRAGMA busy_timeout").fetchone()
        return int(milliseconds)

    seen: list[int] = []
    options = FileOptions(Synchronous.NORMAL, 1.5, max_bytes=None, reserve_bytes=0, create=True)
    with closing(open_file(path, options, Clock())) as file:
        file.without_waiting(lambda file: seen.append(busy_timeout_ms(file)))
        assert [*seen, busy_timeout_ms(file)] == [0, 1500]


def test_a_failed_opening_can_be_tried_again(path: Path) -> None:
    journal = SqliteJournal(path)
    path.write_bytes(b"not a database")
    with pytest.raises(JournalError):
        asyncio.run(journal.open())
    path.unlink()
    asyncio.run(journal.open())
    asyncio.run(journal.close())


@pytest.mark.parametrize("name", ["with space?.db", "50%25 #1.db", "é🎲.db"])
def test_a_path_is_any_path(tmp_path: Path, name: str) -> None:
    make_journal(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(b"SQLite format 3\0")


@pytest.mark.slow
async def test_processes_that_start_together_share_one_new_journal(path: Path) -> None:
    with (
        other_process("hold", path, 1) as first,
        other_process("hold", path, 1) as second,
        other_process("hold", path, 1) as third,
    ):
        assert [process.read_line() for process in (first, second, third)] == ["ready"] * 3
    async with SqliteJournal(path) as journal:
        assert len(await journal.records()) == 1


def remove(path: Path) -> None:
    path.unlink()


def replace_by_another(path: Path) -> None:
    other = path.with_name("other.db")
    make_journal(other)
    other.replace(path)


@pytest.mark.parametrize("change", [remove, replace_by_another])
async def test_a_journal_that_is_no_longer_in_place_takes_no_promise(
    sqlite: SqliteJournal, change: Callable[[Path], None]
) -> None:
    await sqlite.accept(an_acceptance("before"))
    await asyncio.to_thread(change, sqlite.path)
    with pytest.raises(JournalError, match="moved or removed while in use: put it back, or restart the server"):
        await sqlite.accept(an_acceptance("after"))


def test_the_file_says_what_it_is(path: Path) -> None:
    make_journal(path)
    header = path.read_bytes()[:100]
    assert int.from_bytes(header[68:72]) == APPLICATION_ID
    assert int.from_bytes(header[60:64]) == SCHEMA_VERSION
