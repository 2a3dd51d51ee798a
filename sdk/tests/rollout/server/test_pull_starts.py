"""The protocol of 0.3 in front of the same rollouts: starts and cancels, also odd ones, beside inits of the other."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.fake_trainer import FakeTrainer
from support.pull import JsonObject, answer, app_of, calling, hang, start_body
from support.rollouts import INIT, ScriptedAgent, init_body, lifespan_of

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.server.app import create_app


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

    @pytest.mark.slow
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

    @pytest.mark.slow
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
