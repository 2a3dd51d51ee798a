"""A rollout's chat calls through OpenAI's own client, without a socket and over the loopback endpoint."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.asked_policy import ANSWER, CALL, CALLING, QUESTION, SAYING, TOOL, Message, context, policy_of

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.exceptions import OsmosisServerError, OsmosisValidationError
from osmosis_ai.rollout.core.results import result_of_exception
from osmosis_ai.rollout.core.schemas import OpenAIFunctionToolSchema, RolloutRequest
from osmosis_ai.rollout.core.watch import CURRENT_WATCH, RolloutWatch, ToolOutcome
from osmosis_ai.rollout.openai_api.chat_api import ChatApi
from osmosis_ai.rollout.server.execution import Execution

if TYPE_CHECKING:
    import openai


@pytest.fixture(scope="module", autouse=True)
def openai_here() -> None:
    """Only in the process that runs these tests: all collect them, and the import takes a second."""
    global openai
    import openai


def over_http(ctx: RolloutContext, **options: Any) -> "openai.AsyncOpenAI":
    # No certificates are read, as there is nothing to verify.
    http = openai.DefaultAsyncHttpxClient(verify=False)
    options = {"api_key": ctx.openai_api_key(), "base_url": ctx.openai_base_url(), "max_retries": 0, **options}
    return openai.AsyncOpenAI(http_client=http, **options)


@pytest.fixture(params=["in the process", "over HTTP"])
async def ways(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    made: list[tuple[RolloutContext, openai.AsyncOpenAI]] = []

    def client_of(ctx: RolloutContext) -> Any:
        made.append((ctx, ctx.openai_client() if request.param == "in the process" else over_http(ctx)))
        return made[-1][1]

    yield client_of
    for ctx, client in made:
        await client.close()
        ctx.close()


async def ask(client: Any, *messages: Any, **fields: Any) -> Any:
    return await client.chat.completions.create(model="gpt-5", messages=list(messages), **fields)


async def hang_up(call: "asyncio.Task[Any]") -> None:
    call.cancel()
    await asyncio.wait({call})


class TestCalls:
    @pytest.mark.slow
    async def test_a_call_is_the_rollouts_and_the_request_says_how_to_sample(self, ways: Any) -> None:
        ctx = context(SAYING, params={"temperature": 0.5, "top_k": 7, "stop": ["END"]})
        completion = await ask(
            ways(ctx),
            QUESTION,
            temperature=0,
            max_tokens=5,
            seed=1,
            stop=["X"],
            tool_choice="auto",
            tools=[TOOL.model_dump(exclude_none=True)],
            extra_body={"chat_template_kwargs": {"enable_thinking": False}},
        )
        sampling = {"temperature": 0.5, "top_k": 7, "stop": ["END"], "tool_choice": "auto"}
        sampling["chat_template_kwargs"] = {"enable_thinking": False}
        assert policy_of(ctx).calls == [([QUESTION], sampling)]
        assert completion.choices[0].message.content == "It is 4"
        assert (completion.choices[0].finish_reason, completion.model) == ("stop", "gpt-5")
        assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (9, 11)
        assert ctx.context_tokens == 11
        assert ctx.messages == [QUESTION, SAYING]

    async def test_a_history_that_says_the_same_is_the_recorded_one(self, ways: Any) -> None:
        ctx = context(CALLING, SAYING, SAYING)
        client = ways(ctx)
        first = (await ask(client, QUESTION)).choices[0].message
        assert first.tool_calls[0].function.arguments == '{"a": 2, "b": 2}'
        question = {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"b":2,"a":2.0}'}}
        respelled = {"role": "assistant", "content": "", "tool_calls": [call], "refusal": None}
        last = (await ask(client, question, respelled, ANSWER)).choices[0].message
        await ask(client, question, respelled, ANSWER, last, {"role": "user", "content": "sure?"})
        recorded = [QUESTION, CALLING, ANSWER, SAYING, {"role": "user", "content": "sure?"}]
        assert policy_of(ctx).calls[2][0] == recorded
        assert ctx.messages == [*recorded, SAYING]
        assert ctx.complete(ctx.messages).final_messages == ctx.messages
        assert ctx.transcript.check(ctx.messages) is None
        assert ctx.transcript.rewritten == []

    async def test_a_history_that_says_something_else_is_told(self, ways: Any) -> None:
        ctx = context(SAYING, SAYING)
        client = ways(ctx)
        await ask(client, QUESTION)
        await ask(client, QUESTION, {"role": "assistant", "content": "4"}, {"role": "user", "content": "sure?"})
        (problem,) = ctx.transcript.rewritten
        assert "messages[1], a reply of the model, was changed (content was 'It is 4' and is '4')" in problem

    @pytest.mark.parametrize("message", [CALLING, {**CALLING, "content": "Let me see."}, SAYING])
    async def test_a_stream_says_what_the_reply_says(self, ways: Any, message: Message) -> None:
        ctx = context(message)
        stream = await ask(ways(ctx), QUESTION, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        assert deltas[0].role == "assistant"
        assert "".join(delta.content or "" for delta in deltas) == (message["content"] or "")
        calls = [call.model_dump(exclude_none=True) for delta in deltas for call in delta.tool_calls or []]
        assert calls == [{"index": index, **call} for index, call in enumerate(message.get("tool_calls", []))]
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "tool_calls")
        assert chunks[-1].usage.total_tokens == 11
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}

    async def test_other_apis_are_refused_in_a_sentence(self, ways: Any) -> None:
        client = ways(context())
        with pytest.raises(openai.NotFoundError, match="The Responses API is not served to an agent"):
            await client.responses.create(model="m", input="x")
        with pytest.raises(openai.NotFoundError, match="The legacy completions API is not served"):
            await client.completions.create(model="m", prompt="x")
        with pytest.raises(openai.NotFoundError, match="This path is not served"):
            await client.models.list()
        with pytest.raises(openai.BadRequestError, match="n must be 1"):
            await ask(client, QUESTION, n=2)
        with pytest.raises(openai.BadRequestError, match="messages must be a list"):
            await ask(client)

    async def test_tools_that_get_tools_did_not_name_are_told_once(
        self, ways: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = ways(context(SAYING, SAYING))
        strange = {"type": "function", "function": {"name": "burn", "parameters": {}}}
        await ask(client, QUESTION, tools=[strange])
        await ask(client, QUESTION, SAYING, QUESTION, tools=[strange, TOOL.model_dump(exclude_none=True)])
        assert [message for message in caplog.messages if "get_tools did not name" in message] == [
            "Rollout 'r1': the agent offers tools that get_tools did not name, and the trainer does not know: ['burn']."
        ]


class TestAnotherProgram:
    async def test_it_needs_nothing_but_the_address_and_the_key(self) -> None:
        ctx = context(SAYING)
        script = (
            "import json, os, urllib.request as u\n"
            "body = json.dumps({'messages': [{'role': 'user', 'content': '2 + 2?'}]}).encode()\n"
            "call = u.Request(os.environ['URL'] + '/chat/completions', body,"
            " {'Authorization': 'Bearer ' + os.environ['KEY'], 'Content-Type': 'application/json'})\n"
            "opener = u.build_opener(u.ProxyHandler({}))\n"
            "print(json.load(opener.open(call))['choices'][0]['message']['content'])"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-c", script),
            env={"URL": ctx.openai_base_url(), "KEY": ctx.openai_api_key()},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        ctx.close()
        assert (out.decode().strip(), process.returncode) == ("It is 4", 0)
        assert ctx.messages == [QUESTION, SAYING]


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "raised"),
        [
            (OsmosisValidationError("The trainer said no.", 422), "BadRequestError"),
            (OsmosisServerError("The trainer is down.", 503), "InternalServerError"),
            (RuntimeError("the script is wrong"), "InternalServerError"),
        ],
    )
    async def test_a_failed_call_is_asked_once_and_is_the_models_failure(
        self, ways: Any, error: Exception, raised: str
    ) -> None:
        ctx = context(error, SAYING)
        with pytest.raises(getattr(openai, raised), match=str(error)) as told:
            await ask(ways(ctx).with_options(max_retries=2), QUESTION)
        assert len(policy_of(ctx).calls) == 1
        outcome = result_of_exception("r1", ctx, told.value).payload["extra_fields"]["outcome"]
        assert outcome == ("agent_error" if isinstance(error, RuntimeError) else "llm_error")


class TestRetries:
    async def test_a_call_whose_client_gave_up_is_found_by_its_retry(self, ways: Any) -> None:
        ctx = context(SAYING)
        client, policy = ways(ctx), policy_of(ctx)
        policy.may_answer.clear()
        first = asyncio.create_task(ask(client, QUESTION))
        await policy.asked.wait()
        await hang_up(first)
        again = asyncio.create_task(ask(client, QUESTION))
        await asyncio.sleep(0)
        policy.may_answer.set()
        assert (await again).choices[0].message.content == "It is 4"
        assert len(policy.calls) == 1
        assert ctx.transcript.rewritten == []

    async def test_an_sdk_whose_time_runs_out_gets_its_answer_by_a_retry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = 0
        tried_again = asyncio.Event()
        answer = ChatApi.answer

        async def counted(*arguments: Any) -> Any:
            nonlocal requests
            requests += 1
            if requests == 2:
                tried_again.set()
            return await answer(*arguments)

        monkeypatch.setattr(ChatApi, "answer", counted)
        ctx = context(SAYING)
        policy = policy_of(ctx)
        policy.may_answer.clear()
        client = over_http(ctx, timeout=0.2, max_retries=9)
        call = asyncio.create_task(ask(client, QUESTION))
        await tried_again.wait()
        policy.may_answer.set()
        assert (await call).choices[0].message.content == "It is 4"
        assert (len(policy.calls), ctx.transcript.rewritten) == (1, [])
        await client.close()
        ctx.close()

    async def test_what_an_sdk_marks_as_its_retry_gets_the_same_answer(self, ways: Any) -> None:
        ctx = context(SAYING, CALLING)
        client = ways(ctx)
        for _ in range(2):
            completion = await ask(client, QUESTION, extra_headers={"x-stainless-retry-count": "1"})
            assert completion.choices[0].message.content == "It is 4"
        assert len(policy_of(ctx).calls) == 1

    async def test_the_same_question_asked_anew_is_another_call_and_drops_a_reply(self, ways: Any) -> None:
        ctx = context(SAYING, SAYING)
        client = ways(ctx)
        await ask(client, QUESTION)
        await ask(client, QUESTION)
        assert len(policy_of(ctx).calls) == 2
        assert "messages[1], a reply of the model, was left out" in ctx.transcript.rewritten[0]

    async def test_a_call_that_nobody_waits_for_ends_with_the_next_one(self, ways: Any) -> None:
        ctx = context(SAYING)
        client, policy = ways(ctx), policy_of(ctx)
        policy.may_answer.clear()
        first = asyncio.create_task(ask(client, QUESTION))
        await policy.asked.wait()
        await hang_up(first)
        policy.asked.clear()
        second = asyncio.create_task(ask(client, QUESTION, {"role": "user", "content": "3 + 3?"}))
        await policy.asked.wait()
        policy.may_answer.set()
        assert (await second).choices[0].message.content == "It is 4"
        assert policy.answers == []


class _Watch(RolloutWatch):
    def __init__(self) -> None:
        self.tools: list[tuple[str, str, ToolOutcome]] = []

    def tool_begins(self, name: str, call_id: str) -> Any:
        return name, call_id

    def tool_ends(self, tool: Any, outcome: ToolOutcome) -> None:
        self.tools.append((*tool, outcome))


class TestTools:
    async def test_a_result_in_the_conversation_is_a_tool_call_of_the_turns_length(self, ways: Any) -> None:
        watch = _Watch()
        CURRENT_WATCH.set(watch)
        ctx = context({**CALLING, "tool_calls": [CALL, {**CALL, "id": "c2"}]}, SAYING)
        client = ways(ctx)
        reply = (await ask(client, QUESTION)).choices[0].message
        await asyncio.sleep(0.02)
        await ask(client, QUESTION, reply, ANSWER, {**ANSWER, "tool_call_id": "c2"})
        assert sorted(watch.tools) == [("add", "c1", ToolOutcome.OK), ("add", "c2", ToolOutcome.OK)]
        metrics = ctx.complete(ctx.messages).metrics
        assert metrics is not None
        assert metrics.num_tool_calls == 2
        assert metrics.tool_latency_ms >= 20

    async def test_what_the_agent_counts_itself_is_not_counted_again(self, ways: Any) -> None:
        ctx = context(CALLING, SAYING)
        client = ways(ctx)
        reply = (await ask(client, QUESTION)).choices[0].message
        ctx.record_tool_call(1.0)
        await ask(client, QUESTION, reply, ANSWER)
        metrics = ctx.complete(ctx.messages).metrics
        assert metrics is not None
        assert metrics.num_tool_calls == 1


class TestItsEnd:
    async def test_what_was_lent_is_dead_when_the_rollout_has_ended(self) -> None:
        ctx, other = context(SAYING), context(SAYING)
        client, http, others = ctx.openai_client(), over_http(ctx), over_http(other)
        ctx.close()
        with pytest.raises(openai.APIStatusError, match="This rollout has ended"):
            await ask(client, QUESTION)
        with pytest.raises(openai.AuthenticationError, match="its rollout has ended"):
            await ask(http, QUESTION)
        await ask(others, QUESTION)
        other.close()
        with pytest.raises(openai.APIConnectionError):
            await ask(others, QUESTION)

    async def test_a_call_under_way_ends_with_it(self, ways: Any) -> None:
        ctx = context(SAYING)
        client, policy = ways(ctx), policy_of(ctx)
        policy.may_answer.clear()
        call = asyncio.create_task(ask(client, QUESTION))
        await policy.asked.wait()
        ctx.close()
        with pytest.raises(openai.APIError):
            await call

    async def test_an_execution_ends_it(self) -> None:
        lent: list[openai.AsyncOpenAI] = []

        class Agent(RolloutAgentLoop):
            name = "agent"

            def get_tools(self, request: RolloutRequest) -> list[OpenAIFunctionToolSchema]:
                return []

            async def run(self, ctx: RolloutContext) -> RolloutResult:
                lent.extend((ctx.openai_client(), over_http(ctx)))
                await ask(lent[1], QUESTION)
                return ctx.complete(ctx.messages)

        result = await Execution("r1", Agent(), context(SAYING), 10.0, 10.0).result()
        assert result.payload["final_messages"] == [QUESTION, SAYING]
        for client in lent:
            with pytest.raises(openai.APIError):
                await ask(client, QUESTION)

    async def test_the_key_is_nowhere_to_be_seen(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        ctx = context(SAYING, _debug_dir=str(tmp_path))
        key = ctx.openai_api_key()
        await ask(over_http(ctx), QUESTION)
        ctx.close()
        assert len(key) > 40
        assert key not in repr(ctx) + repr(ctx._openai) + json.dumps(ctx.messages)
        assert all(key not in record.getMessage() for record in caplog.records if "osmosis" in record.name)
