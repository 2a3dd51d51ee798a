"""Damaged journals, as disks and people leave them, and what comes out of them."""

import asyncio
import os
import random
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from support.journal import TestClock, an_acceptance, claim_all, other_process

from osmosis_ai.rollout.journal import (
    Journal,
    JournalError,
    JournalRecord,
    Payload,
    Retention,
    RolloutState,
    SqliteJournal,
)
from osmosis_ai.rollout.journal.file import PAGE_BYTES
from osmosis_ai.rollout.journal.occupancy import owners_directory
from osmosis_ai.rollout.journal.pages import Pages
from osmosis_ai.rollout.journal.salvage import Salvaged, payloads_of, read, salvage

ACCEPTED, FINISHED = RolloutState.ACCEPTED, RolloutState.FINISHED
DELIVERED, UNDELIVERABLE = RolloutState.DELIVERED, RolloutState.UNDELIVERABLE
RANK = [ACCEPTED, FINISHED, UNDELIVERABLE, DELIVERED]
ROLLOUTS = 120
KEEP_ALL = Retention(1e9, 1e9)


def request_of(number: int) -> bytes:
    return b'{"messages": [{"role": "user", "content": "%s"}]}' % (b"x" * (number % 5) * 5000)


def result_of(number: int) -> bytes:
    return b'{"rollout_id": "rollout-%d", "text": "%s"}' % (number, b"y" * (number % 7) * 4000)


async def fill(journal: Journal) -> None:
    """Rollouts in all states, with payloads from small to a few pages."""
    for number in range(ROLLOUTS):
        key = f"key-{number}"
        await journal.accept(an_acceptance(key, rollout_id=f"rollout-{number}", request=request_of(number)))
        if number % 4:
            await journal.finish(key, result_of(number))
        if number % 12 in (1, 2):
            await journal.leave_out_messages(key)
        if number % 4 > 1:
            await journal.settle(key, DELIVERED if number % 4 == 2 else UNDELIVERABLE, attempts=1, error="why")


@dataclass(frozen=True)
class Whole(JournalRecord):
    """With its payloads."""

    request: bytes | None = None
    result: bytes | None = None


async def whole(journal: Journal, record: JournalRecord) -> Whole:
    payloads = [await journal.load(record.key, payload) for payload in (Payload.REQUEST, Payload.RESULT)]
    return Whole(**{name: getattr(record, name) for name in record.__slots__}, request=payloads[0], result=payloads[1])


async def all_records(journal: Journal) -> dict[str, Whole]:
    return {record.key: await whole(journal, record) for record in await journal.records(limit=10_000)}


def made(folder: Path, *, killed: bool) -> dict[str, Whole]:
    """A journal as a server leaves it that was closed or killed (then most is in its log)."""

    async def make() -> dict[str, Whole]:
        async with SqliteJournal(folder / "live" / "journal.db", retention=KEEP_ALL) as journal:
            await fill(journal)
            if killed:
                await asyncio.to_thread(shutil.copytree, folder / "live", folder / "left")
            return await all_records(journal)

    records = asyncio.run(make())
    if not killed:
        shutil.copytree(folder / "live", folder / "left")
    return records


Left = tuple[Path, dict[str, Whole]]


@pytest.fixture(scope="module", params=["closed", "killed"])
def left(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder = tmp_path_factory.mktemp(str(request.param))
    return folder / "left", made(folder, killed=request.param == "killed")


@pytest.fixture
def damaged(left: Left, tmp_path: Path) -> Path:
    shutil.copytree(left[0], tmp_path / "damaged")
    return tmp_path / "damaged" / "journal.db"


@pytest.fixture
def before(left: Left) -> dict[str, Whole]:
    return left[1]


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def brought_out(damaged: Path) -> tuple[Salvaged, dict[str, Whole], list[Whole]]:
    """What was salvaged, what the new journal then has, what a server takes up; the damaged files stay as they are."""
    files = {file: file.read_bytes() for file in damaged.parent.iterdir() if file.is_file()}
    new = damaged.parent.parent / "new.db"

    async def look() -> tuple[dict[str, Whole], list[Whole]]:
        async with SqliteJournal(new, retention=KEEP_ALL) as journal:
            claimed = [await whole(journal, record) for record in await claim_all(journal)]
            return await all_records(journal), claimed

    found = salvage(damaged, new)
    assert {file: file.read_bytes() for file in damaged.parent.iterdir() if file.is_file()} == files
    assert new.stat().st_mode & 0o777 == 0o600
    return found, *asyncio.run(look())


def without_owner(record: Whole) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in (*record.__slots__, "request", "result") if name != "owner")


