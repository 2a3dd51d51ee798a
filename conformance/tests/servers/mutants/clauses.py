"""Defects of what a clause of the protocol says: each server is right but for it."""

import asyncio
import zlib
from typing import Any
from urllib.parse import unquote_plus

import httpx
from starlette.requests import Request

from servers.model import ChatError, Json, Refusal, Rollout
from servers.mutants.mechanism import mutant
from servers.small import SmallServer

# Inits


def wants_a_length(self: SmallServer, usual: Any, request: Request) -> None:
    usual(request)
    if "content-length" not in request.headers:
        raise Refusal(411, "Send a Content-Length")


def keeps_tools(self: SmallServer, usual: Any, body: bytes) -> Json:
    params = self.parse(body).get("completion_params")
    init = dict(usual(body))
    kept = {"tools": params["tools"]} if isinstance(params, dict) and "tools" in params else {}
    return {**init, "completion_params": {**init["completion_params"], **kept}}


def spells_stop(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    body = dict(usual(rollout))
    return {**body, "stop": list(body["stop"])} if "stop" in body else body


mutant("wants-a-length", "init.chunked", require_json=wants_a_length)
mutant("keeps-tools", "chat.reserved chat.no_tools", read=keeps_tools)
mutant("spells-stop", "chat.stop", chat_body=spells_stop)
mutant(
    "tells-no-metadata-from-empty",
    "idempotency.restated",
    fingerprint=lambda s, usual, init: usual(init) + str("metadata" in init),
)

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

# State and cancel


def refuses_a_second_cancel(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if rollout.is_cancelled:
        raise Refusal(404, "It was cancelled", "unknown_rollout")
    usual(rollout)


mutant("reads-plus-as-space", "state.encoded", named=lambda s, usual, rollout_id: usual(unquote_plus(rollout_id)))
mutant("forgets-what-it-cancels", "state.cancel_again", stop=refuses_a_second_cancel)
mutant("stays-connected", "state.cancel_hangs_up", silent=True, post=stays_connected)
