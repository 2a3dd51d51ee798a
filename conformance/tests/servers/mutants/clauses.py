"""Defects of what a clause of the protocol says: each server is right but for it."""

import asyncio
import re
import zlib
from typing import Any
from urllib.parse import unquote_plus

import httpx
from starlette.requests import Request
from starlette.responses import Response

from servers.model import ChatError, Json, Refusal, Rollout
from servers.mutants.inits import rule
from servers.mutants.mechanism import mutant
from servers.playing import COMPLETED
from servers.small import SmallServer

MAX_CHUNK_BYTES = 65_536

# Inits


def wants_a_length(self: SmallServer, usual: Any, request: Request) -> None:
    usual(request)
    if "content-length" not in request.headers:
        raise Refusal(411, "Send a Content-Length")


async def reads_small_chunks(self: SmallServer, usual: Any, request: Request) -> bytes:
    body = bytes(await usual(request))
    if "transfer-encoding" in request.headers and len(body) > MAX_CHUNK_BYTES:
        raise Refusal(400, "The body is cut off")
    return body


def keeps(reserved: str) -> Any:
    def read(self: SmallServer, usual: Any, body: bytes) -> Json:
        params = self.parse(body).get("completion_params")
        init = dict(usual(body))
        kept = {reserved: params[reserved]} if isinstance(params, dict) and reserved in params else {}
        return {**init, "completion_params": {**init["completion_params"], **kept}}

    return read


