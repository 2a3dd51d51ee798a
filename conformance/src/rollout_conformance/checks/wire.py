"""Answers that go wrong on the way: cut, with something behind them, without an end, compressed, elsewhere."""

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from rollout_conformance.catalogue import check
from rollout_conformance.checks.chat import require_completed
from rollout_conformance.endpoint import Answer, Flood
from rollout_conformance.kit import Kit
from rollout_conformance.kit_trainer import CHAT_PATH, COMPLETED_PATH
from rollout_conformance.played import PlayedRollout, Script
from rollout_conformance.scripts import acknowledge, answering, at_first, calling_offered_tools, changed, encoded, first
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import Failed, Phase

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HEAD_BYTES = 32 * 1024 * 1024
BODY_BYTES = 128 * 1024 * 1024
"""More than what a server takes and what lies in the sockets on the way."""
MIB = 1024 * 1024
SPACES = b" " * MIB
GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
REFUSED = {"detail": "The kit refuses it, or seems to."}


async def _require_answer_again(kit: Kit, after: str, on_chat: Script) -> PlayedRollout:
    rollout = await kit.start(on_chat)
    result = await rollout.result()
    if result.get("status") != "COMPLETED" or len(rollout.chats) < 2:
        got = f"{result.get('status')} after {len(rollout.chats)} calls: {quoted(result.get('error_message'))}"
        raise Failed(f"the call again after {after}", got)
    return rollout


async def _require_delivery_again(kit: Kit, after: str, on_completed: Script, count: int = 2) -> None:
    rollout = kit.play(on_completed=on_completed)
    rollout.has_delivery_faults = True
    await kit.send(rollout)
    await rollout.wait_until(lambda played: len(played.completions) >= count, f"the result again after {after}")
    await rollout.result()


async def _require_none(kit: Kit, what: str, cut: Callable[[Answer], Answer]) -> None:
    """An answer that is cut so is none: a message, an acknowledgement, and a refusal of either."""
    refused = encoded(REFUSED)
    await asyncio.gather(
        _require_answer_again(kit, f"a reply that was cut off {what}", at_first(cut, answering())),
        _require_answer_again(kit, f"a 400 cut off {what}", first(cut(Answer(400, refused)), then=answering())),
        _require_delivery_again(kit, f"a 200 cut off {what}", at_first(cut, acknowledge)),
        _require_delivery_again(kit, f"a 403 cut off {what}", first(cut(Answer(403, refused)), then=acknowledge)),
    )


@check("wire.cut_head", "http-10", "An answer that is cut off within its head is none: to a chat call, to a result.")
async def cut_head(kit: Kit) -> None:
    await asyncio.gather(
        _require_none(kit, "within its status line", lambda answer: replace(answer, cut_within="line")),
        _require_none(kit, "within its head", lambda answer: replace(answer, cut_within="head")),
    )


@check("wire.cut_body", "http-10", "Neither is one that is cut off within its body, be it before its last chunk.")
async def cut_body(kit: Kit) -> None:
    await asyncio.gather(
        _require_none(kit, "within its body", lambda answer: replace(answer, cut_within="body")),
        _require_none(kit, "behind its JSON, not its end", lambda answer: replace(answer, cut_within="tail")),
        _require_none(kit, "within its last chunk", lambda answer: replace(answer, cut_within="end", is_chunked=True)),
        _require_none(kit, "before its last chunk", lambda answer: replace(answer, cut_within="body", is_chunked=True)),
    )


