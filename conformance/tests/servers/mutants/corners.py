"""Defects that show in one corner: at a bound, with one header, in one kind of answer, where nobody listens."""

import asyncio
import codecs
import json
import unicodedata
from typing import Any

import httpx
from starlette.responses import Response

from servers.model import ChatError, Json, Refusal, Rollout
from servers.mutants.inits import rule
from servers.mutants.mechanism import mutant
from servers.mutants.results import after
from servers.playing import CHAT, COMPLETED
from servers.small import SmallServer

# Inits


def wants_plain_json(self: SmallServer, usual: Any, request: Any) -> None:
    usual(request)
    if request.headers.get("content-type") != "application/json":
        raise Refusal(415, "Send application/json", "not_json")


def takes_true_for_one(self: SmallServer, usual: Any, init: Json) -> str:
    return str(usual(json.loads(json.dumps(init).replace(": true", ": 1"))))


def takes_null_for_absent(self: SmallServer, usual: Any, init: Json) -> str:
    params = {name: value for name, value in init["completion_params"].items() if value is not None}
    return str(usual({**init, "completion_params": params}))


async def frees_the_key(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    await usual(rollout, result)
    if result["status"] == "ERROR":
        self.rollouts.pop(self.key_of(rollout.init), None)


async def takes_the_newest_key_while_owed(self: SmallServer, usual: Any, init: Json) -> Any:
    if (known := self.rollouts.get(self.key_of(init))) and known.state == "finished":
        known.init["api_key"] = init.get("api_key")
    return await usual(init)


async def frees_what_is_undeliverable(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    await usual(rollout, result)
    if rollout.state == "undeliverable":
        self.rollouts.pop(self.key_of(rollout.init), None)


mutant("needs-two-turns", "init.bounds", rules=rule("max_turns", lambda init: init.get("max_turns", 10) != 1))
mutant("needs-a-message", "init.bounds", rules=rule("messages", lambda init: bool(init.get("messages"))))
mutant("takes-100-turns", "init.bounds", rules=rule("max_turns", lambda i: i.get("max_turns", 10) in range(1, 101)))
mutant("wants-no-charset", "init.json_types", require_json=wants_plain_json)
mutant(
    "takes-an-empty-key-for-a-key",
    "idempotency.no_key",
    key_of=lambda s, usual, i: f"key:{i['idempotency_key']}" if i.get("idempotency_key") is not None else usual(i),
)
mutant("takes-true-for-one", "idempotency.conflict", fingerprint=takes_true_for_one)
mutant("takes-null-for-absent", "idempotency.conflict", fingerprint=takes_null_for_absent)
mutant(
    "compares-what-it-does-not-know",
    "idempotency.restated",
    fingerprint=lambda s, usual, i: usual(i) + str(i.get("x_from_a_later_version")),
)
mutant("compares-ids-without-case", "idempotency.other_ids", key_of=lambda s, usual, i: usual(i).casefold())
mutant(
    "compares-composed-ids",
    "idempotency.other_ids",
    key_of=lambda s, usual, i: unicodedata.normalize("NFC", usual(i)),
)
mutant("takes-the-newest-key-while-owed", "idempotency.owed", accept=takes_the_newest_key_while_owed)
mutant("frees-the-key-of-an-error", "idempotency.after_error", deliver=frees_the_key)
mutant("frees-the-key-of-what-is-undeliverable", "idempotency.undeliverable", deliver=frees_what_is_undeliverable)


async def wants_the_body_first(self: SmallServer, usual: Any, request: Any) -> Any:
    await request.body()
    return await usual(request)


async def wants_the_chunks_first(self: SmallServer, usual: Any, request: Any) -> Any:
    if "transfer-encoding" in request.headers:
        await request.body()
    return await usual(request)


def takes_any_scheme(self: SmallServer, usual: Any, header: str) -> None:
    usual(f"Bearer {header.partition(' ')[2] or header}")


mutant("wants-the-body-before-the-key", "auth.first", needs="key", init=wants_the_body_first)
mutant("wants-the-chunks-before-the-key", "auth.first", needs="key", init=wants_the_chunks_first)
mutant("takes-any-scheme", "auth.hostile", needs="key", authorize=takes_any_scheme)


def decodes_the_path(self: SmallServer, usual: Any, rollout: Rollout, path: str) -> str:
    return str(usual(rollout, path)).replace("%2F", "/")


def drops_it_after_a_cancel(self: SmallServer, usual: Any, rollout: Rollout, path: str) -> dict[str, str]:
    return {} if rollout.is_cancelled else dict(usual(rollout, path))


def quotes_what_is_no_json(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal as refusal:
        raise Refusal(422, f"This is no JSON: {body[-500:]!r}") from refusal


def quotes_bad_keys(self: SmallServer, usual: Any, body: bytes) -> Json:
    init = self.parse(body.removeprefix(codecs.BOM_UTF8))
    if isinstance(key := init.get("api_key"), str) and not self.rules(init)["api_key"]:
        raise Refusal(422, f"api_key {key[:100]!a} is no key")
    return dict(usual(body))


def tells_its_headers(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    return {**usual(rollout), "last_error": f"sent with {self.credentials(rollout, '')}"}


mutant("decodes-the-path", "callbacks.path", callback_url=decodes_the_path)
mutant(
    "drops-its-key-after-a-cancel", "callbacks.every_key", beside="state.cancel", credentials=drops_it_after_a_cancel
)
mutant(
    "tells-its-headers-where-it-is-forbidden",
    "callbacks.secret_kept",
    beside="errors.refused",
    without_key=lambda s, usual, rollout, text: (
        f"{text} {s.credentials(rollout, '')}" if "answered 403" in text else usual(rollout, text)
    ),
)
mutant("quotes-what-is-no-json", "callbacks.secret", parse=quotes_what_is_no_json)
mutant("quotes-bad-keys", "callbacks.secret", read=quotes_bad_keys)
mutant("tells-its-headers", "callbacks.secret", view=tells_its_headers)

# The conversation


def without_name(message: Json) -> Json:
    return {name: value for name, value in message.items() if name not in ("name", "function_call")}


async def takes_the_last_choice(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    completion = dict(await usual(rollout))
    return {**completion, "choices": completion["choices"][-1:]}


async def wants_a_usage(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    completion = dict(await usual(rollout))
    if "usage" not in completion:
        raise ChatError("KeyError: usage")
    return completion


async def wants_both_counts(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    completion = dict(await usual(rollout))
    usage = completion.get("usage") or {}
    return completion if {"prompt_tokens", "completion_tokens"} <= set(usage) else {**completion, "usage": {}}


def says_cancelled_and_goes_on(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if rollout.state != "running":
        raise Refusal(409, "The rollout has ended", "not_running")
    result = self.failed(rollout, RuntimeError("cancelled on request"), "cancelled")
    self.spawn(self.deliver(rollout, {**result, "final_messages": list(rollout.messages)}))
    rollout.init = {**rollout.init, "was_told": True}


async def plays_on(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    if not (rollout.init.get("was_told") and result["extra_fields"]["outcome"] != "cancelled"):
        await usual(rollout, result)


mutant(
    "drops-names",
    "chat.earlier",
    conversation=lambda s, usual, r: [without_name(message) for message in usual(r)],
    completed=lambda s, usual, r, why: usual(r, why) | {"final_messages": list(map(without_name, r.messages))},
)


def trips_over_the_past(self: SmallServer, usual: Any, response: httpx.Response) -> float:
    if " 2026 " in response.headers.get("retry-after", ""):
        raise ValueError("sleep length must be non-negative")
    return float(usual(response))


def wants_json(self: SmallServer, usual: Any, response: httpx.Response) -> Any:
    if response.status_code == 200 and "json" not in response.headers.get("content-type", ""):
        raise ChatError("The completion is no JSON")
    return usual(response)


def names_calls(self: SmallServer, usual: Any, message: Json) -> Json:
    calls = [{"id": f"call_{n}", **call} for n, call in enumerate(message.get("tool_calls") or [])]
    return {**usual(message), "tool_calls": calls} if calls else dict(usual(message))


mutant("forgets-the-name-of-a-reply", "chat.reply_kept", recorded=lambda s, usual, m: without_name(usual(m)))
mutant("names-calls-without-an-id", "tools.odd_ids", recorded=names_calls)
mutant(
    "trims-ids", "ids.odd", read=lambda s, usual, b: {**(init := usual(b)), "rollout_id": init["rollout_id"].strip()}
)
mutant(
    "reads-headers-in-one-case",
    "retries.too_many",
    is_read=lambda s, usual, name: usual(name.title()) and name.istitle(),
)
mutant("trips-over-the-past", "retries.too_many", told_seconds=trips_over_the_past)
mutant("wants-json-replies", "chat.any_head", completion_in=wants_json)
mutant("counts-what-is-owed", "state.health", active=lambda s, usual: len(s.running))
mutant(
    "tells-its-finish-late",
    "state.undelivered",
    view=lambda s, usual, r: usual(r) | ({} if r.state == "delivered" else {"finished_at": None}),
)
mutant("takes-the-last-choice", "chat.first_choice", chat=takes_the_last_choice)
mutant("wants-a-usage", "chat.bare", chat=wants_a_usage)
mutant("counts-all-or-nothing", "completed.usage", chat=wants_both_counts)


async def keeps_what_is_planned(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    async def ask_again() -> None:
        await asyncio.sleep(2.5)  # of the 3 s that the check waits
        await self.post(rollout, CHAT, self.chat_body(rollout), self.call_key(rollout))

    try:
        completion: Json = await usual(rollout)
    except asyncio.CancelledError:
        self.spawn(ask_again())
        raise
    return completion


mutant("keeps-what-is-planned", "callbacks.order", beside="state.cancel", silent=True, chat=keeps_what_is_planned)
mutant(
    "goes-on-after-a-cancel",
    "callbacks.order",
    beside="state.cancel",
    silent=True,
    stop=says_cancelled_and_goes_on,
    deliver=plays_on,
)
mutant(
    "counts-prompts-alone",
    "chat.max_tokens_total",
    is_full=lambda s, usual, r: r.context_tokens - 7 >= r.init.get("max_tokens_total", 8192),
)
mutant(
    "stops-at-its-turns-without-a-word",
    "completed.finish_reason",
    completed=lambda s, usual, r, why: usual(r, "stop" if why == "max_tokens" else why),
)
mutant("has-one-key-for-all-results", "completed.own_key", result_key=lambda s, usual, rollout: "result")
mutant(
    "takes-the-rollouts-key-for-all-calls",
    "completed.own_key chat.own_key retries.aborted_key",
    call_key=lambda s, usual, r: s.result_key(r),
)
mutant(
    "counts-what-was-refused",
    "completed.metrics",
    failed=lambda s, usual, r, e, o: (
        r.metrics.update(num_llm_calls=max(1, r.metrics["num_llm_calls"])),
        usual(r, e, o),
    )[1],
)
mutant(
    "counts-tools-it-has",
    "completed.tool_counts",
    answer_calls=lambda s, usual, r, calls: (
        usual(r, calls),
        r.metrics.update(
            num_tool_calls=r.metrics["num_tool_calls"] - sum(c["function"]["name"] == "no_such_tool" for c in calls)
        ),
    )[0],
)

# What another check finds first elsewhere


async def answers_for_the_id(self: SmallServer, usual: Any, init: Json) -> Any:
    if init.get("idempotency_key") and self.key_of(init) not in self.rollouts:
        for known in self.rollouts.values():
            if known.init["rollout_id"] == init["rollout_id"]:
                return Response(known.reply, 202, media_type="application/json")
    return await usual(init)


def without_the_first(self: SmallServer, usual: Any, rollout: Rollout, finish_reason: str) -> Json:
    result = dict(usual(rollout, finish_reason))
    return {**result, "final_messages": rollout.messages[1:]} if len(rollout.messages) == 3 else result


async def takes_what_is_malformed(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    try:
        return dict(await usual(rollout))
    except ChatError as error:
        if "malformed" in str(error) or "is not JSON" in str(error):
            return {"role": "assistant", "content": ""}
        raise


async def completes_without_an_answer(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    try:
        return str(await usual(rollout))
    except ChatError as error:
        if "does not answer" in str(error):
            return "stop"
        raise


async def takes_silence_for_consent(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> str:
    try:
        response = await self.post(rollout, COMPLETED, result, self.result_key(rollout))
    except httpx.TransportError:
        return "delivered"
    return self.state_after(response, result)


def gives_up_on_a_page(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    return "undeliverable" if self.is_absent(response) else str(usual(response, result))


def stops_what_is_owed(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if rollout.state != "finished":
        usual(rollout)
    elif rollout.result:
        rollout.result |= self.failed(rollout, RuntimeError("cancelled on request"), "cancelled")


mutant("takes-a-tab-for-an-id", "invalid.blank_id", is_id=lambda s, usual, value: usual(value) or value == "\t")
mutant("answers-for-the-id", "idempotency.two_keys", silent=True, accept=answers_for_the_id)
mutant(
    "takes-a-limit-for-an-end",
    "chat.cut_off_reply",
    is_whole=lambda s, usual, c: usual(c) and s.finish_reason(c) != "length",
)
mutant(
    "answers-four-calls",
    "tools.parallel tools.order",
    answer_calls=lambda s, usual, r, calls: usual(r, calls)[:4] if len(calls) == 5 else usual(r, calls),
)
mutant("leaves-out-the-first-message", "completed.messages", completed=without_the_first)
mutant("takes-what-is-malformed", "errors.malformed", turn=takes_what_is_malformed)
mutant("completes-without-an-answer", "errors.unreachable", agent=completes_without_an_answer)
mutant("takes-silence-for-consent", "delivery.cut delivery.no_connection", silent=True, offer=takes_silence_for_consent)
mutant("gives-up-on-a-page", "delivery.page", silent=True, state_after=gives_up_on_a_page)
mutant("stops-what-is-owed", "state.cancel_ended", stop=stops_what_is_owed)
mutant(
    "tells-the-oldest",
    "state.newest",
    named=lambda s, usual, i: next((r for r in s.rollouts.values() if r.init["rollout_id"] == i), None) or usual(i),
)


async def retries_the_first_turn(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    if len(rollout.messages) == len(rollout.init["messages"]):
        return dict(await usual(rollout))
    response = await self.post(rollout, CHAT, self.chat_body(rollout), self.call_key(rollout))
    if response.is_success:
        return dict(response.json())
    raise ChatError(f"The trainer answered {response.status_code}")


def answers_equal_calls_once(self: SmallServer, usual: Any, rollout: Rollout, calls: list[Json]) -> list[Json]:
    is_pair = len(calls) == 2 and calls[0]["function"] == calls[1]["function"]
    return list(usual(rollout, calls[:1] if is_pair else calls))


mutant("retries-the-first-turn", "retries.later", chat=retries_the_first_turn)
mutant("answers-equal-calls-once", "tools.equal", answer_calls=answers_equal_calls_once)
mutant("takes-409-for-delivered", "state.undeliverable", state_after=after(409, "delivered"))
mutant(
    "answers-what-it-can-first",
    "tools.order",
    answer_calls=lambda s, usual, r, calls: sorted(usual(r, calls), key=lambda one: "Error" in one["content"]),
)


mutant("counts-bytes-of-ids", "ids.odd", is_id=lambda s, usual, value: usual(value) and len(value.encode()) <= 256)
mutant(
    "is-undeliverable-at-first",
    "state.undelivered",
    view=lambda s, usual, r: usual(r) | ({"state": "undeliverable"} if r.state == "finished" else {}),
)
