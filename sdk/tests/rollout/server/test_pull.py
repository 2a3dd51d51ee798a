"""The protocol of 0.3 in front of the same rollouts: what a poll gets, leases, grading."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from support.pull import LEASE, JsonObject, answer, app_of, calling, hang, start_body
from support.rollouts import client_of, lifespan_of

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.results import TerminalResult
from osmosis_ai.rollout.core.reward_functions import osmosis_reward
from osmosis_ai.rollout.server.pull.results import as_pulled

KEY = "osm_rollout_test-key"


async def fail(ctx: RolloutContext) -> Any:
    raise KeyError("a mistake")


@osmosis_reward
async def never(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
    await asyncio.Event().wait()
    return 1.0


async def grade(ctx: RolloutContext) -> Any:
    return ctx.complete(list(ctx.request.messages), reward=await never("4", "4"))


async def give_no_reward(ctx: RolloutContext) -> Any:
    return ctx.complete(list(ctx.request.messages))


class TestResult:
    async def test_is_fetched_with_the_lease_as_often_as_one_likes(self) -> None:
        async with calling(app_of()) as caller:
            started = (await caller.start(label="4", metadata={"level": 1})).json()
            assert (started["status"], started["polling_lease_timeout_sec"]) == ("queued", 120.0)
            result = await caller.result()
            assert (result["status"], result["err_message"], result["err_category"]) == ("success", None, None)
            assert (result["sample"]["label"], result["sample"]["reward"]) == ("4", 1.0)
            assert [message["content"] for message in result["sample"]["messages"]] == ["What is 2 + 2?", "4"]
            assert (await caller.poll()).content == (await caller.poll()).content
            status = (await caller.http.get("/v1/rollout/rollout-1")).json()
            assert (status["state"], status["result"]["reward"]) == ("delivered", 1.0)

    @pytest.mark.parametrize(
        ("run", "fields", "end"),
        [
            (answer, {"label": "5"}, ("success", 0.0, None)),
            (answer, {"grade": False}, ("success", None, None)),
            (give_no_reward, {}, ("failure", None, "validation_error")),
            (give_no_reward, {"grade": False}, ("success", None, None)),
            (fail, {}, ("failure", None, "agent_error")),
            (hang, {"agent_timeout_sec": 0.01}, ("failure", None, "timeout")),
            (hang, {"agent_timeout_sec": -1}, ("failure", None, "timeout")),
            (answer, {"agent_timeout_sec": 1e300, "grader_timeout_sec": 1e300}, ("success", 1.0, None)),
            (grade, {"grader_timeout_sec": 0}, ("failure", None, "timeout")),
            (grade, {"grader_timeout_sec": -1}, ("failure", None, "timeout")),
        ],
    )
    async def test_says_how_it_ended(self, run: Any, fields: JsonObject, end: Any) -> None:
        async with calling(app_of(run)) as caller:
            result = await caller.run(**fields)
        assert (result["status"], (result["sample"] or {}).get("reward"), result["err_category"]) == end

    async def test_no_limit_that_is_asked_for_outlasts_the_servers(self) -> None:
        async with calling(app_of(grade, server={"request_timeout_seconds": 0.01})) as caller:
            for fields in ({"grader_timeout_sec": 1e300}, {"agent_timeout_sec": 1e300}):
                assert (await caller.run(f"with {[*fields]}", **fields))["err_category"] == "timeout"

    async def test_that_cannot_be_read_again_is_a_failure_and_no_rollout_without_an_end(self) -> None:
        encoded = b'{"rollout_id":"r","status":"COMPLETED","final_messages":[' + b"[" * 100_000
        result = as_pulled("r", TerminalResult(encoded), None)
        assert (result.payload["status"], result.payload["err_category"]) == ("failure", "validation_error")

    async def test_nobody_fetches_in_time_is_undeliverable_and_can_be_fetched_all_the_same(self) -> None:
        app = app_of(server={"delivery_deadline_seconds": -1.0})
        async with lifespan_of(app), calling(app) as caller:
            await caller.start()
            while (await caller.http.get("/v1/rollout/rollout-1")).json()["state"] != "finished":  # noqa: ASYNC110 - the app tells by answers alone
                await asyncio.sleep(0)  # a request within this process may let nobody else run
            await (await app_services(app).current()).maintain()
            assert (await caller.http.get("/v1/rollout/rollout-1")).json()["state"] == "undeliverable"
            assert (await caller.result())["status"] == "success"
            assert (await caller.http.get("/v1/rollout/rollout-1")).json()["state"] == "delivered"


def app_services(app: FastAPI) -> Any:
    """What the app's lifespan holds."""
    lifespan: Any = app.router.lifespan_context
    return lifespan.__self__._services  # no other way to its rounds


