"""A signal while the disk is full: what has been computed is held, tried again, and only then delivered."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty_trainer import FaultyTrainer
from support.process_fixtures import trainer
from support.server_process import ServerProcess
from support.small_disk import fill, small_disk

__all__ = ["trainer"]

LONG = {"SERVER_DRAIN_SECONDS": "20"}
SHORT = {"SERVER_DRAIN_SECONDS": "1", "SERVER_FLUSH_SECONDS": "1"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 20) as place:
        yield place


def compute(server: ServerProcess, trainer: FaultyTrainer) -> None:
    """A rollout ends, and waits for the disk with its result."""
    trainer.release_chats()
    server.wait_for_state("computed", "recording")
    assert trainer.bodies("computed") == []


@pytest.mark.slow
def test_a_signal_on_a_full_disk_waits_with_a_computed_result(tmp_path: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(tmp_path / "journal.db", LONG) as server:
        server.accept_and_hold(trainer, computed="complete")
        server.limit_file_size(1)
        compute(server, trainer)
        server.drain()
        server.limit_file_size(resource.RLIM_INFINITY)
        assert trainer.result("computed")["status"] == "COMPLETED"
        assert server.exit_code() == 0


@pytest.mark.slow
def test_a_signal_on_a_file_system_without_room_waits_too(disk: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(disk / "journal.db", LONG) as server:
        server.accept_and_hold(trainer, computed="give_too_much")
        filler = fill(disk)
        compute(server, trainer)
        server.drain()
        filler.unlink()
        assert trainer.result("computed")["status"] == "COMPLETED"
        assert server.exit_code() == 0


@pytest.mark.slow
def test_a_disk_that_stays_full_holds_the_end_up_no_longer_than_drain_and_flush(
    tmp_path: Path, trainer: FaultyTrainer
) -> None:
    with ServerProcess(tmp_path / "journal.db", SHORT) as server:
        server.accept_and_hold(trainer, computed="complete")
        server.limit_file_size(1)
        compute(server, trainer)
        server.drain()
        assert server.exit_code() == 0
        assert trainer.bodies("computed") == []
        server.start()
        assert trainer.result("computed")["extra_fields"]["outcome"] == "interrupted"
        assert len(trainer.bodies("computed")) == 1
