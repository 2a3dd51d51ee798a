"""Calls for a completion: the conversation, and how the model is sampled."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

from rollout_conformance.audit import audited, first_problem
from rollout_conformance.cases import every
from rollout_conformance.catalogue import check
from rollout_conformance.conversation import difference
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import Call, PlayedRollout, Script, objects_of
from rollout_conformance.scripts import (
    IN_CAPITALS,
    WITH_TRAILER,
    Tools,
    answering,
    call_of,
    calling_offered,
    calling_offered_tools,
    changed,
    encoded,
    first,
    need_tools,
    raw,
    saying,
    tool_call,
    turn_of,
)
from rollout_conformance.strict_json import is_same_json
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import AUDIT, Failed, NotExercised

SAMPLING = {"model": "kit-policy", "temperature": 0.37, "top_p": 0.81, "max_tokens": 123}
MORE_SAMPLING = {
    "seed": 12_345,
    "top_k": 17,
    "presence_penalty": 0.25,
    "stop": ["<end>"],
    "x_own": {"a": [1, None, 2], "b": None},
    "n": 1,
    "stream": True,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "user": "kit",
}
FALSE = {"temperature": 0, "logprobs": False, "seed": 0, "presence_penalty": 0.0, "x_own": {}, "stream": False}
LARGE = 2**53 + 1
STOP = "<end>"
RESERVED = {"messages": [], "rollout_id": "someone-else", "tools": [{"type": "x-kit"}], "self": "x"}


async def _require_sampling(kit: Kit, params: dict[str, Any]) -> None:
    # The second call has less left of max_tokens_total than max_tokens.
    rollout = await kit.start(calling_offered_tools(), completion_params=params, max_tokens_total=150)
    await rollout.first_chat()
    await rollout.result()
    for number, call in enumerate(rollout.chats, start=1):
        for name, value in params.items():
            if name not in call.fields or not is_same_json(call.fields[name], value):
                got = quoted(call.fields[name]) if name in call.fields else "none"
                raise Failed(f"{name} {quoted(value)} of completion_params in call {number} for a completion", got)


async def require_completed(kit: Kit, after: str, script: Script) -> PlayedRollout:
    """A rollout that this script answers, and that ends as COMPLETED."""
    rollout = await kit.start(script)
    result = await rollout.result()
    if result.get("status") != "COMPLETED":
        got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
        raise Failed(f"COMPLETED after {after}", got)
    return rollout


async def _require_taken(kit: Kit, what: str, script: Script) -> None:
    """The reply is not asked for again."""
    rollout = await require_completed(kit, what, script)
    if len(rollout.chats) > 1:
        looked_at(rollout)
        raise Failed(f"one call, answered with {what}", f"{len(rollout.chats)}")


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
        calls = [call for call in rollout.chats_before_result if call in rollout.answered_chats]
        differences = (difference(one.continued, later.messages) for one, later in pairwise(calls))
        return next((f"{text} of a later call" for text in differences if text), "")

    first_problem(await audited(kit), "calls for a completion that only append to the conversation", problem)


@check("chat.sampling", "chat-3", "model, temperature, top_p and max_tokens of completion_params reach the trainer.")
async def sampling(kit: Kit) -> None:
    await _require_sampling(kit, SAMPLING)


@check("chat.more_sampling", "chat-3", "So does every other field of completion_params.")
async def more_sampling(kit: Kit) -> None:
    await _require_sampling(kit, {**SAMPLING, **MORE_SAMPLING})
    await _require_sampling(kit, {**SAMPLING, **FALSE})


@check("chat.large_number", "http-5", f"A number such as {LARGE} is sent as it came, or its init refused with a 4xx.")
async def large_number(kit: Kit) -> None:
    rollout = kit.play(completion_params={**SAMPLING, "seed": LARGE})
    if await kit.is_taken(rollout, f"an init with seed {LARGE}"):
        call = await rollout.first_chat()
        await rollout.result()
        if not is_same_json(call.fields.get("seed"), LARGE):
            raise Failed(
                f"seed {LARGE} of completion_params in a call for a completion", quoted(call.fields.get("seed"))
            )
    user, called = {"role": "user", "content": "What is 2 + 2?"}, tool_call("earlier_0", "add", "{}")
    answer = {"role": "tool", "tool_call_id": "earlier_0", "content": "4"}
    part = {"type": "text", "text": "What is 2 + 2?", "x_large": LARGE}
    conversations: dict[str, list[dict[str, Any]]] = {
        "a message": [{**user, "x_own": {"large": [LARGE]}}],
        "a part of a content": [{**user, "content": [part]}],
        "a tool call": [user, {"role": "assistant", "tool_calls": [{**called, "x_large": LARGE}]}, answer],
    }
    for where, messages in conversations.items():
        rollout = kit.play(messages=messages)
        if await kit.is_taken(rollout, f"an init with {LARGE} in {where}"):
            call = await rollout.first_chat()
            await rollout.result()
            if not is_same_json(call.messages[: len(messages)], messages):
                raise Failed(f"{LARGE} in {where} of the init, in a call for a completion", quoted(call.messages))


@check("chat.reserved", "init-16", "completion_params cannot replace messages or rollout_id, nor bring tools.")
async def reserved(kit: Kit) -> None:
    rollout = await kit.start(completion_params={**SAMPLING, **RESERVED})
    call = await rollout.first_chat()
    await rollout.result()
    # Its own messages and tools are other checks' matter.
    for name, brought in RESERVED.items():
        if name in call.fields and call.fields[name] == brought:
            what = f"a call for a completion without the {name} of completion_params"
            raise Failed(what, f"{name} {quoted(brought)}")


@check("chat.stop", "chat-21", "A stop that is a text reaches the trainer as it is, or as a list of it alone.")
async def stop(kit: Kit) -> None:
    rollout = await kit.start(completion_params={**SAMPLING, "stop": STOP})
    call = await rollout.first_chat()
    await rollout.result()
    if call.fields.get("stop") not in (STOP, [STOP]):
        raise Failed(
            f"stop {quoted(STOP)} or {quoted([STOP])} in a call for a completion", quoted(call.fields.get("stop"))
        )


@check("chat.reply_intact", "chat-14", "Keys of a reply that the server does not know stay in the conversation.")
async def reply_intact(kit: Kit) -> None:
    extra: dict[str, Any] = {"reasoning_content": "\n\nLet me see. \n", "x_own": {"a": [1, None, True]}}
    calling = calling_offered(lambda tools, turn: [call_of(tools[0], f"call_{turn}")], turns=2, **extra)
    rollout = await kit.start(calling)
    await rollout.result()
    need_tools(rollout.tools)
    replies = [message for message in rollout.chats[-1].messages if message.get("role") == "assistant"]
    if not replies:
        raise NotExercised("the agent does not call the model again after a tool call")
    for number, reply in enumerate(replies, start=1):
        if lost := next((name for name, value in extra.items() if not is_same_json(reply.get(name), value)), ""):
            raise Failed(f"{lost} of the model's reply {number} in the next call", quoted(reply))


@check("chat.null_fields", "answer-3", "A completion with null for usage, tool_calls and logprobs is taken.")
async def null_fields(kit: Kit) -> None:
    def completion(in_message: dict[str, Any], in_choice: dict[str, Any], beside: dict[str, Any]) -> Script:
        message = {"role": "assistant", "content": "#### 4", **in_message}
        choice = {"index": 0, "message": message, "finish_reason": "stop", **in_choice}
        return raw(encoded({"id": "cmpl-0", "created": 0, "choices": [choice], **beside}))

    nulls: tuple[dict[str, Any], ...] = (
        {"tool_calls": None, "refusal": None},
        {"logprobs": None},
        {"usage": None, "token_ids": None, "logprobs": None},
    )
    places = ("in its message", "in its choice", "beside choices")
    told = {"null for all that it need not have": completion(*nulls)}
    for number, (where, names) in enumerate(zip(places, nulls, strict=True)):
        for name in names:
            one: list[dict[str, Any]] = [{}, {}, {}]
            one[number] = {name: None}
            told[f"null for {name}, {where}"] = completion(*one)
    # One null by itself says which it is; all of them at once come last.
    await every({what: require_completed(kit, f"a completion with {what}", told[what]) for what in reversed(told)})


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
    await require_completed(kit, "a reply without a finish_reason", answering(finish_reason=...))


@check("chat.cut_off_reply", "whole-2", "A reply with finish_reason 'length' ends the rollout as COMPLETED.")
async def cut_off_reply(kit: Kit) -> None:
    await require_completed(kit, "a reply that was cut off", answering("I was about to", "length"))


EARLIER: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief.", "name": "house-rules"},
    {"role": "user", "content": "What is 1 + 1?", "name": "kim"},
    {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 1, "b": 1}'}},
    {"role": "function", "name": "add", "content": "2"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "earlier_0", "type": "function", "function": {"name": "add", "arguments": '{"b": 2, "a": 2.0}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "earlier_0", "name": "add", "content": [{"type": "text", "text": "4"}]},
    {"role": "assistant", "content": "It is 4.", "refusal": None},
    {"role": "developer", "content": "Once more."},
    {"role": "user", "content": "What is 2 + 2?"},
]
ODD_NUMBERS = [-2, 0, -0.5, 1e22, 1e-7, 2.0]
LARGE_ARGUMENT = 12_345_678_901_234_567_890
ODD_CONTENT = "  Let me see.\n\n"
ODD_END = "It is 4.\n#### 4 \n"


@check(
    "chat.reply_kept", "chat-9 chat-12", "A reply with odd spaces, a text beside its calls, or odd arguments stays so."
)
async def reply_kept(kit: Kit) -> None:
    def calls_of(tools: Tools, turn: int) -> Tools:
        call = call_of(tools[0], "call_0")
        arguments = json.loads(call["function"]["arguments"])
        call["function"]["arguments"] = json.dumps(arguments, indent=2)
        more: dict[str, Any] = {
            "x_large": LARGE_ARGUMENT,
            "x_null": None,
            "x_list": [None, {}],
            "x_numbers": ODD_NUMBERS,
        }
        odd = json.dumps({**arguments, **more})
        return [call, tool_call("call_1", call["function"]["name"], odd)]

    calling, ending = calling_offered(calls_of, content=ODD_CONTENT, name="solver"), saying(ODD_END)

    async def script(call: Call) -> Answer | None:
        return await (ending if turn_of(call) else calling)(call)

    rollout = await kit.start(script)
    result = await rollout.result()
    for call, later in pairwise(rollout.answered_chats):
        if text := difference(call.continued, later.messages):
            raise Failed("the model's reply, unchanged, in the next call", text)
    if rollout.answered_chats and result.get("status") == "COMPLETED":
        text = difference(rollout.answered_chats[-1].continued, objects_of(result.get("final_messages")))
        if text:
            raise Failed("the model's last reply, unchanged, in final_messages", text)


@check(
    "chat.earlier",
    "chat-2 chat-12",
    "A conversation that the init has begun with is sent with all that a model is shown.",
)
async def earlier(kit: Kit) -> None:
    rollout = await kit.start(calling_offered_tools(), messages=EARLIER)
    result = await rollout.result()
    sent = [call.messages for call in rollout.chats]
    if result.get("status") == "COMPLETED":
        sent.append(objects_of(result.get("final_messages")))
    for messages in sent:
        if text := difference(EARLIER, messages):
            raise Failed("the messages of the init, with names, calls and their answers", text)


@check("chat.first_choice", "answer-7", "Of several choices the first one counts.")
async def first_choice(kit: Kit) -> None:
    def more(body: dict[str, Any], turn: int) -> None:
        other = {"role": "assistant", "content": "#### another choice"}
        body["choices"].append({"index": 1, "message": other, "finish_reason": "abort"})

    rollout = await kit.start(changed(saying("#### the first"), more))
    result = await rollout.result()
    final = objects_of(result.get("final_messages"))
    if result.get("status") != "COMPLETED" or not final or final[-1].get("content") != "#### the first":
        raise Failed(
            "COMPLETED with the message of the first choice", quoted(final[-1:] or result.get("error_message"))
        )


@check("chat.bare", "answer-3 retry-1", "A completion that is nothing but choices[0].message is taken.")
async def bare(kit: Kit) -> None:
    message = {"role": "assistant", "content": "#### 4"}
    empty = {"choices": [{"message": message}], "usage": {}}
    for body in ({"choices": [{"message": message}]}, empty):
        await require_completed(kit, f"the completion {quoted(body)}", raw(encoded(body)))


@check(
    "chat.any_head",
    "retry-1",
    "So is one of any Content-Type or none, ended by its connection, or by a trailer.",
)
async def any_head(kit: Kit) -> None:
    body = encoded({"choices": [{"message": {"role": "assistant", "content": "#### 4"}, "finish_reason": "stop"}]})
    kinds = ("", "text/plain", "application/octet-stream")
    answers = {f"Content-Type {quoted(kind)}": Answer(body=body, headers={"Content-Type": kind}) for kind in kinds}
    answers["no end but that of its connection"] = Answer(body=body, ends_with_connection=True)
    answers["a field behind its last chunk"] = replace(WITH_TRAILER, body=body)
    answers["'Transfer-Encoding: Chunked'"] = replace(IN_CAPITALS, body=body)
    taken = {
        how: _require_taken(kit, f"a completion with {how}", first(one, then=raw(body))) for how, one in answers.items()
    }
    await every(taken)
