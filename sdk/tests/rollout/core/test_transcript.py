"""What the context remembers of a conversation: whether it only grew, and how long it got."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.agent_context import REPLY, REQUEST, Policy, context

from osmosis_ai.rollout.core.llm_client import CompletionsResult

Message = dict[str, Any]


class TestTranscript:
    async def test_it_is_what_was_sent_and_replied_even_before_the_agent_appends(self) -> None:
        ctx = context(Policy(REPLY, REPLY))
        assert ctx.transcript.messages() == []
        messages = list(REQUEST.messages)
        await ctx.chat(messages)
        assert ctx.transcript.messages() == [*REQUEST.messages, REPLY.message]
        messages += [REPLY.message, {"role": "tool", "content": "x"}]
        assert ctx.transcript.messages() == messages
        await ctx.chat(messages)
        assert ctx.transcript.messages() == [*messages, REPLY.message]
        assert ctx.transcript.rewritten == []

    async def test_after_a_failed_call_it_is_what_was_sent(self) -> None:
        ctx = context(Policy(REPLY, RuntimeError("gone")))
        await ctx.chat(list(REQUEST.messages))
        messages = [*REQUEST.messages, REPLY.message]
        with pytest.raises(RuntimeError):
            await ctx.chat(messages)
        assert ctx.transcript.messages() == messages

    @pytest.mark.parametrize(
        ("rewrite", "told"),
        [
            (
                lambda messages: messages[0].update(content="3 + 3?"),
                "messages[0] was changed (content was '2 + 2?' and is '3 + 3?')",
            ),
            (
                lambda messages: messages.pop(0),
                "messages[0] was changed (content was '2 + 2?' and is 'please')",
            ),
            (lambda messages: messages.pop(), "messages[1] was removed"),
            (
                lambda messages: messages.insert(1, {"role": "system"}),
                "messages[1] was changed (content was 'please' and is '')",
            ),
        ],
        ids=["changed", "first removed", "last removed", "inserted"],
    )
    async def test_an_agent_that_rewrites_what_was_sent_is_told_by_log_and_trace(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, rewrite: Any, told: str
    ) -> None:
        ctx = context(Policy(REPLY, REPLY), _debug_dir=str(tmp_path))
        messages: list[Message] = [{"role": "user", "content": "2 + 2?"}, {"role": "user", "content": "please"}]
        await ctx.chat(messages, temperature=0.5)
        rewrite(messages)
        await ctx.chat(messages, temperature=0.5)
        (problem,) = ctx.transcript.rewritten
        assert [record.getMessage().endswith(problem) for record in caplog.records] == [True]
        (line,) = (tmp_path / "run7-000042.jsonl").read_text().splitlines()
        assert json.loads(line)["problem"] == problem
        assert problem == f"{told} before chat call 2; a conversation may only be appended to."

    async def test_a_result_that_leaves_out_what_was_sent_is_told(self) -> None:
        ctx = context()
        await ctx.chat(list(REQUEST.messages), temperature=0.5)
        assert ctx.transcript.check([*REQUEST.messages, REPLY.message]) is None
        assert ctx.transcript.check([]) == (
            "messages[0] was removed after chat call 1; a conversation may only be appended to."
        )

    @pytest.mark.parametrize(
        ("back", "told"),
        [
            ([{**REPLY.message, "content": "cleaned up"}], "was changed (content was '4' and is 'cleaned up')"),
            ([{"role": "user", "content": "4"}], "was changed (role was 'assistant' and is 'user')"),
            ([], "was left out"),
        ],
    )
    async def test_a_reply_that_comes_back_changed_or_not_at_all_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, back: list[Message], told: str
    ) -> None:
        ctx = context(Policy(REPLY, REPLY), _debug_dir=str(tmp_path))
        await ctx.chat(list(REQUEST.messages), temperature=0.5)
        await ctx.chat([*REQUEST.messages, *back], temperature=0.5)
        problem = (
            f"messages[1], a reply of the model, {told} before chat call 2; a conversation may only be appended to."
        )
        assert ctx.transcript.rewritten == [problem]
        assert caplog.messages == [f"Rollout 'run7-000042': {problem}"]
        (line,) = (tmp_path / "run7-000042.jsonl").read_text().splitlines()
        assert json.loads(line)["problem"] == problem

    async def test_a_reply_that_the_agent_changes_in_place_is_told(self) -> None:
        ctx = context(Policy(CompletionsResult({"role": "assistant", "content": "4"}, [], [], {}, "stop"), REPLY))
        messages = list(REQUEST.messages)
        reply = await ctx.chat(messages, temperature=0.5)
        reply.message["content"] = "5"
        messages.append(reply.message)
        await ctx.chat(messages, temperature=0.5)
        assert "content was '4' and is '5'" in ctx.transcript.rewritten[0]

    async def test_the_last_reply_may_be_missing_in_a_result_but_not_be_another(self) -> None:
        ctx = context()
        await ctx.chat(list(REQUEST.messages), temperature=0.5)
        assert ctx.transcript.check(list(REQUEST.messages)) is None
        assert "content was '4' and is '5'" in str(
            ctx.transcript.check([*REQUEST.messages, {**REPLY.message, "content": "5"}])
        )

    async def test_an_agent_may_go_on_from_either_of_two_replies_that_it_asked_for_at_once(self) -> None:
        other = CompletionsResult({"role": "assistant", "content": "four"}, [], [], {}, "stop")

        class SlowPolicy(Policy):
            async def chat_completions(self, *args: Any, **kwargs: Any) -> CompletionsResult:
                await asyncio.sleep(0)
                return await super().chat_completions(*args, **kwargs)

        for chosen in (REPLY, other):
            ctx = context(SlowPolicy(REPLY, other, REPLY))
            messages = list(REQUEST.messages)
            await asyncio.gather(ctx.chat(messages, temperature=0.5), ctx.chat(messages, temperature=1))
            await ctx.chat([*messages, chosen.message], temperature=0.5)
            assert ctx.transcript.rewritten == []

    async def test_what_is_spelled_otherwise_goes_out_as_it_was_recorded(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
        recorded = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
        respelled = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{**call, "function": {"name": "add", "arguments": '{"a":1}'}}],
        }
        answer = {"role": "tool", "tool_call_id": "c1", "content": "1"}
        policy = Policy(CompletionsResult(recorded, [], [], {}, "tool_calls"), REPLY, REPLY)
        ctx = context(policy)
        await ctx.chat(list(REQUEST.messages), temperature=0.5)
        question: Message = {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}
        for messages in ([*REQUEST.messages, respelled, answer], [question, respelled, answer, REPLY.message]):
            await ctx.chat(messages, temperature=0.5)
        sent = [*REQUEST.messages, recorded, answer, REPLY.message]
        assert [args[0] for args, _ in policy.calls[1:]] == [sent[:3], sent]
        assert ctx.transcript.messages() == [*sent, REPLY.message]
        assert json.loads(b"[" + ctx.transcript.encoded() + b"]") == sent
        assert ctx.transcript.check([*REQUEST.messages, respelled, answer, REPLY.message]) is None
        assert ctx.transcript.rewritten == []


class TestContextTokens:
    @pytest.mark.parametrize(
        ("usages", "tokens"),
        [
            ([], 0),
            ([{"prompt_tokens": 60, "completion_tokens": 40}], 100),
            ([{"prompt_tokens": 60, "completion_tokens": 10}, {"prompt_tokens": 75, "completion_tokens": 5}], 80),
            ([{"prompt_tokens": 60, "completion_tokens": 10}, {"prompt_tokens": 5, "completion_tokens": 1}], 70),
            ([{"prompt_tokens": 100, "completion_tokens": 500}, {"prompt_tokens": 150, "completion_tokens": 20}], 600),
            ([{"completion_tokens": 30}] * 3, 90),
            ([{"prompt_tokens": 0, "completion_tokens": 30}] * 3, 90),
            ([{"prompt_tokens": None, "completion_tokens": None}, {}], 0),
        ],
    )
    async def test_they_are_those_of_a_prompt_and_its_reply_and_never_fall(
        self, usages: list[dict[str, Any]], tokens: int
    ) -> None:
        ctx = context(Policy(*(CompletionsResult(REPLY.message, [], [], usage, "stop") for usage in usages)))
        for _ in usages:
            await ctx.chat(REQUEST.messages, temperature=0.5)
        assert ctx.context_tokens == tokens

    async def test_a_policy_that_counts_nothing_counts_as_none(self) -> None:
        ctx = context(Policy(SimpleNamespace(message={"role": "assistant"})))
        await ctx.chat(REQUEST.messages, temperature=0.5)
        assert ctx.context_tokens == 0
