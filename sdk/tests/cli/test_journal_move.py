"""``osmosis journal move``: from a file into a database, with all that is owed."""

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fake_trainer import FakeTrainer
from support.faulty_trainer import FaultyTrainer
from support.journal import an_acceptance
from support.postgres import PASSWORD, Database, database, needs_postgres
from support.processes import own_environment
from support.replica import Replica
from support.server_process import ServerProcess

from osmosis_ai.rollout.journal import Payload, PostgresJournal, RolloutState, SqliteJournal
from osmosis_ai.rollout.journal.errors import NoJournalError
from osmosis_ai.rollout.journal.occupancy import owners_directory
from osmosis_ai.rollout.journal.postgres.address import parse

pytestmark = [pytest.mark.slow, needs_postgres]

VARIABLE = "OSMOSIS_ROLLOUT_SERVER_JOURNAL"
ROUNDS = 120


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with database() as running:
        yield running


def move(folder: Path, *arguments: object, to: str | None = None) -> "subprocess.CompletedProcess[str]":
    """``osmosis journal move`` with the database in the variable."""
    return subprocess.run(
        [sys.executable, "-m", "osmosis_ai", "journal", "move", *map(str, arguments)],
        cwd=folder,
        env=own_environment(OSMOSIS_NO_DOTENV="1", **({VARIABLE: to} if to is not None else {})),
        capture_output=True,
        text=True,
        check=False,
    )


