"""What a trainer answers to a rollout's callbacks, hostile ones included."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from starlette.responses import Response
from support.scripted_server import (
    ADD_TOOL,
    CHAT_PATH,
    COMPLETED_PATH,
    Agent,
    Rollout,
    ScriptedServer,
    succeed,
)
from support.trainer_runs import QUESTION, arithmetic, request, trainer_for

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.trainer import (
    ChatCall,
    Ending,
    TokensError,
    training_rows,
)

MAX_BODY_BYTES = 1_000_000


class TestChat:
    async def test_the_policy_sees_the_tools_the_messages_and_every_sampling_field(self) -> None:
        calls: list[ChatCall] = []

        async def complete(call: ChatCall) -> CompletionsResult:
            calls.append(call)
            return CompletionsResult({"role": "assistant", "content": "\ud800"}, [], [], {"prompt_tokens": 1}, "length")

        async def agent(rollout: Rollout) -> None:
            reply = await rollout.chat(QUESTION, model="m", temperature=0.5, top_k=40, stop=["\n"])
            body = reply.json()
            assert (body["object"], body["model"], body["usage"]) == ("chat.completion", "m", {"prompt_tokens": 1})
            assert body["choices"] == [
                {"index": 0, "message": {"role": "assistant", "content": "\ud800"}, "finish_reason": "length"}
            ]
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server, complete) as trainer:
            await trainer.run_one(request())
            await server.agents()
        sampling = {"model": "m", "temperature": 0.5, "top_k": 40, "stop": ["\n"]}
        assert calls == [ChatCall("r0", QUESTION, [ADD_TOOL], sampling)]

    async def test_a_call_that_overtakes_the_reply_of_the_init_waits_for_the_tools(self) -> None:
        replies: list[Any] = []

        async def agent(rollout: Rollout) -> None:
            replies.append((await rollout.chat(QUESTION)).json())
            await succeed(rollout)

        class SlowToSay(ScriptedServer):
            async def _init(self, request: Any) -> Response:
                reply = await super()._init(request)
                await asyncio.wait(self._tasks, timeout=0.1)
                assert replies == [], "the chat call was answered before the tools were known"
                return reply

        async with SlowToSay(agent) as server, trainer_for(server) as trainer:
            assert (await trainer.run_one(request())).outcome is Ending.COMPLETED
        assert replies[0]["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "add"

    async def test_the_wait_for_the_tools_is_bounded(self) -> None:
        class ChatsFirst(ScriptedServer):
            async def _init(self, request: Any) -> Response:
                await super()._init(request)
                await self.agents()
                return Response(status_code=400)

        async def agent(rollout: Rollout) -> None:
            reply = await rollout.chat(QUESTION)
            assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")

        async with ChatsFirst(agent) as server, trainer_for(server, tools_wait_seconds=0.05) as trainer:
            assert "(400)" in str((await trainer.run_one(request())).problem)

    async def test_a_repeated_call_is_generated_once_also_while_it_is_going_on(self) -> None:
        may_answer = asyncio.Event()
        calls = 0

        async def complete(call: ChatCall) -> CompletionsResult:
            nonlocal calls
            calls += 1
            await may_answer.wait()
            return CompletionsResult({"role": "assistant", "content": str(calls)}, [], [], {}, "stop")

        async def agent(rollout: Rollout) -> None:
            both = [asyncio.ensure_future(rollout.chat(QUESTION, "call-1")) for _ in range(2)]
            await asyncio.wait(both, timeout=0.1)
            may_answer.set()
            contents = [(await reply).json()["choices"][0]["message"]["content"] for reply in both]
            contents.append((await rollout.chat(QUESTION, "call-1")).json()["choices"][0]["message"]["content"])
            assert contents == ["1", "1", "1"]
            await rollout.chat(QUESTION, "call-2")
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server, complete) as trainer:
            outcome = await trainer.run_one(request())
            await server.agents()
        assert (calls, outcome.turns) == (2, 2)

    async def test_a_failing_policy_is_a_500_that_says_so_and_the_rollout_may_go_on(self) -> None:
        async def complete(call: ChatCall) -> CompletionsResult:
            raise RuntimeError("no reply for this; api_key=sk-0123456789abcdef0123")

        async def agent(rollout: Rollout) -> None:
            reply = await rollout.chat(QUESTION)
            assert reply.status_code == 500
            refused = reply.json()
            assert refused["code"] == "policy_failed"
            assert refused["detail"].startswith(
                "The policy failed: RuntimeError: no reply for this; api_key=*** (sdk/tests/rollout/trainer/"
            )
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server, complete) as trainer:
            assert (await trainer.run_one(request())).reward == 1.0
            await server.agents()

    async def test_a_failure_is_no_answer_a_repeat_of_the_call_is_made_again(self) -> None:
        calls = 0

        async def complete(call: ChatCall) -> CompletionsResult:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ConnectionError("the model is away")
            return await arithmetic(call)

        async def agent(rollout: Rollout) -> None:
            assert (await rollout.chat(QUESTION, "call-1")).status_code == 500
            for _ in range(2):
                assert (await rollout.chat(QUESTION, "call-1")).status_code == 200
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server, complete) as trainer:
            outcome = await trainer.run_one(request())
            await server.agents()
        assert (calls, outcome.turns) == (2, 1)

    @pytest.mark.parametrize(
        ("reply", "told"),
        [
            (None, "TypeError: it must give a CompletionsResult with a message, not None"),
            (
                {"message": None},
                "TypeError: it must give a CompletionsResult with a message, not one whose message is a N",
            ),
            (
                {"message": {"role": "assistant", "content": b"3"}},
                "TypeError: its reply is not JSON: Object of type bytes",
            ),
            ({"usage": {"prompt_tokens": float("nan")}}, "TypeError: its reply is not JSON: Out of range float values"),
            (asyncio.CancelledError("the batch was dropped"), "CancelledError: the batch was dropped"),
        ],
    )
    async def test_what_cannot_be_sent_is_a_failure_as_any_other_and_no_turn(self, reply: Any, told: str) -> None:
        calls = 0

        async def complete(call: ChatCall) -> CompletionsResult:
            nonlocal calls
            calls += 1
            whole = await arithmetic(call)
            if calls > 1:
                return whole
            if isinstance(reply, BaseException):
                raise reply
            broken: CompletionsResult = reply and replace(whole, token_ids=[1], **reply)
            return broken

        async def agent(rollout: Rollout) -> None:
            failed = await rollout.chat(QUESTION, "call-1")
            assert (failed.status_code, failed.json()["code"]) == (500, "policy_failed")
            assert failed.json()["detail"].startswith(f"The policy failed: {told}")
            assert (await rollout.chat(QUESTION, "call-1")).status_code == 200
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server, complete) as trainer:
            outcome = await trainer.run_one(request())
            await server.agents()
        assert (calls, outcome.turns, len(outcome.tokens), outcome.reward) == (2, 1, 1, 1.0)

    async def test_a_turn_whose_token_ids_nobody_said_is_a_turn_and_makes_no_row(self) -> None:
        async def complete(call: ChatCall) -> CompletionsResult:
            prompt = list(range(len(call.messages)))
            said: dict[str, Any] = (
                {"token_ids": [7], "logprobs": [-0.5], "prompt_token_ids": prompt} if len(call.messages) != 2 else {}
            )
            return replace(await arithmetic(call), **said)

        async def agent(rollout: Rollout) -> None:
            messages = QUESTION
            for _ in range(3):
                messages = [*messages, (await rollout.chat(messages)).json()["choices"][0]["message"]]
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server, complete) as trainer:
            outcome = await trainer.run_one(request())
            await server.agents()
        assert [len(turn.ids) for turn in outcome.tokens] == [1, 0, 1]
        with pytest.raises(TokensError, match="Turn 2 has no token ids"):
            training_rows(outcome.tokens)

    async def test_a_reply_that_was_broken_off_is_no_turn_and_nothing_that_an_agent_must_repeat(self) -> None:
        calls = 0

        async def complete(call: ChatCall) -> CompletionsResult:
            nonlocal calls
            calls += 1
            whole = await arithmetic(call)
            return replace(whole, finish_reason="abort") if calls == 1 else whole

        async def agent(rollout: Rollout) -> None:
            broken_off = (await rollout.chat(QUESTION, "call-1")).json()["choices"][0]
            assert broken_off["finish_reason"] == "abort"
            whole = (await rollout.chat(QUESTION, "call-2")).json()["choices"][0]
            await rollout.chat([*QUESTION, whole["message"]], "call-3")
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server, complete) as trainer:
            outcome = await trainer.run_one(request())
            await server.agents()
        assert (calls, outcome.turns, outcome.rewrites) == (3, 2, ())

    async def test_an_agent_that_rewrites_its_messages_is_noticed(self) -> None:
        async def agent(rollout: Rollout) -> None:
            await rollout.chat([{"role": "system", "content": "s"}, *QUESTION])
            await rollout.chat(QUESTION)
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server) as trainer:
            assert (await trainer.run_one(request())).rewrote_messages

    @pytest.mark.parametrize(
        ("back", "told"),
        [
            (lambda reply: [{**reply, "content": "cleaned up"}], "content was '' and is 'cleaned up'"),
            (lambda reply: [{**reply, "tool_calls": []}], "tool_calls[0] was "),
            (lambda reply: [], "was left out"),
            (lambda reply: [{"tool_calls": reply["tool_calls"], "role": "assistant", "content": ""}], None),
        ],
    )
    async def test_a_reply_that_an_agent_rewrites_is_named(self, back: Any, told: str | None) -> None:
        async def agent(rollout: Rollout) -> None:
            reply = (await rollout.chat(QUESTION)).json()["choices"][0]["message"]
            await rollout.chat([*QUESTION, *back(reply)])
            await succeed(rollout)

        async with ScriptedServer(agent) as server, trainer_for(server) as trainer:
            outcome = await trainer.run_one(request())
        assert outcome.outcome is Ending.COMPLETED
        if told is None:
            assert outcome.rewrites == ()
        else:
            assert outcome.rewrites[0].startswith("messages[1], a reply of the model, ")
            assert told in outcome.rewrites[0]


class TestHostileCallbacks:
    async def test_a_bad_body_gets_a_sentence_that_names_the_field(self) -> None:
        async def agent(rollout: Rollout) -> None:
            for path, body, status, word in (
                (CHAT_PATH, {"rollout_id": "r9", "messages": []}, 404, "unknown_rollout"),
                (COMPLETED_PATH, {"rollout_id": "r9", "status": "COMPLETED"}, 404, "unknown_rollout"),
                (CHAT_PATH, {"rollout_id": " ", "messages": []}, 422, "rollout_id"),
                (CHAT_PATH, {"rollout_id": "r0"}, 422, "messages"),
                (CHAT_PATH, {"rollout_id": "r0", "messages": ["hi"]}, 422, "messages.0"),
                (COMPLETED_PATH, {"rollout_id": "r0", "status": "DONE"}, 422, "status"),
                (COMPLETED_PATH, {"rollout_id": "r0", "status": "COMPLETED", "reward": "high"}, 422, "reward"),
            ):
                reply = await rollout.post(path, body)
                assert reply.status_code == status, body
                assert word in reply.text

        await self._run(agent)

    @pytest.mark.parametrize("path", [CHAT_PATH, COMPLETED_PATH])
    async def test_a_body_that_is_no_json_is_refused(self, path: str) -> None:
        async def agent(rollout: Rollout) -> None:
            for content, status in (
                (b"", 400),
                (b"[]", 400),
                (b"\xff", 400),
                (b'{"rollout_id": "r0", "status": "COMPLETED", "reward": NaN}', 400),
                (b'{"rollout_id": "r0", "status": "COMPLETED", "reward": 1e999}', 400),
                (b'{"a": ' + b"[" * 100_000, 400),
                (b"x" * (MAX_BODY_BYTES + 1), 413),
            ):
                reply = await rollout.send(path, content, [rollout.authorization])
                assert reply.status_code == status, content[:80]
                assert set(reply.json()) == {"detail", "code"}

        await self._run(agent)

    @pytest.mark.parametrize("path", [CHAT_PATH, COMPLETED_PATH])
    async def test_without_the_key_of_the_init_nothing_is_read(self, path: str) -> None:
        async def agent(rollout: Rollout) -> None:
            for header in (None, b"", b"Bearer", b"Bearer wrong", b"Basic \xe9\xe9", b"Bearer \xff\xfe"):
                reply = await rollout.send(path, b"{", [] if header is None else [(b"Authorization", header)])
                assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer"), header
                assert rollout.init["api_key"] not in reply.text

        await self._run(agent)

    async def _run(self, agent: Agent) -> None:
        async def misbehave_and_succeed(rollout: Rollout) -> None:
            try:
                await agent(rollout)
            finally:
                await succeed(rollout)

        async with (
            ScriptedServer(misbehave_and_succeed) as server,
            trainer_for(server, max_body_bytes=MAX_BODY_BYTES) as trainer,
        ):
            outcome = await trainer.run_one(request())
            await server.agents()
        assert outcome.reward == 1.0, "the trainer goes on after a bad callback"
