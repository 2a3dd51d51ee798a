import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support.scripted_server import QUESTION, Rollout, ScriptedServer, succeed

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.trainer import (
    ChatCall,
    Ending,
    Group,
    InitRefusedError,
    RetryPolicy,
    Trainer,
    TrainerLimits,
    completer_of,
)

SIZE = 4


def problems(count: int) -> Iterator[RolloutRequest]:
    return (
        RolloutRequest(rollout_id=f"p{n}", server_url="http://placeholder", messages=QUESTION, completion_params={})
        for n in range(count)
    )


arithmetic = completer_of(ArithmeticPolicy)


def trainer_for(server: ScriptedServer, complete: Any = arithmetic, **limits: Any) -> Trainer:
    retry = RetryPolicy(base_delay_seconds=0.001, max_delay_seconds=0.01, unreachable_seconds=0.05)
    return Trainer(complete, server_url=server.url, limits=TrainerLimits(**{"concurrency": 64, **limits}), retry=retry)


async def taken(groups: Any) -> list[Group]:
    return [group async for group in groups]


class TestAGroup:
    async def test_it_has_all_samples_of_a_problem_their_ids_rewards_and_spread(self) -> None:
        async def agent(rollout: Rollout) -> None:
            await rollout.complete(reward=float(rollout.id.endswith(("0", "1"))))

        async with (
            ScriptedServer(agent) as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(3), SIZE, per_update=2) as groups,
        ):
            got = {group.problem.rollout_id: group for group in await taken(groups)}
        assert sorted(got) == ["p0", "p1", "p2"]
        group = got["p1"]
        assert group.ids == ("p1-0", "p1-1", "p1-2", "p1-3")
        assert group.rewards == (1.0, 1.0, 0.0, 0.0)
        assert (group.mean, group.spread, group.is_whole, group.failures) == (0.5, 0.5, True, ())

    async def test_a_failed_sample_is_run_again_alone_and_its_failure_has_no_reward(self) -> None:
        async def agent(rollout: Rollout) -> None:
            if rollout.id in ("p0-1", "p0-1..2"):
                await rollout.complete("ERROR", error_message="boom")
            else:
                await succeed(rollout)

        async with (
            ScriptedServer(agent) as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(1), SIZE, per_update=1) as groups,
        ):
            (group,) = await taken(groups)
        assert group.ids == ("p0-0", "p0-1..3", "p0-2", "p0-3")
        assert [failure.request.rollout_id for failure in group.failures] == ["p0-1", "p0-1..2"]
        assert (group.is_whole, group.rewards) == (True, (1.0,) * 4)
        assert len(server.inits) == 6

    async def test_what_fails_again_and_again_is_missing_and_what_has_no_reward_is_no_sample(self) -> None:
        async def agent(rollout: Rollout) -> None:
            if rollout.id.startswith("p0-1"):
                await rollout.complete("ERROR", error_message="boom")
            elif rollout.id == "p0-2":
                await rollout.complete()
            else:
                await rollout.complete(reward=0.5)

        async with (
            ScriptedServer(agent) as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(1), SIZE, per_update=1) as groups,
        ):
            (group,) = await taken(groups)
        assert (group.ids, group.is_whole, group.rewards) == (("p0-0", "p0-3"), False, (0.5, 0.5))
        assert Counter(failure.outcome for failure in group.failures) == {Ending.ERROR: 3, Ending.COMPLETED: 1}

    async def test_it_is_handed_over_while_others_run(self) -> None:
        let_go = asyncio.Event()

        async def agent(rollout: Rollout) -> None:
            if rollout.id.startswith("p0"):
                await let_go.wait()
            await succeed(rollout)

        async with (
            ScriptedServer(agent) as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(2), SIZE, per_update=2) as groups,
        ):
            first = await anext(groups)
            let_go.set()
            second = await anext(groups)
        assert (first.problem.rollout_id, second.problem.rollout_id) == ("p1", "p0")


