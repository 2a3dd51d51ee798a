"""A journal's time under clocks that are set, machines that reboot, and servers that are down."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from support.journal import TestClock, an_acceptance, claim_all

from osmosis_ai.rollout.journal import Retention, RolloutState, SqliteJournal
from osmosis_ai.rollout.journal.clock import Clock, Gap, Sign, Timeline
from osmosis_ai.rollout.journal.retention import DELIVERED_KEPT_SECONDS, UNDELIVERABLE_KEPT_SECONDS

HOUR = 3600.0
TESTS = Path(__file__).parents[2]


def opened_again(clock: TestClock, timeline: Timeline, *, shared: bool = False) -> Timeline:
    """The journal's time in the next process."""
    return Timeline(clock, timeline.sign(), timeline.gaps, shared=shared)


def test_the_clocks_of_this_machine_go_on() -> None:
    clock = Clock()
    assert clock.steady() <= clock.steady()
    assert clock.wall() > 1_700_000_000
    assert clock.boot() == clock.boot()


def test_within_a_process_time_passes_as_the_steady_clock_says() -> None:
    clock = TestClock()
    timeline = Timeline(clock)
    start = timeline.now()
    clock.step = -3 * HOUR
    clock.now += 5
    assert timeline.now() == start + 5


@pytest.mark.parametrize("step", [-1e9, -3 * HOUR, 2 * HOUR, 1e9])
@pytest.mark.parametrize("reboots", [False, True])
def test_a_step_between_processes_makes_nothing_old_nor_negative(step: float, reboots: bool) -> None:
    clock = TestClock()
    before = Timeline(clock)
    settled_at = before.now()
    sign = before.sign()
    clock.step, clock.boots = step, 1 + reboots
    clock.now += 5
    after = Timeline(clock, sign)
    assert after.now() >= settled_at
    assert settled_at >= after.before(HOUR)
    clock.now += HOUR - 6
    assert settled_at >= after.before(HOUR)
    clock.now += 7
    assert settled_at < after.before(HOUR)


def test_downtime_on_the_same_boot_counts_for_retention_but_not_for_delivery() -> None:
    clock = TestClock()
    before = Timeline(clock)
    settled_at = before.now()
    sign = before.sign()
    clock.now += 25 * HOUR
    after = Timeline(clock, sign)
    assert after.now() == settled_at + 25 * HOUR
    assert settled_at < after.before(HOUR)
    assert after.served_since(settled_at) == 0
    clock.now += 60
    assert after.served_since(settled_at) == 60


def test_a_step_beside_another_process_is_no_time_that_anybody_served() -> None:
    clock = TestClock()
    first = Timeline(clock)
    finished_at, sign = first.now(), first.sign()
    clock.now += 10
    clock.step = 25 * HOUR
    second = Timeline(clock, sign, shared=True)
    assert second.served_since(finished_at) == 10
    clock.now += 60
    assert second.served_since(finished_at) == 70
    assert first.served_since(finished_at) == 70


def test_downtime_over_a_reboot_counts_for_neither() -> None:
    clock = TestClock()
    before = Timeline(clock)
    settled_at = before.now()
    sign = before.sign()
    clock.boots += 1
    clock.now += 25 * HOUR
    after = Timeline(clock, sign)
    assert after.now() == settled_at + 25 * HOUR, "what is shown follows the wall clock"
    assert settled_at >= after.before(HOUR)
    assert after.served_since(settled_at) == 0


def test_while_another_process_serves_nobody_is_away() -> None:
    clock = TestClock()
    first = Timeline(clock)
    sign = first.sign()
    clock.now += 50
    second = Timeline(clock, sign, shared=True)
    assert second.new_gap is None
    assert second.served_since(first.now() - 50) == 50


def test_a_gap_is_told_once() -> None:
    clock = TestClock()
    first = Timeline(clock, Sign("boot 1", clock.steady(), clock.now - 100))
    assert first.new_gap == Gap(clock.now, 100, 100)
    assert opened_again(clock, first).new_gap is None


