"""Two things go wrong at once, and the promise holds: one result a rollout, the same each time, after one run."""

import resource
from pathlib import Path

import pytest
from support.faulty_trainer import FaultyTrainer
from support.process_fixtures import home, trainer
from support.server_process import ServerProcess

__all__ = ["home", "trainer"]

pytestmark = pytest.mark.slow

DRAIN = {"SERVER_DRAIN_SECONDS": "5"}
FULL_BYTES = 1000


def assert_once(server: ServerProcess, trainer: FaultyTrainer, **outcomes: str) -> None:
    for rollout_id, outcome in outcomes.items():
        assert trainer.result(rollout_id)["extra_fields"]["outcome"] == outcome
        server.wait_for_state(rollout_id, "delivered")
        assert len(set(trainer.bodies(rollout_id))) == 1
        assert len(trainer.chats(rollout_id)) == 1


def test_moved_and_asked_to_stop(home: Path, trainer: FaultyTrainer) -> None:
    away = home.with_name("away")
    with ServerProcess(home / "journal.db", DRAIN) as server:
        server.accept_and_hold(trainer, done="complete", cut="hang")
        home.rename(away)
        server.drain()
        trainer.release_chats()
        assert server.exit_code() == 0
        away.rename(home)
        server.start()
        assert_once(server, trainer, done="success", cut="interrupted")


def test_moved_on_a_full_disk_and_killed(home: Path, trainer: FaultyTrainer) -> None:
    away = home.with_name("away")
    with ServerProcess(home / "journal.db") as server:
        server.accept_and_hold(trainer, done="complete")
        server.limit_file_size(FULL_BYTES)
        home.rename(away)
        trainer.release_chats()
        server.wait_for_state("done", "recording")
        assert trainer.bodies("done") == []
        server.limit_file_size(resource.RLIM_INFINITY)
        trainer.wait_for_post("done")
        server.wait_for_state("done", "delivered")
        server.kill()
        away.rename(home)
        server.start()
        assert_once(server, trainer, done="success")


def test_a_full_disk_and_a_signal(home: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(home / "journal.db", DRAIN | {"SERVER_DRAIN_SECONDS": "20"}) as server:
        server.accept_and_hold(trainer, done="complete", too="complete")
        server.limit_file_size(FULL_BYTES)
        trainer.release_chats()
        server.wait_for_state("done", "recording")
        server.drain()
        server.limit_file_size(resource.RLIM_INFINITY)
        assert server.exit_code() == 0
        server.start()
        assert_once(server, trainer, done="success", too="success")


def test_without_lock_files_one_of_two_is_killed(home: Path, trainer: FaultyTrainer) -> None:
    def clean() -> None:
        for file in (home / "journal.db.owners").iterdir():
            file.unlink(missing_ok=True)

    with ServerProcess(home / "journal.db") as killed, ServerProcess(home / "journal.db") as other:
        killed.accept_and_hold(trainer, cut="hang")
        other.accept_and_hold(trainer, done="complete")
        clean()
        killed.kill()
        clean()
        killed.start()
        trainer.release_chats()
        assert_once(killed, trainer, cut="interrupted", done="success")
