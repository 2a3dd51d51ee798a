import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.journal import OtherProcess, an_acceptance, claim_all, other_process

from osmosis_ai.rollout.journal import Clock, SqliteJournal, Synchronous, owner as owner_module
from osmosis_ai.rollout.journal.anchor import Anchor
from osmosis_ai.rollout.journal.file import FileOptions, OpenFile, open_file
from osmosis_ai.rollout.journal.occupancy import owners_directory
from osmosis_ai.rollout.journal.owner import Owner, is_alive, living, sweep


def test_an_owner_lives_until_it_is_released(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    assert is_alive(tmp_path, owner.token)
    owner.release()
    assert not is_alive(tmp_path, owner.token)
    assert list(tmp_path.iterdir()) == []


def test_each_owner_is_another(tmp_path: Path) -> None:
    first, second = Owner(tmp_path), Owner(tmp_path)
    first.release()
    assert is_alive(tmp_path, second.token)
    second.release()


def test_asking_about_an_owner_does_not_end_it(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    assert [is_alive(tmp_path, owner.token) for _ in range(3)] == [True] * 3
    owner.release()


def test_a_file_without_a_lock_is_a_dead_owner_and_is_swept(tmp_path: Path) -> None:
    living = Owner(tmp_path)
    (tmp_path / ("0" * 32)).touch()
    (tmp_path / "opening").touch()
    assert not is_alive(tmp_path, "0" * 32)
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {living.token, "opening"}
    living.release()


@pytest.mark.parametrize("token", ["", "../../secret", "opening", "nul\0inside", "f" * 31])
def test_what_is_no_token_is_nobody(tmp_path: Path, token: str) -> None:
    assert not is_alive(tmp_path, token)


async def wait_for_acceptance(process: OtherProcess, journal: SqliteJournal) -> None:
    assert process.read_line() == "ready"
    assert await journal.claim_abandoned() == [], "the owner lives"


async def test_the_records_of_a_living_process_are_left_to_it(sqlite: SqliteJournal) -> None:
    with other_process("hold", sqlite.path, 3) as process:
        await wait_for_acceptance(process, sqlite)


async def test_the_records_of_a_killed_process_are_claimed(sqlite: SqliteJournal) -> None:
    with other_process("hold", sqlite.path, 3) as process:
        await wait_for_acceptance(process, sqlite)
        process.kill()
        assert [record.key for record in await claim_all(sqlite)] == ["key-0", "key-1", "key-2"]


@pytest.mark.slow
async def test_the_records_of_a_process_that_closed_its_journal_are_claimed(sqlite: SqliteJournal) -> None:
    with other_process("hold", sqlite.path, 3) as process:
        await wait_for_acceptance(process, sqlite)
        process.go()
        assert process.read_rest() == []
        assert len(await claim_all(sqlite)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["forked", "started"])
async def test_a_child_that_outlives_its_process_does_not_keep_the_owner_alive(
    sqlite: SqliteJournal, kind: str
) -> None:
    with other_process("leave-child", sqlite.path, kind) as process:
        await wait_for_acceptance(process, sqlite)
        process.kill()
        # The child's copy of the lock is closed by its exec, which may be the last thing to happen here.
        async with asyncio.timeout(60):
            while not (claimed := await claim_all(sqlite)):  # noqa: ASYNC110 - nobody tells when a lock is gone
                await asyncio.sleep(0.01)
        assert [record.key for record in claimed] == ["key-0"]


def clean(directory: Path) -> None:
    """As a cleaner of old files does."""
    for file in directory.iterdir():
        file.unlink()


def clean_all(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("cleaner", [clean, clean_all])
async def test_an_owner_whose_lock_file_was_deleted_is_alive_until_it_is_dead(
    path: Path, cleaner: Callable[[Path], None]
) -> None:
    with other_process("hold", path, 3) as process:
        assert process.read_line() == "ready"
        cleaner(owners_directory(path))
        async with SqliteJournal(path) as other:
            for _ in range(200):
                assert await other.claim_abandoned() == []
                cleaner(owners_directory(path))
            process.kill()
            assert len(await claim_all(other)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("cleaner", [clean, clean_all])
async def test_an_owner_that_is_stopped_meanwhile_is_alive_too(path: Path, cleaner: Callable[[Path], None]) -> None:
    with other_process("hold", path, 3) as process:
        assert process.read_line() == "ready"
        process.signal(signal.SIGSTOP)
        cleaner(owners_directory(path))
        async with SqliteJournal(path) as other:
            assert await other.claim_abandoned() == []
            assert await other.purge(keys=["key-0"]) == 0
            process.kill()
            assert len(await claim_all(other)) == 3


@pytest.mark.slow
async def test_a_living_owner_puts_its_file_back(path: Path) -> None:
    directory = owners_directory(path)
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance())
        (token,) = living(directory)
        await asyncio.to_thread(clean_all, directory)
        async with asyncio.timeout(60):
            while not is_alive(directory, token):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        assert living(directory) == [token]
    assert living(directory) == []


def test_a_file_that_somebody_else_put_in_its_place_is_replaced(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    (tmp_path / owner.token).unlink()
    (tmp_path / owner.token).touch()
    assert not is_alive(tmp_path, owner.token)
    owner.reassert()
    assert is_alive(tmp_path, owner.token)
    owner.release()
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_living_owner_does_not_grow_old(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    os.utime(tmp_path / owner.token, (1, 1))
    owner.reassert()
    assert (tmp_path / owner.token).stat().st_mtime > 1_000_000_000
    owner.release()


def test_while_owners_come_and_are_put_back_a_sweep_removes_none(tmp_path: Path) -> None:
    ended = threading.Event()

    def sweep_all_the_time() -> None:
        while not ended.is_set():
            sweep(tmp_path)

    sweeper = threading.Thread(target=sweep_all_the_time)
    sweeper.start()
    try:
        for _ in range(300):
            owner = Owner(tmp_path)
            assert is_alive(tmp_path, owner.token)
            (tmp_path / owner.token).unlink()
            owner.reassert()
            assert is_alive(tmp_path, owner.token)
            owner.release()
    finally:
        ended.set()
        sweeper.join()


def lock_of(file: OpenFile, token: str) -> bool:
    return is_alive(owners_directory(file.path), token)


def lock_after_a_sweep(file: OpenFile, token: str) -> bool:
    file.sweep()
    return lock_of(file, token)


@pytest.mark.parametrize(
    ("look", "before"),
    [
        (lock_of, "its lock is tried"),
        (lock_after_a_sweep, "its lock is tried"),
        (lock_after_a_sweep, "it is opened"),
        (OpenFile.is_alive, "it is opened"),
        (OpenFile.is_alive, "its lock is tried"),
    ],
)
def test_an_owner_whose_file_is_put_back_while_somebody_looks_at_it_is_alive(
    path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[OpenFile, str], bool], before: str
) -> None:
    monkeypatch.setattr(Anchor, "is_held", lambda self, token: None)  # files are the only proof
    options = FileOptions(Synchronous.NORMAL, 1.5, max_bytes=None, reserve_bytes=0, create=True)
    with closing(open_file(path, options, Clock())) as file:
        owner = Owner(owners_directory(path))
        module, name = (os, "open") if before == "it is opened" else (owner_module, "lock")
        real = getattr(module, name)

        def with_a_cleaner_before(what: Any, *arguments: Any, **options: Any) -> Any:
            if module is os and what != owners_directory(path) / owner.token:
                return real(what, *arguments, **options)
            if module is owner_module and not os.path.samestat(os.fstat(what), os.fstat(owner._descriptor)):
                return real(what, *arguments, **options)
            monkeypatch.setattr(module, name, real)
            (owners_directory(path) / owner.token).unlink()
            if module is owner_module:  # somebody has it open
                owner.reassert()
                return real(what, *arguments, **options)
            try:
                return real(what, *arguments, **options)
            finally:
                owner.reassert()

        monkeypatch.setattr(module, name, with_a_cleaner_before)
        assert look(file, owner.token)
        assert lock_of(file, owner.token)
        assert getattr(module, name) is real, "the cleaner came"
        owner.release()


@pytest.mark.slow
async def test_where_files_are_the_only_proof_a_missing_one_is_believed_after_a_while(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Anchor, "is_held", lambda self, token: None)
    monkeypatch.setattr("osmosis_ai.rollout.journal.file.MISSING_SECONDS", 0.5)
    with other_process("hold", path, 1) as process:
        assert process.read_line() == "ready"
        async with SqliteJournal(path) as other:
            clean(owners_directory(path))
            assert await other.claim_abandoned() == []
            process.kill()
            clean(owners_directory(path))
            async with asyncio.timeout(60):
                while not (claimed := await claim_all(other)):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            assert [record.key for record in claimed] == ["key-0"]


@pytest.mark.slow
async def test_locks_on_the_journal_itself_do_not_harm_sqlites_own(path: Path) -> None:
    async with SqliteJournal(path) as first:
        await first.accept(an_acceptance("a"))
        async with SqliteJournal(path) as second:
            await second.accept(an_acceptance("b"))
        # Had the closing dropped SQLite's locks, another process would think that it is the last and remove the log.
        with other_process("hold", path, 1) as process:
            assert process.read_line() == "ready"
            process.go()
            process.read_rest()
        assert path.with_name(path.name + "-wal").exists()
        assert await first.accept(an_acceptance("c")) is None
        assert first.problem is None


@pytest.mark.slow
async def test_a_claim_sweeps_what_the_dead_left(sqlite: SqliteJournal) -> None:
    with other_process("hold", sqlite.path, 1) as process:
        await wait_for_acceptance(process, sqlite)
        process.kill()
    await claim_all(sqlite)
    assert len(list(owners_directory(sqlite.path).iterdir())) == 2


@pytest.mark.slow
async def test_two_journals_of_one_process_are_two_owners(sqlite: SqliteJournal, path: Path) -> None:
    async with SqliteJournal(path) as other:
        with other_process("hold", path, 10) as process:
            await wait_for_acceptance(process, sqlite)
            process.kill()
        claimed = await sqlite.claim_abandoned(4)
        assert len(claimed) == 4
        assert len(await claim_all(other)) == 6


@pytest.mark.slow
async def test_a_forked_child_is_told_to_open_its_own(path: Path) -> None:
    with other_process("fork", path, "") as process:
        refusal, parent = process.read_rest()
        assert "before this process was forked" in refusal
        assert parent == "None"
    async with SqliteJournal(path) as journal:
        assert [record.key for record in await journal.records()] == ["parent"]
