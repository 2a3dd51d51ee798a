"""The protocol of 0.3 in front of the same rollouts: starts, polls and leases, cancels, grading, hostile input."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from support.fake_trainer import FakeTrainer
from support.rollouts import INIT, NO_TRAINER, ScriptedAgent, client_of, init_body, lifespan_of, settings_of, tool

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.results import TerminalResult
from osmosis_ai.rollout.core.reward_functions import osmosis_reward
from osmosis_ai.rollout.server.app import create_app
from osmosis_ai.rollout.server.pull.results import as_pulled

KEY = "osm_rollout_test-key"
LEASE = "X-Osmosis-Rollout-Lease"
JsonObject = dict[str, Any]


def start_body(rollout_id: str = "rollout-1", **fields: Any) -> JsonObject:
    return {
        "rollout_id": rollout_id,
        "initial_messages": [{"role": "user", "content": "What is 2 + 2?"}],
        "chat_completions_url": f"{NO_TRAINER}/v1",
        **fields,
    }


class Caller:
    """A trainer of 0.3 that does by hand what a client does."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.tokens: dict[str, str] = {}

    async def start(self, rollout_id: str = "rollout-1", **fields: Any) -> httpx.Response:
        response = await self.http.post("/rollout", json=start_body(rollout_id, **fields))
        if response.status_code == 202:
            self.tokens[rollout_id] = response.json()["polling_lease_token"]
        return response

    async def poll(self, rollout_id: str = "rollout-1", token: str | bytes | None = None) -> httpx.Response:
        given = token or self.tokens.get(rollout_id, "none")
        headers = [(LEASE.encode(), given if isinstance(given, bytes) else given.encode())]
        return await self.http.get(f"/rollout/{rollout_id}/result", headers=headers)

    async def result(self, rollout_id: str = "rollout-1") -> JsonObject:
        while True:
            response = await self.poll(rollout_id)
            assert response.status_code == 200, response.text
            body: JsonObject = response.json()
            if body["status"] in ("success", "failure", "cancelled"):
                return body

    async def run(self, rollout_id: str = "rollout-1", **fields: Any) -> JsonObject:
        assert (await self.start(rollout_id, **fields)).status_code == 202
        return await self.result(rollout_id)


@asynccontextmanager
async def calling(app: FastAPI, **headers: str) -> AsyncIterator[Caller]:
    async with client_of(app) as http:
        http.headers.update(headers)
        yield Caller(http)


def app_of(run: Any = None, *, server: JsonObject | None = None, **options: Any) -> FastAPI:
    agent = ScriptedAgent(run or answer, tools=[tool()])
    quick = {"poll_wait_seconds": 0.05, **(server or {})}
    return create_app(agent, settings=settings_of(server=quick), **options)


async def answer(ctx: RolloutContext) -> Any:
    """Right if the ground truth is 4."""
    messages = [*ctx.request.messages, {"role": "assistant", "content": "4"}]
    return ctx.complete(messages, reward=float(ctx.request.metadata.get("ground_truth", "4") == "4"))


async def hang(ctx: RolloutContext) -> Any:
    await asyncio.Event().wait()


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


