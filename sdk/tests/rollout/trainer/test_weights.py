import asyncio

import pytest
from support.scripted_server import QUESTION, Rollout, ScriptedServer

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.trainer import ChatCall, Ending, Trainer, TrainerLimits, weights


def request(name: str) -> RolloutRequest:
    return RolloutRequest(rollout_id=name, server_url="http://placeholder", messages=QUESTION, completion_params={})


class Policy:
    """Answers when it is let to."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self, call: ChatCall) -> CompletionsResult:
        self.versions.append(call.weights_version)
        self.asked.set()
        await self.answers.wait()
        return CompletionsResult(
            message={"role": "assistant", "content": "3"}, token_ids=[], logprobs=[], usage={}, finish_reason="stop"
        )


async def two_turns(rollout: Rollout) -> None:
    reply = await rollout.chat(QUESTION, "one")
    messages = [*QUESTION, reply.json()["choices"][0]["message"], {"role": "user", "content": "Sure?"}]
    reply = await rollout.chat(messages, "two")
    while reply.status_code == 503:
        assert reply.json()["code"] == "weights_update"
        assert reply.headers["retry-after"] == "0"
        reply = await rollout.chat(messages, "two")
    await rollout.complete(reward=1.0, final_messages=[*messages, reply.json()["choices"][0]["message"]])


async def test_an_update_waits_for_what_is_generated_and_all_else_waits_for_it() -> None:
    policy, events = Policy(), list[str]()
    async with ScriptedServer(two_turns) as server, Trainer(policy, server_url=server.url) as trainer:
        policy.answers.clear()
        running = asyncio.create_task(trainer.run_one(request("a")))
        await policy.asked.wait()

        async def update() -> None:
            async with trainer.weights_update():
                events.append(f"updating, {len(policy.versions)} calls")
                late = asyncio.create_task(trainer.run_one(request("b")))
                await asyncio.wait([late], timeout=0.3)  # both rollouts want to go on, and may not
                events.append(f"updated, {len(policy.versions)} calls")
            events.append(f"{(await late).weights_versions}")

        updating = asyncio.create_task(update())
        await asyncio.wait([updating], timeout=0.1)
        events.append("still generating")
        policy.answers.set()
        await updating
        outcome = await running
    assert events == ["still generating", "updating, 1 calls", "updated, 1 calls", "(1, 1)"]
    assert (outcome.outcome, outcome.weights_versions) == (Ending.COMPLETED, (0, 1))
    assert trainer.weights_version == 1


async def test_a_call_that_waits_long_is_told_to_come_again_and_no_rollout_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "HOLD_SECONDS", 0.01)
    policy = Policy()
    async with ScriptedServer(two_turns) as server, Trainer(policy, server_url=server.url) as trainer:
        policy.answers.clear()
        running = [asyncio.create_task(trainer.run_one(request(name))) for name in "abc"]
        await policy.asked.wait()
        policy.answers.set()
        async with trainer.weights_update():
            await asyncio.wait(running, timeout=0.2)
        outcomes = await asyncio.gather(*running)
    assert [outcome.outcome for outcome in outcomes] == [Ending.COMPLETED] * 3


async def test_what_an_update_raises_is_raised_and_counts_as_none() -> None:
    async with ScriptedServer(two_turns) as server, Trainer(Policy(), server_url=server.url) as trainer:
        with pytest.raises(LookupError):
            async with trainer.weights_update():
                raise LookupError
        outcome = await trainer.run_one(request("a"))
    assert (trainer.weights_version, outcome.weights_versions) == (0, (0, 0))


async def test_updates_come_one_after_the_other() -> None:
    async with ScriptedServer(two_turns) as server, Trainer(Policy(), server_url=server.url) as trainer:
        inside = 0

        async def update() -> None:
            nonlocal inside
            async with trainer.weights_update():
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(update() for _ in range(5)))
        assert trainer.weights_version == 5


async def test_an_update_within_itself_is_refused_and_the_outer_one_ends() -> None:
    async with Trainer(Policy(), server_url="http://127.0.0.1:9") as trainer:
        async with trainer.weights_update():
            with pytest.raises(RuntimeError, match="within itself"):
                async with trainer.weights_update():
                    pytest.fail("it was entered")
        async with asyncio.timeout(30), trainer.weights_update():
            pass
        assert trainer.weights_version == 2


@pytest.mark.slow
async def test_the_time_for_a_rollout_stands_still_in_an_update() -> None:
    limits = TrainerLimits(rollout_timeout_seconds=0.5)
    policy = Policy()
    async with ScriptedServer(two_turns) as server, Trainer(policy, server_url=server.url, limits=limits) as trainer:
        policy.answers.clear()
        running = [asyncio.create_task(trainer.run_one(request("before")))]
        await policy.asked.wait()
        policy.answers.set()
        async with trainer.weights_update():
            running.append(asyncio.create_task(trainer.run_one(request("within"))))
            done, _ = await asyncio.wait(running, timeout=1)
            assert not done
            assert await trainer.cancel(["within"]) == 1
        assert [(await task).outcome for task in running] == [Ending.COMPLETED, Ending.CANCELLED]
        policy.answers.clear()
        assert (await trainer.run_one(request("after"))).outcome is Ending.TIMED_OUT


async def test_it_goes_on_where_the_wait_for_an_update_is_given_up() -> None:
    limits = TrainerLimits(rollout_timeout_seconds=0.5)
    policy = Policy()
    policy.answers.clear()
    async with ScriptedServer(two_turns) as server, Trainer(policy, server_url=server.url, limits=limits) as trainer:
        running = asyncio.create_task(trainer.run_one(request("a")))
        await policy.asked.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), trainer.weights_update():
                pytest.fail("a call is being generated")
        assert (await running).outcome is Ending.TIMED_OUT
