"""Replicas on one PostgreSQL: any answers for any rollout, and each row of the table in docs/many-machines.md holds."""

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.faulty_trainer import FaultyTrainer
from support.partition import Partition
from support.postgres import PASSWORD, Database, database, needs_postgres
from support.process_fixtures import trainer
from support.replica import Replica
from support.server_process import DEADLINE_SECONDS
from support.small_disk import fill, small_disk

__all__ = ["trainer"]

pytestmark = [pytest.mark.slow, needs_postgres]

SHORT_LEASE = 2
LONG_LEASE = 600
FULL_BYTES = 17 * 1024 * 1024
"""More than a file of the database's log has, which must not be hit: it would be as if the disk were gone."""
LARGE_BYTES = 7_000_000
SMALL_MEGABYTES = 160


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with database() as running:
        yield running


def outcome(trainer: FaultyTrainer, rollout_id: str) -> str:
    return str(trainer.result(rollout_id)["extra_fields"]["outcome"])


def assert_once(asked: Replica, trainer: FaultyTrainer, **outcomes: str) -> None:
    for rollout_id, expected in outcomes.items():
        assert outcome(trainer, rollout_id) == expected
        asked.wait_for_state(rollout_id, "delivered")
        assert len(set(trainer.bodies(rollout_id))) == 1
        assert len(trainer.chats(rollout_id)) == 1


