"""Calls for a completion: the conversation, and how the model is sampled."""

import asyncio
import json
from itertools import pairwise
from typing import Any

from rollout_conformance.audit import audited, first_problem
from rollout_conformance.catalogue import check
from rollout_conformance.conversation import added_field, difference
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import Call, PlayedRollout, Script, objects_of
from rollout_conformance.scripts import (
    COMPLETION_TOKENS,
    Tools,
    answering,
    breaking_off,
    call_of,
    calling_offered,
    calling_offered_tools,
    changed,
    delayed,
    encoded,
    first,
    need_tools,
    raw,
    refusing,
    saying,
    tool_call,
    turn_of,
)
from rollout_conformance.strict_json import is_same_document, is_same_json
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import AUDIT, Failed, NotExercised

MAX_TOKENS_TOTAL = 1_000
DEFAULT_TURNS, DEFAULT_TOKENS_TOTAL = 10, 8192
SLOW_SECONDS = 0.3
SAMPLING = {"temperature": 0.37, "top_p": 0.81, "max_tokens": 123}
MORE_SAMPLING = {
    "seed": 12_345,
    "top_k": 17,
    "presence_penalty": 0.25,
    "stop": ["<end>"],
    "x_own": {"a": [1, None, 2], "b": None},
    "n": 1,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "user": "kit",
}
FALSE = {"temperature": 0, "logprobs": False, "seed": 0, "presence_penalty": 0.0, "x_own": {}, "stream": False}
LARGE = 2**53 + 1
STOP = "<end>"
BROUGHT = [{"type": "x-kit"}]


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


@check("chat.reserved", "init-16", "completion_params cannot replace messages or rollout_id, nor bring tools.")
async def reserved(kit: Kit) -> None:
    params = {**SAMPLING, "messages": [], "rollout_id": "someone-else", "tools": BROUGHT, "self": "x"}
    rollout = await kit.start(completion_params=params)
    call = await rollout.first_chat()
    await rollout.result()
    # Tools of the server's own are another check's matter.
    is_brought = "self" in call.fields or call.fields.get("tools") == BROUGHT
    if call.fields.get("rollout_id") != rollout.rollout_id or not call.messages or is_brought:
        raise Failed("the rollout's own messages and rollout_id, no tools and no self", quoted(call.fields))


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
LARGE_ARGUMENT = 12_345_678_901_234_567_890
ODD_CONTENT = "  Let me see.\n\n"
ODD_END = "It is 4.\n#### 4 \n"
DEFAULTS: dict[str, Any] = {"model": "default", "temperature": 1.0, "top_p": 1.0, "max_tokens": 512, "logprobs": True}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@check(
    "chat.reply_kept", "chat-9 chat-12", "A reply with odd spaces, a text beside its calls, or odd arguments stays so."
)
async def reply_kept(kit: Kit) -> None:
    def calls_of(tools: Tools, turn: int) -> Tools:
        call = call_of(tools[0], "call_0")
        arguments = json.loads(call["function"]["arguments"])
        call["function"]["arguments"] = json.dumps(arguments, indent=2)
        odd = json.dumps({**arguments, "x_large": LARGE_ARGUMENT, "x_null": None, "x_list": [None, {}]})
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
        await _require_completed(kit, f"the completion {quoted(body)}", raw(encoded(body)))


@check("chat.any_head", "retry-1", "So is one of any Content-Type or none, that ends with its connection or not.")
async def any_head(kit: Kit) -> None:
    body = encoded({"choices": [{"message": {"role": "assistant", "content": "#### 4"}, "finish_reason": "stop"}]})
    kinds = ("", "text/plain", "application/octet-stream")
    answers = {f"with Content-Type {quoted(kind)}": Answer(body=body, headers={"Content-Type": kind}) for kind in kinds}
    answers["that ends with its connection"] = Answer(body=body, ends_with_connection=True)
    await asyncio.gather(
        *(_require_completed(kit, f"a completion {how}", first(one, then=raw(body))) for how, one in answers.items())
    )


