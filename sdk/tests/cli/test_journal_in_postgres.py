"""The operator's commands on a journal in PostgreSQL, whether replicas run on it or not."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty_trainer import FaultyTrainer
from support.postgres import PASSWORD, Database, database, needs_postgres, with_least_rights
from support.processes import own_environment
from support.replica import Replica
from support.server_process import TESTS

pytestmark = [pytest.mark.slow, needs_postgres]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with database() as running:
        yield running


def osmosis(folder: Path, url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    ended = subprocess.run(
        [sys.executable, "-m", "osmosis_ai", *arguments],
        cwd=folder,
        env=own_environment(OSMOSIS_NO_DOTENV="1", OSMOSIS_ROLLOUT_SERVER_JOURNAL=url, PYTHONPATH=str(TESTS)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert PASSWORD not in ended.stdout + ended.stderr
    return ended


def test_what_is_there_is_told_and_delivered_again(tmp_path: Path, postgres: Database) -> None:
    url = postgres.new_url()
    before = osmosis(tmp_path, url, "journal", "list")
    assert before.returncode == 2
    assert "There is no journal at 127.0.0.1" in before.stderr
    with FaultyTrainer() as trainer, Replica(tmp_path, "one", url) as replica:
        replica.accept(trainer.url, done="complete")
        replica.wait_for_state("done", "delivered")
        replica.accept_and_wait_for_it(trainer.url, "runs", "hang")
        listed = osmosis(tmp_path, asyncio.run(with_least_rights(url, "operators")), "journal", "list", "--json")
        states = {record["rollout_id"]: record["state"] for record in json.loads(listed.stdout)["results"]}
        assert states == {"done": "delivered", "runs": "accepted"}
        table = osmosis(tmp_path, url, "journal", "list")
        assert "1 accepted, 0 finished, 1 delivered, 0 undeliverable" in table.stdout
        shown = json.loads(osmosis(tmp_path, url, "journal", "show", "done", "--json").stdout)["results"]
        assert [(each["state"], each["result"]["status"]) for each in shown] == [("delivered", "COMPLETED")]
        unknown = osmosis(tmp_path, url, "journal", "show", "nobody")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert "The journal knows no rollout 'nobody'" in unknown.stderr
        purged = osmosis(tmp_path, url, "journal", "purge", "--force", "runs")
        assert purged.stdout == "0 removed\n", "a replica runs it"
        assert osmosis(tmp_path, url, "journal", "redeliver", "done").returncode == 0
        assert len(trainer.bodies("done")) == 2
        assert len(set(trainer.bodies("done"))) == 1
        assert replica.state("runs") == "running"


def test_who_mistypes_the_url_is_told_and_nothing_is_made(tmp_path: Path, postgres: Database) -> None:
    good = postgres.new_url()
    serve = ("serve", "-m", "support.promise_agent:agent_loop", "--local", "--port", "0")
    wrong = good.replace(PASSWORD, "wrong")
    for url, command in (
        (wrong, ("journal", "list")),
        (wrong, serve),
        (f'"{good}"', serve),
        (good.replace("://", ":/"), serve),
    ):
        ended = osmosis(tmp_path, url, *command)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert ended.stderr.strip().splitlines()[-1].startswith("Error: The ")
    assert not list(tmp_path.iterdir())


def test_the_doctor_looks_at_the_database(tmp_path: Path, postgres: Database) -> None:
    url = postgres.new_url()

    def findings(where: str) -> dict[str, str]:
        looked = osmosis(tmp_path, where, "doctor", "--json")
        return {each["id"]: each["status"] for each in json.loads(looked.stdout)["checks"]}

    assert findings(url)["journal"] == "ok"
    assert findings(asyncio.run(with_least_rights(postgres.new_url(), "operators")))["journal"] == "problem"
    assert findings(url.replace(PASSWORD, "wrong"))["journal"] == "problem"
    assert not list(tmp_path.iterdir()), "nothing is made"


def test_an_autoscaler_reads_the_backlog_of_all_replicas(tmp_path: Path, postgres: Database) -> None:
    url = postgres.new_url(lease=2)
    settings = {"SERVER_METRICS": "open"}
    with (
        FaultyTrainer() as trainer,
        Replica(tmp_path, "one", url) as one,
        Replica(tmp_path, "two", url, settings) as two,
    ):
        one.accept_and_hold(trainer, **{f"runs-{number}": "complete" for number in range(3)})
        while "osmosis_journal_unfinished 3.0" not in two.client.get("/metrics").text:
            assert two.is_ready()
        trainer.release_chats()
