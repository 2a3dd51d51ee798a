"""The table of keys: who leads, who follows, what is remembered and for how long."""

import asyncio
import gc
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from support.rollouts import until

from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings, configure
from osmosis_ai.rollout.server import state as state_module
from osmosis_ai.rollout.server.state import AppState

SETTINGS = RolloutServerSettings(
    max_concurrent_rollouts=7, record_ttl_seconds=120.0, cleanup_interval_seconds=30.0, journal="off"
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time as the state reads it: set ``clock.now``."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(state_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class TestConstruction:
    def test_needs_neither_arguments_nor_an_event_loop(self) -> None:
        state = AppState()
        assert state.settings == RolloutServerSettings()
        assert (state._max_concurrent, state.record_ttl, state._cleanup_interval) == (100, 3600.0, 60.0)
        assert state._agent_loop_name == "default"
        assert state.semaphore._value == 100

    def test_starts_empty(self) -> None:
        state = AppState()
        assert (state.rollout_tasks, state.completed_rollouts, state._init_futures) == ({}, {}, {})
        assert (state.active_count, state.completed_count, state._cleanup_task) == (0, 0, None)

    def test_without_settings_it_takes_the_global_ones(self) -> None:
        configure(RolloutSettings(server=SETTINGS))
        assert AppState().settings is SETTINGS

    def test_the_numbers_may_be_given_by_position_in_place_of_the_settings(self) -> None:
        state = AppState(2, 3.5, 4.5, SETTINGS, "calculator")
        assert (state._max_concurrent, state.record_ttl, state._cleanup_interval) == (2, 3.5, 4.5)
        assert state.semaphore._value == 2
        assert state._agent_loop_name == "calculator"

    @pytest.mark.parametrize("nothing", [None, 0])
    def test_none_and_zero_take_the_setting(self, nothing: int | None) -> None:
        state = AppState(nothing, nothing, nothing, SETTINGS)
        assert (state._max_concurrent, state.record_ttl, state._cleanup_interval) == (7, 120.0, 30.0)

    @pytest.mark.parametrize("name", ["max_concurrent", "record_ttl_seconds", "cleanup_interval_seconds"])
    def test_a_negative_number_is_refused_by_name(self, name: str) -> None:
        fields: dict[str, Any] = {name: -1}
        with pytest.raises(ValueError, match=f"{name} must not be negative, got -1"):
            AppState(**fields)


class TestInitFutures:
    async def test_the_first_to_ask_for_a_key_leads(self) -> None:
        state = AppState()
        future, leads = state.get_or_create_init_future("a")
        again, leads_again = state.get_or_create_init_future("a")
        other, leads_other = state.get_or_create_init_future("b")
        assert (leads, leads_again, leads_other) == (True, False, True)
        assert again is future
        assert other is not future
        assert state._init_futures == {"a": future, "b": other}

    async def test_a_filled_future_answers_everybody(self) -> None:
        state = AppState()
        leader, _ = state.get_or_create_init_future("a")
        follower, _ = state.get_or_create_init_future("a")
        reply = b'{"rollout_id":"a","tools":[]}'
        leader.set_result(reply)
        assert await follower is reply

    async def test_a_cleared_key_is_new_and_others_stay(self) -> None:
        state = AppState()
        future, _ = state.get_or_create_init_future("a")
        state.get_or_create_init_future("b")
        state.clear_init_record("a")
        state.clear_init_record("unknown")
        assert not state.is_duplicate("a")
        assert state.is_duplicate("b")
        assert state.get_or_create_init_future("a") == (state._init_futures["a"], True)
        assert state._init_futures["a"] is not future

    async def test_the_failure_of_a_leader_nobody_followed_is_not_reported_as_lost(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        state = AppState()
        state.get_or_create_init_future("a")[0].set_exception(RuntimeError("no tools"))
        await asyncio.sleep(0)
        state.clear_init_record("a")
        gc.collect()
        assert "never retrieved" not in caplog.text


class TestRecords:
    async def test_a_key_is_a_duplicate_in_any_state(self) -> None:
        state = AppState()
        assert not state.is_duplicate("a")
        state.get_or_create_init_future("future")
        state.mark_started("running", asyncio.create_task(asyncio.sleep(0)))
        state.mark_completed("completed")
        assert all(state.is_duplicate(key) for key in ("future", "running", "completed"))

    async def test_what_has_started_is_active_until_it_is_completed(self, clock: SimpleNamespace) -> None:
        state = AppState()
        task = asyncio.create_task(asyncio.sleep(0))
        state.mark_started("a", task)
        assert state.rollout_tasks == {"a": task}
        assert (state.active_count, state.completed_count) == (1, 0)
        state.mark_completed("a")
        assert state.completed_rollouts == {"a": 1000.0}
        assert (state.active_count, state.completed_count) == (0, 1)

    def test_an_unknown_key_may_be_completed_and_a_repeat_refreshes_the_time(self, clock: SimpleNamespace) -> None:
        state = AppState()
        state.mark_completed("a")
        clock.now = 1010.0
        state.mark_completed("a")
        assert state.completed_rollouts == {"a": 1010.0}

    async def test_pruning_drops_what_is_older_than_the_lifetime_with_its_reply(self, clock: SimpleNamespace) -> None:
        state = AppState(record_ttl_seconds=60.0)
        for key, ended in (("old", 939.999), ("just", 940.0), ("new", 999.0)):
            state.get_or_create_init_future(key)
            clock.now = ended
            state.mark_completed(key)
        state.get_or_create_init_future("running")
        clock.now = 1000.0
        state._prune_completed_records()
        assert set(state.completed_rollouts) == {"just", "new"}
        assert set(state._init_futures) == {"just", "new", "running"}

    def test_records_are_bounded_in_number_too_and_the_oldest_goes_first(
        self, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
    ) -> None:
        monkeypatch.setattr(state_module, "MAX_COMPLETED_RECORDS", 3)
        state = AppState()
        for key in ("a", "b", "c", "a", "d"):
            state.mark_completed(key)
        assert list(state.completed_rollouts) == ["c", "a", "d"]


class TestCleanup:
    async def test_it_prunes_again_and_again(self, clock: SimpleNamespace) -> None:
        state = AppState(record_ttl_seconds=60.0)
        state._cleanup_interval = 0.001
        state.start_cleanup_task()
        for key in ("first", "second"):
            state.mark_completed(key)
            clock.now += 61.0
            await until(lambda: not state.completed_rollouts)
        await state.stop_cleanup_task()

    async def test_it_waits_for_the_interval_through_asyncio_sleep(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        real_sleep = asyncio.sleep

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            await real_sleep(0)

        state = AppState(cleanup_interval_seconds=45.0)
        monkeypatch.setattr(asyncio, "sleep", sleep)
        state.start_cleanup_task()
        while len(slept) < 2:
            await real_sleep(0)
        await state.stop_cleanup_task()
        assert slept[:2] == [45.0, 45.0]

    async def test_starting_twice_makes_one_task_and_it_can_be_started_after_a_stop(self) -> None:
        state = AppState()
        state.start_cleanup_task()
        task = state._cleanup_task
        state.start_cleanup_task()
        assert state._cleanup_task is task
        assert task is not None
        await state.stop_cleanup_task()
        assert task.cancelled()
        assert state._cleanup_task is None
        await state.stop_cleanup_task()
        state.start_cleanup_task()
        assert state._cleanup_task is not None
        assert not state._cleanup_task.done()
        await state.stop_cleanup_task()

    async def test_a_round_that_fails_is_logged_and_the_next_one_comes(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        rounds: list[None] = []

        def prune() -> None:
            rounds.append(None)
            raise RuntimeError("the table is on fire")

        state = AppState()
        monkeypatch.setattr(state, "_prune_completed_records", prune)
        state._cleanup_interval = 0.001
        state.start_cleanup_task()
        await until(lambda: len(rounds) >= 2)
        await state.stop_cleanup_task()
        assert "the table is on fire" in caplog.text

    def test_it_needs_a_running_event_loop(self) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            AppState().start_cleanup_task()


class TestCancelAll:
    async def test_nothing_to_do_is_fine(self) -> None:
        await AppState().cancel_all()

    async def test_every_task_is_cancelled_and_forgotten(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        state = AppState()
        running = asyncio.create_task(asyncio.Event().wait())
        finished = asyncio.create_task(asyncio.sleep(0))
        failed = asyncio.create_task(_raise(ValueError("agent")))
        await asyncio.wait({finished, failed})
        for key, task in (("running", running), ("finished", finished), ("failed", failed)):
            state.mark_started(key, task)
        await state.cancel_all()
        assert running.cancelled()
        assert state.rollout_tasks == {}
        assert "Cancelled 3 rollouts" in caplog.text

    async def test_one_that_swallows_its_cancellation_is_abandoned(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        released = asyncio.Event()

        async def swallow() -> None:
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue

        monkeypatch.setattr(state_module, "CANCEL_TIMEOUT_SECONDS", 0.01)
        state = AppState()
        task = asyncio.create_task(swallow())
        await asyncio.sleep(0)
        state.mark_started("stubborn", task)
        await state.cancel_all()
        assert not task.done()
        assert state.rollout_tasks == {}
        assert "abandoned" in caplog.text
        released.set()
        await task

    async def test_older_callers_put_in_their_own_gather_and_tasks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gathered: list[Any] = []

        async def gather(*tasks: Any, return_exceptions: bool = False) -> list[Any]:
            gathered.extend(tasks)
            assert return_exceptions
            return []

        class TaskStandIn:
            cancelled = False

            def cancel(self) -> None:
                self.cancelled = True

        state = AppState()
        stand_in: Any = TaskStandIn()
        state.rollout_tasks["a"] = stand_in
        monkeypatch.setattr(asyncio, "gather", gather)
        await state.cancel_all()
        assert stand_in.cancelled
        assert gathered == [stand_in]
        assert state.active_count == 0


async def _raise(error: Exception) -> None:
    raise error