STEPS = st.sampled_from([-1e7, -3 * HOUR, -5.0, 0.0, 5.0, 2 * HOUR, 1e7])


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000), STEPS, st.booleans()), max_size=12))
def test_nothing_is_over_before_its_time_has_really_passed(
    life: list[tuple[int, int, float, bool]],
) -> None:
    """``life``: how long a process ran, how long there was none, a step of the wall clock, a reboot."""
    clock = TestClock()
    timeline = Timeline(clock)
    settled: list[tuple[float, float]] = []
    served = 0.0
    for ran_seconds, down_seconds, step, reboots in life:
        settled.append((timeline.now(), served - clock.now))
        clock.now += ran_seconds
        served += ran_seconds
        sign, latest = timeline.sign(), timeline.now()
        clock.now += down_seconds
        clock.step += step
        clock.boots += reboots
        timeline = Timeline(clock, sign, timeline.gaps)
        assert timeline.now() >= latest
    for at, _ in settled:
        assert timeline.served_since(at) <= served + len(life)
        assert at <= timeline.now()
    really_passed = clock.now - TestClock().now
    assert all(at >= timeline.before(really_passed + 1) for at, _ in settled)


async def bring(path: Path, clock: TestClock, key: str, state: RolloutState) -> None:
    async with SqliteJournal(path, clock=clock) as journal:
        assert await journal.accept(an_acceptance(key)) is None
        assert await journal.finish(key, b"result")
        if state is not RolloutState.FINISHED:
            assert await journal.settle(key, state, attempts=1)


@pytest.mark.parametrize(
    ("state", "kept_seconds"),
    [
        (RolloutState.DELIVERED, DELIVERED_KEPT_SECONDS),
        (RolloutState.UNDELIVERABLE, UNDELIVERABLE_KEPT_SECONDS),
    ],
)
async def test_a_record_is_kept_over_reboots_and_steps_until_its_time_is_proven(
    path: Path, state: RolloutState, kept_seconds: float
) -> None:
    clock = TestClock()
    await bring(path, clock, "key", state)
    clock.step, clock.boots = 30 * 24 * HOUR, 2
    async with SqliteJournal(path, clock=clock) as journal:
        assert await journal.prune() == 0
        assert await journal.accept(an_acceptance("key")) is not None
        clock.now += kept_seconds + 2
        assert await journal.prune() == 1


async def test_a_journal_without_a_clock_was_last_seen_with_its_last_record(path: Path) -> None:
    """That of an older SDK, or a salvaged one."""
    clock = TestClock()
    await bring(path, clock, "key", RolloutState.FINISHED)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE clock; DROP TABLE gaps")
    clock.now += 25 * HOUR
    async with SqliteJournal(path, clock=clock) as journal:
        (record,) = await claim_all(journal)
        assert record.finished_at is not None
        assert journal.served_since(record.finished_at) == 0


async def test_gaps_are_forgotten_with_the_records_that_saw_them(path: Path) -> None:
    clock = TestClock()
    for _ in range(5):
        clock.now += 100
        async with SqliteJournal(path, clock=clock):
            pass
    async with SqliteJournal(path, clock=clock, retention=Retention(1, 1)) as journal:
        clock.now += 10_000
        await journal.prune()
        assert await journal._opened.read(
            lambda file: file.connection.execute("SELECT count(*) FROM gaps").fetchone()
        ) == (0,)


FAKETIME = shutil.which("faketime")


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)")
@pytest.mark.slow
class TestProcessesWithFalseClocks:
    """Real processes; libfaketime sets their wall clocks, the steady ones stay."""

    def run(self, path: Path, command: str, argument: str, step: str | None = None) -> list[str]:
        arguments = [sys.executable, "-m", "support.journal_process", command, str(path), argument]
        if step is not None:
            assert FAKETIME is not None
            arguments = [FAKETIME, "-f", step, *arguments]
        environment = os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        while True:
            done = subprocess.run(
                arguments, cwd=TESTS, env=environment, check=False, capture_output=True, text=True, timeout=120
            )
            # The wrapper names a semaphore by its process id, and finds that of another with such an id, now and then.
            if "sem_open: File exists" not in done.stderr:
                break
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    @pytest.mark.parametrize("step", ["+2h", "+30d", "-3h"])
    @pytest.mark.parametrize("state", ["delivered", "undeliverable"])
    def test_a_settled_key_stays_taken(self, path: Path, step: str, state: str) -> None:
        self.run(path, "settle", state)
        assert self.run(path, "repeat", "", step) == ["taken", "pruned 0", "served less than a minute"]

    @pytest.mark.parametrize("step", ["+2h", "-3h"])
    def test_no_time_runs_back(self, path: Path, step: str) -> None:
        self.run(path, "settle", "finished")
        assert self.run(path, "finish-later", "", step) == ["in order"]