class TestStart:
    async def test_identical_starts_are_one_with_one_lease(self) -> None:
        async with calling(app_of()) as caller:
            replies = await asyncio.gather(*(caller.start(llm_api_key=f"key-{n}") for n in range(5)))
            await caller.result()
            replies.append(await caller.start())
            assert {(reply.status_code, reply.content) for reply in replies} == {(202, replies[0].content)}
            other = await caller.start(label="5")
            assert (other.status_code, other.json()["code"]) == (409, "key_reused")
            assert other.json()["detail"] == "This rollout_id was used for another start; send a new rollout_id."

    async def test_is_another_rollout_than_an_init_of_the_same_id(self) -> None:
        async with calling(app_of(hang)) as caller:
            assert (await caller.start("same")).status_code == 202
            assert (await caller.http.post(INIT, json=init_body("same"))).status_code == 202
            assert (await caller.http.get("/health")).json()["lifecycle"]["active_rollouts"] == 2

    async def test_its_state_is_not_that_of_an_init_of_the_same_id(self, tmp_path: Path) -> None:
        """Whichever came last, and whether they are in this process or on record alone."""

        async def hang_unless_graded(ctx: RolloutContext) -> Any:
            return await (hang(ctx) if ctx.request.metadata.get("hangs") else answer(ctx))

        app = app_of(hang_unless_graded, server={"journal": str(tmp_path / "journal.db")})
        async with lifespan_of(app), calling(app) as caller:
            for rollout_id in ("first", "last"):
                fetched = init_body(rollout_id, metadata={"hangs": True})
                if rollout_id == "last":
                    assert (await caller.http.post(INIT, json=fetched)).status_code == 202
                await caller.run(rollout_id)
                if rollout_id == "first":
                    assert (await caller.http.post(INIT, json=fetched)).status_code == 202
                state = (await caller.http.get(f"/v1/rollout/{rollout_id}")).json()["state"]
                assert state in ("accepted", "queued", "running")
            await caller.run("alone")
            assert (await caller.http.get("/v1/rollout/alone")).json()["state"] == "delivered"

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("rollout_id", ""),
            ("rollout_id", "a/b"),
            ("rollout_id", ".."),
            ("rollout_id", "a\n"),
            ("rollout_id", "x" * 257),
            ("initial_messages", "text"),
            ("chat_completions_url", "ftp://host"),
            ("chat_completions_url", "http://user:secret@host"),
            ("chat_completions_url", "http://host/?a=b"),
            ("llm_api_key", "with\nbreak"),
            ("label", 5),
            ("metadata", {"big": "x" * 1_100_000}),
            ("agent_timeout_sec", "soon"),
            ("extra_fields", {"max_turns": 0}),
            ("extra_fields", {"completion_params": {"temperature": "hot"}}),
        ],
    )
    async def test_that_cannot_be_is_refused_by_its_own_name(self, field: str, value: Any) -> None:
        async with calling(app_of()) as caller:
            response = await caller.http.post("/rollout", json={**start_body(), field: value})
            assert response.status_code == 422, response.text
            assert field in json.dumps(response.json()["detail"])
            assert "secret" not in response.text
            assert (await caller.http.get("/health")).json()["lifecycle"]["active_rollouts"] == 0

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b"\xff", b'{"rollout_id":"\\ud800"}', b"[" * 100_000],
        ids=["empty", "cut", "list", "binary", "surrogate", "deep"],
    )
    async def test_that_is_no_start_is_a_422(self, body: bytes) -> None:
        async with calling(app_of()) as caller:
            for path in ("/rollout", "/rollout/cancel"):
                assert (await caller.http.post(path, content=body)).status_code == 422

    @pytest.mark.slow
    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    @pytest.mark.parametrize("field", ["agent_timeout_sec", "grader_timeout_sec"])
    async def test_numbers_that_are_none_are_refused(self, field: str, number: str) -> None:
        body = json.dumps(start_body() | {field: 0}).replace(f'"{field}": 0', f'"{field}": {number}')
        async with calling(app_of()) as caller:
            assert (await caller.http.post("/rollout", content=body)).status_code == 422

    async def test_what_an_init_brings_may_come_in_extra_fields(self) -> None:
        seen: list[Any] = []

        async def look(ctx: RolloutContext) -> Any:
            seen.append((ctx.request.max_turns, ctx.request.completion_params, ctx.request.metadata))
            return await answer(ctx)

        async with calling(app_of(look)) as caller:
            await caller.run(
                "with", extra_fields={"max_turns": 3, "completion_params": {"top_k": 5}, "other": 1}, label="4"
            )
            await caller.run("without")
        assert seen == [(3, {"top_k": 5}, {"ground_truth": "4"}), (10, {}, {})]


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


