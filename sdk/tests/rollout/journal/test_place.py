"""What happens to a journal's files while it is open: nothing promised is lost, and nothing new is promised on sand."""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.journal import an_acceptance, claim_all, other_process, until_sound, until_unsound

from osmosis_ai.rollout.journal import JournalError, Payload, RolloutState, SqliteJournal
from osmosis_ai.rollout.journal.file import OpenFile

ACCEPTED, FINISHED = RolloutState.ACCEPTED, RolloutState.FINISHED
DELIVERED, UNDELIVERABLE = RolloutState.DELIVERED, RolloutState.UNDELIVERABLE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home" / "journal.db"


def side_file(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


async def states_after_crash(path: Path) -> dict[str, RolloutState]:
    """What another process finds if this one is killed now: a copy of what has a name."""
    copy = path.parent.parent / "after the crash"
    await asyncio.to_thread(shutil.copytree, path.parent, copy)
    async with SqliteJournal(copy / path.name) as journal:
        return {record.key: record.state for record in await journal.records()}


@pytest.mark.slow
async def test_results_of_a_moved_journal_are_on_record_when_it_is_back(path: Path) -> None:
    away = path.parent.with_name("away")
    async with SqliteJournal(path) as journal:
        for key in ("running", "finished"):
            await journal.accept(an_acceptance(key))
        await journal.finish("finished", b"result")
        path.parent.rename(away)
        assert await journal.finish("running", b"result")
        assert await journal.settle("running", DELIVERED, attempts=1)
        assert await journal.settle("finished", DELIVERED, attempts=1)
        with pytest.raises(JournalError, match="moved or removed while in use: put it back, or restart the server"):
            await journal.accept(an_acceptance("new"))
        await until_unsound(journal)
        away.rename(path.parent)
        await until_sound(journal)
        assert await journal.accept(an_acceptance("new")) is None
        assert await states_after_crash(path) == {"running": DELIVERED, "finished": DELIVERED, "new": ACCEPTED}


async def test_a_journal_closed_while_it_is_away_has_everything(path: Path) -> None:
    away = path.parent.with_name("away")
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("key"))
        path.parent.rename(away)
        await journal.finish("key", b"result")
    away.rename(path.parent)
    async with SqliteJournal(path) as journal:
        assert [record.state for record in await claim_all(journal)] == [FINISHED]
        assert await journal.load("key", Payload.RESULT) == b"result"


async def test_an_error_of_the_system_is_no_absence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def fail(file: object, **options: Any) -> os.stat_result:
        if str(file) == str(path):
            raise OSError(116, "Stale file handle", str(path))
        return stat(file, **options)  # type: ignore[arg-type]

    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("key"))
        monkeypatch.setattr(os, "stat", fail)
        with pytest.raises(JournalError, match="cannot be used \\(Stale file handle"):
            await journal.accept(an_acceptance("new"))
        assert await journal.finish("key", b"result")
        monkeypatch.undo()
        assert await journal.accept(an_acceptance("new")) is None


async def test_a_result_still_goes_out_when_the_journal_has_been_deleted(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("key"))
        await asyncio.to_thread(shutil.rmtree, path.parent)
        assert await journal.finish("key", b"result")
        assert await journal.settle("key", DELIVERED, attempts=1)
        record = await journal.get("key")
        assert record is not None
        assert record.state is DELIVERED
        with pytest.raises(JournalError, match="moved or removed"):
            await journal.accept(an_acceptance("new"))


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("change", [Path.unlink, lambda file: file.rename(file.with_name("elsewhere"))])
async def test_without_its_log_a_journal_takes_nothing_new_and_loses_nothing(
    path: Path, suffix: str, change: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with SqliteJournal(path) as journal:
            for key in ("accepted", "running"):
                await journal.accept(an_acceptance(key))
            change(side_file(path, suffix))
            with pytest.raises(JournalError, match=f"lost its {suffix} while in use: restart the server"):
                await journal.accept(an_acceptance("new"))
            assert await journal.finish("running", b"result")
            assert suffix in (await until_unsound(journal))
            assert await states_after_crash(path) == {"accepted": ACCEPTED, "running": FINISHED}
    assert f"lost its {suffix} while in use" in caplog.text
    async with SqliteJournal(path) as journal:
        assert {record.key: record.state for record in await claim_all(journal)} == {
            "accepted": ACCEPTED,
            "running": FINISHED,
        }


@pytest.mark.slow
async def test_what_was_accepted_before_the_log_was_removed_is_saved_by_a_journal_at_rest(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("key"))
        side_file(path, "-wal").unlink()
        await until_unsound(journal)
        assert await states_after_crash(path) == {"key": ACCEPTED}


async def test_a_result_that_cannot_be_saved_is_held_and_recorded_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: OpenFile) -> None:
        raise JournalError("The disk is asleep.")

    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("key"))
        side_file(path, "-wal").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(OpenFile, "secure", fail)
            with pytest.raises(JournalError, match="asleep"):
                await journal.finish("key", b"result")
        assert await journal.finish("key", b"result")
        assert await states_after_crash(path) == {"key": FINISHED}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
async def test_nobody_opens_a_journal_whose_log_was_removed_under_a_living_server(path: Path, suffix: str) -> None:
    with other_process("hold", path, 1) as process:
        assert process.read_line() == "ready"
        side_file(path, suffix).unlink()
        with pytest.raises(JournalError, match=f"lost its {suffix} while in use: restart the server"):
            await SqliteJournal(path, busy_timeout_seconds=0.1).open()
        assert not side_file(path, suffix).exists()


@pytest.mark.slow
async def test_nothing_is_lost_by_kill_9_after_the_log_was_removed(path: Path) -> None:
    with other_process("hold", path, 3) as process:
        assert process.read_line() == "ready"
        side_file(path, "-wal").unlink()
        assert "lost its -wal" in process.read_line(), "it tells when it has noticed"
        process.kill()
    async with SqliteJournal(path) as journal:
        assert len(await claim_all(journal)) == 3


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [empty, overwrite_header])
async def test_damage_shows_while_the_journal_is_open(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("before"))
    told: list[str | None] = []
    journal = SqliteJournal(path)
    journal.on_problem = told.append
    with caplog.at_level(logging.ERROR):
        async with journal:
            damage(path)
            assert "salvage" in await until_unsound(journal)
            with pytest.raises(JournalError, match="is damaged"):
                await journal.accept(an_acceptance("after"))
    assert told == [journal_problem := told[0]]
    assert journal_problem is not None
    assert journal_problem in caplog.text


@pytest.mark.slow
async def test_a_log_that_was_cut_shows_too(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("before"))
        os.truncate(side_file(path, "-wal"), 0)
        assert "is damaged" in await until_unsound(journal)
        with pytest.raises(JournalError, match="is damaged"):
            await journal.accept(an_acceptance("after"))


async def test_a_newer_schema_that_is_still_in_the_log_is_seen(path: Path) -> None:
    newer = path.parent.parent / "newer"
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance())
        await journal._opened.write(lambda file: file.connection.execute("PRAGMA user_version = 99"))
        await asyncio.to_thread(shutil.copytree, path.parent, newer)
    with pytest.raises(JournalError, match="schema 99, which this SDK does not know"):
        await SqliteJournal(newer / path.name).open()
