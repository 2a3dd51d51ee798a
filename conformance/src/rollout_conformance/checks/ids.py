"""Odd ids and texts: kept as they are, or refused with a 4xx, and never harmful."""

import asyncio
import json
import secrets
from typing import Any

from rollout_conformance.asking import describe
from rollout_conformance.catalogue import check
from rollout_conformance.endpoint import Answer
from rollout_conformance.kit import Kit
from rollout_conformance.played import Call, PlayedRollout, objects_of
from rollout_conformance.scripts import saying, turn_of
from rollout_conformance.strict_json import difference_of_texts, parse_object
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import Failed

ODD_IDS = (
    "../../../tmp/kit",
    "/tmp/kit",  # noqa: S108 - no file: an id that looks like one
    "a/b/c",
    "..",
    "kit with spaces",
    "50%2e%2e%2f",
    "quote\"'`$(true);",
    "\u65e5\u672c\u8a9e-\u00fc\u00df",
    "\U0001f3b2\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "x" * 247,
    "\u65e5" * 247,
    "\U0001f3b2" * 247,
)
SPACES = (" ", "\u00a0", "\u3000")
"""They stay at both ends of an id."""
MANY_CHARACTERS = 200
COUNTED = "characters are counted as bytes or as UTF-16 units: count code points"
LONG_CHARACTERS = 120_000
CONTROL_IDS = ("new\nline", "nul\x00", "bell\x07\x1b[31m", "\u202eright to left")
WITH_NUL = "behind \0 it"
TEXT = (
    "\u00fcber \U0001f3b2\U0001f468\u200d\U0001f469\u200d\U0001f467 \u05e9\u05dc\u05d5\u05dd \u2028 e\u0301 "
    "\\u0041 \ttab 'quote\" </script>"
)
PLAIN = "\u00fcber \u65e5\u672c"


def _unique(text: str) -> str:
    return f"{text}-{secrets.token_hex(4)}"


async def _require_same_id(kit: Kit, rollout_id: str) -> None:
    rollout = kit.play(rollout_id=rollout_id)
    response = await kit.post(rollout.init)
    if response.status_code in (400, 422) and len(rollout_id) > MANY_CHARACTERS:
        what = f"202 to an init whose rollout_id has {len(rollout_id)} characters, {quoted(rollout_id[-12:])} the last"
        raise Failed(what, describe(response), usually=COUNTED)
    kit.took(rollout, response)
    answer = parse_object(response.content)
    result = await rollout.result()
    for where, fields in (("the 202", answer), ("the result", result)):
        if fields.get("rollout_id") != rollout_id:
            raise Failed(f"rollout_id {quoted(rollout_id)} in {where}", quoted(fields.get("rollout_id")))
    if result.get("status") != "COMPLETED":
        raise Failed(f"COMPLETED for rollout_id {quoted(rollout_id)}", quoted(result.get("error_message")))


async def _require_handled(kit: Kit, **fields: Any) -> None:
    """Refused with a 4xx, or accepted and brought to a result."""
    rollout = kit.play(**fields)
    if await kit.is_taken(rollout, f"an init with {quoted(fields)}"):
        await rollout.result()


@check("ids.pieces", "http-5", "A character whose bytes come one after the other is one: of an init, of a reply.")
async def pieces(kit: Kit) -> None:
    said = {"role": "assistant", "content": f"{PLAIN}\n#### 4"}

    async def script(call: Call) -> Answer:
        body = json.dumps({"choices": [{"message": said, "finish_reason": "stop"}]}, ensure_ascii=False)
        return Answer(body=body.encode(), in_pieces=True, is_chunked=turn_of(call) == 0 and call.rollout is chunked)

    plain, chunked = (kit.play(script, messages=[{"role": "user", "content": PLAIN}]) for _ in range(2))
    for rollout in (plain, chunked):
        body = json.dumps(rollout.init, ensure_ascii=False).encode()
        kit.took(rollout, await kit.post(body, in_chunks=True))
        final = objects_of((await rollout.result()).get("final_messages"))
        if rollout.chats and rollout.chats[0].messages[:1] != rollout.init["messages"]:
            raise Failed(f"the text {quoted(PLAIN)} of an init in pieces", quoted(rollout.chats[0].messages[:1]))
        if final[-1:] != [said]:
            raise Failed(f"the text {quoted(said['content'])} of a reply in pieces", quoted(final[-1:]))


