"""Results that do not get through: delivered again, always the same."""

import asyncio
import contextlib
import gzip
from collections.abc import Mapping
from itertools import cycle

from rollout_conformance.cases import every
from rollout_conformance.catalogue import check
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.lateness import told_in_time
from rollout_conformance.played import Call, PlayedRollout, Script
from rollout_conformance.scripts import (
    ABSENT,
    IN_CAPITALS,
    WITH_TRAILER,
    acknowledge,
    answering,
    calling_offered_tools,
    delayed,
    encoded,
    first,
    losing_connections,
    paging,
    refusing,
    turn_of,
)
from rollout_conformance.strict_json import first_difference, is_same_document
from rollout_conformance.text import quoted
from rollout_conformance.usual_causes import MADE_ANEW
from rollout_conformance.vocabulary import Failed, NotExercised

SLOW_SECONDS = 2.0
MANY_REFUSALS = 12
"""More than the usual count of attempts."""
PATIENCE_SECONDS = 4.0
AGAIN_SECONDS = 1.2
"""In which one that offers its results again without a wait of seconds has done so."""
AWAY_SECONDS = 6.0
"""In which one that counts to three has done so."""
OTHERS = 4
TOLD_SECONDS = 3
CLOCK_SLACK_SECONDS = 0.05
HTML = b"<!DOCTYPE html><html><body>Log in</body></html>"
ODD_HTML = b"\xef\xbb\xbf \r\n<HTML><body>Log in</body></HTML>"
PAGE = {"Content-Type": "text/html"}
KINDS_OF_PAGES = ("text/html; charset=utf-8", "text/html", "Text/HTML")
NOTHING = Answer(204, b"")
BUILT_ANEW = "the shorter result is built anew: take the one on record, empty its messages, say so, and leave the rest"
FINAL_SECONDS = 1.5
"""With what is left to settle, in which a server that goes on for ever has offered a result again."""


async def _require_deliveries(
    kit: Kit, count: int, after: str, on_completed: Script, on_chat: Script | None = None
) -> None:
    """The result comes ``count`` times, the same each time."""
    rollout = kit.play(on_chat or calling_offered_tools(), on_completed)
    rollout.has_delivery_faults = True
    await kit.send(rollout)
    await rollout.wait_until(lambda played: len(played.completions) >= count, f"the result again after {after}")
    await rollout.result()
    _require_identical(rollout, after)


async def _require_each_again(kit: Kit, scripts: Mapping[str, Script]) -> None:
    """Results that are answered so come again, every second of them an ERROR."""
    cases = {}
    for number, (after, on_completed) in enumerate(scripts.items()):
        failing = refusing(400, None, answering()) if number % 2 else None
        what = f"{after} to an ERROR" if number % 2 else after
        cases[what] = _require_deliveries(kit, 2, what, on_completed, failing)
    await every(cases)


def _require_identical(rollout: PlayedRollout, after: str) -> None:
    if contradiction := rollout.contradiction():
        raise Failed(f"the same result again after {after}", contradiction, usually=MADE_ANEW)


@check(
    "delivery.server_error",
    "deliver-2 deliver-8",
    "A result answered 5xx is delivered again, the same, never as an ERROR.",
)
async def server_error(kit: Kit) -> None:
    statuses = (500, 501, 502, 503, 504, 505, 507, 511, 520, 599)
    await _require_each_again(kit, {f"{one}": refusing(one, 1, acknowledge) for one in statuses})


@check("delivery.twice", "deliver-2", "It is delivered a third time if need be.")
async def twice(kit: Kit) -> None:
    await _require_deliveries(kit, 3, "500 twice", refusing(500, 2, acknowledge))


@check(
    "delivery.cut",
    "deliver-3",
    "A result whose acknowledgement is lost, by a cut or a reset, is delivered again, the same.",
)
async def cut(kit: Kit) -> None:
    cases = losing_connections(acknowledge)
    await every({what: _require_deliveries(kit, 2, what, script) for what, script in cases.items()})


@check("delivery.error_too", "deliver-2", "So is an ERROR.")
async def error_too(kit: Kit) -> None:
    failing = refusing(400, None, answering())
    await _require_deliveries(kit, 2, "500", refusing(500, 1, acknowledge), failing)


@check("delivery.page", "absent-3", "A result answered with a proxy's 404 page is delivered again, the same.")
async def page(kit: Kit) -> None:
    await asyncio.gather(
        _require_each_again(kit, {what: first(one, then=acknowledge) for what, one in ABSENT.items()}),
        _require_deliveries(kit, 3, "two 404 pages", paging(2, acknowledge)),
    )


