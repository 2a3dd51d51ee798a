"""A journal that its server may not reach any more is not gone: real processes that rights hold for, root's too."""

import ctypes
import errno
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.faulty_trainer import FaultyTrainer
from support.journal import an_acceptance
from support.process_fixtures import trainer
from support.server_process import DEADLINE_SECONDS, TESTS, ServerProcess

from osmosis_ai.rollout.journal import JournalError, RolloutState, SqliteJournal
from osmosis_ai.rollout.journal.occupancy import owners_directory

__all__ = ["trainer"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="takes root's rights as Linux does")

DROP_FROM_BOUNDING_SET = 24
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def obey_rights() -> None:
    """Of this process, once it executes a program: files are what their modes say, though it is root's."""
    if os.geteuid() == 0:
        for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
            if _libc.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "rights cannot be dropped")


class BoundServer(ServerProcess):
    """``osmosis serve``, for which rights hold."""

    def _launch(self, *options: str, stderr: int) -> "subprocess.Popen[bytes]":
        command = ["serve", "-m", "support.promise_agent:agent_loop", "--local", "--journal", str(self.journal)]
        return subprocess.Popen(
            [sys.executable, "-m", "osmosis_ai", *command, "--host", "127.0.0.1", *options],
            cwd=TESTS,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            preexec_fn=obey_rights,
        )


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home" / "journal.db"


def target_of(journal: Path, what: str) -> Path:
    return {
        "folder": journal.parent,
        "file": journal,
        "log": journal.with_name("journal.db-wal"),
        "owners": owners_directory(journal),
    }[what]


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["while it is out of reach", "when it is back"])
@pytest.mark.parametrize("what", ["folder", "file", "log", "owners"])
def test_what_may_not_be_reached_is_not_gone(journal: Path, trainer: FaultyTrainer, what: str, killed: str) -> None:
    target = target_of(journal, what)
    with BoundServer(journal) as server:
        server.accept_and_hold(trainer, before="complete", running="hang")
        mode = target.stat().st_mode & 0o777
        target.chmod(0)
        try:
            server.wait_for_line("Until then no rollout is accepted")
            refused = server.init("new", trainer.url)
            assert (refused.status_code, refused.json()["code"]) == (503, "journal_unavailable")
            assert server.client.get("/ready").status_code == 503
            assert server.client.get("/health").status_code == 200
            trainer.release_chats()
            assert trainer.result("before")["status"] == "COMPLETED"
            server.wait_for_state("before", "delivered")
            if killed == "while it is out of reach":
                server.kill()
        finally:
            target.chmod(mode)
        if killed == "when it is back":
            server.wait_for_line("is in order again")
            server.accept(trainer.url, new="complete")
            assert trainer.result("new")["status"] == "COMPLETED"
            server.kill()
        server.start()
        assert server.state("before") == "delivered"
        assert trainer.result("running")["extra_fields"]["outcome"] == "interrupted"
        assert [len(set(trainer.bodies(name))) for name in ("before", "running")] == [1, 1]
        assert len(trainer.chats("before")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["folder", "file", "owners"])
def test_nobody_starts_on_what_may_not_be_reached(journal: Path, trainer: FaultyTrainer, what: str) -> None:
    """It would take what it cannot see for nothing, or its owners for dead. (The log's rights it sets right.)"""
    target = target_of(journal, what)
    with BoundServer(journal) as server:
        server.accept_and_hold(trainer, running="complete")
        mode = target.stat().st_mode & 0o777
        target.chmod(0)
        try:
            second = server._launch("--port", "0", stderr=subprocess.DEVNULL)
            assert second.wait(DEADLINE_SECONDS) == 1
        finally:
            target.chmod(mode)
        trainer.release_chats()
        assert trainer.result("running")["status"] == "COMPLETED"
        server.wait_for_state("running", "delivered")
    assert len(set(trainer.bodies("running"))) == 1


async def test_an_owner_whose_file_cannot_be_removed_is_dead_when_it_has_closed(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    closed = SqliteJournal(journal)
    await closed.open()
    await closed.accept(an_acceptance("key"))
    monkeypatch.setattr(Path, "unlink", fail)
    await closed.close()
    monkeypatch.undo()
    async with SqliteJournal(journal) as looking:
        assert [record.key for record in await looking.claim_abandoned()] == ["key"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["stat", "open"])
async def test_no_error_of_the_system_makes_an_owner_dead(
    journal: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    real = getattr(os, call)
    async with SqliteJournal(journal) as running, SqliteJournal(journal) as looking:
        await running.accept(an_acceptance("key"))

        def fail(file: object, *arguments: Any, **options: Any) -> Any:
            if isinstance(file, int) or str(journal) not in str(file):
                return real(file, *arguments, **options)
            raise OSError(number, os.strerror(number), str(file))

        monkeypatch.setattr(os, call, fail)
        with suppress(JournalError):  # as it may say that it cannot tell
            assert await looking.claim_abandoned() == []
        if call == "stat":
            with pytest.raises(JournalError, match="cannot be"):
                await running.accept(an_acceptance("new"))
        assert await running.finish("key", b"result")
        monkeypatch.undo()
        record = await looking.get("key")
        assert record is not None
        assert record.state is RolloutState.FINISHED