@check("ids.odd", "init-9", "A rollout_id may look like a path, hold spaces, quotes, any script, 256 characters.")
async def odd(kit: Kit) -> None:
    padded = (f"{space}{_unique('kit')}{space}" for space in SPACES)
    await asyncio.gather(*(_require_same_id(kit, text) for text in (*padded, *map(_unique, ODD_IDS))))


@check("ids.similar", "result-18", "Results of ids that are nearly alike have an Idempotency-Key each.")
async def similar(kit: Kit) -> None:
    own = f"kit-{secrets.token_hex(4)}-" + "x" * 100
    ends = ("/1", " 1", "_1", "\u65e5", "\u672c", "a", "A", "1", "2")
    rollouts = await asyncio.gather(*(kit.start(rollout_id=f"{own}{end}") for end in ends))
    await kit.results(rollouts)
    keys: dict[str, PlayedRollout] = {}
    for rollout in rollouts:
        key = rollout.completions[0].key
        if key and (other := keys.setdefault(key, rollout)) is not rollout:
            ids = f"{quoted(other.rollout_id[-10:])} and {quoted(rollout.rollout_id[-10:])}"
            raise Failed(f"an Idempotency-Key each for the results of ids that end in {ids}", quoted(key))


@check("ids.control", "init-12", "Ids with control characters run, or are refused with a 4xx.")
async def control(kit: Kit) -> None:
    await asyncio.gather(*(_require_handled(kit, rollout_id=_unique(text)) for text in CONTROL_IDS))
    await kit.must_serve()


@check("ids.surrogates", "http-6", "Lone surrogates run, or are refused with a 4xx: in ids, messages, metadata.")
async def surrogates(kit: Kit) -> None:
    lone = "\ud83d"
    await asyncio.gather(
        _require_handled(kit, rollout_id=_unique(lone)),
        _require_handled(kit, idempotency_key=_unique(lone)),
        _require_handled(kit, messages=[{"role": "user", "content": f"half {lone}"}]),
        _require_handled(kit, metadata={"ground_truth": lone}),
    )
    await kit.must_serve()


@check("ids.text", "http-5", "Text in messages and replies comes back as it was.")
async def text(kit: Kit) -> None:
    await _require_kept(await kit.start(saying(TEXT), messages=[{"role": "user", "content": TEXT}]), TEXT)
    # Some databases cannot keep one: then the init is refused.
    rollout = kit.play(saying(WITH_NUL), messages=[{"role": "user", "content": WITH_NUL}])
    if await kit.is_taken(rollout, "an init with U+0000 in a message"):
        await _require_kept(rollout, WITH_NUL)


async def _require_kept(rollout: PlayedRollout, text: str) -> None:
    """In the call for a completion and, with a reply that says the same, in the result."""
    call = await rollout.first_chat()
    result = await rollout.result()
    sent = [message.get("content") for message in call.messages]
    final = [message.get("content") for message in result.get("final_messages", []) if isinstance(message, dict)]
    for where, texts, count in (("the call for a completion", sent, 1), ("final_messages", final, 2)):
        if texts.count(text) < count:
            other = next((one for one in texts if isinstance(one, str) and one != text), None)
            got = quoted(texts) if other is None else f"another: {difference_of_texts(text, other)}"
            raise Failed(f"the text unchanged in {where}", got)


@check("ids.surrogate_reply", "http-6", "A reply of the model with a lone surrogate ends in a result all the same.")
async def surrogate_reply(kit: Kit) -> None:
    rollout = await kit.start(saying("half \ud83d of a pair"))
    await rollout.result()
    await kit.must_serve()


@check("ids.long_text", "http-5", f"Texts of {LONG_CHARACTERS:,} characters come back whole.")
async def long_text(kit: Kit) -> None:
    asked, said = "asked " * (LONG_CHARACTERS // 6), "said " * (LONG_CHARACTERS // 5)
    rollout = await kit.start(saying(said), messages=[{"role": "user", "content": asked}])
    call = await rollout.first_chat()
    result = await rollout.result()
    final = result.get("final_messages")
    last = final[-1] if isinstance(final, list) and final and isinstance(final[-1], dict) else {}
    for where, expected, message in (
        ("the call for a completion", asked, call.messages[0] if call.messages else {}),
        ("final_messages", said, last),
    ):
        if message.get("content") != expected:
            got = len(str(message.get("content")))
            raise Failed(f"a text of {len(expected)} characters, unchanged, in {where}", f"another, of {got}")
