"""Whatever is done in whatever order, a journal says what a plain model of it says, also after a crash.

A crash of the file's journal is a copy of what is on disk at that moment, opened in its stead.
"""

import asyncio
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Coroutine
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.journal import TestClock, an_acceptance
from support.postgres import Database, end_leases, needs_postgres

from osmosis_ai.rollout.journal import (
    Journal,
    JournalError,
    JournalRecord,
    MemoryJournal,
    Payload,
    PostgresJournal,
    Retention,
    RolloutState,
    SqliteJournal,
)

ACCEPTED, FINISHED = RolloutState.ACCEPTED, RolloutState.FINISHED
DELIVERED, UNDELIVERABLE = RolloutState.DELIVERED, RolloutState.UNDELIVERABLE
T = TypeVar("T")

KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
HANDLES = st.sampled_from([0, 1])
RESULTS = st.binary(max_size=8) | st.builds(bytes, st.just(20_000))
RETENTION = Retention(delivered_seconds=3, undeliverable_seconds=6)


@dataclass
class Expected:
    """A record of the model; ``owner`` is the handle that owns it, ``None`` once that is gone."""

    rollout_id: str
    owner: int | None
    state: RolloutState = ACCEPTED
    result: bytes | None = None
    settled_at: float | None = None
    attempts: int = 0
    error: str | None = None
    without_messages: bool = False
    was_reopened: bool = False
    polled_at: float | None = None

    @property
    def is_settled(self) -> bool:
        return self.state in (DELIVERED, UNDELIVERABLE)

    def is_over(self, now: float) -> bool:
        kept = RETENTION.delivered_seconds if self.state is DELIVERED else RETENTION.undeliverable_seconds
        return self.settled_at is not None and now - self.settled_at > kept


def as_expected(record: JournalRecord, result: bytes | None, owner: int | None) -> Expected:
    return Expected(
        record.rollout_id,
        owner,
        record.state,
        result,
        record.settled_at,
        record.delivery_attempts,
        record.last_error,
        record.without_messages,
        record.reopened_at is not None,
        record.polled_at,
    )


