"""Defects of callbacks, of the conversation and of tool calls."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

from servers.model import Json, Rollout
from servers.mutants.mechanism import mutant
from servers.playing import CHAT
from servers.small import SmallServer

# Callbacks


async def chats_after_the_end(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    await usual(rollout, result)
    await self.post(rollout, CHAT, self.chat_body(rollout), self.call_key(rollout))


async def reports_twice(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    await usual(rollout, result)
    await usual(rollout, result)


async def keeps_failures_to_itself(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    if result["status"] == "COMPLETED":
        await usual(rollout, result)


async def asks_twice_at_once(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    body = self.chat_body(rollout)
    if len(rollout.messages) > len(rollout.init["messages"]):
        first, _ = await asyncio.gather(
            usual(rollout), self.post(rollout, CHAT, body | {"n": 2}, self.call_key(rollout))
        )
        return dict(first)
    return dict(await usual(rollout))


def drops_the_path(self: SmallServer, usual: Any, rollout: Rollout, path: str) -> str:
    parts = urlsplit(rollout.url)
    return f"{parts.scheme}://{parts.netloc}{path}"


def without(name: str) -> Any:
    """The chat body without a field."""
    return lambda self, usual, rollout: {n: value for n, value in usual(rollout).items() if n != name}


TEXT_PLAIN = {"Content-Type": "text/plain"}
ANONYMOUS = {"User-Agent": ""}

mutant("drops-the-path-of-server-url", "callbacks.url", callback_url=drops_the_path)
mutant(
    "doubles-slashes", "callbacks.trailing_slash", callback_url=lambda s, u, r, path: f"{r.init['server_url']}{path}"
)
mutant("sends-text-plain", "callbacks.json", credentials=lambda s, usual, r, path: usual(r, path) | TEXT_PLAIN)
mutant("forgets-the-rollout-id", "callbacks.rollout_id", chat_body=without("rollout_id"))
mutant(
    "sends-the-key-on-chat-only",
    "callbacks.key",
    credentials=lambda s, usual, r, path: usual(r, path) if path == CHAT else {},
)
mutant("chats-after-the-end", "callbacks.order", deliver=chats_after_the_end)
mutant("reports-twice", "callbacks.once", deliver=reports_twice)
mutant("keeps-failures-to-itself", "callbacks.every errors.refused", silent=True, deliver=keeps_failures_to_itself)
mutant("drops-the-trace", "callbacks.trace", trace=lambda s, usual, path: {})
mutant("traces-chat-alone", "callbacks.trace", trace=lambda s, usual, path: usual(path) if path == CHAT else {})
mutant(
    "begins-a-trace-of-its-own",
    "callbacks.trace",
    trace=lambda s, usual, path: {"traceparent": f"00-{'7' * 32}-{'7' * 16}-01"},
)
mutant("calls-without-a-name", "callbacks.user_agent", trace=lambda s, usual, path: usual(path) | ANONYMOUS)
mutant("asks-for-gzip", "callbacks.user_agent", trace=lambda s, usual, path: usual(path) | {"Accept-Encoding": "gzip"})
mutant("asks-twice-at-once", "chat.one_at_a_time", chat=asks_twice_at_once)

# The conversation


def rewrites_old_messages(self: SmallServer, usual: Any, rollout: Rollout) -> list[Json]:
    older = [message | {"content": "..."} if message["role"] == "tool" else message for message in rollout.messages]
    return [*older[:-2], *rollout.messages[-2:]]


async def crashes_on_nulls(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    completion = dict(await usual(rollout))
    completion["usage"]["prompt_tokens"]
    return completion


async def ignores_max_turns(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    rollout.init = rollout.init | {"max_turns": 100}
    return str(await usual(rollout))


async def keeps_the_choice(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    completion = dict(await usual(rollout))
    choice = completion["choices"][0]
    choice["message"] = {**choice["message"], **{n: v for n, v in choice.items() if n in ("token_ids", "logprobs")}}
    return completion


async def keeps_later_choices(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    is_first = not any(message.get("tool_calls") for message in rollout.messages)
    return dict(await usual(rollout)) if is_first else await keeps_the_choice(self, usual, rollout)


def respelled(message: Json) -> Json:
    """With arguments that spell another value."""
    calls = message.get("tool_calls") or []
    changed = [{**call, "function": {**call["function"], "arguments": "{}"}} for call in calls]
    return {**message, **({"tool_calls": changed} if changed else {})}


def stripped(message: Json) -> Json:
    return {**message, "content": message["content"].strip()} if isinstance(message.get("content"), str) else message


SAID = ("role", "content", "tool_calls")
OWN = {"role": "system", "content": "Be nice."}
REPLY = "chat.reply_kept chat.append_only completed.messages"

mutant(
    "sends-the-last-messages-only",
    "chat.conversation chat.append_only chat.reply_kept",
    conversation=lambda s, usual, r: r.messages[-2:],
)
mutant(
    "adds-a-system-prompt", "chat.conversation chat.unknown_fields", conversation=lambda s, usual, r: [OWN, *r.messages]
)
mutant("rewrites-old-messages", "chat.append_only", conversation=rewrites_old_messages)
mutant("strips-replies", REPLY, recorded=lambda s, usual, message: stripped(message))
mutant("respells-arguments", "chat.reply_kept chat.append_only", recorded=lambda s, usual, message: respelled(message))
mutant(
    "drops-the-text-beside-calls",
    "chat.reply_kept chat.append_only",
    recorded=lambda s, usual, m: m | ({"content": None} if m.get("tool_calls") else {}),
)
mutant(
    "drops-what-it-does-not-know", "chat.reply_intact", recorded=lambda s, usual, m: {n: m[n] for n in SAID if n in m}
)
mutant("stamps-replies", "chat.added", recorded=lambda s, usual, message: message | {"seen_by": "me"})
mutant(
    "flattens-messages",
    "chat.unknown_fields",
    conversation=lambda s, usual, r: [{n: v for n, v in m.items() if n != "x_own"} for m in r.messages],
)
mutant("keeps-the-choice", "wire.token_ids", chat=keeps_the_choice)
mutant("keeps-later-choices", "wire.token_ids", chat=keeps_later_choices)
mutant(
    "samples-as-it-likes",
    "chat.sampling chat.more_sampling",
    chat_body=lambda s, usual, r: usual(r) | {"temperature": 1.0},
)
mutant("drops-unknown-sampling", "chat.more_sampling", chat_body=without("top_k"))
mutant(
    "lets-params-win",
    "chat.reserved",
    chat_body=lambda s, usual, r: usual(r) | r.init.get("raw_params", {}),
    read=lambda s, usual, body: {
        **usual(body),
        "raw_params": {n: v for n, v in json.loads(body)["completion_params"].items() if n == "rollout_id"},
    },
)
mutant("sends-nulls", "chat.nulls", chat_body=lambda s, usual, r: {**usual(r), **r.init["completion_params"]})
mutant(
    "sends-no-defaults",
    "chat.defaults",
    chat_body=lambda s, usual, r: {
        n: v for n, v in usual(r).items() if n in r.init["completion_params"] or n in ("messages", "rollout_id")
    },
)
mutant("sends-its-tools", "chat.no_tools", chat_body=lambda self, usual, r: usual(r) | {"tools": self.tools()})
mutant("crashes-on-nulls", "chat.null_fields", chat=crashes_on_nulls)
mutant("ignores-max-turns", "chat.max_turns", agent=ignores_max_turns)
mutant("ignores-max-tokens-total", "chat.max_tokens_total", is_full=lambda s, usual, r: False)
mutant(
    "sums-the-turns",
    "chat.max_tokens_total",
    is_full=lambda s, usual, r: r.metrics["prompt_tokens"] >= r.init.get("max_tokens_total", 8192),
)

# Idempotency-Key

mutant("sends-no-key-with-a-call", "chat.key", attempt_key=lambda s, usual, key: "")
mutant(
    "makes-a-key-for-each-attempt",
    "chat.key",
    attempt_key=lambda self, usual, key: self.call_key(None),
)
mutant("has-one-key-for-all-calls", "chat.own_key retries.aborted_key", call_key=lambda s, usual, r: "call")
mutant(
    "counts-calls-of-a-rollout", "chat.own_key retries.aborted_key", call_key=lambda s, usual, r: str(len(r.messages))
)
mutant(
    "takes-the-rollouts-key",
    "chat.own_key retries.aborted_key",
    call_key=lambda s, usual, r: r.init["rollout_id"].encode().hex(),
)

# Tools


def number_calls(self: SmallServer, usual: Any, rollout: Rollout, calls: list[Json]) -> list[Json]:
    return [answer | {"tool_call_id": f"tool_{n}"} for n, answer in enumerate(usual(rollout, calls))]


def cuts_ids(self: SmallServer, usual: Any, rollout: Rollout, calls: list[Json]) -> list[Json]:
    return [answer | {"tool_call_id": answer["tool_call_id"][:64]} for answer in usual(rollout, calls)]


def crashes_on_malformed_arguments(self: SmallServer, usual: Any, call: Json) -> str:
    json.loads(call["function"]["arguments"] or "{}")
    return str(usual(call))


def crashes_without_arguments(self: SmallServer, usual: Any, call: Json) -> str:
    assert call["function"]["arguments"]
    return str(usual(call))


def crashes_on_unknown_tools(self: SmallServer, usual: Any, call: Json) -> str:
    {"add": 1, "shout": 2}[call["function"]["name"]]
    return str(usual(call))


def answers_what_it_can(self: SmallServer, usual: Any, rollout: Rollout, calls: list[Json]) -> list[Json]:
    return list(usual(rollout, [call for call in calls if call["function"]["name"] != "shout"]))


TOOLS = "tools.answered tools.parallel"


def sorts_the_answers_of_many(self: SmallServer, usual: Any, rollout: Rollout, calls: list[Json]) -> list[Json]:
    answers = list(usual(rollout, calls))
    return sorted(answers, key=lambda one: str(one["tool_call_id"])) if len(calls) > 9 else answers


def breaks_on_a_fraction(self: SmallServer, usual: Any, call: Json) -> str:
    arguments = call["function"]["arguments"]
    if '"a"' in arguments:
        assert json.loads(arguments)["a"] % 1 == 0
    return str(usual(call))


mutant("numbers-tool-calls-itself", f"{TOOLS} tools.order", answer_calls=number_calls)
mutant(
    "answers-one-of-the-calls",
    "tools.every_tool tools.parallel tools.order",
    answer_calls=lambda s, usual, r, calls: usual(r, calls)[:1],
)
mutant("sorts-the-answers-of-many", "tools.order", answer_calls=sorts_the_answers_of_many)
mutant("answers-the-last-call-first", "tools.order", answer_calls=lambda s, usual, r, calls: usual(r, calls)[::-1])
mutant(
    "sorts-its-answers",
    "tools.order",
    answer_calls=lambda s, usual, r, calls: sorted(usual(r, calls), key=lambda answer: str(answer["tool_call_id"])),
)
mutant(
    "answers-with-numbers",
    "tools.content",
    answer_calls=lambda s, usual, r, calls: [answer | {"content": 4} for answer in usual(r, calls)],
)
mutant(
    "answers-what-it-cannot-call-with-null",
    "tools.content",
    beside="tools.unknown",
    tool_result=lambda s, usual, call: None if call["function"]["name"] == "no_such_tool" else usual(call),
)
mutant("breaks-on-a-fraction", "tools.every_tool tools.parallel", tool_result=breaks_on_a_fraction)
mutant("offers-what-it-cannot-call", "tools.every_tool tools.parallel", answer_calls=answers_what_it_can)
mutant("crashes-on-malformed-arguments", "tools.malformed", tool_result=crashes_on_malformed_arguments)
mutant("crashes-without-arguments", "tools.no_arguments", tool_result=crashes_without_arguments)
mutant("crashes-on-unknown-tools", "tools.unknown", tool_result=crashes_on_unknown_tools)
mutant("cuts-tool-call-ids", "tools.odd_ids", answer_calls=cuts_ids)

# What a server of today does not know, and what is large


async def knows_every_field(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    completion = dict(await usual(rollout))
    assert "x_from_a_later_version" not in completion
    return completion


def cut(message: Json) -> Json:
    return message | ({"content": message["content"][:10_000]} if isinstance(message.get("content"), str) else {})


mutant("knows-every-field", "chat.unknown_reply_fields", chat=knows_every_field)
mutant(
    "counts-attempts-for-turns",
    "chat.turns_once",
    is_full=lambda s, usual, r: r.attempts >= r.init.get("max_turns", 10),
)
mutant("has-five-turns", "chat.default_limits", read=lambda s, usual, body: {"max_turns": 5, **usual(body)})
mutant(
    "has-four-thousand-tokens",
    "chat.default_limits",
    read=lambda s, usual, body: {"max_tokens_total": 4096, **usual(body)},
)
mutant("cuts-long-texts", "ids.long_text", conversation=lambda s, usual, r: [cut(message) for message in usual(r)])
mutant("cuts-long-replies", "ids.long_text", recorded=lambda s, usual, message: cut(message))
mutant(
    "drops-the-tracestate",
    "callbacks.trace",
    trace=lambda s, usual, path: {n: v for n, v in usual(path).items() if n == "traceparent"},
)


def without_falsy(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    defaults = {"temperature": 1.0, "logprobs": True}
    asked = {n: v for n, v in usual(rollout).items() if v or n in ("messages", "rollout_id")}
    return {**defaults, **asked}


def without_params_later(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    known = ("model", "temperature", "top_p", "max_tokens", "logprobs", "messages", "rollout_id")
    is_first = len(rollout.messages) == len(rollout.init["messages"])
    return {n: v for n, v in usual(rollout).items() if is_first or n in known}


def with_what_is_left(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    left = rollout.init.get("max_tokens_total", 8192) - rollout.context_tokens
    return {**usual(rollout), "max_tokens": min(usual(rollout)["max_tokens"], left)}


def without_inner_nulls(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    body = usual(rollout)
    inner = {n: {k: w for k, w in v.items() if w is not None} for n, v in body.items() if isinstance(v, dict)}
    return {**body, **inner}


def as_doubles(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    return {n: int(float(v)) if n == "seed" else v for n, v in usual(rollout).items()}


def rewritten(message: Json) -> Json:
    """With arguments that were read and written, as a language with doubles does, or without nulls."""
    calls = message.get("tool_calls") or []
    written = [{**call, "function": {**call["function"], "arguments": _in_doubles(call)}} for call in calls]
    return {**message, **({"tool_calls": written} if written else {})}


def _in_doubles(call: Json) -> str:
    try:
        return json.dumps(json.loads(call["function"]["arguments"], parse_int=lambda text: int(float(text))))
    except (ValueError, TypeError):
        return str(call["function"]["arguments"])


mutant("drops-what-is-false", "chat.more_sampling", chat_body=without_falsy)
mutant("samples-the-first-call", "chat.more_sampling", chat_body=without_params_later)
mutant("asks-for-what-is-left", "chat.sampling", chat_body=with_what_is_left)
mutant("drops-inner-nulls", "chat.more_sampling", chat_body=without_inner_nulls)
mutant("has-doubles-alone", "chat.large_number", chat_body=as_doubles)
mutant("writes-arguments-in-doubles", "chat.reply_kept chat.append_only", recorded=lambda s, usual, m: rewritten(m))