def require_true(records: dict[str, Whole], before: dict[str, Whole]) -> None:
    """What came out is what was there, or owed what it owed before; nothing is made up."""
    for key, record in records.items():
        was = before[key]
        assert (record.rollout_id, record.server_url, record.api_key) == (was.rollout_id, was.server_url, was.api_key)
        assert record.result in (was.result, None)
        # Where the end of the log is lost, one that was finished is accepted again.
        owed = request_of(int(key.removeprefix("key-"))) if record.state is ACCEPTED else None
        assert record.request in (was.request, owed, None)
        if record.state is not was.state:
            assert RANK.index(record.state) < RANK.index(was.state)


@pytest.mark.slow
def test_a_whole_journal_comes_out_as_it_is(damaged: Path, before: dict[str, Whole]) -> None:
    found, records, claimed = brought_out(damaged)
    assert found.is_whole
    assert {key: without_owner(record) for key, record in records.items()} == {
        key: without_owner(record) for key, record in before.items()
    }
    assert {record.key for record in claimed} == {key for key, it in before.items() if it.settled_at is None}


async def test_the_secret_comes_out_and_is_not_told(tmp_path: Path) -> None:
    async with SqliteJournal(tmp_path / "damaged.db") as journal:
        await journal.accept(an_acceptance("key"))
        before = journal.sign("text")
    overwrite_header(tmp_path / "damaged.db")
    found = salvage(tmp_path / "damaged.db", tmp_path / "new.db")
    assert found.secret is not None
    assert repr(found.secret) not in repr(found)
    async with SqliteJournal(tmp_path / "new.db") as journal:
        assert journal.sign("text") == before


def overwrite_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(100))


def overwrite_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(PAGE_BYTES))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [overwrite_header, overwrite_first_page])
def test_without_its_first_page_nothing_is_lost(
    damaged: Path, before: dict[str, Whole], damage: Callable[[Path], None]
) -> None:
    damage(damaged)
    _, records, claimed = brought_out(damaged)
    assert {key: record.state for key, record in records.items()} == {key: it.state for key, it in before.items()}
    assert {record.key: record.result for record in claimed} == {
        key: it.result for key, it in before.items() if it.settled_at is None
    }


def overwrite_inner_pages(path: Path) -> None:
    """All that leads to the leaves."""
    content = bytearray(path.read_bytes())
    for start in range(PAGE_BYTES, len(content), PAGE_BYTES):
        if content[start] in (0x02, 0x05, 0x0A):
            content[start : start + PAGE_BYTES] = os.urandom(PAGE_BYTES)
    path.write_bytes(content)


