"""The protocol of 0.3 between processes and machines on one journal: any is started, polled, cancelled, killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fake_trainer import FakeTrainer
from support.postgres import Database, database, needs_postgres
from support.replica import Replica
from support.server_process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHORT_LEASE = 2
LONG_LEASE = 600
PATIENT = {"SERVER_POLL_WAIT_SECONDS": "1"}
ENDS = ("success", "failure", "cancelled")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Database]:
    with database() as running:
        yield running


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgres: Database) -> Iterator[tuple[Replica, Replica]]:
    """Two replicas for tests that leave them as they were."""
    url, folder = postgres.new_url(lease=LONG_LEASE), tmp_path_factory.mktemp("pair")
    with Replica(folder, "one", url, PATIENT) as one, Replica(folder, "two", url, PATIENT) as two:
        yield one, two


@pytest.fixture
def trainer() -> Iterator[FakeTrainer]:
    with FakeTrainer() as trainer:
        yield trainer


def start(server: ServerProcess, trainer: FakeTrainer, rollout_id: str, do: str = "complete") -> str:
    """The lease's token."""
    body = {
        "rollout_id": rollout_id,
        "initial_messages": [{"role": "user", "content": f"This is {rollout_id}."}],
        "chat_completions_url": f"{trainer.url}/v1",
        "metadata": {"do": do},
    }
    response = server.client.post("/rollout", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["polling_lease_token"])


def poll(server: ServerProcess, rollout_id: str, token: str) -> httpx.Response:
    return server.client.get(f"/rollout/{rollout_id}/result", headers={"X-Osmosis-Rollout-Lease": token})


def result(token: str, rollout_id: str, *servers: ServerProcess) -> httpx.Response:
    """The result, asked of each in turn."""
    while True:
        for server in servers:
            response = poll(server, rollout_id, token)
            assert response.status_code == 200, response.text
            if response.json()["status"] in ENDS:
                return response


def end_of(response: httpx.Response) -> tuple[str, Any]:
    return response.json()["status"], response.json()["err_category"]


def test_a_token_is_the_same_after_kill_9_and_from_the_process_beside(tmp_path: Path, trainer: FakeTrainer) -> None:
    path = tmp_path / "journal.db"
    with ServerProcess(path, PATIENT) as one, ServerProcess(path, PATIENT) as two:
        token = start(one, trainer, "ended")
        ended = result(token, "ended", one)
        cut = start(one, trainer, "cut", "hang")
        one.wait_for_line("cut does hang")
        assert {start(server, trainer, "cut", "hang") for server in (two, one)} == {cut}
        one.kill()
        one.start()
        assert end_of(result(cut, "cut", two)) == ("failure", "internal_error")
        assert (start(one, trainer, "ended"), start(one, trainer, "cut", "hang")) == (token, cut)
        assert poll(one, "ended", token).content == ended.content
        assert poll(one, "ended", cut).status_code == 403
        known = [one.log.read_text(), two.log.read_text(), one.client.get("/v1/rollout/ended").text]
        assert not any(secret in text for secret in (token, cut) for text in known)
    with ServerProcess(tmp_path / "another.db", PATIENT) as another:
        assert start(another, trainer, "ended") != token


@needs_postgres
def test_any_replica_is_started_and_polled(pair: tuple[Replica, Replica], trainer: FakeTrainer) -> None:
    one, two = pair
    token = start(one, trainer, "quick")
    first = result(token, "quick", two)
    assert end_of(first) == ("success", None)
    assert {poll(replica, "quick", token).content for replica in (one, two, one)} == {first.content}
    two.wait_for_state("quick", "delivered")
    trainer.hold_chats()
    token = start(two, trainer, "alternately")
    assert start(one, trainer, "alternately") == token
    assert {poll(each, "alternately", token).json()["status"] for each in (one, two, one)} == {"running"}
    trainer.release_chats()
    ended = result(token, "alternately", one, two)
    assert end_of(ended) == ("success", None)
    assert {poll(each, "alternately", token).content for each in (one, two)} == {ended.content}
    assert poll(one, "alternately", first.json()["rollout_id"]).status_code == 403