@check(
    "delivery.slow", "deliver-8", f"An acknowledgement may take {SLOW_SECONDS:g} s: nothing else is reported meanwhile."
)
async def slow(kit: Kit) -> None:
    rollout = kit.play(on_completed=delayed(SLOW_SECONDS, acknowledge))
    rollout.has_delivery_faults = True
    await kit.send(rollout)
    await rollout.result()
    await asyncio.sleep(AGAIN_SECONDS)  # what was sent for lack of patience may be on its way
    await kit.settle()
    _require_identical(rollout, f"an acknowledgement that took {SLOW_SECONDS:g} s")


@check("delivery.too_many", "deliver-2", "A result answered 429 or 408 is delivered again.")
async def too_many(kit: Kit) -> None:
    scripts = {f"{one}": refusing(one, 1, acknowledge) for one in (408, 425)}
    await _require_each_again(kit, {"429": refusing(429, 1, acknowledge, {"Retry-After": "1"}), **scripts})


@check("delivery.persistent", "deliver-2", f"A result is still delivered after up to {MANY_REFUSALS} times 503.")
async def persistent(kit: Kit) -> None:
    is_enough, refused = kit.hold(), refusing(503, MANY_REFUSALS, acknowledge, {"Retry-After": "0"})

    async def for_a_while(call: Call) -> Answer | None:
        return await (acknowledge if is_enough.is_set() else refused)(call)

    rollout = kit.play(calling_offered_tools(), for_a_while)
    rollout.has_delivery_faults = True
    await kit.send(rollout)
    # One that waits longer than it is told to may need minutes for so many: the next one that it makes is taken.
    with contextlib.suppress(TimeoutError, Failed):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await rollout.over()
    is_enough.set()
    after = f"{len(rollout.completions)} times 503, 'Retry-After: 0'"
    if not rollout.is_over:
        count = len(rollout.completions)
        await rollout.wait_until(lambda played: len(played.completions) > count, f"the result again after {after}")
    _require_identical(rollout, after)


@check("delivery.created", "deliver-1", "Any 2xx acknowledges a result.")
async def created(kit: Kit) -> None:
    cases = {f"{status}": _require_one(kit, Answer(status)) for status in (201, 202, 203, 206, 207, 226, 299)}
    await every({"204 without a body": _require_one(kit, NOTHING), **cases})


async def _require_one(kit: Kit, answer: Answer) -> None:
    """One delivery, which is answered so and is not made again."""
    rollout = kit.play(on_completed=first(answer, then=acknowledge))
    rollout.has_delivery_faults = True
    await kit.send(rollout)
    await rollout.over()
    await asyncio.sleep(AGAIN_SECONDS)
    await kit.settle()
    if len(rollout.completions) > 1:
        looked_at(rollout)
        body = gzip.decompress(answer.body) if "Content-Encoding" in answer.headers else answer.body
        said = quoted(body[:40].decode("utf-8", "replace")) if body else "without a body"
        said += f", as {answer.headers['Content-Type']}" if "Content-Type" in answer.headers else ""
        said += ", in gzip" if "Content-Encoding" in answer.headers else ""
        said += ", in chunks with a field behind the last" if answer.trailer else ""
        said += ", with 'Transfer-Encoding: Chunked'" if answer is IN_CAPITALS else ""
        raise Failed(f"one delivery answered {answer.status} {said}", str(len(rollout.completions)))


@check("delivery.refused", "deliver-4", "A result answered 400, 413 or 422 comes once more, without its messages.")
async def refused(kit: Kit) -> None:
    failing = calling_offered_tools(), refusing(400, None, answering())

    async def fails_later(call: Call) -> Answer | None:
        return await failing[min(turn_of(call), 1)](call)

    again = Answer(503, encoded({"detail": "not now"}), {"Retry-After": "0"})
    cases = {f"{one}": _require_rest(kit, one, calling_offered_tools()) for one in (400, 413, 422)}
    cases["413 with a page of HTML"] = _require_rest(kit, 413, calling_offered_tools(), page=HTML)
    cases["422 to an ERROR"] = _require_rest(kit, 422, fails_later)
    cases["422 after 503"] = _require_rest(kit, 422, calling_offered_tools(), again)
    await every(cases)


