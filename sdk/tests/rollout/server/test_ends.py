"""The end of a real server, in each start mode: by each signal, and also while an agent blocks it."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.faulty_trainer import FaultyTrainer
from support.process_fixtures import trainer
from support.server_process import ServerProcess, UvicornProcess

__all__ = ["trainer"]

QUICK_END = {"SERVER_DRAIN_SECONDS": "1", "SERVER_FLUSH_SECONDS": "1"}
LONG_DRAIN = {"SERVER_DRAIN_SECONDS": "300"}
"""Nobody here waits until it is over."""
NOT_AN_ECHO_SECONDS = 1.2
"""A second signal that comes sooner is taken for the first."""

Start = Callable[..., ServerProcess]


def serve(journal: Path, settings: dict[str, str]) -> ServerProcess:
    return ServerProcess(journal, settings)


def workers(journal: Path, settings: dict[str, str]) -> ServerProcess:
    return ServerProcess(journal, settings, "--workers", "2")


def uvicorn(journal: Path, settings: dict[str, str]) -> ServerProcess:
    return UvicornProcess(journal, settings)


in_each_start_mode = pytest.mark.parametrize("start", [serve, workers, uvicorn])


def outcome(trainer: FaultyTrainer, rollout_id: str) -> str:
    result: dict[str, Any] = trainer.result(rollout_id)
    return str(result["extra_fields"]["outcome"])


@pytest.mark.slow
@in_each_start_mode
def test_a_drain_ends_an_agent_that_blocks_when_its_time_is_over(
    tmp_path: Path, trainer: FaultyTrainer, start: Start
) -> None:
    with start(tmp_path / "journal.db", QUICK_END) as server:
        server.accept_and_wait_for_it(trainer.url, "blocking", "block")
        server.signal(signal.SIGTERM)
        result = trainer.result("blocking")
        assert result["extra_fields"]["outcome"] == "interrupted"
        assert result["error_message"].startswith("server shutting down; it blocked the event loop at support/promise_")
        assert server.exit_code() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("start", "how"), [(serve, "block_in_c"), (workers, "block_again_and_again")])
def test_what_cannot_be_interrupted_does_not_hold_a_drain_up_for_ever(
    tmp_path: Path, trainer: FaultyTrainer, start: Start, how: str
) -> None:
    with start(tmp_path / "journal.db", QUICK_END) as server:
        server.accept_and_wait_for_it(trainer.url, "blocking", how)
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 1
        assert "The event loop is blocked beyond the drain" in server.log.read_text()
        server.start()
        assert outcome(trainer, "blocking") == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "how"), [(serve, "block"), (serve, "block_in_c"), (uvicorn, "backtrack"), (workers, "block_in_c")]
)
def test_a_second_signal_ends_a_server_whose_event_loop_is_blocked(
    tmp_path: Path, trainer: FaultyTrainer, start: Start, how: str
) -> None:
    with start(tmp_path / "journal.db", LONG_DRAIN) as server:
        server.accept_and_wait_for_it(trainer.url, "blocking", how)
        server.signal(signal.SIGTERM)
        time.sleep(NOT_AN_ECHO_SECONDS)
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 1
        server.start()
        assert outcome(trainer, "blocking") == "interrupted"
        assert len(trainer.bodies("blocking")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("start", [serve, uvicorn])
def test_where_no_thread_runs_a_signal_that_nobody_handles_ends_it(
    tmp_path: Path, trainer: FaultyTrainer, start: Start
) -> None:
    with start(tmp_path / "journal.db", LONG_DRAIN) as server:
        server.accept_and_wait_for_it(trainer.url, "blocking", "hold_the_interpreter")
        server.signal(signal.SIGQUIT)
        assert server.exit_code() == -signal.SIGQUIT
        server.start()
        assert outcome(trainer, "blocking") == "interrupted"
        assert len(trainer.bodies("blocking")) == 1


@pytest.mark.slow
@in_each_start_mode
def test_so_does_one_that_is_heeded_by_an_agent_that_then_blocks(
    tmp_path: Path, trainer: FaultyTrainer, start: Start
) -> None:
    with start(tmp_path / "journal.db", LONG_DRAIN) as server:
        server.accept_and_wait_for_it(trainer.url, "blocking", "backtrack_when_cancelled")
        server.drain()
        server.signal(signal.SIGINT)  # another one, so no echo of the first
        assert server.exit_code() == 1
        server.start()
        assert outcome(trainer, "blocking") == "interrupted"


@pytest.mark.slow
@in_each_start_mode
def test_a_terminal_that_closes_drains(tmp_path: Path, trainer: FaultyTrainer, start: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the suite runs under nohup
    with start(tmp_path / "journal.db", LONG_DRAIN) as server:
        signal.signal(signal.SIGHUP, before)
        server.accept_and_hold(trainer, running="complete")
        server.signal(signal.SIGHUP)
        trainer.release_chats()
        assert trainer.result("running")["status"] == "COMPLETED"
        assert server.exit_code() == 0


@pytest.mark.slow
@pytest.mark.parametrize("start", [serve, workers])
def test_under_nohup_a_terminal_that_closes_is_nothing(tmp_path: Path, trainer: FaultyTrainer, start: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a child inherits
    try:
        server = start(tmp_path / "journal.db", QUICK_END)
        server.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        server.signal(signal.SIGHUP)
        server.accept(trainer.url, running="complete")
        assert trainer.result("running")["status"] == "COMPLETED"
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    finally:
        server.kill()


@pytest.mark.slow
def test_a_child_that_an_agent_forks_and_ends_drains_nobody(tmp_path: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(tmp_path / "journal.db", QUICK_END) as server:
        server.accept(trainer.url, forking="fork_and_terminate")
        assert trainer.result("forking")["status"] == "COMPLETED"
        server.accept(trainer.url, later="complete")
        assert trainer.result("later")["status"] == "COMPLETED"
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
