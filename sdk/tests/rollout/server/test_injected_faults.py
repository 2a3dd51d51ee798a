"""What a trainer and an agent can do to a server that lives, and what comes of it: outcome, transcript, one result."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.faulty_trainer import Fault, FaultyTrainer
from support.live_server import LiveServer
from support.plain_http import PLAIN
from support.process_fixtures import trainer
from support.promise_agent import agent_loop
from support.rollouts import ScriptedAgent, until
from support.server_process import init_of

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.settings import RolloutClientSettings, RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.app import create_app

__all__ = ["trainer"]

INIT = "/v1/rollout/init"
DEADLINE_SECONDS = 60.0
RUN_LIMIT_SECONDS = 3.0


def quick_settings(journal: Path, **server: Any) -> RolloutSettings:
    """Short waits and small limits; the limit of a run is below what a setting may be."""
    limits = RolloutServerSettings(
        journal=str(journal), drain_seconds=0, flush_seconds=1, tool_turn_timeout_seconds=0.5, **server
    )
    return RolloutSettings(
        client=RolloutClientSettings(timeout_seconds=1, max_retries=1, retry_base_delay=0.1, retry_max_delay=1),
        server=limits.model_copy(update={"request_timeout_seconds": RUN_LIMIT_SECONDS}),
    )


@dataclass(frozen=True)
class Case:
    """A fault, by agent or chat call, and how its rollout must end."""

    name: str
    outcome: str
    says: str
    do: str = "chat_again"
    chat_faults: Sequence[Fault | int] = field(default_factory=list)
    roles: Sequence[str] = ("user", "assistant", "user")


FIRST_REPLY = ("user", "assistant")
CASES = [
    Case("chat-429", "llm_error", "HTTP 429", chat_faults=[200, 429, 429]),
    Case("chat-500", "llm_error", "HTTP 500", chat_faults=[200, 500, 500]),
    Case("chat-dropped", "llm_error", "OsmosisTransportError", chat_faults=[200, *[Fault.DROP] * 9]),
    Case("chat-half", "llm_error", "OsmosisTransportError", chat_faults=[200, *[Fault.HALF] * 9]),
    Case("chat-hangs", "llm_error", "OsmosisTimeoutError", chat_faults=[200, Fault.HANG, Fault.HANG]),
    Case("chat-bad-json", "llm_error", "OsmosisReplyError", chat_faults=[200, Fault.GARBAGE, Fault.GARBAGE]),
    Case("chat-400", "llm_error", "HTTP 400", chat_faults=[200, 400]),
    Case("first-chat-400", "llm_error", "HTTP 400", chat_faults=[400], roles=["user"]),
    Case("chat-404", "llm_error", "no longer knows the rollout", chat_faults=[200, 404]),
    Case("nan-reward", "invalid_result", "reward must be a finite number", "give_nan_reward", roles=FIRST_REPLY),
    Case("reward-raises", "reward_error", "ZeroDivisionError", "fail_in_reward", roles=FIRST_REPLY),
    Case("agent-raises", "agent_error", "a mistake in the agent", "fail", roles=FIRST_REPLY),
    Case("agent-exits", "agent_error", "SystemExit", "exit_process", roles=FIRST_REPLY),
    Case("tool-hangs", "timeout", "tool turn exceeded its time limit", "hang", roles=FIRST_REPLY),
    Case("deadline", "timeout", "exceeded its time limit of 3 s", "keep_calling", roles=FIRST_REPLY),
    Case("oversize", "invalid_result", "exceed the limit", "give_too_much", roles=(*FIRST_REPLY, "assistant")),
]


class TestFaultsOfARollout:
    """All at once on one server; each ends alone."""

    @pytest.fixture(scope="class")
    @classmethod
    def trainer(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyTrainer]:
        folder = tmp_path_factory.mktemp("faults")
        app = create_app(agent_loop, settings=quick_settings(folder / "journal.db", max_result_bytes=50_000))
        with FaultyTrainer() as trainer, LiveServer(app) as server:
            for case in CASES:
                trainer.chat_faults[case.name] = list(case.chat_faults)
                response = httpx.post(f"{server.url}{INIT}", json=init_of(case.name, trainer.url, case.do), **PLAIN)
                assert response.status_code == 202
            yield trainer

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_arrives_with_its_outcome_what_ran_and_no_reward(self, trainer: FaultyTrainer, case: Case) -> None:
        result = trainer.result(case.name)
        assert (result["status"], result["extra_fields"]["outcome"]) == ("ERROR", case.outcome)
        assert case.says in result["error_message"]
        assert "reward" not in result
        roles = [message["role"] for message in result["final_messages"]]
        assert roles[: len(case.roles)] == list(case.roles)
        assert len(roles) == len(case.roles) or case.do == "keep_calling"
        assert len(trainer.bodies(case.name)) == 1


class TestFaultsOfADelivery:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
        journal = tmp_path_factory.mktemp("delivery") / "journal.db"
        with LiveServer(create_app(agent_loop, settings=quick_settings(journal))) as server:
            yield server

    @pytest.mark.parametrize(
        "fault", [408, 425, 429, 500, 503, Fault.DROP, Fault.HALF, Fault.HANG, Fault.KEEP_AND_DROP], ids=str
    )
    def test_the_same_bytes_come_again(self, server: LiveServer, trainer: FaultyTrainer, fault: Fault | int) -> None:
        name = f"fault-{fault}"
        trainer.result_faults[name] = [fault]
        httpx.post(f"{server.url}{INIT}", json=init_of(name, trainer.url), **PLAIN)
        trainer.wait_for_post(name, times=2)
        assert len(set(trainer.bodies(name))) == 1  # where the machine is busy a third may follow
        assert trainer.result(name)["reward"] == 1.0

    @pytest.mark.slow
    @pytest.mark.parametrize("status", [401, 404, 409])
    async def test_a_result_that_is_refused_for_good_is_kept_and_not_downgraded(
        self, server: LiveServer, trainer: FaultyTrainer, status: int
    ) -> None:
        name = f"refused-{status}"
        trainer.result_faults[name] = [status]
        async with httpx.AsyncClient(base_url=server.url, **PLAIN) as client:
            await client.post(INIT, json=init_of(name, trainer.url))
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (kept := (await client.get(f"/v1/rollout/{name}")).json())["state"] != "undeliverable":
                    pass
        assert (kept["result"]["status"], kept["result"]["outcome"]) == ("COMPLETED", "success")
        assert (kept["result"]["reward"], kept["delivery_attempts"]) == (1.0, 1)
        assert len(trainer.bodies(name)) == 1

    @pytest.mark.slow
    def test_a_trainer_that_returns_gets_what_it_missed(self, server: LiveServer, trainer: FaultyTrainer) -> None:
        names = [f"missed-{number}" for number in range(20)]
        for name in names:
            trainer.result_faults[name] = [503, 503, 503, 503]
            httpx.post(f"{server.url}{INIT}", json=init_of(name, trainer.url), **PLAIN)
        trainer.wait_for_post(*names)
        trainer.go_away()
        trainer.come_back()
        for name in names:
            assert trainer.result(name)["status"] == "COMPLETED"
            assert len(set(trainer.bodies(name))) == 1

    @pytest.mark.slow
    def test_a_trainer_that_fails_now_and_then_gets_everything_once(
        self, tmp_path: Path, trainer: FaultyTrainer
    ) -> None:
        settings = quick_settings(tmp_path / "journal.db")
        settings.client.timeout_seconds = settings.server.request_timeout_seconds = DEADLINE_SECONDS
        names = [f"now-and-then-{number}" for number in range(60)]
        for number, name in enumerate(names):
            trainer.chat_faults[name] = [503] if number % 3 == 0 else []
            trainer.result_faults[name] = [503] if number % 4 == 0 else []
        with LiveServer(create_app(agent_loop, settings=settings)) as server:
            with ThreadPoolExecutor(8) as pool:
                bodies = [init_of(name, trainer.url) for name in names]
                list(pool.map(lambda body: httpx.post(f"{server.url}{INIT}", json=body, **PLAIN), bodies))
            assert all(trainer.result(name)["extra_fields"]["outcome"] == "success" for name in names)
        assert [len(trainer.bodies(name)) for name in names] == [2 if n % 4 == 0 else 1 for n in range(60)]


class TestAdmission:
    @pytest.mark.slow
    async def test_what_fits_is_accepted_and_the_rest_is_refused_and_comes_in_later(
        self, tmp_path: Path, trainer: FaultyTrainer
    ) -> None:
        settings = quick_settings(tmp_path / "journal.db", max_concurrent_rollouts=2, max_queued_rollouts=10)
        settings.client.timeout_seconds = settings.server.request_timeout_seconds = DEADLINE_SECONDS
        names = [f"rollout-{number}" for number in range(300)]
        limits = httpx.Limits(max_connections=None, keepalive_expiry=1)
        trainer.hold_chats()
        with LiveServer(create_app(agent_loop, settings=settings)) as server:
            options = {"limits": limits, **PLAIN}
            async with httpx.AsyncClient(base_url=server.url, **options) as client:
                answers = await asyncio.gather(*(client.post(INIT, json=init_of(name, trainer.url)) for name in names))
                codes = [answer.status_code for answer in answers]
                assert (codes.count(202), codes.count(429)) == (12, 288)
                refused = [name for name, code in zip(names, codes, strict=True) if code == 429]
                assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status_code == 429)
                assert (await client.get("/health")).json()["active_rollouts"] == 12
                assert (await client.get(f"/v1/rollout/{refused[0]}")).status_code == 404
                trainer.release_chats()
                waiting = asyncio.Queue[str]()
                for name in refused:
                    waiting.put_nowait(name)
                await asyncio.gather(*(_send_all(client, waiting, trainer.url) for _ in range(2)))
                await asyncio.to_thread(lambda: [trainer.result(name) for name in names])
        assert trainer.kept() == set(names)
        assert all(len(trainer.chats(name)) == len(trainer.bodies(name)) == 1 for name in names)


async def test_health_answers_while_twenty_tools_sleep_in_threads(tmp_path: Path, trainer: FaultyTrainer) -> None:
    asleep, wake = threading.Semaphore(0), threading.Event()

    def tool() -> None:
        asleep.release()
        wake.wait(DEADLINE_SECONDS)

    async def sleep(ctx: RolloutContext) -> Any:
        await asyncio.to_thread(tool)
        return ctx.complete(list(ctx.request.messages))

    settings = quick_settings(tmp_path / "journal.db")
    settings.server.tool_turn_timeout_seconds = settings.server.request_timeout_seconds = DEADLINE_SECONDS
    names = [f"rollout-{number}" for number in range(20)]
    with LiveServer(create_app(ScriptedAgent(sleep), settings=settings)) as server:
        async with httpx.AsyncClient(base_url=server.url, **PLAIN) as client:
            for name in names:
                await client.post(INIT, json=init_of(name, trainer.url))
            for _ in names:
                await until(lambda: asleep.acquire(blocking=False))
            for _ in range(20):
                health = await client.get("/health")
                assert (health.status_code, health.json()["active_rollouts"]) == (200, 20)
            assert not wake.is_set()
            wake.set()
            await asyncio.to_thread(lambda: [trainer.result(name) for name in names])


async def _send_all(client: httpx.AsyncClient, waiting: "asyncio.Queue[str]", trainer_url: str) -> None:
    """A client that comes again when it was told to."""
    while not waiting.empty():
        name = waiting.get_nowait()
        response = await client.post(INIT, json=init_of(name, trainer_url))
        if response.status_code == 429:
            waiting.put_nowait(name)
            await asyncio.sleep(float(response.headers["Retry-After"]))
        else:
            assert response.status_code == 202