async def _require_rest(kit: Kit, status: int, on_chat: Script, *before: Answer, page: bytes = b"") -> None:
    refusal = Answer(status, page, PAGE) if page else Answer(status, encoded({"detail": "no"}))
    rollout = kit.play(on_chat, first(*before, refusal, then=acknowledge))
    rollout.has_delivery_faults = True
    await kit.send(rollout)
    what = f"the result without its messages after {'503 and ' if before else ''}{status}"
    await rollout.wait_until(lambda played: len(played.completions) > 1 + len(before), what)
    await rollout.result()
    whole, rest = rollout.completions[len(before) : len(before) + 2]
    if not rest.fields.get("final_messages") and (differs := rest.difference_but_for_messages(whole)):
        what = f"the same result again after {status}, but for its messages and extra_fields.messages_refused"
        raise Failed(what, f"another at {differs}", usually=BUILT_ANEW)
    _require_identical(rollout, f"{status}, but for its messages")
    if rest.fields.get("final_messages") != []:
        raise Failed(f"no messages in the delivery after {status}", rest.result_in_words)
    extra = rest.fields.get("extra_fields")
    if not (isinstance(extra, dict) and extra.get("messages_refused") is True):
        raise Failed("extra_fields.messages_refused true in a result without its messages", quoted(extra))


@check("delivery.any_body", "deliver-1", "A 2xx acknowledges a result, whatever its body says.")
async def any_body(kit: Kit) -> None:
    bodies = (b'{"status": "error"}', b"<html>", b"", b'{"detail": "Not Found"}', b"\xff")
    # What only its type, or only its body would make a page is none; so is one in a coding.
    no_pages = (
        *(Answer(200, body, PAGE) for body in (b"ok", b"")),
        Answer(200, HTML, {"Content-Type": "text/plain"}),
        Answer(200, encoded({"page": HTML.decode()}), PAGE),
        Answer(200, gzip.compress(HTML), {**PAGE, "Content-Encoding": "gzip"}),
    )
    answers = (
        Answer(ends_with_connection=True),
        WITH_TRAILER,
        IN_CAPITALS,
        *(Answer(body=body) for body in bodies),
        *no_pages,
    )
    await asyncio.gather(*(_require_one(kit, one) for one in answers))


@check("delivery.final", "deliver-5", "A result that is refused for good is not offered again.")
async def final(kit: Kit) -> None:
    refusals = {
        **{
            str(status): Answer(status, encoded({"detail": "no"}))
            for status in (401, 402, 403, 406, 409, 415, 423, 451)
        },
        "410": Answer(410),
        "410 with a page": Answer(410, HTML, PAGE),
        "404 and the code unknown_rollout": Answer(
            404, encoded({"detail": "no such rollout", "code": "unknown_rollout"})
        ),
        "404 'Rollout not found'": Answer(404, encoded({"detail": "Rollout not found"})),
        "404 'Session 404 not found'": Answer(404, encoded({"detail": "Session 404 not found"})),
    }
    await every({what: _require_last(kit, what, answer) for what, answer in refusals.items()})


async def _require_last(kit: Kit, what: str, answer: Answer) -> None:
    rollout = kit.play(on_completed=first(answer, then=acknowledge))
    rollout.has_delivery_faults = rollout.is_refused_for_good = True
    await kit.send(rollout)
    await rollout.over()
    await asyncio.sleep(FINAL_SECONDS)
    await kit.settle()
    if len(rollout.completions) > 1:
        looked_at(rollout)
        raise Failed(f"one delivery, answered {what}", str(len(rollout.completions)))


@check("delivery.no_path", "absent-2", "One answered 404 'Not Found', as of a path that is not served, comes again.")
async def no_path(kit: Kit) -> None:
    path = Answer(404, encoded({"status": 404, "error": "Not Found", "path": "/v1/rollout/completed"}))
    not_allowed = Answer(405, encoded({"detail": "Method Not Allowed"}))
    gateway = Answer(404, encoded({"error": {"message": "no Route matched with those values"}}))
    words = Answer(404, encoded({"messages": ["404 Page Not Found."]}))
    answers = (Answer(404, encoded({"detail": "Not Found"})), path, not_allowed, gateway, words)
    told = {f"{answer.status} {answer.body.decode()}": answer for answer in answers}
    await _require_each_again(kit, {what: first(one, then=acknowledge) for what, one in told.items()})


async def _left_out(kit: Kit, *then: Answer) -> PlayedRollout:
    """A rollout whose result was answered 422, so that it came without its messages, and that was answered so."""
    refusal = Answer(422, encoded({"detail": "no"}))
    rollout = kit.play(calling_offered_tools(), first(refusal, *then, then=acknowledge))
    rollout.has_delivery_faults = rollout.is_refused_for_good = True
    await kit.send(rollout)
    await rollout.over()
    await kit.settle()
    if len(rollout.completions) < 2:
        raise NotExercised("the server does not offer a result without its messages")
    return rollout


@check("delivery.refused_once", "deliver-7", "A result that is refused without its messages too is not offered again.")
async def refused_once(kit: Kit) -> None:
    rollout = await _left_out(kit, Answer(422, encoded({"detail": "no"})))
    await asyncio.sleep(FINAL_SECONDS)
    await kit.settle()
    if len(rollout.completions) > 2:
        raise Failed("two deliveries, both answered 422", str(len(rollout.completions)))