class JournalMachine(RuleBasedStateMachine):
    owner_alone_writes = False
    """But for an acknowledgement: a replica that wakes changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = TestClock()
        self.model: dict[str, Expected] = {}
        self.journals: list[Journal] = []
        self.ids = iter(range(1_000_000))

    @abstractmethod
    def make_journals(self) -> list[Journal]: ...

    @abstractmethod
    def crash_journals(self) -> list[Journal]: ...

    def run(self, operation: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(operation)

    def pick(self, handle: int) -> tuple[int, Journal]:
        handle %= len(self.journals)
        return handle, self.journals[handle]

    def told(self, journal: Journal, record: JournalRecord, owner: int | None) -> Expected:
        result, request = (self.run(journal.load(record.key, it)) for it in (Payload.RESULT, Payload.REQUEST))
        assert (request is None) is (record.state is not ACCEPTED)
        assert record.payload_bytes == len(request or result or b"")
        return as_expected(record, result, owner)

    @initialize()
    def start(self) -> None:
        self.journals = self.make_journals()
        self.open_all()

    def open_all(self) -> None:
        for journal in self.journals:
            self.run(journal.open())

    def teardown(self) -> None:
        for journal in self.journals:
            self.run(journal.close())
        self.runner.close()

    @rule(handle=HANDLES, key=KEYS)
    def accept(self, handle: int, key: str) -> None:
        handle, journal = self.pick(handle)
        rollout_id = f"{key}-{next(self.ids)}"
        standing = self.run(journal.accept(an_acceptance(key, rollout_id=rollout_id)))
        expected = self.model.get(key)
        if expected is not None and not expected.is_over(self.clock.now):
            assert standing is not None
            assert self.told(journal, standing, expected.owner) == expected
            assert not journal.is_over(standing)
        else:
            assert standing is None
            self.model.pop(key, None)
            self.model[key] = Expected(rollout_id, handle)

    @rule(handle=HANDLES, key=KEYS, result=RESULTS)
    def finish(self, handle: int, key: str, result: bytes) -> None:
        handle, journal = self.pick(handle)
        expected = self.model.get(key)
        if expected is None:
            self.refused(journal.finish(key, result))
            return
        if self.is_anothers(expected, handle):
            assert not self.run(journal.finish(key, result))
            return
        again = (expected.state, expected.owner, expected.result) == (FINISHED, handle, result)
        if self.run(journal.finish(key, result)):
            assert expected.state is ACCEPTED or again
            expected.state, expected.result, expected.owner = FINISHED, result, handle
        else:
            assert expected.state is not ACCEPTED
            assert not again

    @rule(handle=HANDLES, key=KEYS, state=st.sampled_from(RolloutState), attempts=st.integers(1, 9))
    def settle(self, handle: int, key: str, state: RolloutState, attempts: int) -> None:
        handle, journal = self.pick(handle)
        expected = self.model.get(key)
        if expected is None or expected.state is ACCEPTED or state not in (DELIVERED, UNDELIVERABLE):
            self.refused(journal.settle(key, state, attempts=attempts))
            return
        changes = expected.state is FINISHED or (expected.state, state) == (UNDELIVERABLE, DELIVERED)
        changes = changes and (state is DELIVERED or not self.is_anothers(expected, handle))
        assert self.run(journal.settle(key, state, attempts=attempts, error="why")) is changes
        if changes:
            expected.state, expected.settled_at = state, self.clock.now
            expected.attempts, expected.error = attempts, "why"

    @rule(handle=HANDLES, key=KEYS, attempts=st.integers(1, 9))
    def note_attempt(self, handle: int, key: str, attempts: int) -> None:
        handle, journal = self.pick(handle)
        self.run(journal.note_attempt(key, attempts=attempts, error="refused"))
        self.run(journal.counts())
        expected = self.model.get(key)
        if expected is not None and expected.state is FINISHED and not self.is_anothers(expected, handle):
            expected.attempts, expected.error = attempts, "refused"

    @rule(handle=HANDLES, key=KEYS)
    def note_poll(self, handle: int, key: str) -> None:
        _, journal = self.pick(handle)
        self.run(journal.note_poll(key))
        self.run(journal.counts())
        if (expected := self.model.get(key)) is not None:
            expected.polled_at = self.clock.now

    @rule(handle=HANDLES, key=KEYS)
    def leave_out_messages(self, handle: int, key: str) -> None:
        handle, journal = self.pick(handle)
        expected = self.model.get(key)
        if expected is None:
            self.refused(journal.leave_out_messages(key))
            return
        may = expected.state is FINISHED and not expected.was_reopened and not self.is_anothers(expected, handle)
        assert self.run(journal.leave_out_messages(key)) is may
        expected.without_messages |= may

    @rule(handle=HANDLES, key=KEYS)
    def reopen(self, handle: int, key: str) -> None:
        handle, journal = self.pick(handle)
        record = self.run(journal.reopen(key))
        expected = self.model.get(key)
        if expected is None or not expected.is_settled:
            assert record is None
        else:
            expected.state, expected.owner, expected.was_reopened = FINISHED, handle, True
            expected.settled_at, expected.attempts, expected.error = None, 0, None
            assert record is not None
            assert self.told(journal, record, handle) == expected

    @rule(handle=HANDLES, limit=st.integers(1, 4))
    def claim(self, handle: int, limit: int) -> None:
        handle, journal = self.pick(handle)
        claimed = {record.key for record in self.run(journal.claim_abandoned(limit))}
        abandoned = {key for key, it in self.model.items() if it.owner is None and not it.is_settled}
        assert claimed <= abandoned
        assert len(claimed) == min(limit, len(abandoned))
        for key in claimed:
            self.model[key].owner = handle

    @rule(handle=HANDLES)
    def prune(self, handle: int) -> None:
        _, journal = self.pick(handle)
        removed = self.run(journal.prune())
        gone = {key for key, it in self.model.items() if it.is_over(self.clock.now)}
        assert removed == len(gone)
        self.forget(gone)

    @rule(handle=HANDLES, keys=st.sets(KEYS, max_size=2), states=st.sets(st.sampled_from(RolloutState), max_size=2))
    def purge(self, handle: int, keys: set[str], states: set[RolloutState]) -> None:
        _, journal = self.pick(handle)
        gone = {
            key
            for key, it in self.model.items()
            if (key in keys or it.state in states) and (it.is_settled or it.owner is None)
        }
        assert self.run(journal.purge(keys=keys, states=states)) == len(gone)
        self.forget(gone)

    @rule()
    def let_time_pass(self) -> None:
        self.clock.now += 2

    @rule(handle=HANDLES)
    def restart_one(self, handle: int) -> None:
        handle, journal = self.pick(handle)
        self.run(journal.close())
        self.run(journal.open())
        self.abandon({handle})

    @rule()
    def crash(self) -> None:
        self.journals = self.crash_journals()
        self.open_all()
        self.abandon({0, 1})

    def looked_through(self) -> list[Journal]:
        return self.journals

    @invariant()
    def says_what_the_model_says(self) -> None:
        for journal in self.looked_through():
            records = self.run(journal.records())
            assert [record.key for record in records] == list(reversed(self.model))
            for record in records:
                expected = self.model[record.key]
                assert self.told(journal, record, expected.owner) == expected
                assert self.run(journal.find(record.rollout_id)) == [record]
            states = [it.state for it in self.model.values()]
            assert self.run(journal.counts()) == {state: states.count(state) for state in RolloutState}

    def is_anothers(self, expected: Expected, handle: int) -> bool:
        return self.owner_alone_writes and expected.owner != handle

    def refused(self, operation: Coroutine[Any, Any, bool]) -> None:
        try:
            self.run(operation)
        except JournalError:
            return
        raise AssertionError("this should have been refused")

    def forget(self, keys: set[str]) -> None:
        for key in keys:
            del self.model[key]

    def abandon(self, handles: set[int]) -> None:
        for expected in self.model.values():
            if expected.owner in handles:
                expected.owner = None


class MemoryJournalMachine(JournalMachine):
    def make_journals(self) -> list[Journal]:
        return [MemoryJournal(clock=self.clock, retention=RETENTION)]

    def crash_journals(self) -> list[Journal]:
        for journal in self.journals:
            self.run(journal.close())
        return self.journals


class SqliteJournalMachine(JournalMachine):
    """Two journals on one file, as in two processes."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.crashes = iter(range(1_000_000))

    def make_journals(self) -> list[Journal]:
        return self.journals_in(self.directory)

    def journals_in(self, directory: Path) -> list[Journal]:
        return [SqliteJournal(directory / "journal.db", clock=self.clock, retention=RETENTION) for _ in range(2)]

    def crash_journals(self) -> list[Journal]:
        (before,) = {journal.path.parent for journal in self.journals if isinstance(journal, SqliteJournal)}
        after = self.directory / f"after crash {next(self.crashes)}"
        after.mkdir()
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(before / name, after)
        for journal in self.journals:
            self.run(journal.close())
        return self.journals_in(after)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)