class TestCancel:
    @pytest.mark.parametrize(
        ("asked", "stopped"),
        [({"ids": ["a-1", "c"]}, ["a-1"]), ({"prefix": "a-"}, ["a-1", "a-2"]), ({"all": True}, ["a-1", "a-2", "b"])],
    )
    async def test_ends_those_that_are_meant_and_none_of_the_other_protocol(
        self, asked: JsonObject, stopped: list[str]
    ) -> None:
        async with calling(app_of(hang)) as caller:
            for rollout_id in ("a-1", "a-2", "b"):
                await caller.start(rollout_id)
                await caller.http.post(INIT, json=init_body(rollout_id))
            response = await caller.http.post("/rollout/cancel", json=asked)
            expected = dict.fromkeys(stopped, "cancelled_running") | dict.fromkeys(
                {"c"} & {*asked.get("ids", ())}, "not_found"
            )
            assert (response.status_code, response.json()) == (200, {"dispositions": expected})
            for rollout_id in stopped:
                assert (await caller.result(rollout_id))["status"] == "cancelled"
            response = await caller.http.post("/v1/rollout/cancel", json={"all": True})
            assert response.json() == {"cancelling": 3}
            left = {"a-1", "a-2", "b"} - {*stopped}
            assert {(await caller.poll(each)).json()["status"] for each in left} <= {"queued", "running"}

    @pytest.mark.slow
    @pytest.mark.parametrize("asked", [{}, {"ids": ["a"], "all": True}, {"all": False}, {"ids": "a"}])
    async def test_of_anything_else_is_a_422(self, asked: JsonObject) -> None:
        async with calling(app_of()) as caller:
            assert (await caller.http.post("/rollout/cancel", json=asked)).status_code == 422


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


class TestProtocols:
    @pytest.mark.slow
    @pytest.mark.parametrize(("on", "init", "start"), [("both", 202, 202), ("0.2", 202, 404), ("0.3", 404, 202)])
    async def test_either_can_be_switched_off(
        self, monkeypatch: pytest.MonkeyPatch, on: str, init: int, start: int
    ) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_PROTOCOL", on)
        async with calling(create_app(ScriptedAgent(hang))) as caller:
            assert (await caller.http.post(INIT, json=init_body())).status_code == init
            assert (await caller.start()).status_code == start
            assert (await caller.http.get("/ready")).status_code == 200


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir() if path.is_file()]


async def test_the_key_of_the_policy_is_in_no_file(tmp_path: Path) -> None:
    app = app_of(server={"journal": str(tmp_path / "journal.db")})
    async with lifespan_of(app), calling(app) as caller:
        await caller.run(llm_api_key="policy-key-of-0.3")
        files = contents(tmp_path)
    assert any(b"rollout-1" in content for content in files)
    assert not any(b"policy-key-of-0.3" in content for content in files)


async def test_chat_calls_bring_the_tools_and_nothing_that_the_agent_did_not_say() -> None:
    async def chat(ctx: RolloutContext) -> Any:
        reply = await ctx.chat(list(ctx.request.messages), temperature=0.5)
        return ctx.complete([*ctx.request.messages, reply.message], reward=1.0)

    with FakeTrainer() as trainer:
        async with calling(app_of(chat)) as caller:
            url = f"{trainer.url}/v1"
            result = await caller.run(chat_completions_url=url, llm_api_key="policy key")
    assert result["sample"]["messages"][-1]["content"] == "#### 4"
    (call,) = trainer.calls
    assert (call.path, call.authorization) == ("/v1/chat/completions", "Bearer policy key")
    tools = call.body.pop("tools")
    assert [each["function"]["name"] for each in tools] == ["add"]
    assert call.body == {
        "model": "osmosis-rollout",
        "temperature": 0.5,
        "messages": [{"role": "user", "content": "What is 2 + 2?"}],
    }
