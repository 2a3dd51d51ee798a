"""Tool calls of the model. Each is answered by one tool message with its id, right after the model's message."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from rollout_conformance.audit import audited, first_problem
from rollout_conformance.cases import every
from rollout_conformance.catalogue import check
from rollout_conformance.conversation import answered_ids, difference
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout, objects_of
from rollout_conformance.scripts import (
    Tools,
    answering,
    call_of,
    calling_offered,
    calling_offered_tools,
    changed,
    need_tools,
    tool_call,
)
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import AUDIT, Failed, NotExercised

FIRST_OR_LAST = "answers are appended as tools end, or those that cannot be made come first, or last"
SORTED = "the answers are sorted by their ids, as texts: call_10 before call_2"
PARALLEL_CALLS = 5
NUMBERS = ("25e-1", "2.0", "-2.5", "-0", "0")
"""As JSON spells them, for parameters that are any number."""
ANY_NUMBER = frozenset({"type", "title", "description"})


async def _require_answers(kit: Kit, calls_of: Callable[[Tools], Tools], *, which: str = "") -> Tools:
    """Each of the model's calls is answered by its id; what the server offers.

    Args:
        which: what is odd about the calls, so that a tool may fail with them, and say so by its outcome.

    Raises:
        Skipped: the server has no tools.
        NotExercised: its agent ends after a tool call.
        Failed: a call is not answered, answered twice, or the rollout ended as an error.
    """

    rollout = await kit.start(calling_offered(lambda tools, _: calls_of(tools)))
    result = await rollout.result()
    need_tools(rollout.tools)
    ids = [call["id"] for call in calls_of(rollout.tools)]
    if result.get("status") == "ERROR":
        extra = result.get("extra_fields")
        if which and isinstance(extra, dict) and extra.get("outcome") == "tool_error":
            return rollout.tools
        got = f"an ERROR: {quoted(result.get('error_message'))}"
        raise Failed(f"tool messages that answer the model's calls{which}", got)
    if len(rollout.chats) < 2:
        raise NotExercised("the agent does not call the model again after a tool call")
    messages = rollout.chats[1].messages
    calling = next((n for n, message in enumerate(messages) if message.get("tool_calls")), None)
    if calling is None:
        raise Failed("the model's message with its tool calls in the next call", "none")
    added = messages[calling + 1 :]
    answered = answered_ids(added)
    if sorted(answered) != sorted(ids):
        got, usually = f"tool messages for {quoted(answered)}", None
        if not answered and added:
            got = f"{quoted(added[0])} right behind the calls"
            usually = "something of one's own is put between the calls and their answers"
        raise Failed(f"one tool message for each of the ids {quoted(ids)}{which}", got, usually=usually)
    return rollout.tools


@check("tools.answered", "chat-15", "A tool call is answered by a tool message with its id.")
async def answered(kit: Kit) -> None:
    await _require_answers(kit, lambda tools: [call_of(tools[0], "call_0")])


@check("tools.content", "chat-15", "The content of each is a text or a list of parts, whatever its call was.", AUDIT)
async def content(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        given = len(objects_of(rollout.init.get("messages")))
        for message in (one for call in rollout.chats for one in call.messages[given:] if one.get("role") == "tool"):
            said = message.get("content")
            if not isinstance(said, str) and not (said and objects_of(said) == said):
                return f"content {quoted(said)}"
        return ""

    first_problem(await audited(kit), "tool messages whose content is text, or a list of parts", problem)


@check("tools.every_tool", "offer-5", "Every offered tool can be called, with arguments made from its schema.")
async def every_tool(kit: Kit) -> None:
    offered = await _require_answers(kit, lambda tools: [call_of(tool, f"call_{n}") for n, tool in enumerate(tools)])
    for_numbers = [tool for tool in offered if _any_numbers(tool)]

    def spelled(number: str) -> Awaitable[Tools]:
        calls = [_with_number(tool, f"call_{n}", number) for n, tool in enumerate(for_numbers)]
        return _require_answers(kit, lambda _: calls, which=f", of which each has the number {number}")

    await every({f"the number {number}": spelled(number) for number in (NUMBERS if for_numbers else ())})


def _any_numbers(tool: dict[str, Any]) -> list[str]:
    """The parameters that may be any number."""
    parameters = tool["function"].get("parameters") or {}
    properties = parameters.get("properties") or {}
    made = json.loads(call_of(tool, "")["function"]["arguments"])
    schemas = {name: schema for name, schema in properties.items() if name in made and isinstance(schema, dict)}
    return [name for name, one in schemas.items() if one.get("type") == "number" and one.keys() <= ANY_NUMBER]


def _with_number(tool: dict[str, Any], call_id: str, number: str) -> dict[str, Any]:
    call, numbers = call_of(tool, call_id), _any_numbers(tool)
    given = json.loads(call["function"]["arguments"])
    members = (f"{json.dumps(name)}: {number if name in numbers else json.dumps(v)}" for name, v in given.items())
    return tool_call(call_id, call["function"]["name"], "{" + ", ".join(members) + "}")


@check("tools.parallel", "chat-15", f"Of {PARALLEL_CALLS} calls in one message each is answered once.")
async def parallel(kit: Kit) -> None:
    await _require_answers(
        kit, lambda tools: [call_of(tools[n % len(tools)], f"call_{n}") for n in range(PARALLEL_CALLS)]
    )


@check("tools.no_content", "answer-10", "A message with calls is taken without a content, or with null for it.")
async def no_content(kit: Kit) -> None:
    def leave_out(body: dict[str, Any], turn: int) -> None:
        body["choices"][0]["message"].pop("content" if turn == 0 else "", None)

    for how, script in (("null for", calling_offered_tools()), ("no", changed(calling_offered_tools(), leave_out))):
        rollout = await kit.start(script)
        result = await rollout.result()
        need_tools(rollout.tools)
        if result.get("status") != "COMPLETED":
            got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
            raise Failed(f"COMPLETED after a message with calls and {how} content", got)


@check("tools.equal", "chat-15", "Of two calls that are equal but for their ids each is answered.")
async def equal(kit: Kit) -> None:
    await _require_answers(kit, lambda tools: [call_of(tools[0], "call_0"), call_of(tools[0], "call_1")])


@check("tools.malformed", "chat-18", "Arguments that are no JSON object are answered by id; the rollout goes on.")
async def malformed(kit: Kit) -> None:
    broken = ("{", "not json", "[1, 2]", '"text"', '{"a": NaN}', "\u0000")
    await _require_answers(
        kit, lambda tools: [tool_call(f"call_{n}", _name(tools), text) for n, text in enumerate(broken)]
    )


@check("tools.no_arguments", "chat-18", "Empty and null arguments are answered by id; the rollout goes on.")
async def no_arguments(kit: Kit) -> None:
    def calls(tools: Tools) -> Tools:
        empty = tool_call("call_0", _name(tools), "")
        null = {"id": "call_1", "type": "function", "function": {"name": _name(tools), "arguments": None}}
        return [empty, null]

    await _require_answers(kit, calls)


@check("tools.unknown", "chat-18", "A tool that was not offered is answered by id; the rollout goes on.")
async def unknown(kit: Kit) -> None:
    await _require_answers(kit, lambda tools: [tool_call("call_0", "no_such_tool", "{}"), call_of(tools[0], "call_1")])


@check("tools.odd_ids", "chat-17", "Tool call ids are kept as they are: long, with spaces, beyond ASCII.")
async def odd_ids(kit: Kit) -> None:
    ids = ("", "call with spaces", "\u547c\u3073\u51fa\u3057 \U0001f600", "x" * 300, "call/../0")
    await _require_answers(kit, lambda tools: [call_of(tools[0], call_id) for call_id in ids])

    def without_id(tools: Tools, turn: int) -> Tools:
        return [{name: value for name, value in call_of(tools[0], "").items() if name != "id"}]

    rollout = await kit.start(calling_offered(without_id))
    await rollout.result()
    # It may be one that cannot be answered.
    for call in rollout.chats[1:]:
        if text := difference(rollout.chats[0].continued, call.messages):
            raise Failed("a call without an id, without one in the next call for a completion too", text)


def _name(tools: Tools) -> str:
    return str(tools[0]["function"]["name"])


@check("tools.reason", "whole-11", "Calls are answered that come with 'stop'; without any, 'tool_calls' is an end.")
async def reason(kit: Kit) -> None:
    def stopped(body: dict[str, Any], turn: int) -> None:
        body["choices"][0]["finish_reason"] = "stop"

    def silent(body: dict[str, Any], turn: int) -> None:
        del body["choices"][0]["finish_reason"]

    ended = await kit.start(answering(finish_reason="tool_calls"))
    calling = await kit.start(changed(calling_offered_tools(), stopped))
    untold = await kit.start(changed(calling_offered_tools(), silent))
    result, *_ = await kit.results((ended, calling, untold))
    if result.get("status") != "COMPLETED" or len(ended.chats) > 1:
        looked_at(ended)
        got = f"{result.get('status')} after {len(ended.chats)} calls: {quoted(result.get('error_message'))}"
        raise Failed("COMPLETED after a reply without calls, finish_reason 'tool_calls'", got)
    need_tools(calling.tools)
    for rollout, how in ((calling, "with finish_reason 'stop'"), (untold, "without a finish_reason")):
        if len(rollout.chats) < 2:
            looked_at(rollout)
            raise Failed(f"the calls answered that came {how}", "no further call for a completion")


@check("tools.order", "chat-16", "The tool messages come in the order of the calls, be some of them none.")
async def order(kit: Kit) -> None:
    ids, many = [f"call_{n}" for n in (3, 1, 4, 0, 2)], [f"call_{n}" for n in range(12)]

    def unknown_first(tools: Tools, turn: int) -> Tools:
        calls = [call_of(tools[n % len(tools)], call_id) for n, call_id in enumerate(ids)]
        return [tool_call(ids[0], "no_such_tool", "{}"), *calls[1:]]

    def odd_between(tools: Tools, turn: int) -> Tools:
        calls = [call_of(tools[n % len(tools)], call_id) for n, call_id in enumerate(ids)]
        unknown, malformed = tool_call(ids[2], "no_such_tool", "{}"), tool_call(ids[4], _name(tools), "{")
        return [*calls[:2], unknown, calls[3], malformed]

    def many_at_once(tools: Tools, turn: int) -> Tools:
        return [call_of(tools[n % len(tools)], call_id) for n, call_id in enumerate(many)]

    def nested_between(tools: Tools, turn: int) -> Tools:
        calls = [call_of(tools[n % len(tools)], call_id) for n, call_id in enumerate(ids)]
        for call in calls[:4:2]:
            function = call["function"]
            function["arguments"] = json.dumps({**json.loads(function["arguments"]), "x_nested": {"a": [{}, [1]]}})
        return calls

    cases = {
        ", the first of a tool that was not offered": (unknown_first, ids),
        ", two of which cannot be made": (odd_between, ids),
        ", of which there are 12": (many_at_once, many),
        ", of which the first and the third have an object within their arguments": (nested_between, ids),
    }
    for which, (calls_of, asked) in cases.items():
        rollout = await kit.start(calling_offered(calls_of))
        await rollout.result()
        need_tools(rollout.tools)
        if len(rollout.chats) < 2:
            raise NotExercised("the agent does not call the model again after a tool call")
        before = len(rollout.chats[0].continued)
        answered = answered_ids(rollout.chats[1].messages[before:])
        if answered != asked:
            usually = SORTED if answered == sorted(asked) else FIRST_OR_LAST if set(answered) == set(asked) else None
            what = f"tool messages in the order of the calls, {quoted(asked)}{which}"
            raise Failed(what, quoted(answered), usually=usually)
