"""Every 202 ends in exactly one terminal result: real servers, killed, stopped and started anew. See also bench/faults.

What a trainer or an agent can do to a server that lives is in ``test_injected_faults``.
"""

import resource
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support.faulty_trainer import Fault, FaultyTrainer
from support.server_process import ServerProcess, environment, init_of, start_serving

MANY_REFUSALS: list[Fault | int] = [503] * 50


def outcome_of(result: dict[str, Any]) -> tuple[str, str, bool]:
    """Status, outcome, and whether it carries a reward."""
    return result["status"], result["extra_fields"]["outcome"], "reward" in result


def told_to_the_end(server: ServerProcess, rollout_id: str) -> set[tuple[int, str]]:
    """What the state and, once it has ended, the cancel of a rollout are answered until nobody listens."""
    told: set[tuple[int, str]] = set()
    try:
        while True:
            status = server.client.get(f"/v1/rollout/{rollout_id}")
            told.add((status.status_code, str(status.json().get("state"))))
            if (200, "delivered") in told:
                cancel = server.client.post(f"/v1/rollout/{rollout_id}/cancel")
                told.add((cancel.status_code, cancel.json()["code"]))
    except httpx.TransportError:
        return told


class TestKill:
    """kill -9 with rollouts in every state, then a restart on the same journal."""

    @pytest.fixture(scope="class")
    @classmethod
    def story(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
        journal = tmp_path_factory.mktemp("kill") / "journal.db"
        settings = {"SERVER_MAX_CONCURRENT_ROLLOUTS": "1"}
        with FaultyTrainer() as trainer, ServerProcess(journal, settings) as server:
            server.accept(trainer.url, delivered="complete")
            trainer.result("delivered")
            server.wait_for_state("delivered", "delivered")
            trainer.result_faults["finished"] = list(MANY_REFUSALS)
            server.accept(trainer.url, finished="complete")
            trainer.wait_for_post("finished")
            trainer.hold_chats()
            server.accept(trainer.url, running="complete", queued="complete")
            trainer.wait_for_chat("running")
            refused = trainer.bodies("finished")
            server.kill()
            trainer.result_faults.clear()
            trainer.release_chats()
            server.start()
            repeated = {name: server.init(name, trainer.url) for name in ("delivered", "finished", "running", "queued")}
            other = server.init("finished", trainer.url, "fail")
            results = {name: trainer.result(name) for name in repeated}
            for name in repeated:
                server.wait_for_state(name, "delivered")
            yield SimpleNamespace(
                server=server, trainer=trainer, results=results, refused=refused, repeated=repeated, other=other
            )

    @pytest.mark.parametrize("name", ["running", "queued"])
    def test_what_was_cut_off_is_reported_as_interrupted(self, story: SimpleNamespace, name: str) -> None:
        result = story.results[name]
        assert outcome_of(result) == ("ERROR", "interrupted", False)
        assert result["error_message"] == "interrupted by a server restart"
        assert result["final_messages"] == init_of(name, story.trainer.url)["messages"]
        assert len(story.trainer.bodies(name)) == 1

    def test_a_result_that_was_known_is_delivered_byte_for_byte(self, story: SimpleNamespace) -> None:
        assert outcome_of(story.results["finished"]) == ("COMPLETED", "success", True)
        assert len(story.trainer.bodies("finished")) > len(story.refused)
        assert set(story.trainer.bodies("finished")) == set(story.refused)

    def test_what_was_acknowledged_is_not_delivered_again(self, story: SimpleNamespace) -> None:
        assert len(story.trainer.bodies("delivered")) == 1

    def test_a_repeated_init_is_accepted_and_runs_nothing(self, story: SimpleNamespace) -> None:
        for name, response in story.repeated.items():
            assert (response.status_code, response.json()) == (202, {"rollout_id": name, "tools": []})
        assert [len(story.trainer.chats(name)) for name in story.repeated] == [1, 1, 1, 0]

    def test_another_body_under_the_same_key_is_a_conflict(self, story: SimpleNamespace) -> None:
        assert story.other.status_code == 409


class TestTermination:
    """SIGTERM to a server with agents that finish, hang, swallow their cancellation, or sleep in threads."""

    @pytest.fixture(scope="class")
    @classmethod
    def story(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
        journal = tmp_path_factory.mktemp("term") / "journal.db"
        with FaultyTrainer() as trainer, ServerProcess(journal, {"SERVER_DRAIN_SECONDS": "1"}) as server:
            hung = {"hung": "hang", "stubborn": "swallow_cancellation", "asleep": "sleep_in_threads"}
            server.accept(trainer.url, **hung)
            trainer.wait_for_chat(*hung)
            server.accept_and_hold(trainer, finishing="complete")
            server.drain()
            ready, health = server.client.get("/ready"), server.client.get("/health")
            refused = server.init("late", trainer.url)
            repeated = server.init("finishing", trainer.url)
            trainer.release_chats()
            trainer.result("finishing")
            told = told_to_the_end(server, "finishing")
            exit_code = server.exit_code()
            yield SimpleNamespace(**locals())

    @pytest.mark.slow
    def test_a_rollout_may_finish_within_the_drain(self, story: SimpleNamespace) -> None:
        assert outcome_of(story.trainer.result("finishing")) == ("COMPLETED", "success", True)

    @pytest.mark.parametrize("name", ["hung", "stubborn", "asleep"])
    def test_the_rest_end_as_errors_with_what_they_have_said(self, story: SimpleNamespace, name: str) -> None:
        result = story.trainer.result(name)
        assert outcome_of(result) == ("ERROR", "interrupted", False)
        assert result["error_message"] == "server shutting down"
        assert [message["role"] for message in result["final_messages"]] == ["user", "assistant"]

    def test_no_agent_keeps_the_process_from_ending_well(self, story: SimpleNamespace) -> None:
        assert story.exit_code == 0

    def test_inits_are_refused_with_a_time_to_come_again(self, story: SimpleNamespace) -> None:
        for response in (story.refused, story.repeated):
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) > 0
            assert response.json()["code"] == "shutting_down"

    def test_it_is_healthy_but_not_ready(self, story: SimpleNamespace) -> None:
        assert (story.health.status_code, story.ready.status_code) == (200, 503)

    def test_status_and_cancel_are_answered_until_nobody_listens(self, story: SimpleNamespace) -> None:
        assert story.told - {(200, "finished")} == {(200, "delivered"), (409, "not_running")}

    def test_nothing_is_left_to_deliver(self, story: SimpleNamespace) -> None:
        assert states_in(story.journal) == {"delivered": 4}
        assert story.trainer.kept() == {"finishing", "hung", "stubborn", "asleep"}


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once_and_loses_nothing(tmp_path: Path) -> None:
    with FaultyTrainer() as trainer, ServerProcess(tmp_path / "journal.db") as server:
        trainer.result_faults["finished"] = list(MANY_REFUSALS)
        server.accept(trainer.url, finished="complete")
        trainer.wait_for_post("finished")
        server.accept_and_hold(trainer, running="complete", stubborn="swallow_cancellation")
        server.drain()
        server.signal(signal.SIGINT)
        server.exit_code()
        trainer.result_faults.clear()
        trainer.release_chats()
        server.start()
        assert outcome_of(trainer.result("finished")) == ("COMPLETED", "success", True)
        for name in ("running", "stubborn"):
            assert outcome_of(trainer.result(name)) == ("ERROR", "interrupted", False)
        assert all(len(set(trainer.bodies(name))) == 1 for name in ("finished", "running", "stubborn"))


@pytest.mark.slow
def test_a_trainer_that_goes_away_gets_its_results_when_it_returns(tmp_path: Path) -> None:
    with FaultyTrainer() as trainer, ServerProcess(tmp_path / "journal.db") as server:
        trainer.result_faults["early"] = list(MANY_REFUSALS)
        server.accept(trainer.url, early="complete")
        trainer.wait_for_post("early")
        trainer.go_away()
        server.drain()
        assert server.exit_code() == 0
        assert states_in(server.journal) == {"finished": 1}
        server.start()
        trainer.result_faults.clear()
        trainer.come_back()
        assert outcome_of(trainer.result("early")) == ("COMPLETED", "success", True)
        assert len(set(trainer.bodies("early"))) == 1


@pytest.mark.slow
class TestTwoServers:
    """On one journal."""

    @pytest.fixture(scope="class")
    @classmethod
    def servers(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
        journal = tmp_path_factory.mktemp("two") / "journal.db"
        with ServerProcess(journal) as one, ServerProcess(journal) as other:
            yield one, other

    def test_inits_that_race_to_both_start_one_rollout_each(self, servers: tuple[ServerProcess, ServerProcess]) -> None:
        names = [f"racing-{number}" for number in range(40)]
        with FaultyTrainer() as trainer:
            with ThreadPoolExecutor(8) as pool:
                answers = [pool.submit(server.init, name, trainer.url) for name in names for server in servers]
                assert {answer.result().status_code for answer in answers} == {202}
            for name in names:
                trainer.result(name)
            assert [len(trainer.chats(name)) for name in names] == [1] * len(names)
            assert [len(trainer.bodies(name)) for name in names] == [1] * len(names)

    def test_each_answers_for_the_other_and_runs_its_own(self, servers: tuple[ServerProcess, ServerProcess]) -> None:
        one, other = servers
        with FaultyTrainer() as trainer:
            trainer.hold_chats()
            one.accept(trainer.url, first="complete")
            other.accept(trainer.url, second="complete")
            trainer.wait_for_chat("first", "second")
            assert other.init("first", trainer.url).json() == one.init("first", trainer.url).json()
            assert other.init("first", trainer.url, "fail").status_code == 409
            assert other.state("first") == "accepted"
            one.kill()
            one.start()
            assert outcome_of(trainer.result("first")) == ("ERROR", "interrupted", False)
            assert other.init("first", trainer.url).status_code == 202
            trainer.release_chats()
            assert outcome_of(trainer.result("second")) == ("COMPLETED", "success", True)
            other.wait_for_state("second", "delivered")
            assert [len(trainer.chats(name)) for name in ("first", "second")] == [1, 1]
            assert [len(trainer.bodies(name)) for name in ("first", "second")] == [1, 1]


@pytest.mark.slow
def test_a_full_disk_refuses_inits_and_loses_nothing(tmp_path: Path) -> None:
    with FaultyTrainer() as trainer, ServerProcess(tmp_path / "journal.db") as server:
        server.accept_and_hold(trainer, early="complete", cut_off="hang")
        server.limit_file_size(1)
        refused = server.init("late", trainer.url)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.json()["code"] == "journal_unavailable"
        trainer.release_chats()
        server.wait_while("early", "running")
        assert server.client.get("/health").status_code == 200
        assert trainer.bodies("early") == []
        server.limit_file_size(resource.RLIM_INFINITY)
        assert outcome_of(trainer.result("early")) == ("COMPLETED", "success", True)
        server.wait_for_state("early", "delivered")
        server.accept(trainer.url, late="complete")
        assert outcome_of(trainer.result("late")) == ("COMPLETED", "success", True)
        server.kill()
        server.start()
        assert outcome_of(trainer.result("cut_off")) == ("ERROR", "interrupted", False)
        assert [len(set(trainer.bodies(name))) for name in ("early", "late", "cut_off")] == [1, 1, 1]


def _corrupt(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE a (b)")
        database.executemany("INSERT INTO a VALUES (?)", [("x" * 1000,)] * 100)
        database.execute("PRAGMA application_id = 0x6F736A6C")
        database.execute("PRAGMA user_version = 1")
        database.commit()
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    path.write_bytes(content)


def _foreign(path: Path) -> None:
    path.write_text("dear diary\n" * 1000)


def _unwritable(path: Path) -> None:
    path.mkdir()


@pytest.mark.slow
def test_a_journal_that_cannot_be_used_is_one_sentence_at_startup(tmp_path: Path) -> None:
    bad: list[Callable[[Path], None]] = [_corrupt, _foreign, _unwritable]
    processes = []
    for spoil in bad:
        path = tmp_path / spoil.__name__
        spoil(path)
        environment_ = environment({})
        processes.append(start_serving(path, "--port", "0", environment=environment_, stderr=subprocess.PIPE))
    for spoil, process in zip(bad, processes, strict=True):
        _, complaint = process.communicate(timeout=120)
        lines = complaint.decode().splitlines()
        assert process.returncode == 1
        assert len(lines) == 1, lines
        assert lines[0].startswith("Error: ")
        assert spoil.__name__ in lines[0]


def states_in(journal: Path) -> dict[str, int]:
    """How many rollouts the journal has in each state."""
    with closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT state, count(*) FROM rollouts GROUP BY state"))