class PostgresJournalMachine(JournalMachine):
    """Two journals in one schema, as of two replicas; a crash of both is the end of their leases."""

    owner_alone_writes = True
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.turns = cycle((0, 1))

    def looked_through(self) -> list[Journal]:
        """One, in turn: neither keeps anything that the database has."""
        return [self.journals[next(self.turns)]]

    def make_journals(self) -> list[Journal]:
        self.url = self.database.new_url()
        return [PostgresJournal(self.url, clock=self.clock, retention=RETENTION) for _ in range(2)]

    def crash_journals(self) -> list[Journal]:
        self.run(end_leases(self.url))
        after = [PostgresJournal(self.url, clock=self.clock, retention=RETENTION) for _ in range(2)]
        for journal in self.journals:
            self.run(journal.close())
        return list(after)


@needs_postgres
@pytest.mark.slow
def test_postgres(postgres: Database) -> None:
    PostgresJournalMachine.database = postgres
    run_state_machine_as_test(
        PostgresJournalMachine, settings=settings(max_examples=20, stateful_step_count=25, deadline=None)
    )


TestMemoryJournal = MemoryJournalMachine.TestCase
TestMemoryJournal.settings = settings(max_examples=settings().max_examples // 3, stateful_step_count=30)
TestSqliteJournal = SqliteJournalMachine.TestCase
TestSqliteJournal.settings = settings(max_examples=6, stateful_step_count=30)


class SqliteJournalMachineAtLength(SqliteJournalMachine):
    """The same, as a test of its own."""


TestSqliteJournalAtLength = pytest.mark.slow(SqliteJournalMachineAtLength.TestCase)
TestSqliteJournalAtLength.settings = settings(max_examples=60, stateful_step_count=30)
