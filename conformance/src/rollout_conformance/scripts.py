"""Scripts: what a played trainer answers.

A turn is told by the conversation that comes in, not by counting calls, so a repeated call gets the same answer.

Where the user has a policy, ``answering`` and ``calling_offered_tools`` say what it says: all that their checks need is
an agent that goes on, or ends. Faults, and replies whose content is the check, are the kit's own all the same.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from rollout_conformance.endpoint import Answer
from rollout_conformance.played import Call, Script
from rollout_conformance.tool_arguments import arguments_for
from rollout_conformance.vocabulary import Skipped

Tools = list[dict[str, Any]]

COMPLETION_TOKENS = 7
PROMPT_TOKENS_PER_MESSAGE = 11
ANSWER_TEXT = "That is all.\n#### 4"


WITH_TRAILER = Answer(is_chunked=True, headers={"Trailer": "X-Sum"}, trailer={"X-Sum": "1"})
"""A reply in chunks, whole with what stands behind the last of them."""
IN_CAPITALS = Answer(is_chunked=True, coding=b"Chunked")
"""A reply in chunks, too."""


def encoded(value: Any) -> bytes:
    """ASCII JSON."""
    return json.dumps(value).encode("ascii")


ABSENT: dict[str, Answer] = {
    f"{status} {body[:40].decode()!r}": Answer(status, body)
    for status, body in (
        *((404, body) for body in (b"", b"{}", b"Not here.", b"no such backend", b'["no"]', b'"gone"', b"null")),
        *((405, body) for body in (b"no", b"<html></html>")),
        (404, encoded({"detail": "x" * 20_000})),
    )
}
"""What is no trainer's answer: somebody else is there, and nobody behind it. By what it says."""


def completion(call: Call, message: dict[str, Any], finish_reason: Any = "stop") -> Answer:
    """A 200 with this message, and usage that follows from the conversation; ``...`` leaves the finish reason out."""
    prompt_tokens = PROMPT_TOKENS_PER_MESSAGE * len(call.messages)
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": prompt_tokens + COMPLETION_TOKENS,
    }
    choice = {"index": 0, "message": message} | ({} if finish_reason is ... else {"finish_reason": finish_reason})
    return Answer(
        body=encoded(
            {
                "id": f"cmpl-{call.order}",
                "object": "chat.completion",
                "created": 1_767_225_600,
                "model": "default",
                "choices": [choice],
                "usage": usage,
            }
        )
    )


def turn_of(call: Call) -> int:
    """How many replies of the model the conversation holds already."""
    added = call.messages[len(call.rollout.init["messages"]) :]
    return sum(message.get("role") == "assistant" for message in added)


def saying(text: str, finish_reason: Any = "stop") -> Script:
    """Ends the conversation at once with this very text."""

    async def script(call: Call) -> Answer:
        return completion(call, {"role": "assistant", "content": text}, finish_reason)

    return script


def answering(text: str = ANSWER_TEXT, finish_reason: Any = "stop") -> Script:
    """Ends the conversation at once, or says what the policy says; ``finish_reason`` is the kit's unless ``"stop"``."""
    own = saying(text, finish_reason)

    async def script(call: Call) -> Answer | None:
        if (policy := call.rollout.policy) is None:
            return await own(call)
        await call.rollout.accepted.wait()
        message = await policy.reply(call.fields, call.rollout.tools)
        plain = "tool_calls" if message.get("tool_calls") else "stop"
        return completion(call, message, plain if finish_reason == "stop" else finish_reason)

    return script


async def acknowledge(call: Call) -> Answer:
    """Takes a result."""
    return Answer(body=b'{"status": "ok"}')


def owing(is_back: asyncio.Event, *before: Answer, retry_after: str = "1") -> Script:
    """Takes results once ``is_back``; gives the first ones the answers ``before``, and any other 503."""
    left = list(before)

    async def script(call: Call) -> Answer | None:
        if is_back.is_set():
            return await acknowledge(call)
        return left.pop(0) if left else Answer(503, encoded({"detail": "not now"}), {"Retry-After": retry_after})

    return script


def refusing(status: int, times: int | None, then: Script, headers: dict[str, str] | None = None) -> Script:
    """Answers the first ``times`` calls (all, if ``None``) with ``status``."""
    seen: list[Call] = []

    async def script(call: Call) -> Answer | None:
        seen.append(call)
        if times is None or len(seen) <= times:
            return Answer(status, encoded({"detail": f"The kit answers {status} on purpose."}), headers or {})
        return await then(call)

    return script


def first(*answers: Answer | None, then: Script) -> Script:
    """Gives the first calls these answers, one each; ``None`` cuts the connection."""
    left = list(answers)

    async def script(call: Call) -> Answer | None:
        return left.pop(0) if left else await then(call)

    return script


def at_first(change: Callable[[Answer], Answer], then: Script) -> Script:
    """Answers as ``then`` does, the first time with a change."""
    seen: list[Call] = []

    async def script(call: Call) -> Answer | None:
        seen.append(call)
        answer = await then(call)
        return answer if answer is None or len(seen) > 1 else change(answer)

    return script