@check("delivery.refused_same", "deliver-6", "Once it was offered without its messages, it is offered in no other way.")
async def refused_same(kit: Kit) -> None:
    rollout = await _left_out(kit, Answer(503, encoded({"detail": "not now"}), {"Retry-After": "0"}))
    await rollout.result()
    whole, without, *later = rollout.completions
    if not without.is_rest_of(whole):
        differs = without.difference_but_for_messages(whole)
        what = "the same result again after 422, but for its messages and extra_fields.messages_refused"
        raise Failed(what, f"another at {differs}", usually=BUILT_ANEW)
    for again in later:
        if not is_same_document(without.request.body, again.request.body):
            differs = first_difference(without.request.body, again.request.body)
            is_whole = bool(again.fields.get("final_messages"))
            usually = None if is_whole else MADE_ANEW
            what = "the result without its messages again, the same, after 503"
            raise Failed(what, f"{again.result_in_words}, which differs at {differs}", usually=usually)


@check("delivery.html", "deliver-2", "A page of HTML acknowledges nothing, with a 200 either, nor does a redirect.")
async def html(kit: Kit) -> None:
    moved = {"Location": f"{kit.trainer.base_url}/login"}
    pages = [*((one, HTML) for one in (200, 202, 400, 401, 403, 422)), (200, ODD_HTML)]
    answers = {
        f"{status} with a page of HTML, {body[:20]!r}, as {kind}": Answer(status, body, {"Content-Type": kind})
        for (status, body), kind in zip(pages, cycle(KINDS_OF_PAGES), strict=False)
    }
    answers |= {f"{status}": Answer(status, b"", moved) for status in (300, 301, 302, 303, 304, 307, 308)}
    await _require_each_again(kit, {what: first(one, then=acknowledge) for what, one in answers.items()})
    kit.trainer.forget_strays("/login")


@check("delivery.retry_after", "deliver-16", "A result is not offered again before its Retry-After.")
async def retry_after(kit: Kit) -> None:
    await told_in_time(lambda: _require_wait(kit), TOLD_SECONDS)


async def _require_wait(kit: Kit) -> None:
    async with kit.door() as door:  # a trainer of its own: one that takes another result may be offered all at once
        await door.open()
        rollout = kit.play(on_completed=refusing(503, 1, acknowledge, {"Retry-After": str(TOLD_SECONDS)}), at=door.url)
        rollout.has_delivery_faults = True
        await kit.send(rollout)
        await rollout.wait_until(lambda played: len(played.completions) > 1, "the result again after 503")
        waited = rollout.completions[1].came_at - (rollout.completions[0].answered_at or 0)
        await rollout.result()
    if waited < TOLD_SECONDS - CLOCK_SLACK_SECONDS:
        raise Failed(f"no further delivery before 'Retry-After: {TOLD_SECONDS}' is over", f"one after {waited:.2f} s")


@check("delivery.no_connection", "deliver-3", "A result for which nobody listens for a while is delivered then.")
async def no_connection(kit: Kit) -> None:
    async with kit.door() as door:
        await door.open()
        is_away = asyncio.Event()

        async def go_away(call: Call) -> Answer | None:
            if is_away.is_set():
                return await acknowledge(call)
            is_away.set()
            return None

        rollout = kit.play(on_completed=go_away, at=door.url)
        rollout.has_delivery_faults = True
        await kit.send(rollout)
        await rollout.wait_until(lambda played: bool(played.completions), "a terminal result")
        await door.shut()
        await asyncio.sleep(AWAY_SECONDS)
        await door.open()
        # Once it takes another one, a server may offer this one at once; of several processes, each by itself.
        await asyncio.gather(kit.results([await kit.start(at=door.url) for _ in range(OTHERS)]), rollout.result())
        _require_identical(rollout, "a trainer that was away")


@check("delivery.nothing_left", "deliver-7", "A result without messages that is refused is not offered again.")
async def nothing_left(kit: Kit) -> None:
    refusal = Answer(422, encoded({"detail": "no"}))
    rollout = kit.play(refusing(400, None, answering()), first(refusal, then=acknowledge), messages=[])
    rollout.has_delivery_faults = rollout.is_refused_for_good = True
    await kit.send(rollout)
    await rollout.over()
    if rollout.completions[0].fields.get("final_messages") != []:
        raise NotExercised("the agent has messages of its own where the init has none")
    await asyncio.sleep(FINAL_SECONDS)
    await kit.settle()
    if len(rollout.completions) > 1:
        raise Failed("one delivery of a result without messages, answered 422", str(len(rollout.completions)))
