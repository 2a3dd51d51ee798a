"""What only the file can do: outlive processes, be shared by them, run out of room, shrink."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.journal import TestClock, an_acceptance, claim_all, other_process

from osmosis_ai.rollout.journal import JournalError, Payload, RolloutState, SqliteJournal, Synchronous

ACCEPTED, FINISHED = RolloutState.ACCEPTED, RolloutState.FINISHED
DELIVERED, UNDELIVERABLE = RolloutState.DELIVERED, RolloutState.UNDELIVERABLE
RANK = {word: rank for rank, word in enumerate(("accepted", "finished", "delivered"))}


def size_bytes(path: Path) -> int:
    """Of the journal with its log."""
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())


async def test_nothing_acknowledged_is_lost_by_kill_9(path: Path) -> None:
    acknowledged: dict[str, str] = {}
    for run in range(2):
        with other_process("work", path, f"run-{run}-") as process:
            lines = [process.read_line() for _ in range(200)]
            process.kill()
            lines += process.read_rest()
        for word, key in map(str.split, lines):
            acknowledged[key] = max(acknowledged.get(key, word), word, key=RANK.__getitem__)
    async with SqliteJournal(path) as journal:
        for key, word in acknowledged.items():
            record = await journal.get(key)
            assert record is not None, f"{key} was {word} and is lost"
            assert RANK[record.state] >= RANK[word]
            result = await journal.load(key, Payload.RESULT)
            assert result == (None if record.state is ACCEPTED else f"result of {key}".encode())
        claimed = {record.key for record in await claim_all(journal)}
        left = {record.key for record in await journal.records([ACCEPTED, FINISHED], limit=1_000_000)}
        assert claimed == left
        assert claimed >= {key for key, word in acknowledged.items() if int(key.rpartition("-")[2]) % 3 != 2}


@pytest.mark.slow
async def test_of_processes_that_accept_the_same_keys_each_key_has_one_winner(path: Path) -> None:
    with other_process("accept", path, 500) as first, other_process("accept", path, 500) as second:
        assert [first.read_line(), second.read_line()] == ["ready", "ready"]
        first.go()
        second.go()
        won = first.read_rest() + second.read_rest()
    assert sorted(won) == sorted(f"key-{number}" for number in range(500))


@pytest.mark.slow
async def test_of_processes_that_claim_the_same_records_each_record_has_one_claimer(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        for number in range(300):
            await journal.accept(an_acceptance(f"key-{number}"))
    with other_process("claim", path, 7) as first, other_process("claim", path, 7) as second:
        assert [first.read_line(), second.read_line()] == ["ready", "ready"]
        first.go()
        second.go()
        claimed = first.read_until("done") + second.read_until("done")
    assert sorted(claimed) == sorted(f"key-{number}" for number in range(300))


async def test_records_survive_closing(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await journal.accept(an_acceptance("key"))
        await journal.finish("key", b"\0\xffresult")
        before = await journal.get("key")
    async with SqliteJournal(path) as journal:
        assert await journal.get("key") == before


async def test_what_one_process_reopens_another_takes_over_when_it_is_gone(path: Path) -> None:
    async with SqliteJournal(path) as server:
        await server.accept(an_acceptance("key"))
        await server.finish("key", b"result")
        await server.settle("key", UNDELIVERABLE, attempts=5, error="404")
        async with SqliteJournal(path, create=False) as operator:
            assert await operator.reopen("key") is not None
            assert await server.claim_abandoned() == []
        (record,) = await server.claim_abandoned()
        assert record.state is FINISHED
        assert await server.load("key", Payload.RESULT) == b"result"


async def test_who_writes_the_result_delivers_it(path: Path) -> None:
    async with SqliteJournal(path) as first, SqliteJournal(path) as second:
        await first.accept(an_acceptance("key"))
        assert await second.finish("key", b"result")
        await first.close()
        assert await second.claim_abandoned() == []


@pytest.mark.slow
async def test_a_purge_spares_what_another_living_process_works_on(sqlite: SqliteJournal) -> None:
    with other_process("hold", sqlite.path, 450) as process:
        assert process.read_line() == "ready"
        assert await sqlite.purge(keys=["key-0"], states=[ACCEPTED]) == 0
        process.kill()
        assert await sqlite.purge(keys=["key-0"], states=[ACCEPTED]) == 450


@pytest.mark.parametrize("synchronous", Synchronous)
async def test_either_synchronous_setting_works(path: Path, synchronous: Synchronous) -> None:
    async with SqliteJournal(path, synchronous=synchronous) as journal:
        assert await journal.accept(an_acceptance()) is None


async def test_a_full_journal_refuses_rollouts_but_takes_results(path: Path) -> None:
    async with SqliteJournal(path, max_bytes=1_000_000) as journal:
        accepted = 0
        refusal = None
        while refusal is None:
            try:
                await journal.accept(an_acceptance(str(accepted), request=bytes(50_000)))
                accepted += 1
            except JournalError as error:
                refusal = str(error)
        assert "takes no more rollouts" in refusal
        assert "short of its size limit: free some space." in refusal
        assert accepted > 5
        for number in range(accepted):
            assert await journal.finish(str(number), bytes(50_000))
        for number in range(accepted):
            assert await journal.settle(str(number), DELIVERED, attempts=1)
        await journal.purge(states=[DELIVERED])
        assert await journal.accept(an_acceptance("again")) is None


async def test_a_result_without_room_fails_and_is_taken_when_there_is_room(path: Path) -> None:
    async with SqliteJournal(path, max_bytes=1_000_000) as journal:
        for key in ("large", "small"):
            await journal.accept(an_acceptance(key))
        with pytest.raises(JournalError, match=r"cannot grow .*: free some space"):
            await journal.finish("large", bytes(2_000_000))
        assert await journal.finish("small", b"result")
        record = await journal.get("large")
        assert record is not None
        assert (record.state, await journal.load("large", Payload.RESULT)) == (ACCEPTED, None)
        assert await journal.load("large", Payload.REQUEST) == b'{"n": 1}'
        assert await journal.finish("large", bytes(100_000))


async def test_a_disk_with_less_than_the_reserve_takes_no_rollouts(path: Path) -> None:
    async with SqliteJournal(path, reserve_bytes=1 << 62) as journal:
        with pytest.raises(JournalError, match=r"takes no more rollouts, .* short of its disk"):
            await journal.accept(an_acceptance())


@pytest.mark.slow
async def test_a_write_that_the_system_refuses_fails_and_the_journal_goes_on(path: Path) -> None:
    with other_process("fill", path, "") as process:
        refusal, *keys = process.read_rest()
    assert "cannot be read or written" in refusal
    assert keys == ["after", "before"]


@pytest.mark.slow
async def test_a_pruned_journal_gives_its_space_back(path: Path, clock: TestClock) -> None:
    async with SqliteJournal(path, clock=clock) as journal:
        for number in range(600):
            key = str(number)
            await journal.accept(an_acceptance(key))
            await journal.finish(key, bytes(100_000))
            await journal.settle(key, DELIVERED, attempts=1)
        await journal.accept(an_acceptance("kept"))
        clock.now += 4000
        assert await journal.prune() == 600
        assert size_bytes(path) < 1_000_000
        assert [record.key for record in await journal.records()] == ["kept"]


async def test_a_pruned_journal_uses_its_space_again(path: Path, clock: TestClock) -> None:
    async with SqliteJournal(path, clock=clock) as journal:
        sizes = []
        for round_number in range(6):
            for number in range(20):
                key = f"{round_number}-{number}"
                await journal.accept(an_acceptance(key))
                await journal.finish(key, bytes(100_000))
                await journal.settle(key, DELIVERED, attempts=1)
            clock.now += 4000
            await journal.prune()
            sizes.append(size_bytes(path))
        assert sizes[-1] <= 2 * sizes[0]


async def test_pruning_does_not_wait_for_somebody_who_reads(sqlite: SqliteJournal, clock: TestClock) -> None:
    await sqlite.accept(an_acceptance("key"))
    await sqlite.finish("key", b"result")
    await sqlite.settle("key", DELIVERED, attempts=1)
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM rollouts").fetchone()
        clock.now += 4000
        assert await asyncio.wait_for(sqlite.prune(), timeout=5) == 1