@check("wire.interim", "http-20", "What is 1xx before an answer, to a chat call or to a result, is none.")
async def interim(kit: Kit) -> None:
    def after(answer: Answer) -> Answer:
        return replace(answer, before=INTERIM)

    # Its connection ends with it, so that whoever takes it for the body of a 1xx need not wait for more.
    rollout = await kit.start(at_first(lambda answer: replace(after(answer), ends_with_connection=True), answering()))
    result = await rollout.result()
    if result.get("status") != "COMPLETED" or len(rollout.chats) > 1:
        got = f"{result.get('status')} after {len(rollout.chats)} calls: {quoted(result.get('error_message'))}"
        raise Failed("COMPLETED after one call, answered 103, 100 and then 200", got)
    refusal = Answer(503, encoded({"detail": "not now"}), {"Retry-After": "0"})
    await _require_delivery_again(kit, "103, 100 and then 503", first(after(refusal), then=acknowledge))


@check("wire.behind", "http-11", "What comes behind an answer is not taken for the next one.", Phase.ALONE)
async def behind(kit: Kit) -> None:
    # By itself: the connection that holds it back must be the next that is used.
    refusal = Answer(503, encoded({"detail": "not now"}), {"Retry-After": "0"})
    script = first(replace(refusal, behind=_forged({})), refusal, then=acknowledge)
    await _require_delivery_again(kit, "503 with another answer right behind it", script, count=3)
    message = {"role": "assistant", "content": "#### forged"}
    reply = _forged({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    rollout = await kit.start(first(replace(refusal, behind=reply), refusal, then=answering()))
    result = await rollout.result()
    if len(rollout.chats) < 3 or "#### forged" in json.dumps(result.get("final_messages")):
        raise Failed("a third call after 503 with a reply right behind it, and 503", f"{len(rollout.chats)} calls")


def _forged(body: dict[str, Any]) -> bytes:
    content = encoded(body)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(content) + content


async def _require_bound(kit: Kit, what: str, flood: Flood, *, of_result: bool = False) -> None:
    if of_result:
        await _require_delivery_again(kit, what, first(Answer(flood=flood), then=acknowledge))
    else:
        await _require_answer_again(kit, what, first(Answer(flood=flood), then=answering()))
    if flood.sent_bytes >= flood.max_bytes:
        raise Failed(f"a hung-up connection after a bounded part of {what}", f"{flood.sent_bytes} bytes were read")


@check("wire.endless_head", "http-12", "A head without end is not read to its end: it is no answer.")
async def endless_head(kit: Kit) -> None:
    for piece, what in ((b"X-More: and more\r\n", ""), (b"x" * 1024, ", one line of it")):
        await _require_bound(kit, f"a head without end{what}", Flood(HEAD + b"X-Line: ", piece, HEAD_BYTES))
    flood = Flood(HEAD, b"X-More: and more\r\n", HEAD_BYTES)
    await _require_bound(kit, "a head without end to a result", flood, of_result=True)


@check("wire.endless_body", "http-12", "Neither is a body without end.")
async def endless_body(kit: Kit) -> None:
    opening = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
    await _require_bound(kit, "a body without end", Flood(opening, b"10000\r\n%s\r\n" % (b" " * 0x10000), BODY_BYTES))


@check("wire.redirect", "http-7", "A redirect is not followed.")
async def redirect(kit: Kit) -> None:
    elsewhere = kit.play()
    await asyncio.gather(*(_redirected(kit, elsewhere, status) for status in (301, 302, 303, 307, 308)))
    await kit.settle()
    if followed := [*elsewhere.chats, *elsewhere.completions]:
        raise Failed("no call at the Location of a redirect", f"POST {followed[0].request.path}")
    if strays := kit.trainer.strays_to(elsewhere):
        raise Failed("no call at the Location of a redirect", strays[0])


async def _redirected(kit: Kit, elsewhere: PlayedRollout, status: int) -> None:
    to_chat = Answer(status, headers={"Location": f"{elsewhere.init['server_url']}{CHAT_PATH}"})
    to_result = Answer(status, headers={"Location": f"{elsewhere.init['server_url']}{COMPLETED_PATH}"})
    rollout = kit.play(first(to_chat, then=answering()), first(to_result, then=acknowledge))
    rollout.has_delivery_faults = True
    await kit.send(rollout)
    followed = elsewhere.wait_until(lambda played: bool(played.chats or played.completions), "a call at the Location")
    waiting = [asyncio.ensure_future(one) for one in (rollout.result(), followed)]
    ended, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    if waiting[0] in ended:
        await waiting[0]


def _coded(answer: Answer, coding: str) -> Answer:
    body = gzip.compress(answer.body) if coding == "gzip" else zlib.compress(answer.body)
    return replace(answer, body=body, headers={**answer.headers, "Content-Encoding": coding})


@check("wire.gzip", "http-9", "A reply in gzip or deflate is taken, though nobody has asked for it.")
async def gzipped(kit: Kit) -> None:
    for coding in ("gzip", "deflate"):
        rollout = await kit.start(at_first(partial(_coded, coding=coding), answering()))
        result = await rollout.result()
        if result.get("status") != "COMPLETED":
            got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
            raise Failed(f"COMPLETED after a reply in {coding}", got)


@check("wire.coding_cut", "http-17", "A completion in gzip or deflate without its end, or checksum, is none.")
async def coding_cut(kit: Kit) -> None:
    def cut(answer: Answer, coding: str, left_out: int) -> Answer:
        packed = _coded(answer, coding)
        return replace(packed, body=packed.body[:-left_out])

    def other(answer: Answer) -> Answer:
        packed = _coded(answer, "gzip")
        return replace(packed, body=packed.body[:-8] + bytes(4) + packed.body[-4:])

    await asyncio.gather(
        *(
            _require_answer_again(kit, f"a reply in {coding} without its last {n} bytes", at_first(change, answering()))
            for coding, n in (("gzip", 8), ("gzip", 30), ("deflate", 4))
            for change in [partial(cut, coding=coding, left_out=n)]
        ),
        _require_answer_again(kit, "a reply in gzip with another checksum", at_first(other, answering())),
    )


@check("wire.bomb", "http-12", f"Neither is one that is small, and {BODY_BYTES // MIB} MiB without its coding.")
async def bomb(kit: Kit) -> None:
    # Compressed once: what ends with a full flush may stand behind itself.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(SPACES) + packer.flush(zlib.Z_FULL_FLUSH)

    def packed(answer: Answer) -> Answer:
        last = zlib.compressobj(9, zlib.DEFLATED, -15)
        end = last.compress(answer.body) + last.flush()
        checksum = 0
        for _ in range(BODY_BYTES // MIB):
            checksum = zlib.crc32(SPACES, checksum)
        checksum = zlib.crc32(answer.body, checksum)
        trailer = struct.pack("<II", checksum, BODY_BYTES + len(answer.body))
        body = GZIP_HEAD + piece * (BODY_BYTES // MIB) + end + trailer
        return replace(answer, body=body, headers={**answer.headers, "Content-Encoding": "gzip"})

    await _require_answer_again(kit, f"a reply of {BODY_BYTES // MIB} MiB in gzip", at_first(packed, answering()))


@check("wire.token_ids", "answer-6", "Token ids and log-probabilities in a reply are no part of the conversation.")
async def token_ids(kit: Kit) -> None:
    marks = [918_273, 645_546]

    def with_tokens(body: dict[str, Any], turn: int) -> None:
        token = {"token": "4", "logprob": -0.25, "bytes": None, "top_logprobs": []}
        body["choices"][0] |= {"token_ids": marks, "logprobs": {"content": [token for _ in marks]}}
        body["prompt_token_ids"] = [918_274]

    script = changed(calling_offered_tools(turns=2), with_tokens)
    rollout = await require_completed(kit, "replies with token ids", script)
    last = (await rollout.result()).get("final_messages")
    told = {**{f"call {n}": call.messages for n, call in enumerate(rollout.chats, start=1)}, "final_messages": last}
    for where, messages in told.items():
        for word in ("918273", "918274", "logprob"):
            if word in json.dumps(messages):
                raise Failed("a conversation without token ids and log-probabilities", f"{word} in {where}")