async def fill(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        for number in range(ROUNDS):
            for state in RolloutState:
                key = f"{state}-{number}"
                await journal.accept(an_acceptance(key, rollout_id=f"rollout {key}"))
                if state is not RolloutState.ACCEPTED:
                    await journal.finish(key, f"result of {key}".encode())
                if state in (RolloutState.DELIVERED, RolloutState.UNDELIVERABLE):
                    await journal.settle(key, state, attempts=number, error="why")
        await journal.leave_out_messages("finished-0")


async def everything(journal: SqliteJournal | PostgresJournal) -> list[tuple[object, ...]]:
    async with journal:
        return [
            (
                *(getattr(record, name) for name in record.__slots__ if name != "owner"),
                *[await journal.load(record.key, payload) for payload in Payload],
            )
            for record in await journal.records(limit=10_000)
        ]


def test_everything_is_there_in_its_order_and_the_file_out_of_the_way(tmp_path: Path, postgres: Database) -> None:
    path, url = tmp_path / "journal.db", postgres.new_url()
    asyncio.run(fill(path))
    before = asyncio.run(everything(SqliteJournal(path)))
    ended = move(tmp_path, path, to=url)
    assert ended.returncode == 0, ended.stderr
    assert f"{ROUNDS} accepted, {ROUNDS} finished" in ended.stdout
    assert PASSWORD not in ended.stdout + ended.stderr
    assert asyncio.run(everything(PostgresJournal(url))) == before
    assert [file.name for file in tmp_path.glob("journal*") if file.is_file()] == ["journal.db.moved"]


def test_a_move_that_was_cut_off_goes_on(tmp_path: Path, postgres: Database) -> None:
    path, url = tmp_path / "journal.db", postgres.new_url()
    asyncio.run(fill(path))
    before = asyncio.run(everything(SqliteJournal(path)))
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    assert move(tmp_path, copy, to=url).returncode == 0
    again = move(tmp_path, path, to=url)
    assert again.returncode == 0, again.stderr
    assert f"{4 * ROUNDS} of them were there already" in again.stdout
    assert asyncio.run(everything(PostgresJournal(url))) == before


def test_a_refused_move_changes_nothing_and_loses_nothing_when_it_is_made_again(
    tmp_path: Path, postgres: Database
) -> None:
    path, url = tmp_path / "journal.db", postgres.new_url()
    asyncio.run(fill(path))
    taken = f"undeliverable-{ROUNDS - 1}"  # of the last page

    async def take() -> None:
        async with PostgresJournal(url) as journal:
            await journal.accept(an_acceptance(taken, rollout_id="another"))

    asyncio.run(take())
    before, there = asyncio.run(everything(SqliteJournal(path))), asyncio.run(everything(PostgresJournal(url)))
    refused = move(tmp_path, path, to=url)
    assert refused.returncode == 1
    assert f"The key '{taken}' is taken by another rollout" in refused.stderr
    assert asyncio.run(everything(PostgresJournal(url))) == there
    assert asyncio.run(everything(SqliteJournal(path))) == before
    postgres.ask(f"TRUNCATE {parse(url).schema}.rollouts")
    again = move(tmp_path, path, to=url)
    assert (again.returncode, "already" in again.stdout) == (0, False)
    assert asyncio.run(everything(PostgresJournal(url))) == before


def test_a_file_that_a_server_has_open_stays_although_the_server_has_nothing_to_do(
    tmp_path: Path, postgres: Database
) -> None:
    path, url = tmp_path / "journal.db", postgres.new_url()
    with FaultyTrainer() as trainer, ServerProcess(path) as server:
        refused = move(tmp_path, path, to=url)
        assert (refused.returncode, path.exists()) == (1, True)
        assert "A server runs on the journal" in refused.stderr
        server.accept_and_wait_for_it(trainer.url, "later", "complete")
    with pytest.raises(NoJournalError):
        asyncio.run(PostgresJournal(url, create=False).open())


def test_a_server_without_its_lock_file_is_seen_all_the_same(tmp_path: Path, postgres: Database) -> None:
    path, url = tmp_path / "journal.db", postgres.new_url()
    with ServerProcess(path) as server:
        server.signal(signal.SIGSTOP)  # it would put the file back
        shutil.rmtree(owners_directory(path))
        refused = move(tmp_path, path, to=url)
        assert (refused.returncode, path.exists()) == (1, True)
        assert "A server runs on the journal" in refused.stderr


def test_what_a_server_owes_is_delivered_by_a_replica(tmp_path: Path, postgres: Database) -> None:
    path, url = tmp_path / "journal.db", postgres.new_url()
    with FaultyTrainer() as away, FaultyTrainer() as trainer:
        with ServerProcess(path) as server:
            server.accept_and_hold(away, owed="complete")
            server.accept_and_wait_for_it(trainer.url, "cut", "hang")
            refused = move(tmp_path, path, to=url)
            assert refused.returncode == 1
            assert "A server runs on the journal" in refused.stderr
            away.instead = (503, b"")
            away.release_chats()
            server.wait_for_state("owed", "finished")
            server.kill()
        moved = move(tmp_path, path, to=url)
        assert moved.returncode == 0, moved.stderr
        away.instead = None
        with Replica(tmp_path, "replica", url) as replica:
            assert trainer.result("cut")["extra_fields"]["outcome"] == "interrupted"
            assert away.result("owed")["extra_fields"]["outcome"] == "success"
            replica.wait_for_state("owed", "delivered")


def test_leases_of_the_file_go_on(tmp_path: Path, postgres: Database) -> None:
    path, url = tmp_path / "journal.db", postgres.new_url()

    def start(server: ServerProcess, do: str) -> dict[str, Any]:
        url = f"{trainer.url}/v1"
        body = {"rollout_id": do, "initial_messages": [], "chat_completions_url": url, "metadata": {"do": do}}
        return dict(server.client.post("/rollout", json=body).json())

    def poll(server: ServerProcess, do: str, token: str) -> httpx.Response:
        return server.client.get(f"/rollout/{do}/result", headers={"X-Osmosis-Rollout-Lease": token})

    with FakeTrainer() as trainer:
        with ServerProcess(path) as server:
            replies = {do: start(server, do) for do in ("complete", "hang")}
            tokens = {do: reply["polling_lease_token"] for do, reply in replies.items()}
            ended = poll(server, "complete", tokens["complete"])
            assert ended.json()["status"] == "success"
            server.kill()
        moved = move(tmp_path, path, to=url)
        assert moved.returncode == 0, moved.stderr
        with Replica(tmp_path, "replica", url) as replica:
            assert poll(replica, "complete", tokens["complete"]).content == ended.content
            assert poll(replica, "hang", tokens["hang"]).json()["err_category"] == "internal_error"
            assert poll(replica, "hang", tokens["complete"]).status_code == 403
            assert {do: start(replica, do) for do in replies} == replies


@pytest.mark.parametrize(
    "command", [("move", "URL"), ("salvage", "URL", "-o", "new.db"), ("salvage", "old.db", "-o", "URL")], ids=" ".join
)
def test_the_url_of_a_database_is_no_file(tmp_path: Path, command: tuple[str, ...]) -> None:
    arguments = [word.replace("URL", f"postgresql://me:{PASSWORD}@127.0.0.1/x") for word in command]
    said = subprocess.run(
        [sys.executable, "-m", "osmosis_ai", "journal", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert "name a file" in said.stderr
    assert PASSWORD not in said.stdout + said.stderr
    assert list(tmp_path.iterdir()) == []


def test_nowhere_to_move_to_is_said(tmp_path: Path) -> None:
    ended = move(tmp_path, "journal.db")
    assert ended.returncode == 2
    assert "name a database" in ended.stderr
