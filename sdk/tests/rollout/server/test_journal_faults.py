"""What people, cleaners and clocks do to the journal of a real server: nothing lost, contradicted or run twice."""

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.faulty_trainer import Fault, FaultyTrainer
from support.process_fixtures import home, trainer
from support.promise_agent import agent_loop
from support.server_process import DEADLINE_SECONDS, POLL_SECONDS, ServerProcess

from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.journal import Journal, SqliteJournal
from osmosis_ai.rollout.server.app import create_app

__all__ = ["home", "trainer"]

pytestmark = pytest.mark.slow

MANY_REFUSALS: list[Fault | int] = [503] * 500
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def outcomes(trainer: FaultyTrainer, rollout_id: str) -> tuple[str, int, int]:
    """Its status, how many different results came, how many chats it had."""
    status = str(trainer.result(rollout_id)["status"])
    return status, len(set(trainer.bodies(rollout_id))), len(trainer.chats(rollout_id))


def metric(server: ServerProcess, name: str) -> float:
    (line,) = [line for line in server.client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


@pytest.mark.parametrize("killed", ["while it is away", "when it is back"])
def test_a_journal_that_is_moved_away_for_a_while_contradicts_nothing(
    home: Path, trainer: FaultyTrainer, killed: str
) -> None:
    away = home.with_name("away")
    with ServerProcess(home / "journal.db") as server:
        server.accept_and_hold(trainer, running="complete")
        home.rename(away)
        trainer.release_chats()
        assert outcomes(trainer, "running") == ("COMPLETED", 1, 1)
        server.wait_for_state("running", "delivered")
        refused = server.init("new", trainer.url)
        assert (refused.status_code, refused.json()["code"]) == (503, "journal_unavailable")
        if killed == "while it is away":
            server.kill()
            away.rename(home)
        else:
            away.rename(home)
            until(server.is_ready)
            server.accept(trainer.url, new="complete")
            trainer.result("new")
            server.kill()
        server.start()
        assert server.state("running") == "delivered"
        assert server.init("running", trainer.url).status_code == 202
        server.accept(trainer.url, later="complete")
        assert outcomes(trainer, "later") == ("COMPLETED", 1, 1)
        assert outcomes(trainer, "running") == ("COMPLETED", 1, 1)


def test_results_of_a_journal_that_was_deleted_are_still_delivered(home: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(home / "journal.db") as server:
        server.accept_and_hold(trainer, running="complete")
        shutil.rmtree(home)
        assert server.init("new", trainer.url).status_code == 503
        trainer.release_chats()
        assert outcomes(trainer, "running") == ("COMPLETED", 1, 1)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_nothing_is_promised_without_the_log_and_nothing_promised_is_lost(
    home: Path, trainer: FaultyTrainer, suffix: str
) -> None:
    with ServerProcess(home / "journal.db") as server:
        server.accept_and_hold(trainer, running="hang", finishing="complete")
        assert metric(server, "osmosis_journal_sound") == 1
        (home / f"journal.db{suffix}").unlink()
        refused = server.init("new", trainer.url)
        assert (refused.status_code, refused.json()["code"]) == (503, "journal_unavailable")
        ready = server.client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "code": "journal_unavailable"})
        assert server.client.get("/health").status_code == 200
        until(lambda: metric(server, "osmosis_journal_sound") == 0)
        trainer.release_chats()
        assert outcomes(trainer, "finishing") == ("COMPLETED", 1, 1)
        server.wait_for_state("finishing", "delivered")
        server.kill()
        server.start()
        assert trainer.result("running")["extra_fields"]["outcome"] == "interrupted"
        assert server.state("finishing") == "delivered"
        assert outcomes(trainer, "finishing") == ("COMPLETED", 1, 1)


