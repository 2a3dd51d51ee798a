"""A replica that is cut off from the database answers: at once for what it runs, soon with 503 for what it cannot know.

Before it has noticed, too: nothing here waits for that unless it says so.
"""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.faulty_trainer import FaultyTrainer
from support.partition import Partition
from support.postgres import Database, database, needs_postgres
from support.process_fixtures import trainer
from support.replica import Replica
from support.server_process import DEADLINE_SECONDS

__all__ = ["trainer"]

pytestmark = [pytest.mark.slow, needs_postgres]

AT_ONCE_SECONDS = 2.5
"""Less than any question to the database is given."""
SOON_SECONDS = 10.0
"""More than any is given, and half of what one took that nobody waits for."""
LEASE = 600
"""Only a question that fails makes the replica look at its lease before it is through with this test."""
CANCEL = "/v1/rollout/cancel"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with database() as running:
        yield running


@contextmanager
def within(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def assert_unknown(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "journal_unavailable")
    assert response.headers["Retry-After"]
    assert response.json()["detail"].endswith(".")


@contextmanager
def cut(
    folder: Path, postgres: Database, url: str | None = None, **settings: str
) -> Iterator[tuple[Replica, Partition]]:
    """A replica, and its way to the database, not cut yet."""
    url = url or postgres.new_url(lease=LEASE)
    with Partition(postgres.port) as partition:
        near = url.replace(f":{postgres.port}/", f":{partition.port}/")
        with Replica(folder, "cut", near, settings) as replica:
            yield replica, partition


def test_a_cancel_of_what_runs_here_is_answered_at_once(
    tmp_path: Path, postgres: Database, trainer: FaultyTrainer
) -> None:
    with cut(tmp_path, postgres) as (replica, partition):
        for rollout_id in ("one", "two", "three", "job-1"):
            replica.accept_and_wait_for_it(trainer.url, rollout_id, "hang")
        partition.cut()
        with within(AT_ONCE_SECONDS):
            cancelled = replica.client.post("/v1/rollout/one/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelling")
        with within(AT_ONCE_SECONDS):
            assert replica.client.post(CANCEL, json={"ids": ["two", "three"]}).json() == {"cancelling": 2}
        for rollout_id in ("one", "two", "three"):
            replica.wait_for_state(rollout_id, "recording")
        with within(AT_ONCE_SECONDS):
            assert replica.client.post("/v1/rollout/one/cancel").status_code == 409, "it has ended"
        with within(SOON_SECONDS):
            assert_unknown(replica.client.post(CANCEL, json={"prefix": "job-"}))
        replica.wait_for_state("job-1", "recording")
        partition.mend()
        for rollout_id in ("one", "two", "three", "job-1"):
            assert trainer.result(rollout_id)["finish_reason"] == "cancelled"


def test_what_it_cannot_know_is_503_soon_and_what_it_knows_is_told(
    tmp_path: Path, postgres: Database, trainer: FaultyTrainer
) -> None:
    with FaultyTrainer() as away, cut(tmp_path, postgres) as (replica, partition):
        away.hold_chats()
        replica.accept(away.url, owed="complete")
        away.wait_for_chat("owed")
        away.instead = (503, b"")
        away.release_chats()
        replica.wait_for_state("owed", "finished")
        replica.accept_and_wait_for_it(trainer.url, "runs", "hang")
        repeated = replica.init("runs", trainer.url, "hang").content
        partition.cut()
        with within(AT_ONCE_SECONDS):
            assert replica.state("runs") == "running"
            again = replica.init("runs", trainer.url, "hang")
            assert (again.status_code, again.content) == (202, repeated)
            assert replica.init("runs", trainer.url, "complete").status_code == 409
            assert replica.init("owed", away.url).status_code == 202
        for _ in range(2):  # before it has noticed, and after
            for method, path, body in (
                ("GET", "/v1/rollout/nobody", None),
                ("POST", "/v1/rollout/nobody/cancel", None),
                ("POST", CANCEL, {"ids": ["runs-not", "nobody"]}),
                ("POST", CANCEL, {"prefix": "nobody"}),
            ):
                with within(SOON_SECONDS):
                    assert_unknown(replica.client.request(method, path, json=body))
            with within(SOON_SECONDS):
                owed = replica.client.get("/v1/rollout/owed").json()
                assert (owed["state"], owed["delivery_attempts"] > 0) == ("finished", True)
            with within(SOON_SECONDS):
                assert replica.client.post("/v1/rollout/owed/cancel").status_code == 409
            until_not_ready(replica)
        with within(AT_ONCE_SECONDS):
            assert_unknown(replica.init("new", trainer.url))
        partition.mend()
        away.instead = None
        assert away.result("owed")["extra_fields"]["outcome"] == "success"
        replica.wait_for_state("owed", "delivered")


def until_not_ready(replica: Replica) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while replica.is_ready():
        assert time.monotonic() < deadline, "it does not notice"
        time.sleep(0.05)


def test_many_questions_at_once_are_not_answered_one_after_the_other(tmp_path: Path, postgres: Database) -> None:
    with cut(tmp_path, postgres) as (replica, partition), ThreadPoolExecutor(20) as pool:
        partition.cut()
        with within(SOON_SECONDS):
            answers = list(pool.map(lambda number: replica.client.get(f"/v1/rollout/{number}"), range(20)))
        for answer in answers:
            assert_unknown(answer)


def test_metrics_are_there_and_scale_nothing_down(tmp_path: Path, postgres: Database, trainer: FaultyTrainer) -> None:
    with cut(tmp_path, postgres, postgres.new_url(lease=3), SERVER_METRICS="open") as (replica, partition):
        replica.accept_and_wait_for_it(trainer.url, "runs", "hang")
        while "osmosis_journal_unfinished 1.0" not in replica.client.get("/metrics").text:
            assert replica.is_ready()
        partition.cut()
        until_not_ready(replica)
        with within(AT_ONCE_SECONDS):
            assert replica.client.get("/health").status_code == 200
            numbers = replica.client.get("/metrics").text
        assert "osmosis_journal_sound 0.0" in numbers
        assert "osmosis_journal_unfinished 1.0" in numbers, "as it was seen last"


def test_one_that_is_asked_to_end_ends_and_another_reports_what_it_ran(
    tmp_path: Path, postgres: Database, trainer: FaultyTrainer
) -> None:
    url = postgres.new_url(lease=2)
    with cut(tmp_path, postgres, url, SERVER_DRAIN_SECONDS="1") as (replica, partition):
        replica.accept_and_wait_for_it(trainer.url, "runs", "hang")
        with Replica(tmp_path, "stays", url):
            partition.cut()
            replica.signal(signal.SIGTERM)
            assert replica.exit_code() == 0
            assert trainer.result("runs")["extra_fields"]["outcome"] == "interrupted"
            assert len(trainer.bodies("runs")) == 1