class TestLease:
    @pytest.mark.slow
    @pytest.mark.parametrize("rollout_id", ["rollout-1", "unknown", "%00", "%ff", "x" * 2000])
    async def test_without_the_servers_key_nothing_is_learned(self, rollout_id: str) -> None:
        app = app_of(api_key=KEY)
        async with calling(app, Authorization=f"Bearer {KEY}") as caller, client_of(app) as stranger:
            await caller.start()
            token = {LEASE: caller.tokens["rollout-1"]}
            replies = [
                await stranger.get(f"/rollout/{rollout_id}/result", headers=token),
                await stranger.post("/rollout", json=start_body(rollout_id)),
                await stranger.post("/rollout/cancel", json={"ids": [rollout_id]}),
            ]
            assert {(reply.status_code, reply.text) for reply in replies} == {(401, replies[0].text)}
            assert (await caller.result())["status"] == "success"

    async def test_another_token_or_none_gets_nothing(self) -> None:
        async with calling(app_of(hang)) as caller:
            await caller.start("one")
            await caller.start("two")
            assert (await caller.poll("one", caller.tokens["two"])).status_code == 403
            assert (await caller.poll("one", "ü".encode())).status_code == 403
            assert (await caller.http.get("/rollout/one/result")).status_code == 422
            assert (await caller.poll("three")).status_code == 404
            for odd in ("%00", "%ff", "%F0%9F%98%80"):
                assert (await caller.poll(odd)).status_code == 404

    @pytest.mark.slow
    async def test_of_a_rollout_that_nobody_asks_for_ends_it(self) -> None:
        async with calling(app_of(hang, server={"poll_lease_seconds": 2.0})) as caller:
            await caller.start("left")
            await caller.start("asked for")
            while (await caller.http.get("/v1/rollout/left")).json()["state"] != "finished":
                assert (await caller.poll("asked for")).json()["status"] in ("queued", "running")
            assert (await caller.result("left"))["err_category"] == "lease_expired"
            assert (await caller.poll("asked for")).json()["status"] == "running"

    @pytest.mark.slow
    async def test_holds_whoever_is_asked(self, tmp_path: Path) -> None:
        """Two processes' worth of servers on one journal: one runs it, the other is asked."""
        gate = asyncio.Event()

        async def wait(ctx: RolloutContext) -> Any:
            await gate.wait()
            return await answer(ctx)

        shared = {"journal": str(tmp_path / "journal.db"), "poll_lease_seconds": 2.0, "poll_wait_seconds": 0.2}
        app, other = app_of(wait, server=shared), app_of(wait, server=shared)
        async with lifespan_of(app), lifespan_of(other), calling(app) as caller, calling(other) as asking:
            await caller.start()
            asking.tokens = caller.tokens
            assert (await asking.start()).json()["polling_lease_token"] == caller.tokens["rollout-1"]
            for _ in range(20):  # two leases long
                assert (await asking.poll()).json()["status"] == "running"
            assert (await asking.poll("rollout-1", "wrong")).status_code == 403
            gate.set()
            assert await asking.result() == await caller.result()
            assert (await caller.result())["status"] == "success"


class TestGrading:
    async def test_is_skipped_where_nobody_asks_for_it(self) -> None:
        calls: list[str] = []

        @osmosis_reward
        def score(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
            calls.append(solution_str)
            return 1.0

        async def run(ctx: RolloutContext) -> Any:
            return ctx.complete(list(ctx.request.messages), reward=0.5 * score(ctx.request.rollout_id, "4"))

        async with calling(app_of(run)) as caller:
            assert (await caller.run("graded"))["sample"]["reward"] == 0.5
            result = await caller.run("not graded", grade=False)
        assert (result["status"], result["sample"]["reward"], calls) == ("success", None, ["graded"])

    @pytest.mark.slow
    async def test_has_a_limit_of_its_own_in_which_the_agents_stands_still(self) -> None:
        @osmosis_reward
        async def score(solution_str: str, ground_truth: str, extra_info: dict[str, Any] | None = None) -> float:
            await asyncio.sleep(1.5 if ground_truth == "4" else 600)
            return 1.0

        async def run(ctx: RolloutContext) -> Any:
            reward = await score("4", ctx.request.metadata["ground_truth"])
            return ctx.complete(list(ctx.request.messages), reward=reward)

        async with calling(app_of(run)) as caller:
            in_time = await caller.run("in time", label="4", agent_timeout_sec=1, grader_timeout_sec=60)
            assert (in_time["status"], in_time["sample"]["reward"]) == ("success", 1.0)
            await caller.start("late", label="5", agent_timeout_sec=1, grader_timeout_sec=2)
            while (await caller.poll("late")).json()["status"] != "grading":
                pass
            late = await caller.result("late")
        assert (late["err_category"], late["sample"]["label"], late["sample"]["reward"]) == ("timeout", "5", None)
