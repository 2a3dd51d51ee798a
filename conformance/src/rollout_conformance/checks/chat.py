"""Calls for a completion: the conversation, and how the model is sampled."""

from itertools import pairwise
from typing import Any

from rollout_conformance.audit import audited, first_problem
from rollout_conformance.catalogue import check
from rollout_conformance.conversation import difference
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout, Script, objects_of
from rollout_conformance.scripts import (
    answering,
    call_of,
    calling_offered,
    calling_offered_tools,
    encoded,
    need_tools,
    raw,
)
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import AUDIT, Failed, NotExercised

SAMPLING = {"temperature": 0.37, "top_p": 0.81, "max_tokens": 123}
MORE_SAMPLING = {"seed": 12_345, "top_k": 17, "presence_penalty": 0.25, "stop": ["<end>"], "x_own": {"a": [1, 2]}}


async def _require_sampling(kit: Kit, params: dict[str, Any]) -> None:
    rollout = await kit.start(completion_params=params)
    call = await rollout.first_chat()
    await rollout.result()
    for name, value in params.items():
        if call.fields.get(name) != value:
            got = quoted(call.fields[name]) if name in call.fields else "none"
            raise Failed(f"{name} {quoted(value)} of completion_params in a call for a completion", got)


async def _require_completed(kit: Kit, after: str, script: Script) -> None:
    result = await (await kit.start(script)).result()
    if result.get("status") != "COMPLETED":
        got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
        raise Failed(f"COMPLETED after {after}", got)


@check("chat.conversation", "chat-2", "The first call begins with the messages of the init, unchanged.", AUDIT)
async def conversation(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        opening = objects_of(rollout.init["messages"])
        return next((text for call in rollout.chats if (text := difference(opening, call.messages))), "")

    first_problem(await audited(kit), "the messages of the init at the start of every call for a completion", problem)


@check(
    "chat.append_only",
    "chat-9 chat-12",
    "Each call repeats the one before, then the model's reply, then what is new.",
    AUDIT,
)
async def append_only(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        differences = (difference(one.continued, later.messages) for one, later in pairwise(rollout.answered_chats))
        return next((f"{text} of a later call" for text in differences if text), "")

    first_problem(await audited(kit), "calls for a completion that only append to the conversation", problem)


@check("chat.sampling", "chat-3", "temperature, top_p and max_tokens of completion_params reach the trainer.")
async def sampling(kit: Kit) -> None:
    await _require_sampling(kit, SAMPLING)


@check("chat.more_sampling", "chat-3", "So does every other field of completion_params.")
async def more_sampling(kit: Kit) -> None:
    await _require_sampling(kit, {**SAMPLING, **MORE_SAMPLING})


@check("chat.reserved", "init-16", "completion_params cannot replace messages or rollout_id.")
async def reserved(kit: Kit) -> None:
    rollout = kit.play(completion_params={**SAMPLING, "messages": [], "rollout_id": "someone-else"})
    if not await kit.is_taken(rollout, "completion_params with messages and rollout_id"):
        return
    call = await rollout.first_chat()
    await rollout.result()
    if call.fields.get("rollout_id") != rollout.rollout_id or not call.messages:
        raise Failed("the rollout's own messages and rollout_id", quoted(call.fields))


@check("chat.reply_intact", "chat-14", "Keys of a reply that the server does not know stay in the conversation.")
async def reply_intact(kit: Kit) -> None:
    extra: dict[str, Any] = {"reasoning_content": "Let me see.", "x_own": {"a": [1, None, True]}}
    rollout = await kit.start(calling_offered(lambda tools, _: [call_of(tools[0], "call_0")], **extra))
    await rollout.result()
    need_tools(rollout.tools)
    later = [message for call in rollout.chats[1:] for message in call.messages if message.get("role") == "assistant"]
    if not later:
        raise NotExercised("the agent does not call the model again after a tool call")
    lost = [name for name, value in extra.items() if later[0].get(name) != value]
    if lost:
        raise Failed(f"{lost[0]} of the model's reply in the next call", quoted(later[0]))


@check("chat.null_fields", "answer-3", "A completion with null for usage, tool_calls and logprobs is taken.")
async def null_fields(kit: Kit) -> None:
    message = {"role": "assistant", "content": "#### 4", "tool_calls": None, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    body = {"id": "cmpl-0", "created": 0, "choices": [choice], "usage": None, "token_ids": None, "logprobs": None}
    await _require_completed(kit, "a completion with nulls", raw(encoded(body)))


@check("chat.max_turns", "init-20", "A rollout makes no more calls for a completion than its max_turns.")
async def max_turns(kit: Kit) -> None:
    limit = 2
    rollout = await kit.start(calling_offered_tools(turns=limit + 6), max_turns=limit)
    await rollout.result()
    need_tools(rollout.tools)
    if len(rollout.chats) < limit:
        raise NotExercised(f"the agent ended after {len(rollout.chats)} calls for a completion")
    if len(rollout.chats) > limit:
        raise Failed(f"at most {limit} calls for a completion with max_turns {limit}", str(len(rollout.chats)))


@check("chat.no_finish_reason", "whole-3", "A reply without a finish_reason is taken.")
async def no_finish_reason(kit: Kit) -> None:
    await _require_completed(kit, "a reply without a finish_reason", answering(finish_reason=...))


@check("chat.cut_off_reply", "whole-2", "A reply with finish_reason 'length' ends the rollout as COMPLETED.")
async def cut_off_reply(kit: Kit) -> None:
    await _require_completed(kit, "a reply that was cut off", answering("I was about to", "length"))