@needs_postgres
@pytest.mark.parametrize(
    ("asked", "stopped"),
    [
        ({"ids": ["ids-a-1", "nobody"]}, {"a-1"}),
        ({"prefix": "prefix-a-"}, {"a-1", "a-2"}),
        ({"all": True}, {"a-1", "a-2", "b"}),
    ],
    ids=["ids", "prefix", "all"],
)
def test_any_replica_cancels(
    pair: tuple[Replica, Replica], trainer: FakeTrainer, asked: dict[str, Any], stopped: set[str]
) -> None:
    one, two = pair
    (how,) = asked
    runs_at = {f"{how}-{name}": replica for name, replica in (("a-1", one), ("a-2", two), ("b", one))}
    stopped = {f"{how}-{name}" for name in stopped}
    tokens = {each: start(replica, trainer, each, "hang") for each, replica in runs_at.items()}
    for each, replica in runs_at.items():
        replica.wait_for_line(f"{each} does hang\n")
    one.accept_and_wait_for_it(trainer.url, f"{how}-a-1", "hang")  # the same id, of 0.2
    answer = two.client.post("/rollout/cancel", json=asked)
    nobody = {"nobody": "not_found"} if "ids" in asked else {}
    assert answer.json() == {"dispositions": dict.fromkeys(stopped, "cancelled_running") | nobody}
    for each in stopped:
        assert end_of(result(tokens[each], each, two, one)) == ("cancelled", None)
    for each in tokens.keys() - stopped:
        assert end_of(poll(two, each, tokens[each])) == ("running", None)
    assert two.client.post("/v1/rollout/cancel", json={"all": True}).json() == {"cancelling": 1}
    two.client.post("/rollout/cancel", json={"all": True})
    for each in tokens.keys() - stopped:
        assert end_of(result(tokens[each], each, one, two)) == ("cancelled", None)


@needs_postgres
def test_what_a_dead_replica_ran_is_told_by_another(tmp_path: Path, postgres: Database, trainer: FakeTrainer) -> None:
    url = postgres.new_url(lease=SHORT_LEASE)
    with Replica(tmp_path, "dies", url, PATIENT) as dies, Replica(tmp_path, "stays", url, PATIENT) as stays:
        ended = start(dies, trainer, "ended")
        dies.wait_for_state("ended", "finished")
        fetched = start(dies, trainer, "fetched")
        before = result(fetched, "fetched", dies)
        cut = start(dies, trainer, "cut", "hang")
        dies.wait_for_line("cut does hang")
        dies.kill()
        assert end_of(poll(stays, "ended", ended)) == ("success", None)
        assert poll(stays, "fetched", fetched).content == before.content
        told = result(cut, "cut", stays)
        assert end_of(told) == ("failure", "internal_error")
        assert start(stays, trainer, "cut", "hang") == cut
        dies.start()
        assert start(dies, trainer, "cut", "hang") == cut
        assert poll(dies, "cut", cut).content == told.content
        assert poll(dies, "ended", ended).content == poll(stays, "ended", ended).content


@needs_postgres
def test_a_lease_lives_by_polls_elsewhere_and_ends_when_they_do(
    tmp_path: Path, postgres: Database, trainer: FakeTrainer
) -> None:
    url = postgres.new_url(lease=SHORT_LEASE)
    settings = {"SERVER_POLL_WAIT_SECONDS": "0.5", "SERVER_POLL_LEASE_SECONDS": "3"}
    with Replica(tmp_path, "runs", url, settings) as runs, Replica(tmp_path, "polled", url, settings) as polled:
        token = start(runs, trainer, "left", "hang")
        for _ in range(8):  # longer than a lease
            assert end_of(poll(polled, "left", token)) == ("running", None)
        runs.wait_for_state("left", "finished")
        ended = result(token, "left", runs)
        assert end_of(ended) == ("failure", "lease_expired")
        assert poll(polled, "left", token).content == ended.content
