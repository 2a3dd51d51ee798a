import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.journal import an_acceptance, other_process

from osmosis_ai.rollout.journal import JournalError, SqliteJournal
from osmosis_ai.rollout.journal.file import APPLICATION_ID, SCHEMA_VERSION, owners_directory


async def make_journal(path: Path, *, records: int = 1) -> None:
    async with SqliteJournal(path) as journal:
        for number in range(records):
            await journal.accept(an_acceptance(f"key-{number}", request=bytes(1000)))


async def refusal(path: Path, **options: bool) -> str:
    """The sentence with which ``path`` is refused."""
    with pytest.raises(JournalError) as caught:
        await SqliteJournal(path, **options).open()
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


async def test_the_file_and_its_directory_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state" / "journal.db"
    await make_journal(path)
    assert path.is_file()
    assert mode(path.parent) == 0o700


async def test_nobody_else_can_read_what_is_made_whatever_the_umask(path: Path) -> None:
    with umask(0):
        async with SqliteJournal(path) as journal:
            await journal.accept(an_acceptance())
            beside = [file for file in path.parent.iterdir() if file.is_file()]
            assert {file.name: mode(file) for file in beside} == {
                "journal.db": 0o600,
                "journal.db-wal": 0o600,
                "journal.db-shm": 0o600,
            }
            assert mode(owners_directory(path)) == 0o700
            assert {mode(file) for file in owners_directory(path).iterdir()} == {0o600}


async def test_a_file_that_others_could_read_is_made_private(path: Path) -> None:
    await make_journal(path)
    path.chmod(0o644)
    async with SqliteJournal(path):
        assert mode(path) == 0o600


async def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch(mode=0o644)
    await make_journal(path)
    assert mode(path) == 0o600


async def test_a_journal_cut_off_while_it_was_made_is_made_anew(path: Path) -> None:
    path.with_name("journal.db.new").write_bytes(b"half of a journal")
    await make_journal(path)
    assert not path.with_name("journal.db.new").exists()


async def test_a_log_left_by_a_removed_journal_is_not_applied(tmp_path: Path, path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("old"))
        kept = path.with_name("journal.db-wal").read_bytes()
    fresh = tmp_path / "fresh.db"
    fresh.with_name("fresh.db-wal").write_bytes(kept)
    async with SqliteJournal(fresh) as journal:
        assert await journal.records() == []


async def test_an_absent_journal_can_be_required(tmp_path: Path) -> None:
    assert "There is no journal" in await refusal(tmp_path / "absent" / "journal.db", create=False)
    assert list(tmp_path.iterdir()) == []


async def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    execute(path, "PRAGMA journal_mode = WAL", "CREATE TABLE theirs (a)", "INSERT INTO theirs VALUES (1)")
    before = path.read_bytes()
    assert "not a rollout journal" in await refusal(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "content", [b"x", b"not a database\n" * 1000, bytes(8192), b"SQLite format 3\0" + b"\xff" * 8000]
)
async def test_any_other_file_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    assert "not a rollout journal" in await refusal(path)
    assert path.read_bytes() == content
    assert mode(path) == 0o644
    assert list(path.parent.iterdir()) == [path]


async def test_a_journal_of_a_newer_sdk_is_refused(path: Path) -> None:
    await make_journal(path)
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert f"schema {SCHEMA_VERSION + 1}" in await refusal(path)


def overwrite_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(size // 4))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lose_a_table(path: Path) -> None:
    execute(path, "PRAGMA writable_schema = ON", "DELETE FROM sqlite_master WHERE name = 'results'")


@pytest.mark.parametrize("damage", [overwrite_middle, cut_in_half, lose_a_table])
async def test_a_damaged_journal_is_refused(path: Path, damage: Callable[[Path], None]) -> None:
    await make_journal(path, records=200)
    damage(path)
    assert "is damaged: move it, its -wal and its -shm away" in await refusal(path)


async def test_damage_met_later_is_told_and_the_rest_stays_usable(path: Path) -> None:
    await make_journal(path, records=200)
    async with SqliteJournal(path) as journal:
        overwrite_middle(path)
        with pytest.raises(JournalError, match="is damaged"):
            await journal.records(limit=200)
        assert await journal.accept(an_acceptance("key-0")) is not None


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo", "device"])
async def test_what_is_not_a_regular_file_is_refused(tmp_path: Path, path: Path, kind: str) -> None:
    match kind:
        case "symlink":
            await make_journal(tmp_path / "real.db")
            path.symlink_to(tmp_path / "real.db")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/full")
    assert "not a regular file" in await refusal(path)


async def test_a_second_name_of_a_journal_is_refused(tmp_path: Path, path: Path) -> None:
    await make_journal(path)
    (tmp_path / "second.db").hardlink_to(path)
    assert "second name" in await refusal(path)


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be used (" in await refusal(tmp_path / "file" / "journal.db")
    assert "cannot be used (" in await refusal(tmp_path / "file" / "deeper" / "journal.db")


async def test_a_directory_that_cannot_be_written_is_told() -> None:
    assert "cannot be used (" in await refusal(Path("/proc/journal.db"))


async def test_a_journal_held_by_somebody_else_is_refused_after_a_while(path: Path) -> None:
    await make_journal(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked by another process"):
            await SqliteJournal(path, busy_timeout_seconds=0.05).open()
    await make_journal(path)


async def test_a_failed_opening_can_be_tried_again(path: Path) -> None:
    path.write_bytes(b"not a database")
    journal = SqliteJournal(path)
    with pytest.raises(JournalError):
        await journal.open()
    path.unlink()
    async with journal:
        assert await journal.accept(an_acceptance()) is None


@pytest.mark.parametrize("name", ["with space?.db", "50%25 #1.db", "é🎲.db"])
async def test_a_path_is_any_path(tmp_path: Path, name: str) -> None:
    await make_journal(tmp_path / name)
    assert (tmp_path / name).read_bytes()[:6] == b"SQLite"


async def test_processes_that_start_together_share_one_new_journal(path: Path) -> None:
    with (
        other_process("hold", path, 1) as first,
        other_process("hold", path, 1) as second,
        other_process("hold", path, 1) as third,
    ):
        assert [process.read_line() for process in (first, second, third)] == ["ready"] * 3
    async with SqliteJournal(path) as journal:
        assert len(await journal.records()) == 1


@pytest.mark.parametrize("what", ["removed", "replaced"])
async def test_a_journal_that_is_no_longer_in_place_takes_no_promise(
    sqlite: SqliteJournal, tmp_path: Path, what: str
) -> None:
    await sqlite.accept(an_acceptance("before"))
    sqlite.path.unlink()
    if what == "replaced":
        await make_journal(tmp_path / "other.db")
        (tmp_path / "other.db").rename(sqlite.path)
    with pytest.raises(JournalError, match="moved or removed while in use: restart the server"):
        await sqlite.accept(an_acceptance("after"))


async def test_the_file_says_what_it_is(path: Path) -> None:
    await make_journal(path)
    header = path.read_bytes()[:100]
    assert int.from_bytes(header[68:72]) == APPLICATION_ID
    assert int.from_bytes(header[60:64]) == SCHEMA_VERSION
