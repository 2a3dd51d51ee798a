"""One key, one rollout: who comes again gets the first reply."""

import asyncio
import threading
from typing import Any

import pytest
from support.rollouts import (
    Gate,
    ScriptedAgent,
    StandInClients,
    init_body,
    lifespan_of,
    post_init,
    settings_of,
    tool,
    until_counts,
)

from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.server.app import create_app


class TestOneKey:
    async def test_a_repeat_gets_the_first_reply_and_starts_nothing(self, clients: StandInClients) -> None:
        gate = Gate()
        agent = ScriptedAgent(gate, tools=[tool()])
        app = create_app(agent)
        first = await post_init(app, init_body())
        while_running = await post_init(app, init_body())
        gate.open()
        await clients.result()
        afterwards = await post_init(app, init_body())
        assert {response.status_code for response in (first, while_running, afterwards)} == {202}
        assert first.content == while_running.content == afterwards.content
        assert len(agent.tool_requests) == len(agent.runs) == len(clients.made) == 1

    async def test_two_ids_under_one_explicit_key_get_the_first_id(self, clients: StandInClients) -> None:
        app = create_app(ScriptedAgent())
        replies = [await post_init(app, init_body(rollout_id, idempotency_key="k")) for rollout_id in ("a", "b")]
        assert [reply.json()["rollout_id"] for reply in replies] == ["a", "a"]
        await clients.result()
        assert [client.fields["rollout_id"] for client in clients.made] == ["a"]

    async def test_a_rotated_callback_key_is_the_same_request(self) -> None:
        app = create_app(ScriptedAgent())
        assert (await post_init(app, init_body(api_key="old"))).status_code == 202
        assert (await post_init(app, init_body(api_key="new"))).status_code == 202

    @pytest.mark.parametrize("key", [None, "k"])
    async def test_another_body_under_the_key_is_409(self, clients: StandInClients, key: str | None) -> None:
        agent = ScriptedAgent()
        app = create_app(agent)
        await post_init(app, init_body(idempotency_key=key))
        for _ in range(2):
            response = await post_init(app, init_body(idempotency_key=key, messages=[]))
            assert response.status_code == 409
            assert response.json()["code"] == "key_reused"
            assert "idempotency_key" in response.json()["detail"]
        assert (await post_init(app, init_body(idempotency_key=key))).status_code == 202
        await clients.result()
        assert len(agent.runs) == 1

    async def test_different_keys_are_independent_even_for_one_id(self, clients: StandInClients) -> None:
        app = create_app(ScriptedAgent())
        for key in ("first", "second", None):
            assert (await post_init(app, init_body(idempotency_key=key))).status_code == 202
        for _ in range(3):
            assert (await clients.result())[0].fields["rollout_id"] == "rollout-1"

    async def test_an_id_is_never_taken_for_an_explicit_key(self, clients: StandInClients) -> None:
        app = create_app(ScriptedAgent())
        await post_init(app, init_body("x", idempotency_key="y"))
        response = await post_init(app, init_body("y", messages=[]))
        assert response.json()["rollout_id"] == "y"

    async def test_an_empty_key_means_none(self, clients: StandInClients) -> None:
        app = create_app(ScriptedAgent())
        for rollout_id in ("a", "b"):
            reply = await post_init(app, init_body(rollout_id, idempotency_key=""))
            assert reply.json()["rollout_id"] == rollout_id

    async def test_all_who_come_at_once_share_one_call_of_get_tools(self, clients: StandInClients) -> None:
        asked, released = threading.Event(), threading.Event()

        def slow(request: RolloutRequest) -> list[Any]:
            asked.set()
            released.wait()
            return [tool()]

        agent = ScriptedAgent(tools=slow)
        app = create_app(agent)
        bodies = [init_body(f"{number}", idempotency_key="k") for number in range(20)]
        pending = [asyncio.create_task(post_init(app, body)) for body in bodies]
        await asyncio.to_thread(asked.wait)
        released.set()
        replies = await asyncio.gather(*pending)
        assert {reply.status_code for reply in replies} == {202}
        assert len({reply.content for reply in replies}) == 1
        await clients.result()
        assert len(agent.tool_requests) == len(clients.made) == 1

    @pytest.mark.parametrize("is_refused", [False, True])
    async def test_another_body_at_the_same_time_is_judged_once_the_first_is(
        self, clients: StandInClients, is_refused: bool
    ) -> None:
        asked, released = threading.Event(), threading.Event()

        def slow(request: RolloutRequest) -> list[Any]:
            asked.set()
            released.wait()
            if is_refused and request.messages:
                raise RuntimeError("no tools for these")
            return []

        app = create_app(ScriptedAgent(tools=slow))
        first = asyncio.create_task(post_init(app, init_body()))
        await asyncio.to_thread(asked.wait)
        others = [asyncio.create_task(post_init(app, init_body(messages=[]))) for _ in range(3)]
        await asyncio.sleep(0)
        released.set()
        assert (await first).status_code == (500 if is_refused else 202)
        assert {(await other).status_code for other in others} == {202 if is_refused else 409}
        await clients.result()
        assert len(clients.made) == 1

    @pytest.mark.parametrize("who", ["leader", "follower"])
    async def test_one_that_goes_away_takes_nobody_along(self, clients: StandInClients, who: str) -> None:
        asked, released = threading.Event(), threading.Event()

        def slow(request: RolloutRequest) -> list[Any]:
            asked.set()
            released.wait()
            return []

        app = create_app(ScriptedAgent(tools=slow))
        leader = asyncio.create_task(post_init(app, init_body()))
        await asyncio.to_thread(asked.wait)
        follower = asyncio.create_task(post_init(app, init_body()))
        await asyncio.sleep(0)
        gone, stays = (leader, follower) if who == "leader" else (follower, leader)
        gone.cancel()
        released.set()
        assert (await stays).status_code == 202
        await clients.result()
        assert len(clients.made) == 1

    async def test_an_expired_key_is_new(self, clients: StandInClients) -> None:
        settings = settings_of(server={"cleanup_interval_seconds": 0.01})
        app = create_app(ScriptedAgent(), record_ttl_seconds=0.01, settings=settings)
        async with lifespan_of(app):
            await post_init(app, init_body())
            await clients.result()
            await until_counts(app, active=0, completed=0)
            assert (await post_init(app, init_body(messages=[]))).status_code == 202
            _, second = await clients.result()
        assert second["final_messages"] == []
        assert len(clients.made) == 2