class TestTheBound:
    @pytest.mark.parametrize(("max_lag", "ahead"), [(0, 2), (1, 4), (2, 6)])
    async def test_no_more_groups_are_open_than_can_be_taken_in_time(self, max_lag: int, ahead: int) -> None:
        """The server holds everything, so all that may start has started when each has been seen."""
        let_go, seen, all_seen = asyncio.Event(), set[str](), asyncio.Event()

        async def agent(rollout: Rollout) -> None:
            seen.add(rollout.id.partition("-")[0])
            if len(seen) == ahead:
                all_seen.set()
            await let_go.wait()
            await succeed(rollout)

        async with (
            ScriptedServer(agent) as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(20), SIZE, per_update=2, max_lag=max_lag) as groups,
        ):
            first = asyncio.ensure_future(anext(groups))
            await asyncio.wait_for(all_seen.wait(), 30)
            before = len(seen)
            let_go.set()
            await first
        assert before == ahead

    async def test_no_group_is_older_than_the_bound_however_slow_some_are(self) -> None:
        """Every fifth problem takes until three others have ended after it was started."""
        ended: list[str] = []
        more = asyncio.Condition()

        async def agent(rollout: Rollout) -> None:
            async with more:
                if int(rollout.id[1:].partition("-")[0]) % 5 == 0:
                    goal = len(ended) + 3 * SIZE
                    try:
                        async with asyncio.timeout(0.3):
                            await more.wait_for(lambda: len(ended) >= goal)
                    except TimeoutError:
                        pass  # nothing else may run before it: the bound at work
                ended.append(rollout.id)
                more.notify_all()
            await succeed(rollout)

        lags = []
        async with (
            ScriptedServer(agent) as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(24), SIZE, per_update=3, max_lag=1) as groups,
        ):
            async for group in groups:
                lags.append(group.lag)
                assert group.is_whole
                if len(lags) % 3 == 0:
                    async with trainer.weights_update():
                        pass
        assert len(lags) == 24
        assert set(lags) == {0, 1}

    async def test_one_that_comes_too_late_as_weights_change_sooner_is_sampled_anew(self) -> None:
        held = asyncio.Event()

        async def agent(rollout: Rollout) -> None:
            if rollout.id.startswith("p1-"):
                held.set()
                await asyncio.Event().wait()
            await succeed(rollout)

        async with (
            ScriptedServer(agent) as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(2), SIZE, per_update=5, max_lag=0) as groups,
        ):
            first = await anext(groups)
            await held.wait()
            async with trainer.weights_update():
                pass
            second = await anext(groups)
            with pytest.raises(StopAsyncIteration):
                await anext(groups)
        assert first.ids[0] == "p0-0"
        assert (second.ids[0], second.is_whole, second.lag) == ("p1..2-0", True, 0)

    async def test_more_may_be_taken_between_updates_than_was_said(self) -> None:
        async with (
            ScriptedServer() as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(7), 2, per_update=2, max_lag=0) as groups,
        ):
            assert len(await taken(groups)) == 7

    @pytest.mark.parametrize("wrong", [{"size": 0}, {"per_update": 0}, {"max_lag": -1}])
    async def test_numbers_that_cannot_be_are_refused(self, wrong: dict[str, Any]) -> None:
        (name,) = wrong
        async with ScriptedServer() as server, trainer_for(server) as trainer:
            with pytest.raises(ValueError, match=f"{name} must be"):
                trainer.groups(problems(1), **{"size": 1, "per_update": 1, **wrong})


class TestItsEnd:
    async def test_leaving_it_cancels_what_runs(self) -> None:
        started = asyncio.Event()

        async def complete(call: ChatCall) -> CompletionsResult:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def agent(rollout: Rollout) -> None:
            await rollout.chat(QUESTION)

        async with ScriptedServer(agent) as server, trainer_for(server, complete) as trainer:
            async with trainer.groups(problems(3), SIZE, per_update=3):
                pass
            async with trainer.groups(problems(3), SIZE, per_update=3) as groups:
                waiting = asyncio.ensure_future(anext(groups))
                await asyncio.wait_for(started.wait(), 30)
                waiting.cancel()
            await server.agents()
            assert await trainer.cancel(everything=True) == 0

    async def test_a_server_that_accepts_nothing_ends_it_with_the_reason(self) -> None:
        async with (
            ScriptedServer(answers=[401] * 100) as server,
            trainer_for(server) as trainer,
            trainer.groups(problems(3), SIZE, per_update=3) as groups,
        ):
            with pytest.raises(InitRefusedError, match="refused the key"):
                await anext(groups)

    async def test_an_id_used_before_is_refused(self) -> None:
        async with ScriptedServer() as server, trainer_for(server) as trainer:
            async with trainer.groups(problems(1), 1, per_update=1) as groups:
                await taken(groups)
            async with trainer.groups(problems(1), 1, per_update=1) as groups:
                with pytest.raises(ValueError, match="'p0-0' was used before"):
                    await taken(groups)