def losing_connections(then: Script) -> dict[str, Script]:
    """The first connection ends without a whole answer; by how."""
    return {
        "a cut connection": cutting(1, then),
        **{
            f"a connection that was reset {where} an answer": at_first(
                partial(replace, cut_within=place, is_reset=True), then
            )
            for where, place in (("before", "start"), ("within", "body"))
        },
    }


def changed(then: Script, change: Callable[[dict[str, Any], int], None]) -> Script:
    """Answers as ``then`` does, its body changed in place by ``change``, which is told the turn too."""

    async def script(call: Call) -> Answer | None:
        answer = await then(call)
        if answer is None:
            return None
        body = json.loads(answer.body)
        change(body, turn_of(call))
        return replace(answer, body=encoded(body))

    return script


def paging(times: int | None, then: Script) -> Script:
    """Answers the first ``times`` calls (all, if ``None``) as a proxy with nobody behind it: 404 and a page."""
    seen: list[Call] = []

    async def script(call: Call) -> Answer | None:
        seen.append(call)
        if times is None or len(seen) <= times:
            return Answer(404, b"<html><body><h1>404 Not Found</h1></body></html>", {"Content-Type": "text/html"})
        return await then(call)

    return script


def breaking_off(finish_reason: Any, times: int, then: Script) -> Script:
    """Answers the first ``times`` calls with half a message and this finish reason."""
    half, seen = saying("I was about", finish_reason), list[Call]()

    async def script(call: Call) -> Answer | None:
        seen.append(call)
        return await (half if len(seen) <= times else then)(call)

    return script


def asking_at_once(then: Script, retry_after: str = "0") -> Script:
    """Answers as ``then`` does, with a Retry-After: who obeys it asks again without a wait of its own."""

    async def script(call: Call) -> Answer | None:
        answer = await then(call)
        return answer and replace(answer, headers={**answer.headers, "Retry-After": retry_after})

    return script


def cutting(times: int | None, then: Script) -> Script:
    """Cuts the connections of the first ``times`` calls (all, if ``None``), after having read them."""
    seen: list[Call] = []

    async def script(call: Call) -> Answer | None:
        seen.append(call)
        return None if times is None or len(seen) <= times else await then(call)

    return script


def raw(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Script:
    """Answers with this body, and nothing else."""

    async def script(call: Call) -> Answer:
        return Answer(status, body, dict(headers or {}))

    return script


def waiting_for(event: asyncio.Event, then: Script) -> Script:
    """Answers once ``event`` is set."""

    async def script(call: Call) -> Answer | None:
        await event.wait()
        return await then(call)

    return script


def delayed(seconds: float, then: Script) -> Script:
    """Answers late."""

    async def script(call: Call) -> Answer | None:
        await asyncio.sleep(seconds)
        return await then(call)

    return script


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call as a model writes it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def call_of(tool: dict[str, Any], call_id: str) -> dict[str, Any]:
    """A call of an offered tool, with arguments made from its schema."""
    function = tool["function"]
    return tool_call(call_id, function["name"], json.dumps(arguments_for(function.get("parameters"))))


def calling_offered(calls_of: Callable[[Tools, int], Tools], turns: int = 1, **more: Any) -> Script:
    """Calls tools the server offered in each of ``turns`` turns, then answers; without usable tools it answers at once.

    ``calls_of`` makes the calls from the offered tools and the turn; ``more`` are further keys of the messages.
    """

    async def script(call: Call) -> Answer | None:
        # The first chat may overtake our reading of the 202.
        await call.rollout.accepted.wait()
        tools, turn = call.rollout.tools, turn_of(call)
        if not tools or turn >= turns:
            return await answering()(call)
        message = {"role": "assistant", "content": None, "tool_calls": calls_of(tools, turn), **more}
        return completion(call, message, "tool_calls")

    return script


def calling_offered_tools(turns: int = 1, at_once: int = 1) -> Script:
    """Calls one tool after the other, ``at_once`` in each turn, with arguments that fit; or as the policy does."""

    def calls_of(tools: Tools, turn: int) -> Tools:
        return [call_of(tools[(turn + n) % len(tools)], f"call_{turn}_{n}") for n in range(at_once)]

    own, end = calling_offered(calls_of, turns), answering()

    async def script(call: Call) -> Answer | None:
        return await (own if call.rollout.policy is None else end)(call)

    return script


def by_turns(scripts: Mapping[str, Script]) -> dict[str, Script]:
    """Every second one in the turn after a tool call, which its name says then."""
    return {
        f"{what}, in a later turn" if number % 2 else what: _later(script) if number % 2 else script
        for number, (what, script) in enumerate(scripts.items())
    }


def _later(then: Script) -> Script:
    calling = calling_offered_tools()

    async def script(call: Call) -> Answer | None:
        await call.rollout.accepted.wait()
        is_first = call.rollout.tools and call.rollout.policy is None and turn_of(call) == 0
        return await (calling if is_first else then)(call)

    return script


def need_tools(tools: Tools) -> None:
    """Raise ``Skipped`` where there is nothing to call."""
    if not tools:
        raise Skipped("the server offers no tools to call, or --no-tool-calls is given")
