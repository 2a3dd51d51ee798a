"""The client of the published 0.3, unmodified, against `osmosis serve`: what it would lose elsewhere, it gets here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.published_client import published_client, published_python
from support.server_process import ServerProcess

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.trainer import RolloutOutcome, Trainer, TrainerLimits
from osmosis_ai.rollout.trainer.vocabulary import ChatCall, Ending

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.xdist_group("published")]

IN_FLIGHT = 20


@pytest.fixture(scope="module")
def python() -> str:
    found = published_python()
    if found is None:
        pytest.skip("The published osmosis-ai 0.3 needs Python 3.12 and PyPI, and one of them is not here.")
    return found


def start_of(rollout_id: str, trainer: FakeTrainer, do: str = "complete", **fields: Any) -> dict[str, Any]:
    return {
        "rollout_id": rollout_id,
        "initial_messages": [{"role": "user", "content": f"This is {rollout_id}."}],
        "chat_completions_url": f"{trainer.url}/v1",
        "llm_api_key": "key of the policy",
        "metadata": {"do": do},
        **fields,
    }


def is_success_of(result: dict[str, Any], rollout_id: str) -> bool:
    said = [message["content"] for message in result["sample"]["messages"]]
    return (
        (result["rollout_id"], result["status"], result["sample"]["reward"]) == (rollout_id, "success", 1.0)
        and said == [f"This is {rollout_id}.", "#### 4"]
        and result["err_category"] is None
    )


async def test_every_end_and_every_retry(python: str, trainer: FakeTrainer, tmp_path: Path) -> None:
    settings = {"SERVER_POLL_LEASE_SECONDS": "2", "SERVER_POLL_WAIT_SECONDS": "1"}
    with ServerProcess(tmp_path / "journal.db", settings) as server:
        async with published_client(python, server.url) as client:
            ends = {
                "complete": client.begin("run", **start_of("done", trainer, label="4")),
                "fail": client.begin("run", **start_of("failed", trainer, "fail")),
                "fail_in_reward": client.begin("run", **start_of("ungraded", trainer, "fail_in_reward")),
                "late": client.begin("run", **start_of("late", trainer, "hang", agent_timeout_sec=0.5)),
                "hang": client.begin("run", **start_of("cancelled", trainer, "hang")),
                "left": client.begin("start", **start_of("left", trainer, "hang")),
                "ungraded": client.begin("run", **start_of("no reward", trainer, grade=False)),
            }
            await asyncio.to_thread(server.wait_for_line, "cancelled does hang")
            assert (await client.begin("cancel", rollout_id="cancelled"))["dispositions"] == {
                "cancelled": "cancelled_running"
            }
            (left,) = (await ends.pop("left"))["tokens"]
            results = dict(zip(ends, await asyncio.gather(*ends.values()), strict=True))
            assert {do: (each["status"], each["err_category"]) for do, each in results.items()} == {
                "complete": ("success", None),
                "fail": ("failure", "agent_error"),
                "fail_in_reward": ("failure", "validation_error"),
                "late": ("failure", "timeout"),
                "hang": ("cancelled", None),
                "ungraded": ("success", None),
            }
            assert (results["complete"]["sample"]["label"], results["ungraded"]["sample"]["reward"]) == ("4", None)
            again = await client.begin("run", **start_of("done", trainer, label="4"))
            first, second = again.pop("tokens")
            assert first == second, "an identical start has the same lease"
            assert again == {name: value for name, value in results["complete"].items() if name != "tokens"}
            assert "409" in (await client.begin("run", **start_of("done", trainer, label="5")))["error"]

            await asyncio.to_thread(server.wait_for_state, "left", "finished")  # as its lease has expired
            expired = await client.begin("run", **start_of("left", trainer, "hang"))
            assert (expired["err_category"], set(expired["tokens"])) == ("lease_expired", {left})
            idle = await client.begin("idle")
            assert idle["lifecycle"] == {"accepting_rollouts": True, "active_rollouts": 0}
    assert {call.authorization for call in trainer.calls} == {"Bearer key of the policy"}


async def test_both_generations_at_once_on_one_journal(python: str, trainer: FakeTrainer, tmp_path: Path) -> None:
    """200 of each under the same ids, by two workers: every result at its own trainer, and no row mixed."""
    count = 200

    async def reply(call: ChatCall) -> CompletionsResult:
        return CompletionsResult({"role": "assistant", "content": "#### 5"}, [], [], {}, "stop")

    outcomes: list[RolloutOutcome] = []
    with ServerProcess(tmp_path / "journal.db", None, "--workers", "2") as server:
        limits = TrainerLimits(concurrency=64)
        async with (
            published_client(python, server.url) as client,
            Trainer(reply, server_url=server.url, limits=limits) as ours,
        ):
            requests = [
                RolloutRequest(
                    rollout_id=f"rollout-{number}",
                    server_url=server.url,
                    messages=[{"role": "user", "content": f"{number} for 0.2"}],
                    completion_params={},
                )
                for number in range(count)
            ]
            results = [client.begin("run", **start_of(f"rollout-{n}", trainer)) for n in range(count)]
            assert await ours.run(requests, outcomes.append) is None
            fetched = await asyncio.gather(*results)
            assert (ours.contradictions, ours.late_results) == (0, 0)
        states = server.client.get("/v1/rollout/rollout-0").json()
    assert [n for n in range(count) if not is_success_of(fetched[n], f"rollout-{n}")] == []
    assert {outcome.outcome for outcome in outcomes} == {Ending.COMPLETED}
    said = {
        outcome.request.rollout_id: [message["content"] for message in outcome.result.final_messages]
        for outcome in outcomes
        if outcome.result is not None
    }
    assert said == {f"rollout-{n}": [f"{n} for 0.2", "#### 5"] for n in range(count)}
    assert states["state"] == "delivered"


async def test_four_hundred_of_four_hundred(python: str, trainer: FakeTrainer, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "journal.db", None, "--workers", "2") as server:
        async with published_client(python, server.url) as client:
            results = await asyncio.gather(
                *(client.begin("run", **start_of(f"rollout-{n}", trainer)) for n in range(400))
            )
    assert [result for n, result in enumerate(results) if not is_success_of(result, f"rollout-{n}")] == []


async def test_after_kill_9_the_same_start_gets_the_result(python: str, trainer: FakeTrainer, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "journal.db") as server:
        async with published_client(python, server.url) as client:
            await client.begin("start", **start_of("ended", trainer))
            await asyncio.to_thread(server.wait_for_state, "ended", "finished")
            await client.begin("start", **start_of("cut off", trainer, "hang"))
            await asyncio.to_thread(server.wait_for_line, "cut off does hang")
            server.kill()
            await asyncio.to_thread(server.start)
            ended = await client.begin("run", **start_of("ended", trainer))
            assert is_success_of(ended, "ended")
            assert len(set(ended["tokens"])) == 1
            cut_off = await client.begin("run", **start_of("cut off", trainer, "hang"))
            assert (cut_off["status"], cut_off["err_category"]) == ("failure", "internal_error")
            server.kill()  # fetched, and there all the same
            await asyncio.to_thread(server.start)
            assert {**await client.begin("run", **start_of("ended", trainer)), "tokens": ended["tokens"]} == ended


class Front:
    """A load balancer: new connections go to ``port``."""

    def __init__(self, port: int) -> None:
        self.port = port

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        tasks: set[asyncio.Task[None]] = set()

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            except ConnectionError:
                pass
            finally:
                writer.close()

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            for ends in ((reader, back), (there, writer)):
                task = asyncio.create_task(copy(*ends))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for task in tasks:
                task.cancel()


async def test_a_rolling_restart_loses_none_of_those_in_flight(
    python: str, trainer: FakeTrainer, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.db"
    settings = {"SERVER_POLL_WAIT_SECONDS": "2"}
    trainer.hold_chats()
    with ServerProcess(journal, settings) as old, ServerProcess(journal, settings) as new:
        front = Front(int(old.url.rpartition(":")[2]))
        async with front.serving() as url, published_client(python, url) as client:
            results: list[asyncio.Future[dict[str, Any]]] = [
                client.begin("run", **start_of(f"rollout-{n}", trainer)) for n in range(IN_FLIGHT)
            ]
            await trainer.calls_to(IN_FLIGHT)
            front.port = int(new.url.rpartition(":")[2])
            await asyncio.to_thread(old.drain)
            async with published_client(python, url) as another:
                after = another.begin("run", **start_of("after", trainer))
                await trainer.calls_to(IN_FLIGHT + 1)
                trainer.release_chats()
                ended = await asyncio.gather(*results)
                assert [each for n, each in enumerate(ended) if not is_success_of(each, f"rollout-{n}")] == []
                assert is_success_of(await after, "after")
            assert await asyncio.to_thread(old.exit_code) == 0