@pytest.mark.slow
def test_rows_are_found_though_nothing_leads_to_them(damaged: Path, before: dict[str, Whole]) -> None:
    overwrite_inner_pages(damaged)
    _, records, _ = brought_out(damaged)
    assert {key: it.state for key, it in before.items()} == {key: it.state for key, it in records.items()}


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite_some_pages(path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - damage, not a secret
    content = bytearray(path.read_bytes())
    for start in range(0, len(content), PAGE_BYTES):
        if chance.random() < 0.3:
            content[start : start + PAGE_BYTES] = chance.randbytes(PAGE_BYTES)
    path.write_bytes(content)


def overwrite_middle_of_log(path: Path) -> None:
    log = log_of(path)
    if log.exists():
        with log.open("r+b") as file:
            file.seek(log.stat().st_size // 2)
            file.write(os.urandom(3000))


def cut_log(path: Path) -> None:
    if log_of(path).exists():
        os.truncate(log_of(path), log_of(path).stat().st_size // 2 + 77)


@pytest.mark.parametrize("damage", [cut_in_half, overwrite_some_pages, overwrite_middle_of_log, cut_log])
def test_of_what_is_partly_overwritten_the_rest_comes_out_and_is_true(
    damaged: Path, before: dict[str, Whole], damage: Callable[[Path], None]
) -> None:
    damage(damaged)
    found, records, claimed = brought_out(damaged)
    require_true(records, before)
    assert len(records) > ROLLOUTS // 4
    assert {record.key for record in claimed} == {key for key, it in records.items() if it.settled_at is None}
    for record in claimed:
        if record.rollout_id not in found.lost_results and record.state is before[record.key].state:
            assert record.result == before[record.key].result


def test_what_only_the_log_has_comes_out_of_the_log(damaged: Path, before: dict[str, Whole]) -> None:
    if not log_of(damaged).exists():
        pytest.skip("a closed journal has no log")
    damaged.write_bytes(b"")
    _, records, _ = brought_out(damaged)
    assert records.keys() == before.keys()


def test_without_its_log_what_the_main_file_has_comes_out(damaged: Path, before: dict[str, Whole]) -> None:
    log_of(damaged).unlink(missing_ok=True)
    try:
        _, records, _ = brought_out(damaged)
    except JournalError as error:
        assert "Nothing of a rollout can be read" in str(error)  # noqa: PT017 - killed before its first checkpoint
        return
    require_true(records, before)


@pytest.mark.slow
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), share=st.floats(0.0, 1.0), bytes_each=st.integers(1, 20_000))
def test_no_damage_makes_it_fail(left: Left, seed: int, share: float, bytes_each: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - as above
    folder = left[0].parent / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(left[0], folder)
    for file in (folder / "journal.db", folder / "journal.db-wal"):
        if file.exists() and (size := file.stat().st_size) and chance.random() < 0.8:
            with file.open("r+b") as opened:
                for _ in range(int(share * 20) + 1):
                    opened.seek(chance.randrange(size))
                    opened.write(chance.randbytes(bytes_each))
    with Pages(folder / "journal.db") as pages:
        found = read(pages)
        all_payloads = [payloads_of(record, found.places[key], pages) for key, record in found.records.items()]
    results = [payloads[Payload.RESULT] for payloads in all_payloads if Payload.RESULT in payloads]
    assert all(result.startswith(b"{") for result in results)


@pytest.mark.slow
async def test_payloads_are_in_memory_one_at_a_time(tmp_path: Path) -> None:
    size, count = 1_000_000, 40
    async with SqliteJournal(tmp_path / "journal.db") as journal:
        for number in range(count):
            await journal.accept(an_acceptance(f"key-{number}", rollout_id=f"rollout-{number}"))
            await journal.finish(f"key-{number}", b'{"rollout_id": "rollout-%d", "text": "%s"}' % (number, b"y" * size))
    tracemalloc.start()
    try:
        found = await asyncio.to_thread(salvage, tmp_path / "journal.db", tmp_path / "new.db")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.is_whole
    assert peak < 8 * size
    async with SqliteJournal(tmp_path / "new.db", retention=KEEP_ALL) as journal:
        assert len(await journal.records()) == count
        result = await journal.load("key-39", Payload.RESULT)
        assert result is not None
        assert len(result) > size


async def test_free_pages_do_not_bring_back_what_was_pruned(tmp_path: Path) -> None:
    clock = TestClock()
    path = tmp_path / "journal.db"
    async with SqliteJournal(path, clock=clock, retention=Retention(100, 100)) as journal:
        await fill(journal)
        clock.now += 200
        assert await journal.prune() == ROLLOUTS // 2
        before = await all_records(journal)
    with Pages(path) as pages:
        assert read(pages).records.keys() == before.keys()


async def test_a_journal_that_is_served_is_left_alone(path: Path, tmp_path: Path) -> None:
    with other_process("hold", path, 0) as process:  # it has nothing yet, and may take an init at any time
        assert process.read_line() == "ready"
        with pytest.raises(JournalError, match="A server runs on the journal"):
            salvage(path, tmp_path / "new.db")
        shutil.rmtree(owners_directory(path))
        with pytest.raises(JournalError, match="A server runs on the journal"):
            salvage(path, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_what_is_no_journal_gives_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"hello" * 10_000)
    with pytest.raises(JournalError, match="Nothing of a rollout can be read"):
        salvage(tmp_path / "notes", tmp_path / "new.db")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE theirs (a, b)")
        connection.execute("INSERT INTO theirs VALUES (1, x'00')")
        connection.commit()
    with pytest.raises(JournalError, match="Nothing of a rollout can be read"):
        salvage(tmp_path / "other.db", tmp_path / "new.db")
    with pytest.raises(JournalError, match="There is no journal at"):
        salvage(tmp_path / "absent", tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_a_file_that_is_there_is_not_overwritten(damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "new.db").write_bytes(b"precious")
    with pytest.raises(JournalError, match="already: name a new one"):
        salvage(damaged, tmp_path / "new.db")
    assert (tmp_path / "new.db").read_bytes() == b"precious"