def test_damage_shows_while_the_server_runs(home: Path, trainer: FaultyTrainer) -> None:
    with ServerProcess(home / "journal.db") as server:
        server.accept(trainer.url, before="complete")
        server.wait_for_state("before", "delivered")
        with closing(sqlite3.connect(home / "journal.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with (home / "journal.db").open("r+b") as file:
            file.write(b"\xff" * 8192)
        until(lambda: server.client.get("/ready").status_code == 503)
        assert server.init("new", trainer.url).status_code == 503


def clean(journal: Path) -> None:
    """As a cleaner of temporary files does."""
    for file in journal.with_name(journal.name + ".owners").iterdir():
        file.unlink()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_server_without_its_lock_file_keeps_its_rollouts_until_it_is_dead(
    home: Path, trainer: FaultyTrainer, stopped: bool
) -> None:
    journal = home / "journal.db"
    with ServerProcess(journal) as server:
        server.accept_and_hold(trainer, running="complete")
        if stopped:
            server.signal(signal.SIGSTOP)
        clean(journal)
        with ServerProcess(journal) as other:
            other.accept(trainer.url, another="complete")
            trainer.wait_for_chat("another")
            if stopped:
                server.signal(signal.SIGCONT)
            trainer.release_chats()
            assert outcomes(trainer, "running") == ("COMPLETED", 1, 1)
            assert outcomes(trainer, "another") == ("COMPLETED", 1, 1)
        server.accept(trainer.url, hung="hang")
        trainer.wait_for_chat("hung")
        clean(journal)
        server.kill()
        with ServerProcess(journal):
            assert trainer.result("hung")["extra_fields"]["outcome"] == "interrupted"


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)")
class TestClocks:
    """Real servers whose wall clocks are set, by libfaketime; the steady ones are not."""

    @pytest.fixture
    def set_clock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Sets the wall clock of servers started from now on, also while they run."""
        file = tmp_path / "clock"
        file.write_text("+0", encoding="ascii")
        variables = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        for name, value in variables.items():
            monkeypatch.setitem(os.environ, name, value)

        def set_to(step: str) -> None:
            file.write_text(step, encoding="ascii")

        return set_to

    @pytest.mark.parametrize("step", ["+2h", "-3h"])
    @pytest.mark.parametrize("restarted", [False, True])
    def test_a_delivered_rollout_does_not_run_again(
        self, home: Path, trainer: FaultyTrainer, set_clock: Callable[[str], None], step: str, restarted: bool
    ) -> None:
        with ServerProcess(home / "journal.db") as server:
            server.accept(trainer.url, once="complete")
            server.wait_for_state("once", "delivered")
            set_clock(step)
            if restarted:
                server.kill()
                server.start()
            server.accept(trainer.url, once="complete")
            server.accept(trainer.url, marker="complete")
            server.wait_for_state("marker", "delivered")
            assert outcomes(trainer, "once") == ("COMPLETED", 1, 1)
            view = server.client.get("/v1/rollout/marker").json()
            assert view["accepted_at"] <= view["finished_at"] <= view["settled_at"]

    def test_no_duration_is_negative(
        self, home: Path, trainer: FaultyTrainer, set_clock: Callable[[str], None]
    ) -> None:
        with ServerProcess(home / "journal.db") as server:
            server.accept_and_hold(trainer, running="complete")
            set_clock("-3h")
            trainer.release_chats()
            server.wait_for_state("running", "delivered")
            assert 0 <= metric(server, "osmosis_rollout_duration_seconds_sum") < DEADLINE_SECONDS

    def test_a_result_is_not_given_up_because_a_clock_or_a_down_server_let_time_pass(
        self, home: Path, trainer: FaultyTrainer, set_clock: Callable[[str], None]
    ) -> None:
        trainer.result_faults["owed"] = list(MANY_REFUSALS)
        with ServerProcess(home / "journal.db") as server:
            server.accept(trainer.url, owed="complete")
            trainer.wait_for_post("owed")
            server.kill()
            set_clock("+25h")
            posts = len(trainer.bodies("owed"))
            server.start()
            trainer.wait_for_post("owed", times=posts + 3)
            assert server.state("owed") == "finished"
            trainer.result_faults.clear()
            server.wait_for_state("owed", "delivered")
            assert outcomes(trainer, "owed") == ("COMPLETED", 1, 1)


def let_time_pass(journal: Path, seconds: float) -> None:
    """As if a closed journal had been closed that much earlier."""
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE clock SET steady = steady - ?, time = time - ?", (seconds, seconds))
        connection.execute(
            "UPDATE rollouts SET accepted_at = accepted_at - ?, finished_at = finished_at - ?,"
            " settled_at = settled_at - ?",
            (seconds, seconds, seconds),
        )
        connection.commit()


def test_an_undeliverable_rollout_outlives_the_record_lifetime_and_does_not_run_again(
    home: Path, trainer: FaultyTrainer
) -> None:
    trainer.result_faults["refused"] = [403]
    journal = home / "journal.db"
    with ServerProcess(journal) as server:
        server.accept(trainer.url, refused="complete", delivered="complete")
        server.wait_for_state("refused", "undeliverable")
        server.wait_for_state("delivered", "delivered")
        server.drain()
        server.exit_code()
        let_time_pass(journal, 2 * 3600)
        server.start()
        server.accept(trainer.url, refused="complete", delivered="complete")
        trainer.wait_for_post("delivered", times=2)
        assert server.state("refused") == "undeliverable"
        assert (len(trainer.chats("refused")), len(trainer.chats("delivered"))) == (1, 2)
        server.drain()
        server.exit_code()
        let_time_pass(journal, 7 * 86_400)
        server.start()
        server.accept(trainer.url, refused="complete")
        assert outcomes(trainer, "refused")[2] == 2


@pytest.mark.parametrize(("chosen", "level"), [("normal", 1), ("full", 2)])
async def test_the_setting_says_whether_a_promise_waits_for_the_disk(home: Path, chosen: str, level: int) -> None:
    limits = RolloutServerSettings.model_validate({"journal": str(home / "journal.db"), "journal_synchronous": chosen})
    made: list[Journal] = []

    class Noting(SqliteJournal):
        async def open(self) -> None:
            made.append(self)
            await super().open()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("osmosis_ai.rollout.journal.sqlite.SqliteJournal", Noting)
        app = create_app(agent_loop, settings=RolloutSettings(server=limits))
        async with app.router.lifespan_context(app):
            (journal,) = made
            assert isinstance(journal, SqliteJournal)
            found = await journal._opened.read(lambda file: file.connection.execute("PRAGMA synchronous").fetchone())
            assert found == (level,)
