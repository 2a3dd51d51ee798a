"""What is in a conversation's calls, and how many there are: limits, keys, defaults."""

import asyncio
from itertools import pairwise
from typing import Any

from rollout_conformance.audit import audited, first_problem
from rollout_conformance.cases import depends_on
from rollout_conformance.catalogue import check
from rollout_conformance.checks.chat import SAMPLING, require_completed
from rollout_conformance.conversation import added_field
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import Call, PlayedRollout
from rollout_conformance.scripts import (
    COMPLETION_TOKENS,
    answering,
    breaking_off,
    calling_offered_tools,
    changed,
    delayed,
    need_tools,
    refusing,
)
from rollout_conformance.strict_json import is_same_document, is_same_json
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import AUDIT, Failed, NotExercised

MAX_TOKENS_TOTAL = 1_000
DEFAULT_TURNS, DEFAULT_TOKENS_TOTAL = 10, 8192
SLOW_SECONDS = 0.3
DEFAULTS: dict[str, Any] = {"model": "default", "temperature": 1.0, "top_p": 1.0, "max_tokens": 512, "logprobs": True}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


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
            require_completed(kit, f"a reply with finish_reason {one!r}", answering(finish_reason=one))
            for one in reasons
        )
    )


@check("chat.key", "chat-7", "Each call has an Idempotency-Key, the same for each attempt of one call.", AUDIT)
async def key(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        if any(not call.key for call in rollout.chats):
            return "none"
        for one, again in pairwise(rollout.chats_before_result):
            if again.is_attempt_after(one) and one.key != again.key:
                return f"{quoted(one.key)}, then {quoted(again.key)} after it was {one.answer_in_words}"
        return ""

    rollouts = await audited(kit)
    kept: dict[bool, set[str]] = {True: set(), False: set()}
    for rollout in rollouts:
        for one, again in pairwise(rollout.chats_before_result):
            if again.is_attempt_after(one):
                how = one.answer_in_words.removeprefix("its connection was ")
                kept[one.key == again.key].add(f"what was {how}")
    usually = depends_on(sorted(kept[False]), sorted(kept[True])) if kept[True].isdisjoint(kept[False]) else None
    usually = usually if all(kept.values()) else None
    first_problem(rollouts, "an Idempotency-Key, the same for each attempt of a call", problem, usually)


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
        body["choices"][0] |= {**later, "Message": None, "Finish_Reason": "error", "finishReason": "error"}
        body["Choices"] = []
        body["usage"] |= {**later, "prompt_tokens_details": {"cached_tokens": 3}}

    await require_completed(kit, "a reply with fields of a later version", changed(answering(), change))


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
