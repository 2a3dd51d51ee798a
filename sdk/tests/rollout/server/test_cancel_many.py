"""``POST /v1/rollout/cancel``: by ids, by prefix, all; in whichever worker a rollout runs."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.faulty_trainer import FaultyTrainer
from support.plain_http import PLAIN
from support.process_fixtures import trainer
from support.server_process import ServerProcess, init_of

from osmosis_ai.rollout.server import relay
from osmosis_ai.rollout.server.relay import Meant, Relay

__all__ = ["trainer"]

CANCEL = "/v1/rollout/cancel"
WRONG: list[object] = [
    {},
    {"ids": ["a"], "all": True},
    {"prefix": ""},
    {"all": False},
    {"ids": "goes_on"},
    {"rollout_ids": ["goes_on"]},
    [],
    None,
]


@pytest.fixture(scope="module")
def lone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("lone") / "journal.db") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("meant", "cancelled"),
    [
        ({"ids": ["a-old-1", "a-new-2", "nobody"]}, ["a-new-2", "a-old-1"]),
        ({"prefix": "b-old-"}, ["b-old-0", "b-old-1", "b-old-2"]),
        ({"all": True}, [f"c-{step}-{number}" for step in ("new", "old") for number in range(3)]),
        ({"ids": ["e-new-0"], "of_a_later_version": True}, ["e-new-0"]),
        ({"ids": []}, []),
    ],
)
def test_those_meant_end_as_cancelled_and_the_others_go_on(
    lone_server: ServerProcess, trainer: FaultyTrainer, meant: dict[str, Any], cancelled: list[str]
) -> None:
    trainer.hold_chats()
    group = cancelled[0][0] if cancelled else "d"
    names = [f"{group}-{step}-{number}" for step in ("new", "old") for number in range(3)]
    lone_server.accept(trainer.url, **dict.fromkeys(names, "hang"))
    response = lone_server.client.post(CANCEL, json=meant)
    assert (response.status_code, response.json()) == (202, {"cancelling": len(cancelled)})
    for name in cancelled:
        lone_server.wait_for_state(name, "delivered")
        assert trainer.result(name)["finish_reason"] == "cancelled"
    rest = [name for name in names if name not in cancelled]
    assert {lone_server.state(name) for name in rest} <= {"running"}
    assert lone_server.client.post(CANCEL, json={"prefix": f"{group}-"}).json() == {"cancelling": len(rest)}


@pytest.mark.slow
def test_a_body_that_does_not_say_one_thing_is_refused_and_cancels_nothing(
    lone_server: ServerProcess, trainer: FaultyTrainer
) -> None:
    trainer.hold_chats()
    lone_server.accept(trainer.url, goes_on="hang")
    for body in WRONG:
        assert lone_server.client.post(CANCEL, json=body).status_code == 422, body
    assert lone_server.state("goes_on") == "running"
    assert lone_server.client.post(CANCEL, json={"prefix": "goes_on"}).json() == {"cancelling": 1}


@pytest.mark.slow
def test_one_cancel_ends_each_rollout_of_its_id_which_may_be_cancel(
    lone_server: ServerProcess, trainer: FaultyTrainer
) -> None:
    trainer.hold_chats()
    for key in ("one", "two"):
        assert lone_server.init("cancel", trainer.url, "hang", idempotency_key=key).status_code == 202
    assert lone_server.client.post("/v1/rollout/cancel/cancel").status_code == 202
    trainer.wait_for_post("cancel", times=2)
    lone_server.wait_for_state("cancel", "delivered")
    assert trainer.result("cancel")["finish_reason"] == "cancelled"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("workers") / "journal.db", {}, "--workers", "3") as server:
        yield server


class TestWorkers:
    def start(self, server: ServerProcess, trainer: FaultyTrainer, *names: str) -> None:
        """Each over a connection of its own, so that all workers get some."""
        trainer.hold_chats()

        def init(name: str) -> int:
            body = init_of(name, trainer.url, "hang")
            return httpx.post(f"{server.url}/v1/rollout/init", json=body, **PLAIN).status_code

        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(init, names)) == {202}

    @pytest.mark.slow
    def test_any_worker_cancels_what_runs_in_another(self, server: ServerProcess, trainer: FaultyTrainer) -> None:
        names = [f"w-{number}" for number in range(60)]
        self.start(server, trainer, *names)
        assert server.client.post(f"/v1/rollout/{names[0]}/cancel").status_code == 202
        assert server.client.post(CANCEL, json={"prefix": "w-"}).json() == {"cancelling": 59}
        for name in names:
            server.wait_for_state(name, "delivered")
            assert trainer.result(name)["finish_reason"] == "cancelled"

    @pytest.mark.slow
    def test_a_worker_that_was_started_anew_is_reached_too(self, server: ServerProcess, trainer: FaultyTrainer) -> None:
        before = {int(s) for s in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()}
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        names = [f"x-{number}" for number in range(40)]
        while not server.is_ready():
            pass
        self.start(server, trainer, *names)
        assert server.client.post(CANCEL, json={"ids": names}).json() == {"cancelling": 40}


class TestRelay:
    async def test_a_worker_that_is_not_there_or_does_not_answer_is_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(relay, "REPLY_SECONDS", 0.05)

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with (
            await asyncio.start_unix_server(say_nothing, tmp_path / "1"),
            Relay(tmp_path, 4, 3).listening(lambda meant: ["a", "b"]),
        ):
            assert await Relay(tmp_path, 4, 0).ask_others(Meant(all=True)) == ["a", "b"]
        assert sorted(record.getMessage() for record in caplog.records) == [
            "Worker 1 was not reached to cancel rollouts: TimeoutError.",
            "Worker 2 was not reached to cancel rollouts: FileNotFoundError.",
        ]

    async def test_what_is_meant_arrives_as_it_was(self, tmp_path: Path) -> None:
        arrived: list[Meant] = []

        def note(meant: Meant) -> list[str]:
            arrived.append(meant)
            return sorted(meant.ids)

        ids = frozenset(f"{number:0200}\n" for number in range(1000))
        async with Relay(tmp_path, 2, 0).listening(note):
            other = Relay(tmp_path, 2, 1)
            assert await other.ask_others(Meant(ids)) == sorted(ids)
            await other.ask_others(Meant(prefix="ü\ud800", pulled=True))
        assert arrived == [Meant(ids), Meant(prefix="ü\ud800", pulled=True)]
