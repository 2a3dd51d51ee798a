"""The writer's thread, seen through the journal that it serves."""

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.journal import an_acceptance

from osmosis_ai.rollout.journal import JournalError, Payload, RolloutState, SqliteJournal, UnknownKeyError

WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24


def commits_in_log(path: Path) -> int:
    """The commit frames of a write-ahead log (https://www.sqlite.org/fileformat.html#walformat)."""
    log = path.with_name(path.name + "-wal").read_bytes()
    page_bytes = int.from_bytes(log[8:12])
    frames = range(WAL_HEADER_BYTES, len(log), FRAME_HEADER_BYTES + page_bytes)
    return sum(log[frame + 4 : frame + 8] != bytes(4) for frame in frames)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Somebody else is writing to the journal."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def submitted(*operations: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(operation) for operation in operations]


async def all_keys(journal: SqliteJournal) -> set[str]:
    return {record.key for record in await journal.records(limit=10_000)}


async def test_operations_that_wait_together_are_committed_together(sqlite: SqliteJournal) -> None:
    with held(sqlite.path):
        before = commits_in_log(sqlite.path)
        tasks = submitted(*(sqlite.accept(an_acceptance(f"key-{number}")) for number in range(200)))
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == [None] * 200
    # What came before the thread met the lock, the rest, and perhaps the thread's own look after the file.
    assert commits_in_log(sqlite.path) - before <= 3
    assert len(await all_keys(sqlite)) == 200


async def test_an_operation_that_cannot_be_stored_fails_alone(sqlite: SqliteJournal) -> None:
    await sqlite.accept(an_acceptance("finished"))
    unstorable: Any = object()
    with held(sqlite.path):
        tasks = submitted(
            sqlite.accept(an_acceptance("a")),
            sqlite.finish("finished", unstorable),
            sqlite.accept(an_acceptance("b")),
            sqlite.finish("lost", b"result"),
            sqlite.finish("finished", b"result"),
        )
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), JournalError, type(None), UnknownKeyError, bool]
    assert await all_keys(sqlite) == {"finished", "a", "b"}
    assert await sqlite.load("finished", Payload.RESULT) == b"result"


async def test_an_operation_whose_caller_is_cancelled_is_carried_out(sqlite: SqliteJournal) -> None:
    with held(sqlite.path):
        cancelled, kept = submitted(sqlite.accept(an_acceptance("cancelled")), sqlite.accept(an_acceptance("kept")))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    await kept
    assert await all_keys(sqlite) == {"cancelled", "kept"}


async def test_while_somebody_else_holds_the_file_all_fail_after_a_while_and_nothing_is_kept(path: Path) -> None:
    async with SqliteJournal(path, busy_timeout_seconds=0.05) as journal:
        with held(path):
            for outcome in await asyncio.gather(
                *(journal.accept(an_acceptance(str(number))) for number in range(5)), return_exceptions=True
            ):
                assert isinstance(outcome, JournalError)
                assert "locked by another process" in str(outcome)
        assert await journal.accept(an_acceptance("later")) is None
        assert await all_keys(journal) == {"later"}


async def test_reads_do_not_wait_for_somebody_elses_write(sqlite: SqliteJournal) -> None:
    await sqlite.accept(an_acceptance("key"))
    with held(sqlite.path):
        assert await sqlite.get("key") is not None


async def test_closing_carries_out_what_was_asked(path: Path) -> None:
    journal = SqliteJournal(path)
    await journal.open()
    with held(path):
        tasks = submitted(*(journal.accept(an_acceptance(str(number))) for number in range(1000)))
        closing_task = asyncio.ensure_future(journal.close())
        await asyncio.sleep(0)
    await closing_task
    assert await asyncio.gather(*tasks) == [None] * 1000
    await journal.open()
    assert len(await all_keys(journal)) == 1000
    await journal.close()


async def test_several_threads_with_their_own_loops_share_a_journal(sqlite: SqliteJournal) -> None:
    async def accept_some(prefix: str) -> None:
        await asyncio.gather(*(sqlite.accept(an_acceptance(f"{prefix}{number}")) for number in range(50)))

    def in_own_loop(prefix: str) -> None:
        asyncio.run(accept_some(prefix))

    await asyncio.gather(accept_some("a"), *(asyncio.to_thread(in_own_loop, prefix) for prefix in "bcd"))
    assert len(await all_keys(sqlite)) == 200


async def test_a_loop_that_is_gone_does_not_stop_the_others(sqlite: SqliteJournal) -> None:
    def leave_at_once() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(sqlite.accept(an_acceptance("left")))
        loop.call_soon(loop.stop)
        loop.run_forever()
        task.cancel()
        loop.close()

    with held(sqlite.path):
        await asyncio.to_thread(leave_at_once)
    await sqlite.accept(an_acceptance("stayed"))
    assert await all_keys(sqlite) == {"left", "stayed"}


async def test_a_note_that_is_lost_is_only_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with SqliteJournal(path, busy_timeout_seconds=0.05) as journal:
        await journal.accept(an_acceptance("key"))
        await journal.finish("key", b"result")
        with held(path), caplog.at_level(logging.WARNING):
            await journal.note_attempt("key", attempts=1, error="refused")
            await journal.get("key")
        assert "locked by another process" in caplog.text
        assert await journal.settle("key", RolloutState.DELIVERED, attempts=2)