def spells_stop(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    body = dict(usual(rollout))
    return {**body, "stop": list(body["stop"])} if "stop" in body else body


mutant("wants-a-length", "init.chunked", require_json=wants_a_length)
mutant("reads-small-chunks", "init.chunked", body_of=reads_small_chunks)
mutant("keeps-tools", "chat.reserved chat.no_tools", read=keeps("tools"))
mutant("keeps-self", "chat.reserved", read=keeps("self"))
mutant("spells-stop", "chat.stop", chat_body=spells_stop)
mutant(
    "tells-no-metadata-from-empty",
    "idempotency.restated",
    fingerprint=lambda s, usual, init: usual(init) + str("metadata" in init),
)


async def takes_what_it_refuses(self: SmallServer, usual: Any, init: Json) -> Any:
    try:
        return await usual(init)
    except Refusal:
        if known := self.rollouts.get(self.key_of(init)):
            known.fingerprint = self.fingerprint(init)
        raise


async def decodes_pieces(self: SmallServer, usual: Any, request: Request) -> bytes:
    return b"".join([piece.decode(errors="replace").encode() async for piece in request.stream()])


async def leaves_the_body(self: SmallServer, usual: Any, request: Request) -> Response:
    answer: Response = await usual(request)
    if answer.status_code in (401, 415):
        self.kept.append(request.client)
    return answer


async def reads_the_body(self: SmallServer, usual: Any, request: Request) -> Response:
    """What comes next on a connection with a body that was left is read out of that."""
    answer: Response = Response("Bad request", 400) if request.client in self.kept else await usual(request)
    return answer


def units(text: Any) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2 if isinstance(text, str) else 0


mutant("overwrites-what-it-keeps", "idempotency.conflict", accept=takes_what_it_refuses)
mutant(
    "cuts-slashes-before-it-compares",
    "idempotency.conflict",
    fingerprint=lambda s, usual, init: usual(init | {"server_url": init["server_url"].rstrip("/")}),
)
mutant("decodes-pieces-of-inits", "ids.pieces", body_of=decodes_pieces)
mutant("leaves-the-body", "http.refused_body", init=leaves_the_body, health=reads_the_body)
mutant("counts-units-of-ids", "ids.odd", rules=rule("rollout_id", lambda init: units(init.get("rollout_id")) <= 256))
mutant(
    "counts-units-of-keys",
    "init.bounds",
    rules=rule("idempotency_key", lambda init: units(init.get("idempotency_key")) <= 256),
)
mutant("wants-a-name-or-ipv4", "init.addresses", is_url=lambda s, usual, url: usual(url) and "[" not in url)
mutant("wants-a-small-scheme", "init.addresses", is_url=lambda s, usual, url: usual(url) and url.startswith("http"))

# The conversation


async def counts_aborts(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    limit = rollout.init.get("max_turns", 10)
    for _ in range(limit):
        message = await self.turn(rollout)
        if not message.get("tool_calls"):
            return rollout.finish_reason
        rollout.messages += self.answer_calls(rollout, message["tool_calls"])
        if self.is_full(rollout) or rollout.aborts + rollout.metrics["num_llm_calls"] >= limit:
            return "max_turns"
    return "max_turns"


def counting_aborts(self: SmallServer, usual: Any, rollout: Rollout, key: str) -> str:
    rollout.aborts += 1
    return str(usual(rollout, key))


async def ends_at_stop(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    message = dict(await usual(rollout))
    return {**message, "tool_calls": None} if rollout.finish_reason == "stop" else message


async def wants_calls(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    message = dict(await usual(rollout))
    if rollout.finish_reason == "tool_calls" and not message.get("tool_calls"):
        raise ChatError("The trainer speaks of calls, and sends none")
    return message


mutant("takes-an-abort-for-a-turn", "chat.turns_once", agent=counts_aborts, key_after_a_broken_reply=counting_aborts)
mutant("ends-at-stop", "tools.reason", turn=ends_at_stop)
mutant("wants-calls", "chat.whole tools.reason", turn=wants_calls)

# Answers


def unpacks_what_there_is(self: SmallServer, usual: Any, packed: bytes, coding: str) -> bytes:
    if coding == "identity":
        return packed
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        content = unpacking.decompress(packed)
    except zlib.error as error:
        raise httpx.ReadError(str(error)) from error
    if len(content) > self.max_reply_bytes:
        raise httpx.ReadError("The reply is too large")
    return content


def skips_the_checksum(self: SmallServer, usual: Any, packed: bytes, coding: str) -> bytes:
    if coding != "gzip":
        return bytes(usual(packed, coding))
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    content = unpacking.decompress(packed[10:], self.max_reply_bytes)
    if not unpacking.eof or len(unpacking.unused_data) != 8:
        raise httpx.ReadError("The reply is cut off")
    return content


async def stays_connected(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> Any:
    calling = asyncio.ensure_future(usual(rollout, path, body, key))
    self.kept.append(calling)
    return await asyncio.shield(calling)


mutant("unpacks-what-there-is", "wire.coding_cut", unpacked=unpacks_what_there_is)
mutant("skips-the-checksum", "wire.coding_cut", unpacked=skips_the_checksum)
mutant(
    "takes-a-redirect-for-a-pause",
    "retries.final",
    is_asked_again=lambda s, usual, response, c: response.is_redirect or usual(response, c),
)
mutant(
    "wants-a-page-to-begin-at-once",
    "retries.html delivery.html",
    silent=True,
    begins_as_page=lambda s, usual, text: text.lower().startswith(("<!doctype html", "<html")),
)
mutant("hears-no-retry-after-of-results", "delivery.retry_after", told_of_result=lambda s, usual, rollout: 0.0)

NEAR = {"end_turn": "stop", "eos_token": "stop", "tool_use": "tool_calls", "max_tokens": "length"}


def makes_ids(self: SmallServer, usual: Any, message: Json) -> Json:
    calls = [{**call, "id": call["id"] or "call_0"} for call in message.get("tool_calls") or []]
    message |= {"tool_calls": calls} if calls else {}
    return message


def builds_it_anew(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    state = str(usual(response, result))
    if "messages_refused" in result["extra_fields"]:
        result["extra_fields"] = {"outcome": result["extra_fields"]["outcome"], "messages_refused": True}
    return state


mutant(
    "knows-other-words",
    "errors.not_whole",
    finish_reason=lambda s, usual, c: NEAR.get(str(usual(c)), usual(c)),
)
mutant(
    "drops-n-and-stream",
    "chat.more_sampling",
    chat_body=lambda s, usual, r: {n: v for n, v in usual(r).items() if n not in ("n", "stream")},
)
mutant(
    "finds-not-found-in-a-sentence",
    "retries.gone delivery.final",
    is_no_path=lambda s, usual, response: (
        usual(response) or "not found" in response.text.lower().replace("rollout not", "")
    ),
)
mutant("makes-ids-of-calls", "tools.odd_ids", recorded=makes_ids)
mutant(
    "leaves-out-more",
    "delivery.refused delivery.refused_same",
    completed=lambda s, usual, r, why: (
        (result := usual(r, why)) | {"extra_fields": result["extra_fields"] | {"reward_components": {"accuracy": 1.0}}}
    ),
    state_after=builds_it_anew,
)

# State and cancel


def refuses_a_second_cancel(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if rollout.is_cancelled:
        raise Refusal(404, "It was cancelled", "unknown_rollout")
    usual(rollout)


mutant("reads-plus-as-space", "state.encoded", named=lambda s, usual, rollout_id: usual(unquote_plus(rollout_id)))
mutant("forgets-what-it-cancels", "state.cancel_again", stop=refuses_a_second_cancel)
mutant("stays-connected", "state.cancel_hangs_up", silent=True, post=stays_connected)


async def gives_up_after_six(self: SmallServer, usual: Any, attempts: int) -> None:
    if attempts > 6:
        raise ChatError("The trainer is away")
    await usual(attempts)


async def counts_to_three(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> str:
    try:
        response = await self.post(rollout, COMPLETED, result, self.result_key(rollout))
    except httpx.ConnectError:
        rollout.aborts += 1
        return "undeliverable" if rollout.aborts > 3 else ""
    except httpx.TransportError:
        return ""
    rollout.told_seconds = self.told_seconds(response)
    return self.state_after(response, result)


def keeps_the_place(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    usual(rollout)
    self.kept.append(rollout)


def counts_places(self: SmallServer, usual: Any) -> None:
    usual()
    if len(self.running) + len([one for one in self.kept if one.state != "running"]) >= self.capacity:
        raise Refusal(429, "Too many rollouts", "at_capacity", Retry_After="1")


mutant("counts-to-three", "delivery.no_connection", silent=True, offer=counts_to_three)
mutant(
    "keeps-the-places-of-cancelled",
    "load.overload",
    silent=True,
    capacity=30,
    stop=keeps_the_place,
    require_room=counts_places,
)
mutant(
    "reports-its-end-as-a-cancel",
    "drain.finish_reasons",
    needs="process",
    failed=lambda s, usual, r, e, o: usual(r, e, o) | ({"finish_reason": "cancelled"} if o == "interrupted" else {}),
)
mutant("gives-up-after-six", "retries.pause", back_off=gives_up_after_six)
mutant(
    "hears-rollout-in-a-path",
    "retries.no_path delivery.no_path",
    silent=True,
    is_no_path=lambda s, usual, response: usual(response) and "rollout" not in response.text.lower(),
)
mutant(
    "keys-of-letters",
    "ids.similar",
    result_key=lambda s, usual, rollout: re.sub(r"[^A-Za-z0-9-]", "_", rollout.init["rollout_id"])[:256],
)
mutant(
    "keys-in-small-letters",
    "ids.similar",
    result_key=lambda s, usual, rollout: rollout.init["rollout_id"].lower().encode().hex()[:500],
)
mutant(
    "blames-the-agent-for-its-end",
    "drain.cut_off",
    needs="process",
    failed=lambda s, usual, r, e, o: usual(r, e, "agent_error" if o == "interrupted" else o),
)
