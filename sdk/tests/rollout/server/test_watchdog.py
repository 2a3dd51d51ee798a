"""An agent that blocks the event loop of a real server is ended at its limit and named; the others go on."""

import asyncio
import json
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support import promise_agent
from support.faulty_trainer import FaultyTrainer
from support.process_fixtures import trainer
from support.rollouts import until
from support.server_process import DEADLINE_SECONDS, POLL_SECONDS, ServerProcess

from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.core.watch import Observer
from osmosis_ai.rollout.observe.looplag import LoopLag
from osmosis_ai.rollout.server import watchdog as watchdog_module
from osmosis_ai.rollout.server.signals import DRAIN_SIGNALS, DrainOnSignal
from osmosis_ai.rollout.server.watchdog import Watchdog

__all__ = ["trainer"]

ONE_SECOND = {"SERVER_TOOL_TURN_TIMEOUT_SECONDS": "1"}
PLACE = r"support/promise_agent\.py:(\d+)"


def events_of(traces: Path, rollout_id: str) -> list[dict[str, Any]]:
    (trace,) = traces.glob(f"*/{rollout_id}.jsonl")
    return [json.loads(line) for line in trace.read_text().splitlines()]


def wait_for_metric(server: ServerProcess, line: str) -> None:
    """It is told a moment after the interruption, beside the event loop."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while line not in (told := server.client.get("/metrics").text):
        assert time.monotonic() < deadline, told
        time.sleep(POLL_SECONDS)


def code_at(line: str) -> str:
    return Path(promise_agent.__file__).read_text().splitlines()[int(line) - 1].strip()


def test_an_agent_that_blocks_is_ended_at_its_limit_and_named_and_the_others_go_on(
    tmp_path: Path, trainer: FaultyTrainer
) -> None:
    traces = tmp_path / "traces"
    with ServerProcess(tmp_path / "journal.db", ONE_SECOND, "--log", str(traces)) as server:
        server.accept_and_hold(trainer, blocking="block", other="chat_again")
        trainer.release_chats()
        result = trainer.result("blocking")
        assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", "timeout")
        sentence = (
            rf"a tool turn exceeded its time limit of 1 s; it blocked the event loop at {PLACE} in block: use asyncio"
        )
        assert (found := re.match(sentence, result["error_message"]))
        assert code_at(found[1]).startswith("time.sleep(ASLEEP_SECONDS)")
        assert result["final_messages"][-1]["role"] == "assistant"
        assert trainer.result("other")["status"] == "COMPLETED"
        wait_for_metric(server, "osmosis_event_loop_blocks_total 1.0")
        events = events_of(traces, "blocking")
        assert [event["error"] for event in events if event["event"] == "rollout_error"] == [result["error_message"]]
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    lines = re.findall(
        rf"Event loop blocked \d\.\d s at {PLACE} in block, .*use asyncio.to_thread", server.log.read_text()
    )
    assert lines == [found[1]]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["block_in_a_child", "block_in_a_library", "spin", "backtrack"])
def test_so_is_one_that_blocks_in_another_way(tmp_path: Path, trainer: FaultyTrainer, how: str) -> None:
    with ServerProcess(tmp_path / "journal.db", ONE_SECOND) as server:
        server.accept(trainer.url, blocking=how, other="complete")
        result = trainer.result("blocking")
        assert result["extra_fields"]["outcome"] == "timeout"
        assert re.search(f"blocked the event loop at {PLACE}", result["error_message"])
        assert trainer.result("other")["status"] == "COMPLETED"
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0


@pytest.mark.slow
def test_several_that_block_one_after_the_other_are_ended_each(tmp_path: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(tmp_path / "journal.db", ONE_SECOND) as server:
        names = {f"blocking-{number}": "block" for number in range(3)}
        server.accept_and_hold(trainer, **names)
        trainer.release_chats()
        assert {trainer.result(name)["extra_fields"]["outcome"] for name in names} == {"timeout"}


@pytest.mark.slow
def test_one_that_blocks_within_its_limit_keeps_its_result_and_is_told_once(
    tmp_path: Path, trainer: FaultyTrainer
) -> None:
    traces = tmp_path / "traces"
    with ServerProcess(tmp_path / "journal.db", {}, "--log", str(traces)) as server:
        server.accept(trainer.url, blocking="block_until_told")
        result = trainer.result("blocking")
        assert result["status"] == "COMPLETED"
        [noted] = result["extra_fields"]["event_loop_blocked"]
        (told,) = [event for event in events_of(traces, "blocking") if event["event"] == "loop_blocked"]
        assert re.fullmatch(f"{PLACE} in block_until_told", told["place"])
        assert 1.0 <= told["seconds"] <= noted["seconds"]
        assert noted["place"] == told["place"]
    assert server.log.read_text().count("Event loop blocked") == 1


@pytest.mark.slow
def test_a_task_that_an_ended_rollout_has_left_to_all_is_not_interrupted(
    tmp_path: Path, trainer: FaultyTrainer
) -> None:
    with ServerProcess(tmp_path / "journal.db") as server:
        server.accept(trainer.url, first="ask_shared_worker")
        assert trainer.result("first")["status"] == "COMPLETED"
        server.accept(trainer.url, second="ask_shared_worker")
        assert trainer.result("second")["status"] == "COMPLETED"
        assert "in _work, and every rollout with it" in server.log.read_text()


@pytest.mark.slow
def test_the_limit_of_the_whole_run_ends_it_too(tmp_path: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(tmp_path / "journal.db", {"SERVER_REQUEST_TIMEOUT_SECONDS": "10"}) as server:
        server.accept(trainer.url, blocking="block")
        result = trainer.result("blocking")
        assert result["error_message"].startswith("the rollout exceeded its time limit of 10 s; it blocked")
        assert result["extra_fields"]["outcome"] == "timeout"


async def no_drain() -> None:
    """Nothing is left to be drained."""


class Told(Observer):
    """What observers hear of blocks."""

    def __init__(self) -> None:
        self.blocks: list[float] = []

    def loop_blocked(self, seconds: float) -> None:
        self.blocks.append(seconds)


@pytest.mark.slow
def test_outside_the_main_thread_a_block_is_told_and_nothing_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    before = [signal.getsignal(number) for number in (signal.SIGVTALRM, *DRAIN_SIGNALS)]

    async def serve() -> None:
        lag = LoopLag(lambda _: None)
        watchdog = Watchdog(lag, DrainOnSignal(no_drain), RolloutServerSettings(), told)
        await asyncio.sleep(0)
        time.sleep(2.0)  # noqa: ASYNC251 - the very mistake
        await until(lambda: told.blocks)
        watchdog.stop()
        lag.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    thread.join()
    assert len(told.blocks) == 1
    assert re.search(
        r"Event loop blocked 1\.\d s at .*test_watchdog\.py:\d+ in .*serve, .* No limit ends it", caplog.text
    )
    assert [signal.getsignal(number) for number in (signal.SIGVTALRM, *DRAIN_SIGNALS)] == before


class Ended(BaseException):
    """In place of the end of this process."""


def spin(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not until():
        assert time.monotonic() < deadline
        sum(range(1000))


@pytest.mark.slow
async def test_a_second_signal_ends_the_process_though_the_thread_gets_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    no_turn, gets_none, run_out = threading.Event(), threading.Event(), threading.Event()

    def end(exit_code: int, why: str) -> None:
        raise Ended(why)

    def look(now: float) -> None:
        gets_none.set()
        no_turn.wait()

    monkeypatch.setattr(watchdog_module, "end_process", end)
    servers = {number: signal.signal(number, lambda *_: None) for number in DRAIN_SIGNALS}
    lag, signals = LoopLag(lambda _: None), DrainOnSignal(no_drain)
    watchdog = Watchdog(lag, signals, RolloutServerSettings(), Told())
    monkeypatch.setattr(watchdog, "_look", look)
    try:
        await asyncio.to_thread(gets_none.wait)
        heed: Any = signal.getsignal(signal.SIGVTALRM)

        def note_and_heed(number: int, frame: FrameType | None) -> None:
            run_out.set()
            heed(number, frame)

        signal.signal(signal.SIGVTALRM, note_and_heed)
        spin(until=run_out.is_set)
        for number in DRAIN_SIGNALS:
            signal.raise_signal(number)
        with pytest.raises(Ended, match="Second signal, which the event loop does not heed"):
            spin(until=lambda: False)
    finally:
        no_turn.set()
        watchdog.stop()
        lag.stop()
        signals.restore()
        for number, previous in servers.items():
            signal.signal(number, previous)


async def test_after_stop_the_process_is_as_it_was() -> None:
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    lag = LoopLag(lambda _: None)
    watchdog = Watchdog(lag, DrainOnSignal(no_drain), RolloutServerSettings(), Told())
    assert signal.getsignal(signal.SIGVTALRM) is not signal.SIG_DFL
    watchdog.stop()
    lag.stop()
    assert signal.getsignal(signal.SIGVTALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    now = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(now)
    assert now == wakeup
    assert not [thread for thread in threading.enumerate() if thread.name == "osmosis-watchdog"]