def accept_when_possible(replica: Replica, trainer: FaultyTrainer, rollout_id: str, **fields: Any) -> None:
    """An init as a trainer sends it: again after each 503."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (response := replica.init(rollout_id, trainer.url, **fields)).status_code == 503:
        assert time.monotonic() < deadline, response.text
        time.sleep(0.05)
    assert response.status_code == 202, response.text


def test_any_replica_answers_for_any_rollout(tmp_path: Path, postgres: Database, trainer: FaultyTrainer) -> None:
    url = postgres.new_url(lease=LONG_LEASE)
    with Replica(tmp_path, "one", url) as one, Replica(tmp_path, "two", url) as two:
        for rollout_id in ("stays", "by-id", "job-1", "job-2"):
            one.accept_and_wait_for_it(trainer.url, rollout_id, "hang")
        assert two.state("stays") == "accepted"
        repeated = two.init("stays", trainer.url, "hang")
        assert (repeated.status_code, repeated.content) == (202, one.init("stays", trainer.url, "hang").content)
        assert two.init("stays", trainer.url, "complete").status_code == 409
        assert two.client.post("/v1/rollout/by-id/cancel").status_code == 202
        assert two.client.post("/v1/rollout/cancel", json={"prefix": "job-"}).json() == {"cancelling": 2}
        assert_once(two, trainer, **dict.fromkeys(("by-id", "job-1", "job-2"), "cancelled"))
        assert two.client.post("/v1/rollout/by-id/cancel").status_code == 409
        assert two.client.post("/v1/rollout/nobody/cancel").status_code == 404
        assert two.state("stays") == "accepted"
        for replica in (one, two):
            assert PASSWORD not in replica.log.read_text()
            assert PASSWORD not in Path(f"/proc/{replica.pid}/cmdline").read_text()


def test_a_replica_dies(tmp_path: Path, postgres: Database, trainer: FaultyTrainer) -> None:
    url = postgres.new_url(lease=SHORT_LEASE)
    with FaultyTrainer() as away, Replica(tmp_path, "dies", url) as dies, Replica(tmp_path, "stays", url) as stays:
        dies.accept(away.url, finished="complete")
        away.wait_for_chat("finished")
        dies.accept_and_wait_for_it(trainer.url, "cut", "hang")
        away.wait_for_post("finished")
        dies.kill()
        assert_once(stays, trainer, cut="interrupted")
        assert_once(stays, away, finished="success")


def test_a_replica_dies_with_what_a_trainer_has_not_taken(
    tmp_path: Path, postgres: Database, trainer: FaultyTrainer
) -> None:
    url = postgres.new_url(lease=SHORT_LEASE)
    with Replica(tmp_path, "dies", url) as dies, Replica(tmp_path, "stays", url) as stays:
        dies.accept_and_hold(trainer, owed="chat_again")
        trainer.release_chats()
        trainer.wait_for_post("owed")
        dies.kill()
        assert outcome(trainer, "owed") == "success"
        stays.wait_for_state("owed", "delivered")
        assert len(set(trainer.bodies("owed"))) == 1


def test_a_replica_is_stopped_and_wakes(tmp_path: Path, postgres: Database, trainer: FaultyTrainer) -> None:
    url = postgres.new_url(lease=SHORT_LEASE)
    with Replica(tmp_path, "sleeps", url) as sleeps, Replica(tmp_path, "stays", url) as stays:
        sleeps.accept_and_hold(trainer, cut="chat_again")
        sleeps.signal(signal.SIGSTOP)
        assert_once(stays, trainer, cut="interrupted")
        trainer.release_chats()
        sleeps.signal(signal.SIGCONT)
        sleeps.wait_for_line("another replica has taken over what this one ran")
        sleeps.wait_for_line("another result is on record")
        accept_when_possible(sleeps, trainer, "new")
        assert_once(sleeps, trainer, new="success", cut="interrupted")


def test_a_replica_that_wakes_makes_no_chat_call_that_it_was_about_to_make(
    tmp_path: Path, postgres: Database, trainer: FaultyTrainer
) -> None:
    url = postgres.new_url(lease=SHORT_LEASE)
    with Replica(tmp_path, "sleeps", url) as sleeps, Replica(tmp_path, "stays", url) as stays:
        trainer.instead = (503, b"{}")
        sleeps.accept(trainer.url, cut="complete")
        sleeps.wait_for_line("waits for its trainer")
        sleeps.signal(signal.SIGSTOP)
        trainer.instead = None
        assert outcome(trainer, "cut") == "interrupted"
        stays.wait_for_state("cut", "delivered")
        chats = len(trainer.chats("cut"))
        sleeps.signal(signal.SIGCONT)
        sleeps.wait_for_line("another result is on record")
        assert len(trainer.chats("cut")) == chats, "its trainer is done with it"


def test_a_replica_is_cut_off_from_the_database_for_a_while(
    tmp_path: Path, postgres: Database, trainer: FaultyTrainer
) -> None:
    url = postgres.new_url(lease=LONG_LEASE)
    with Partition(postgres.port) as partition:
        near = url.replace(f":{postgres.port}/", f":{partition.port}/")
        with Replica(tmp_path, "cut", near) as cut:
            cut.accept_and_hold(trainer, runs="complete")
            partition.cut()
            assert cut.init("new", trainer.url).status_code == 503
            assert not cut.is_ready()
            trainer.release_chats()
            cut.wait_for_state("runs", "recording")
            assert trainer.bodies("runs") == []
            partition.mend()
            assert_once(cut, trainer, runs="success")
            accept_when_possible(cut, trainer, "new")
            assert_once(cut, trainer, new="success")


def test_a_replica_is_cut_off_from_the_database_for_longer_than_its_lease(
    tmp_path: Path, postgres: Database, trainer: FaultyTrainer
) -> None:
    url = postgres.new_url(lease=SHORT_LEASE)
    with Partition(postgres.port) as partition:
        near = url.replace(f":{postgres.port}/", f":{partition.port}/")
        with Replica(tmp_path, "cut", near) as cut, Replica(tmp_path, "stays", url) as stays:
            cut.accept_and_hold(trainer, runs="complete")
            partition.cut()
            trainer.release_chats()
            cut.wait_for_state("runs", "recording")
            assert_once(stays, trainer, runs="interrupted")
            partition.mend()
            cut.wait_for_line("another result is on record")
            accept_when_possible(cut, trainer, "new")
            assert_once(cut, trainer, new="success", runs="interrupted")


def test_a_replica_is_cut_off_from_a_trainer(tmp_path: Path, postgres: Database, trainer: FaultyTrainer) -> None:
    url = postgres.new_url(lease=LONG_LEASE)
    with (
        FaultyTrainer() as silent,
        Partition(int(silent.url.rpartition(":")[2])) as partition,
        Replica(tmp_path, "one", url) as one,
        Replica(tmp_path, "two", url) as two,
    ):
        silent.hold_chats()
        behind = f"http://127.0.0.1:{partition.port}"
        for number, replica in enumerate((one, two, one, two)):
            replica.accept(behind, **{f"behind-{number}": "complete"})
        silent.wait_for_chat(*(f"behind-{number}" for number in range(4)))
        partition.cut()
        silent.release_chats()
        for number, replica in enumerate((one, two)):
            replica.accept(trainer.url, **{f"other-{number}": "complete"})
        assert_once(one, trainer, **{"other-0": "success", "other-1": "success"})
        partition.mend()
        assert_once(two, silent, **{f"behind-{number}": "success" for number in range(4)})


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_the_database_restarts(tmp_path: Path, trainer: FaultyTrainer, how: signal.Signals) -> None:
    with database("fsync=off") as own:
        url = own.new_url(lease=LONG_LEASE)
        with Replica(tmp_path, "one", url) as one, Replica(tmp_path, "two", url) as two:
            one.accept_and_hold(trainer, runs="complete")
            own.stop(how)
            assert two.init("new", trainer.url).status_code == 503
            trainer.release_chats()
            one.wait_for_state("runs", "recording")
            assert trainer.bodies("runs") == []
            own.start()
            assert_once(two, trainer, runs="success")
            accept_when_possible(two, trainer, "new")
            assert_once(two, trainer, new="success")


def test_the_database_fails_over(tmp_path: Path, trainer: FaultyTrainer) -> None:
    with database("fsync=off") as primary, database("fsync=off", standby_of=primary) as standby:
        primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.ask("SELECT pg_reload_conf()")
        url = primary.new_url(lease=LONG_LEASE, target_session_attrs="read-write")
        url = url.replace(f":{primary.port}/", f":{primary.port},127.0.0.1:{standby.port}/")
        with Replica(tmp_path, "one", url) as one, Replica(tmp_path, "two", url) as two:
            one.accept_and_hold(trainer, runs="complete")
            primary.stop(signal.SIGQUIT)
            standby.ask("SELECT pg_promote()")
            trainer.release_chats()
            assert_once(one, trainer, runs="success")
            accept_when_possible(two, trainer, "new")
            assert_once(one, trainer, new="success")


def large(name: str) -> str:
    return f"{name} {'x' * LARGE_BYTES}"


def test_the_database_is_full(tmp_path: Path, trainer: FaultyTrainer) -> None:
    with database("fsync=off") as own, Replica(tmp_path, "one", own.new_url(lease=LONG_LEASE)) as one:
        trainer.hold_chats()
        for name in ("a", "b", "c"):
            accept_when_possible(one, trainer, name, messages=[{"role": "user", "content": large(name)}])
        trainer.wait_for_chat("a", "b", "c")
        own.limit_file_size(FULL_BYTES)
        refused = one.init("new", trainer.url, messages=[{"role": "user", "content": large("new")}])
        assert refused.status_code == 503
        trainer.release_chats()
        one.wait_for_line("The journal fails, trying again")
        assert trainer.bodies("a") == []
        own.limit_file_size(None)
        assert_once(one, trainer, a="success", b="success", c="success")
        accept_when_possible(one, trainer, "new")
        assert_once(one, trainer, new="success")


@pytest.mark.parametrize("what", ["data", "log"])
def test_the_disk_of_the_database_is_full(tmp_path: Path, trainer: FaultyTrainer, what: str) -> None:
    with ExitStack() as stack:
        # PostgreSQL's user has to get there.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="osmosis-disk-", dir="/tmp")))
        folder.chmod(0o755)
        disk = stack.enter_context(small_disk(folder / "disk", SMALL_MEGABYTES))
        data, log = (disk, None) if what == "data" else (None, disk)
        own = stack.enter_context(database("fsync=off", "max_wal_size=32MB", disk=data, log_disk=log))
        one = stack.enter_context(Replica(tmp_path, "one", own.new_url(lease=LONG_LEASE)))
        trainer.hold_chats()
        for name in ("a", "b", "c"):
            accept_when_possible(one, trainer, name, messages=[{"role": "user", "content": large(name)}])
        trainer.wait_for_chat("a", "b", "c")
        filler = fill(disk)
        accepted = ["a", "b", "c"]
        # What there is room for in files that are there already is taken.
        while (
            one.init(
                name := f"more-{len(accepted)}", trainer.url, messages=[{"role": "user", "content": large(name)}]
            ).status_code
            == 202
        ):
            accepted.append(name)
        trainer.release_chats()
        one.wait_for_line("The journal fails, trying again")
        before = trainer.kept()
        filler.unlink()
        if what == "log":  # without room for its log it has ended by itself
            own.stop(signal.SIGQUIT)
            own.start()
        assert_once(one, trainer, **dict.fromkeys(accepted, "success"))
        assert before < set(accepted)
        accept_when_possible(one, trainer, "new")
        assert_once(one, trainer, new="success")


def test_the_database_is_slow(tmp_path: Path, trainer: FaultyTrainer) -> None:
    with database() as own:
        url = own.new_url(lease=LONG_LEASE)
        with Replica(tmp_path, "one", url) as one:
            one.accept_and_hold(trainer, runs="complete")
            own.signal(signal.SIGSTOP)
            assert one.init("new", trainer.url).status_code == 503
            trainer.release_chats()
            one.wait_for_state("runs", "recording")
            own.signal(signal.SIGCONT)
            assert_once(one, trainer, runs="success")
            accept_when_possible(one, trainer, "new")
            assert_once(one, trainer, new="success")


def test_a_rolling_deployment(tmp_path: Path, postgres: Database, trainer: FaultyTrainer) -> None:
    url = postgres.new_url(lease=LONG_LEASE)
    drain = {"SERVER_DRAIN_SECONDS": "20"}
    with FaultyTrainer() as away, Replica(tmp_path, "old", url, drain) as old, Replica(tmp_path, "new", url) as new:
        old.accept_and_hold(away, owed="complete")
        old.accept_and_hold(trainer, runs="complete")
        away.release_chats()
        old.wait_while("owed", "running")
        old.drain()
        trainer.release_chats()
        assert old.exit_code() == 0
        assert_once(new, trainer, runs="success")
        assert_once(new, away, owed="success")
        old.start()
        old.accept(trainer.url, next="complete")
        assert_once(new, trainer, next="success")