@check("chat.added", "chat-20", "No field is added to a reply, or changed in it.", AUDIT)
async def added(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        for one, later in pairwise(rollout.answered_chats):
            for before, after in zip(one.continued, later.messages, strict=False):
                if name := added_field(before, after):
                    return f"{name} {quoted(after[name])} in a message that had {quoted(before.get(name))}"
        return ""

    first_problem(await audited(kit), "messages without added or changed fields", problem)


@check("chat.unknown_fields", "http-5", "Fields and parts of the init's messages that no server knows are kept.")
async def unknown_fields(kit: Kit) -> None:
    content = [{"type": "text", "text": "What is 2 + 2?"}, PICTURE]
    messages = [{"role": "user", "content": content, "x_own": {"a": [1, None, True]}}]
    rollout = await kit.start(messages=messages)
    call = await rollout.first_chat()
    await rollout.result()
    if not is_same_json(call.messages[: len(messages)], messages):
        raise Failed("the messages of the init as they came", quoted(call.messages[: len(messages)]))


@check("chat.nulls", "chat-4", "A null in completion_params is left out of the call, or is the default.")
async def nulls(kit: Kit) -> None:
    params = {**SAMPLING, "top_p": None, "stop": None, "top_k": None, "model": None}
    rollout = kit.play(completion_params=params)
    await kit.send(rollout)
    call = await rollout.first_chat()
    await rollout.result()
    null = [name for name, value in call.fields.items() if value is None]
    if null:
        raise Failed("a call without nulls", f"{null[0]} null")


@check(
    "chat.defaults",
    "chat-5",
    "model, temperature, top_p, max_tokens and logprobs are always sent.",
)
async def defaults(kit: Kit) -> None:
    rollout = await kit.start(completion_params={})
    call = await rollout.first_chat()
    await rollout.result()
    for name, value in DEFAULTS.items():
        if not is_same_json(call.fields.get(name), value):
            raise Failed(f"{name} {quoted(value)} in a call without completion_params", quoted(call.fields.get(name)))


@check("chat.no_tools", "chat-6", "The tools are not sent with a call: the trainer has them.", AUDIT)
async def no_tools(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        return next((f"tools {quoted(call.fields['tools'])}" for call in rollout.chats if "tools" in call.fields), "")

    first_problem(await audited(kit), "calls without tools", problem)


@check("chat.max_tokens_total", "init-21", "An agent makes no call once the conversation has max_tokens_total tokens.")
async def max_tokens_total(kit: Kit) -> None:
    def large(body: dict[str, Any], turn: int) -> None:
        body["usage"]["prompt_tokens"] = MAX_TOKENS_TOTAL - COMPLETION_TOKENS

    def level(body: dict[str, Any], turn: int) -> None:
        body["usage"]["prompt_tokens"] = MAX_TOKENS_TOTAL // 2

    over, under = await asyncio.gather(
        kit.start(changed(calling_offered_tools(turns=3), large), max_tokens_total=MAX_TOKENS_TOTAL),
        kit.start(changed(calling_offered_tools(turns=3), level), max_tokens_total=MAX_TOKENS_TOTAL),
    )
    await kit.results((over, under))
    need_tools(over.tools)
    if len(over.chats) > 1:
        what = f"one call where the first reply says {MAX_TOKENS_TOTAL} tokens in all, which is max_tokens_total"
        raise Failed(what, str(len(over.chats)))
    if len(under.chats) == 2:
        raise Failed("further calls where each reply says half of max_tokens_total: it is no sum over the turns", "two")
    if len(under.chats) < 2:
        raise NotExercised("the agent does not call the model again after a tool call")


@check("chat.whole", "whole-1 retry-1", "A reply is taken with finish_reason 'stop', 'tool_calls' and 'function_call'.")
async def whole(kit: Kit) -> None:
    reasons = ("stop", "tool_calls", "function_call")
    await asyncio.gather(
        *(
            _require_completed(kit, f"a reply with finish_reason {one!r}", answering(finish_reason=one))
            for one in reasons
        )
    )


@check("chat.key", "chat-7", "Each call has an Idempotency-Key, the same for each attempt of one call.", AUDIT)
async def key(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        if any(not call.key for call in rollout.chats):
            return "none"
        for one, again in pairwise(rollout.chats):
            if _is_attempt_of(one, again) and one.key != again.key:
                return f"{quoted(one.key)}, then {quoted(again.key)} after it was {one.answer_in_words}"
        return ""

    first_problem(await audited(kit), "an Idempotency-Key, the same for each attempt of a call", problem)


@check("chat.own_key", "chat-8", "No two calls have one Idempotency-Key, of one rollout or of several.", AUDIT)
async def own_key(kit: Kit) -> None:
    rollouts = await audited(kit)
    seen: dict[str, Call] = {}
    for call in (call for rollout in rollouts for call in rollout.chats if call.key):
        before = seen.setdefault(call.key, call)
        # An attempt with another body is another check's matter; one of a reply that was not taken, too.
        is_attempt = not before.was_successful or before.messages == call.messages
        if before.rollout is call.rollout and is_attempt:
            continue
        if before.rollout is not call.rollout or not is_same_document(before.request.body, call.request.body):
            looked_at(call.rollout)
            other = "another rollout" if before.rollout is not call.rollout else "the same rollout"
            raise Failed("an Idempotency-Key of its own for each call", f"{quoted(call.key)} of a call of {other} too")


def _is_attempt_of(one: Call, again: Call) -> bool:
    """Whether both are one call: the first got no answer, or a refusal."""
    is_unanswered = one.answered_at is not None and not one.was_successful
    return is_unanswered and is_same_document(one.request.body, again.request.body)


@check("chat.one_at_a_time", "chat-19", "A call is made when the one before it is over.")
async def one_at_a_time(kit: Kit) -> None:
    rollout = await kit.start(delayed(SLOW_SECONDS, calling_offered_tools(turns=2)))
    await rollout.result()
    for one, later in pairwise(rollout.chats):
        if one.answered_at is None or later.came_at < one.answered_at:
            raise Failed("one call in flight", "one before the answer to the call before it")


@check("chat.unknown_reply_fields", "http-4", "Fields of a reply that the server does not know are ignored.")
async def unknown_reply_fields(kit: Kit) -> None:
    def change(body: dict[str, Any], turn: int) -> None:
        later = {"x_from_a_later_version": {"a": [1, None]}}
        body |= later
        body["choices"][0] |= later
        body["usage"] |= {**later, "prompt_tokens_details": {"cached_tokens": 3}}

    await _require_completed(kit, "a reply with fields of a later version", changed(answering(), change))


@check("chat.turns_once", "init-20", "A call that had to be made again is one of max_turns, an aborted reply none.")
async def turns_once(kit: Kit) -> None:
    limit = 2
    calling = calling_offered_tools(turns=limit + 6)
    plain, again, aborted = await asyncio.gather(
        *(
            kit.start(script, max_turns=limit)
            for script in (calling, refusing(500, 1, calling), breaking_off("abort", 1, calling))
        )
    )
    await kit.results((plain, again, aborted))
    need_tools(again.tools)
    for rollout, what in ((again, "a call is made again"), (aborted, "a reply is aborted")):
        if len(rollout.answered_chats) != len(plain.answered_chats):
            looked_at(rollout)
            expected = f"{len(plain.answered_chats)} replies with max_turns {limit}, though {what}"
            raise Failed(expected, str(len(rollout.answered_chats)))


@check("chat.default_limits", "init-20 init-21", "max_turns is 10 and max_tokens_total 8192 where the init is silent.")
async def default_limits(kit: Kit) -> None:
    def growing(body: dict[str, Any], turn: int) -> None:
        body["usage"]["prompt_tokens"] = DEFAULT_TOKENS_TOTAL - COMPLETION_TOKENS - 1 + turn

    for change in (lambda body, turn: None, growing):
        script = changed(calling_offered_tools(turns=DEFAULT_TURNS + 2), change)
        said = await kit.start(script, max_turns=DEFAULT_TURNS, max_tokens_total=DEFAULT_TOKENS_TOTAL)
        silent = kit.play(script)
        silent.init = {name: v for name, v in silent.init.items() if name not in ("max_turns", "max_tokens_total")}
        await kit.send(silent)
        await kit.results((said, silent))
        need_tools(said.tools)
        if len(said.chats) != len(silent.chats) and not {"max_turns", "max_tokens_total"} & set(
            kit.options.init_fields
        ):
            raise Failed(
                f"{len(said.chats)} calls, as with max_turns 10 and max_tokens_total 8192", str(len(silent.chats))
            )
