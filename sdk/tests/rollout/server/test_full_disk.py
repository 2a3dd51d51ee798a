"""A signal while the disk is full: what has been computed is held, tried again, and only then delivered."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty_trainer import FaultyTrainer
from support.process_fixtures import trainer
from support.server_process import ServerProcess

__all__ = ["trainer"]

LONG = {"SERVER_DRAIN_SECONDS": "20"}
SHORT = {"SERVER_DRAIN_SECONDS": "1", "SERVER_FLUSH_SECONDS": "1"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with 20 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def compute(server: ServerProcess, trainer: FaultyTrainer) -> None:
    """A rollout ends, and waits for the disk with its result."""
    trainer.release_chats()
    server.wait_for_state("computed", "recording")
    assert trainer.bodies("computed") == []


def fill(disk: Path) -> Path:
    """Take all that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            return filler
    raise AssertionError("the disk does not get full")


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
def test_a_signal_on_a_file_system_without_room_waits_too(small_disk: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(small_disk / "journal.db", LONG) as server:
        server.accept_and_hold(trainer, computed="give_too_much")
        filler = fill(small_disk)
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
