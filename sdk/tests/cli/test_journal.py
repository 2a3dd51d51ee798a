"""`osmosis journal` on files as servers leave them, with servers alive and dead, and real trainers."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.faulty_trainer import Fault, FaultyTrainer
from support.journal import TestClock, other_process
from support.process_fixtures import trainer
from support.server_process import ServerProcess

from osmosis_ai.cli import main
from osmosis_ai.rollout.journal import Acceptance, JournalRecord, Payload, RolloutState, SqliteJournal

__all__ = ["trainer"]

SECRET = "the-callback-secret"
NO_TRAINER = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    exit_code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def journal(working_directory: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``osmosis journal`` in an empty directory."""

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        exit_code = main(["journal", *arguments])
        return Ended(exit_code, *capsys.readouterr())

    return run


def result_of(rollout_id: str) -> bytes:
    return json.dumps(
        {
            "rollout_id": rollout_id,
            "status": "COMPLETED",
            "final_messages": [{"role": "assistant", "content": "grüße \x1b[2J"}],
            "finish_reason": "stop",
            "reward": 0.1,
            "extra_fields": {"outcome": "success"},
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def write(path: Path, url: str = NO_TRAINER, **rollouts: RolloutState) -> Path:
    """A journal with a rollout of each name in that state, oldest first, whose server is gone."""

    async def fill() -> None:
        async with SqliteJournal(path, clock=TestClock(1_700_000_000.0)) as opened:
            for name, state in rollouts.items():
                acceptance = Acceptance(f"id:{name}", name, "print", url, SECRET, b"{}", b'{"messages": []}')
                await opened.accept(acceptance)
                if state is not RolloutState.ACCEPTED:
                    await opened.finish(f"id:{name}", result_of(name))
                if state in (RolloutState.DELIVERED, RolloutState.UNDELIVERABLE):
                    refusal = "HTTP 400" if state is RolloutState.UNDELIVERABLE else None
                    await opened.settle(f"id:{name}", state, attempts=1, error=refusal)

    asyncio.run(fill())
    return path


def read(path: Path) -> dict[str, JournalRecord]:
    async def records() -> list[JournalRecord]:
        async with SqliteJournal(path, create=False) as opened:
            return await opened.records()

    return {record.rollout_id: record for record in asyncio.run(records())}


def recorded(path: Path, key: str) -> bytes | None:
    async def load() -> bytes | None:
        async with SqliteJournal(path, create=False) as opened:
            return await opened.load(key, Payload.RESULT)

    return asyncio.run(load())


ONE_OF_EACH: dict[str, RolloutState] = {
    "a": RolloutState.ACCEPTED,
    "f": RolloutState.FINISHED,
    "d": RolloutState.DELIVERED,
    "u": RolloutState.UNDELIVERABLE,
}


class TestWhere:
    def test_it_looks_where_a_server_writes(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        assert "1 accepted, 1 finished, 1 delivered, 1 undeliverable" in journal("list").out

    def test_the_environment_names_another_and_the_option_wins(
        self, journal: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(Path("one.db"), one=RolloutState.DELIVERED)
        write(Path("two.db"), two=RolloutState.DELIVERED)
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_JOURNAL", "one.db")
        assert "one" in journal("list").out
        assert "two" in journal("list", "--journal", "two.db").out

    def test_one_that_is_switched_off_is_one_sentence(self, journal: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_JOURNAL", "off")
        ended = journal("list")
        assert (ended.exit_code, ended.err.count("\n")) == (2, 1)
        assert "--journal" in ended.err

    @pytest.mark.parametrize("command", [["list"], ["show", "x"], ["redeliver", "x"], ["purge", "x"]])
    @pytest.mark.parametrize("spoil", [None, b"", b"dear diary\n" * 1000], ids=["absent", "empty", "foreign"])
    def test_one_that_is_no_journal_is_one_sentence_and_stays_as_it_is(
        self, journal: Command, command: list[str], spoil: bytes | None
    ) -> None:
        path = Path("x.db")
        if spoil is not None:
            path.write_bytes(spoil)
        ended = journal(*command, "--journal", "x.db")
        assert (ended.exit_code, ended.out, ended.err.count("\n")) == (1 if spoil else 2, "", 1)
        assert ended.err.startswith("Error: ")
        assert "x.db" in ended.err
        assert (path.read_bytes() if path.exists() else None) == spoil


class TestList:
    def test_it_shows_the_newest_first_and_counts(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        heading, *rows, counts, oldest = journal("list").out.splitlines()
        assert [row.split()[0] for row in rows] == ["undeliverable", "delivered", "finished", "accepted"]
        assert rows[0].endswith("HTTP 400")
        assert [row.split()[1] for row in rows] == ["COMPLETED", "COMPLETED", "COMPLETED", "-"]
        assert heading.split()[:2] == ["STATE", "RESULT"]
        assert counts == "1 accepted, 1 finished, 1 delivered, 1 undeliverable"
        assert "2023" in oldest

    def test_ids_of_the_trainer_and_how_they_ended_fit_80_columns(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **{"trainer-0a1b2c3d-31-15": RolloutState.DELIVERED})
        assert max(map(len, journal("list").out.splitlines())) <= 80

    def test_states_and_pages_can_be_chosen(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        chosen = json.loads(journal("list", "--state", "delivered", "--state", "finished", "--json").out)
        assert [(record["rollout_id"], record["status"]) for record in chosen["results"]] == [
            ("d", "COMPLETED"),
            ("f", "COMPLETED"),
        ]
        page = json.loads(journal("list", "--limit", "1", "--offset", "1", "--json").out)
        assert [record["rollout_id"] for record in page["results"]] == ["d"]
        assert page["counts"] == {"accepted": 1, "finished": 1, "delivered": 1, "undeliverable": 1}

    def test_an_id_cannot_write_to_the_terminal(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **{"\x1b[2Jevil\nid": RolloutState.DELIVERED})
        out = journal("list").out
        assert "\x1b" not in out
        assert "evil id" in out

    def test_an_unknown_state_is_a_usage_error(self, journal: Command) -> None:
        with pytest.raises(SystemExit) as ended:
            journal("list", "--state", "lost")
        assert ended.value.code == 2


class TestShow:
    def test_it_tells_what_is_known(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        [shown] = json.loads(journal("show", "u", "--json").out)["results"]
        assert (shown["state"], shown["last_error"], shown["trainer"]) == ("undeliverable", "HTTP 400", NO_TRAINER)
        assert shown["result"] == json.loads(result_of("u"))
        out = journal("show", "u", "a").out
        assert "\x1b" not in out
        assert "grüße" in out
        assert "2023-" in out

    def test_a_key_does_as_well_as_an_id(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        assert journal("show", "id:d").out == journal("show", "d").out

    def test_an_unknown_rollout_is_one_sentence(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        ended = journal("show", "lost")
        assert (ended.exit_code, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert "'lost'" in ended.err


@pytest.mark.parametrize("command", [["list"], ["show", "a", "f", "d", "u"], ["redeliver", "u", "--timeout", "0"]])
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["plain", "json"])
def test_the_callback_key_is_never_shown(journal: Command, command: list[str], options: list[str]) -> None:
    path = write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
    assert read(path)["u"].api_key == SECRET
    ended = journal(*command, *options)
    assert SECRET not in ended.out + ended.err


class TestRedeliver:
    def test_the_same_bytes_go_to_the_trainer(self, journal: Command, trainer: FaultyTrainer) -> None:
        path = write(Path(".osmosis/journal.db"), trainer.url, **ONE_OF_EACH)
        ended = journal("redeliver", "u", "d")
        assert (ended.exit_code, ended.out) == (0, "2 delivered, 0 not taken\n")
        assert [json.loads(body) for body in trainer.bodies("u")] == [json.loads(result_of("u"))]
        assert len(trainer.bodies("d")) == 1
        assert {read(path)[name].state for name in ("u", "d")} == {RolloutState.DELIVERED}
        assert recorded(path, "id:u") == result_of("u")
        assert trainer.kept() == {"u", "d"}

    def test_all_in_a_state(self, journal: Command, trainer: FaultyTrainer) -> None:
        rollouts = {f"u{number}": RolloutState.UNDELIVERABLE for number in range(150)}
        path = write(Path(".osmosis/journal.db"), trainer.url, **rollouts, d=RolloutState.DELIVERED)
        ended = journal("redeliver", "--state", "undeliverable", "--json")
        assert {each["rollout_id"] for each in json.loads(ended.out)["results"]} == set(rollouts)
        assert trainer.kept() == set(rollouts)
        assert {record.state for record in read(path).values()} == {RolloutState.DELIVERED}

    def test_one_that_is_refused_again_keeps_its_state_and_tells_why(
        self, journal: Command, trainer: FaultyTrainer
    ) -> None:
        path = write(Path(".osmosis/journal.db"), trainer.url, **ONE_OF_EACH)
        trainer.result_faults["u"] = [422]
        trainer.result_faults["d"] = [400]
        ended = journal("redeliver", "u", "d")
        assert ended.exit_code == 1
        assert "u: OsmosisValidationError" in ended.out
        assert ended.out.endswith("0 delivered, 2 not taken\n")
        records = read(path)
        assert (records["u"].state, records["d"].state) == (RolloutState.UNDELIVERABLE, RolloutState.DELIVERED)
        assert "422" in str(records["u"].last_error)
        assert trainer.bodies("u") == [result_of("u")], "the same bytes, not fewer: it may have been acknowledged"

    def test_those_that_a_trainer_fetches_are_counted_and_left(self, journal: Command, trainer: FaultyTrainer) -> None:
        path = write(Path(".osmosis/journal.db"), trainer.url, u=RolloutState.UNDELIVERABLE)

        async def add() -> None:
            async with SqliteJournal(path) as opened:
                for name in ("p1", "p2"):
                    key = f"pull:{name}"
                    await opened.accept(Acceptance(key, name, "print", trainer.url, SECRET, b"{}", b"{}"))
                    await opened.finish(key, b"{}")
                    await opened.settle(key, RolloutState.UNDELIVERABLE, attempts=0)

        asyncio.run(add())
        ended = journal("redeliver", "--state", "undeliverable", "--json")
        assert (ended.exit_code, [each["rollout_id"] for each in json.loads(ended.out)["results"]]) == (0, ["u"])
        assert ended.err.startswith("2 results of 0.3 passed over, as trainers fetch those")
        ended = journal("redeliver", "p1")
        assert (ended.exit_code, ended.out) == (0, "0 delivered, 0 not taken\n")
        assert ended.err.startswith("1 result of 0.3 passed over")
        assert read(path)["p1"].state is RolloutState.UNDELIVERABLE
        assert trainer.kept() == {"u"}

    def test_it_retries_within_its_time(self, journal: Command, trainer: FaultyTrainer, no_waits: None) -> None:
        write(Path(".osmosis/journal.db"), trainer.url, **ONE_OF_EACH)
        trainer.result_faults["u"] = [503, Fault.DROP]
        assert journal("redeliver", "u").exit_code == 0
        assert len(trainer.bodies("u")) == 3

    def test_a_trainer_that_is_not_there_is_given_up(self, journal: Command) -> None:
        path = write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        ended = journal("redeliver", "u", "--timeout", "0")
        assert ended.exit_code == 1
        assert read(path)["u"].state is RolloutState.UNDELIVERABLE

    @pytest.mark.parametrize("arguments", [["a"], ["f"], [], ["--state", "finished"]], ids=str)
    def test_what_is_under_way_is_left_to_its_server(self, journal: Command, arguments: list[str]) -> None:
        path = write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        ended = journal("redeliver", *arguments)
        assert (ended.exit_code, ended.out, ended.err.count("\n")) == (1 if arguments else 2, "", 1)
        assert {name: record.state for name, record in read(path).items()} == ONE_OF_EACH

    @pytest.fixture
    def no_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_CLIENT_RETRY_BASE_DELAY", "0.1")


class TestPurge:
    def test_it_removes_what_is_settled(self, journal: Command) -> None:
        path = write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        assert journal("purge", "--state", "delivered", "u").out == "2 removed\n"
        assert read(path).keys() == {"a", "f"}

    @pytest.mark.parametrize("arguments", [["a"], ["--state", "finished"], ["d", "f"]], ids=str)
    def test_what_is_owed_to_a_trainer_needs_force(self, journal: Command, arguments: list[str]) -> None:
        path = write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        ended = journal("purge", *arguments)
        assert (ended.exit_code, ended.err.count("\n")) == (1, 1)
        assert "--force" in ended.err
        assert read(path).keys() == ONE_OF_EACH.keys()
        assert journal("purge", *arguments, "--force", "--json").exit_code == 0
        assert read(path).keys() < ONE_OF_EACH.keys()

    @pytest.mark.slow
    def test_what_a_server_works_on_stays_even_so(self, journal: Command) -> None:
        with other_process("hold", Path("held.db").resolve(), 3) as holder:
            assert holder.read_line() == "ready"
            ended = journal("purge", "--journal", "held.db", "--state", "accepted", "--force")
            assert (ended.exit_code, ended.out) == (0, "0 removed\n")

    def test_nothing_is_chosen_by_default(self, journal: Command) -> None:
        write(Path(".osmosis/journal.db"), **ONE_OF_EACH)
        assert "Nothing is chosen" in journal("purge").err


@pytest.mark.slow
def test_it_works_beside_a_server_that_runs(journal: Command, trainer: FaultyTrainer, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "journal.db") as server:
        options = ["--journal", str(server.journal)]
        trainer.result_faults["refused"] = [403]
        server.accept(trainer.url, refused="complete", running="hang")
        server.wait_for_state("refused", "undeliverable")
        trainer.wait_for_chat("running")
        states: dict[str, Any] = {
            record["rollout_id"]: record["state"]
            for record in json.loads(journal("list", "--json", *options).out)["results"]
        }
        assert states == {"refused": "undeliverable", "running": "accepted"}
        assert journal("redeliver", "refused", *options).out == "1 delivered, 0 not taken\n"
        first, second = trainer.bodies("refused")
        assert first == second
        assert server.state("refused") == "delivered"
        assert journal("purge", "running", "--force", *options).out == "0 removed\n"
        assert server.state("running") == "running"


class TestSalvage:
    def damaged(self, **rollouts: RolloutState) -> Path:
        path = write(Path("damaged.db"), **rollouts)
        with path.open("r+b") as file:
            file.write(b"\xff" * 100)
        return path

    @pytest.mark.slow
    def test_what_is_owed_comes_out_and_is_delivered_by_a_server(
        self, journal: Command, trainer: FaultyTrainer, working_directory: Path
    ) -> None:
        path = write(Path("damaged.db"), trainer.url, a=RolloutState.ACCEPTED, f=RolloutState.FINISHED)
        with path.open("r+b") as file:
            file.write(b"\xff" * 100)
        refused = journal("list", "--journal", str(path))
        assert refused.exit_code == 1
        assert f"osmosis journal salvage {path.resolve()} -o NEW" in refused.err
        ended = journal("salvage", str(path), "-o", "new.db")
        assert ended.exit_code == 0
        assert "In new.db: 1 accepted, 1 finished, 0 delivered, 0 undeliverable" in ended.out
        with ServerProcess(working_directory / "new.db"):
            assert trainer.result("f")["status"] == "COMPLETED"
            assert trainer.result("a")["extra_fields"]["outcome"] == "interrupted"

    def test_as_json(self, journal: Command) -> None:
        self.damaged(**ONE_OF_EACH)
        told = json.loads(journal("salvage", "damaged.db", "-o", "new.db", "--json").out)
        assert told["counts"] == dict.fromkeys(RolloutState, 1)
        assert told["lost_results"] == told["strays"] == []
        assert "secret" not in told

    def test_what_is_lost_is_named(self, journal: Command) -> None:
        path = write(Path("damaged.db"), f=RolloutState.FINISHED)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM results")
            connection.commit()
        ended = journal("salvage", "damaged.db", "-o", "new.db")
        assert ended.exit_code == 1
        assert "1 had a result that cannot be read, and are reported as interrupted: f" in ended.out
        assert SECRET not in ended.out

    def test_what_cannot_be_done_is_a_sentence(self, journal: Command) -> None:
        ended = journal("salvage", "absent.db", "-o", "new.db")
        assert (ended.exit_code, ended.out) == (2, "")
        assert "There is no journal at absent.db" in ended.err
