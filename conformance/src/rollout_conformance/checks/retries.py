"""Calls for a completion that fail: which are made again, and how."""

import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import cycle

from rollout_conformance.cases import every
from rollout_conformance.catalogue import check
from rollout_conformance.conversation import call_ids, reply_in
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.lateness import told_in_time
from rollout_conformance.played import Call, PlayedRollout, Script
from rollout_conformance.scripts import (
    ABSENT,
    answering,
    asking_at_once,
    breaking_off,
    by_turns,
    calling_offered_tools,
    encoded,
    first,
    losing_connections,
    need_tools,
    paging,
    refusing,
    turn_of,
    waiting_for,
)
from rollout_conformance.strict_json import first_difference, is_same_document
from rollout_conformance.text import quoted
from rollout_conformance.usual_causes import A_PAGE
from rollout_conformance.vocabulary import LATE, Failed, NotExercised

RETRY_AFTER_SECONDS = 2
DATED_SECONDS = 4
"""Of these two are owed: a date has whole seconds, and another machine another clock."""
CLOCK_SLACK_SECONDS = 0.05
PAUSE_REFUSALS = 5
MANY_REFUSALS = 12
"""More than the usual count of attempts."""
PATIENCE_SECONDS = 15.0
ABORTS = 4
AWAY_SECONDS = 2.5
"""Of these a server that waits as the protocol's does has asked twice."""
MONTH_SECONDS = 30 * 86_400
KINDS_OF_PAGES = ("text/html; charset=utf-8", "text/html", "Text/HTML")
FORGOTTEN = Answer(404, encoded({"detail": "no such rollout", "code": "unknown_rollout"}))


PATH = (
    "the word rollout within a path, as frameworks repeat it, is taken for the trainer speaking of one: leave paths out"
)


NOT_READ = "the call is made again as if this answer had no Retry-After: read it of each, and wait as long"
MIXED = "attempts and pauses are counted together: one that meets a pause counts for nothing"


async def _require_recovery(kit: Kit, after: str, script: Script, *, usually: str | None = None) -> PlayedRollout:
    rollout = await kit.start(script)
    result = await rollout.result()
    attempts = _attempts(rollout)
    if result.get("status") != "COMPLETED" or len(attempts) == 1:
        got = f"{result.get('status')} after {len(rollout.chats)} calls: {quoted(result.get('error_message'))}"
        raise Failed(f"another call for the completion after {after}", got, usually=usually)
    for again in attempts[1:]:
        if not is_same_document(attempts[0].request.body, again.request.body):
            differs = first_difference(attempts[0].request.body, again.request.body)
            raise Failed("the same body in the call that is made again", f"another, which differs at {differs}")
    return rollout


def _attempts(rollout: PlayedRollout) -> list[Call]:
    """Those of the last turn; none where the agent has ended with the tool call that was to come before it."""
    last = rollout.chats[-1] if rollout.chats else None
    if last is None or (last.answer is not None and any(map(call_ids, reply_in(last.answer.body)))):
        return []
    return [call for call in rollout.chats if turn_of(call) == turn_of(last)]


@check("retries.server_error", "retry-5 retry-9", "A call answered 5xx is made again, with the same body.")
async def server_error(kit: Kit) -> None:
    statuses = (500, 501, 503, 505, 511, 520, 599)
    cases = by_turns({f"{one}": refusing(one, 1, answering()) for one in statuses})
    await every({what: _require_recovery(kit, what, script) for what, script in cases.items()})


@check("retries.twice", "retry-5", "It is made again more than once.")
async def twice(kit: Kit) -> None:
    await _require_recovery(kit, "500 twice", refusing(500, 2, answering()))


@check("retries.later", "retry-5", "So is one of a later turn, twice too, though one before it was made again twice.")
async def later(kit: Kit) -> None:
    tools, refused = calling_offered_tools(), list[int]()

    async def script(call: Call) -> Answer | None:
        if refused.count(turn_of(call)) < 2:
            refused.append(turn_of(call))
            return Answer(500, encoded({"detail": "not now"}))
        return await tools(call)

    rollout = await kit.start(script)
    result = await rollout.result()
    need_tools(rollout.tools)
    if 1 not in refused and result.get("status") == "COMPLETED":
        raise NotExercised("the agent does not call the model again after a tool call")
    if result.get("status") != "COMPLETED":
        got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
        raise Failed("the calls of two turns again after 500, twice each", got)


@check("retries.cut", "retry-5", "A call whose connection is cut, or reset, is made again, with the same body.")
async def cut(kit: Kit) -> None:
    cases = losing_connections(answering())
    await every({what: _require_recovery(kit, what, script) for what, script in cases.items()})


def _refusing_until_a_date(then: Script) -> Script:
    """Answers the first call 503, with a Retry-After that is a date."""
    seen: list[Call] = []

    async def script(call: Call) -> Answer | None:
        seen.append(call)
        if len(seen) > 1:
            return await then(call)
        until = datetime.now(UTC) + timedelta(seconds=DATED_SECONDS)
        return Answer(503, encoded({"detail": "not now"}), {"Retry-After": format_datetime(until, usegmt=True)})

    return script


@check("retries.too_many", "retry-5 retry-11", "A call answered 429 or 408 is made again, not before its Retry-After.")
async def too_many(kit: Kit) -> None:
    await told_in_time(lambda: _require_waits(kit), RETRY_AFTER_SECONDS)


async def _require_waits(kit: Kit) -> None:
    told = str(RETRY_AFTER_SECONDS)
    header, absent = {"Retry-After": told}, "a 404 of a proxy"

    def refused(status: int, name: str = "Retry-After", value: str = told) -> Script:
        return refusing(status, 1, answering(), {name: value})

    owed = {
        told: ("429", refused(429)),
        f"{told} (with an aborted reply)": ("an aborted reply", asking_at_once(_broken("abort"), told)),
        f"{told} (RETRY-AFTER)": ("429", refused(429, "RETRY-AFTER")),
        f"{told} (retry-after)": ("429", refused(429, "retry-after")),
        f"(a date, in {DATED_SECONDS} s)": ("503", _refusing_until_a_date(answering())),
        f"{told} (with {absent})": (absent, first(Answer(404, b"no such backend", header), then=answering())),
        **{f"{told} (with {one})": (str(one), refused(one)) for one in (408, 425, 500, 502, 504)},
    }
    broken = "a reply with finish_reason 'error'"
    owed[f"{told} (with {broken})"] = broken, asking_at_once(_broken("error"), told)
    # Nothing is owed, but that the call is made again.
    odd = ("Thu, 01 Jan 2026 00:00:00 GMT", "-1", "soon")
    free = {f"503 with 'Retry-After: {one}'": refused(503, value=one) for one in odd}
    free |= {str(status): refusing(status, 1, answering()) for status in (408, 425)}
    recovered, _ = await asyncio.gather(
        asyncio.gather(
            *(
                _require_recovery(kit, after, script, usually=A_PAGE if after == absent else None)
                for after, script in owed.values()
            )
        ),
        asyncio.gather(*(_require_recovery(kit, *one) for one in free.items())),
    )
    for how, rollout in zip(owed, recovered, strict=True):
        seconds = DATED_SECONDS - 2 if "date" in how else RETRY_AFTER_SECONDS
        waited = rollout.chats[1].came_at - (rollout.chats[0].answered_at or 0)
        if waited < seconds - CLOCK_SLACK_SECONDS:
            looked_at(rollout)
            got = f"one after {waited:.2f} s, without a wait for it"
            raise Failed(f"no further call before 'Retry-After: {how}' is over", got, usually=NOT_READ)


def _broken(reason: str) -> Script:
    return breaking_off(reason, 1, answering())


# Late: where a pause holds up others, this one would hold up all that comes after it.
@check("retries.long_wait", "retry-15", "A Retry-After of a month, beyond any call's deadline, ends no call.", LATE)
async def long_wait(kit: Kit) -> None:
    model = kit.hold()
    month = Answer(503, encoded({"detail": "not now"}), {"Retry-After": str(MONTH_SECONDS)})
    rollout = await kit.start(first(month, then=waiting_for(model, answering())))
    await rollout.first_chat()
    await kit.settle()
    # Whether it has asked again or not, it goes on, and is not waited for.
    if not rollout.is_over:
        with contextlib.suppress(Failed):  # another check's matter
            await kit.cancel_where_it_runs(rollout.rollout_id)
    model.set()
    result = await rollout.result()
    extra = result.get("extra_fields")
    if result.get("status") == "ERROR" and not (isinstance(extra, dict) and extra.get("outcome") == "cancelled"):
        got = f"ERROR after {len(rollout.chats)} calls: {quoted(result.get('error_message'))}"
        raise Failed(f"a call that goes on after 503 with 'Retry-After: {MONTH_SECONDS}'", got)


@check(
    "retries.pause", "retry-4", f"A call answered 429, 502, 503, 504 or a page {PAUSE_REFUSALS} times is made again."
)
async def pause(kit: Kit) -> None:
    header = {"Retry-After": "0"}
    nobody = [Answer(404, b"no such backend", header)] * PAUSE_REFUSALS
    firewall = [Answer(429, b"<!DOCTYPE html><html></html>", {**header, "Content-Type": "text/html"})] * PAUSE_REFUSALS
    mixed = [Answer(status, b"{}", header) for status in (503, 503, 503, 500, 503, 503, 500, 503)]
    elsewhere = [Answer(405, b"<html></html>", header)] * PAUSE_REFUSALS
    absent = {"404 of a proxy": first(*nobody, then=answering()), "405 of a proxy": first(*elsewhere, then=answering())}
    scripts = {
        "429 with a page of HTML": first(*firewall, then=answering()),
        **{str(status): refusing(status, PAUSE_REFUSALS, answering(), header) for status in (429, 502, 503, 504)},
    }
    many = first(*[Answer(503, b"{}", header)] * MANY_REFUSALS, then=answering())
    patient = _require_patience(kit, f"up to {MANY_REFUSALS} times 503", many)
    mixture = _require_patience(kit, "500 twice among 503", first(*mixed, then=answering()), usually=MIXED)
    cases: dict[str, Awaitable[object]] = {}
    for each, usually in ((scripts, None), (absent, A_PAGE)):
        named = by_turns({f"{PAUSE_REFUSALS} times {what}": one for what, one in each.items()})
        cases |= {what: _require_recovery(kit, what, one, usually=usually) for what, one in named.items()}
    await every({f"{MANY_REFUSALS} times 503": patient, "500 among 503": mixture, **cases})


async def _require_patience(kit: Kit, after: str, script: Script, *, usually: str | None = None) -> None:
    is_enough, plain = kit.hold(), answering()

    async def for_a_while(call: Call) -> Answer | None:
        return await (plain if is_enough.is_set() else script)(call)

    rollout = await kit.start(for_a_while)
    # One that waits longer than it is told to may need minutes for so many: the next one that it makes is answered.
    with contextlib.suppress(TimeoutError, Failed):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await rollout.over()
    is_enough.set()
    result = await rollout.result()
    if result.get("status") != "COMPLETED":
        got = f"{result.get('status')} after {len(rollout.chats)} calls"
        raise Failed(f"the call again after {after}, 'Retry-After: 0'", got, usually=usually)


@check("retries.page", "absent-3", "A call answered with a proxy's 404 page, or with an empty 404, is made again.")
async def page(kit: Kit) -> None:
    named = by_turns({what: first(one, then=answering()) for what, one in ABSENT.items()})
    cases = {what: _require_recovery(kit, what, script) for what, script in named.items()}
    await every({"a 404 page": _require_recovery(kit, "a 404 page", paging(1, answering())), **cases})


@check("retries.html", "retry-16", "Neither does a page of HTML with another 4xx end a call: it is made again.")
async def html(kit: Kit) -> None:
    page = b"<!DOCTYPE html><html><body>Blocked</body></html>"
    odd = b"\xef\xbb\xbf \r\n<HTML><body>Blocked</body></HTML>"
    pages = [*((one, page) for one in (400, 401, 402, 403, 409, 422, 451)), (403, odd)]
    cases = {
        f"{status} with a page of HTML, {quoted(body[:20])}, as {kind}": Answer(status, body, {"Content-Type": kind})
        for (status, body), kind in zip(pages, cycle(KINDS_OF_PAGES), strict=False)
    }
    named = by_turns({what: first(one, then=answering()) for what, one in cases.items()})
    await every({what: _require_recovery(kit, what, script) for what, script in named.items()})


@check("retries.no_connection", "retry-4", f"A call for which nobody listens for {AWAY_SECONDS:g} s is made again.")
async def no_connection(kit: Kit) -> None:
    async with kit.door() as door:
        rollout = await kit.start(at=door.url)
        await asyncio.sleep(AWAY_SECONDS)
        await door.open()
        result = await rollout.result()
        if result.get("status") != "COMPLETED":
            got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
            raise Failed(f"the call, once somebody listened after {AWAY_SECONDS:g} s", got)


@check(
    "retries.aborted", "whole-4 whole-8", "A reply with finish_reason 'abort' is asked for again, with the same body."
)
async def aborted(kit: Kit) -> None:
    await _require_recovery(kit, "an aborted reply", breaking_off("abort", 1, answering()))


@check("retries.aborted_key", "whole-8", "It is asked for under another Idempotency-Key, where one is sent.")
async def aborted_key(kit: Kit) -> None:
    reasons = ("abort", "error", None)
    recovered = await asyncio.gather(
        *(
            _require_recovery(kit, f"a reply with finish_reason {quoted(one)}", breaking_off(one, 1, answering()))
            for one in reasons
        )
    )
    for rollout, reason in zip(recovered, reasons, strict=True):
        one, again = (call.request.headers.get("idempotency-key") for call in rollout.chats[:2])
        if one is not None and one == again:
            looked_at(rollout)
            what = f"another Idempotency-Key for the call after a reply with finish_reason {quoted(reason)}"
            raise Failed(what, quoted(again))


@check("retries.not_whole", "whole-6", "So is a reply with finish_reason 'error' or null.")
async def not_whole(kit: Kit) -> None:
    cases = {
        f"a reply with finish_reason {quoted(reason)}": breaking_off(reason, 1, answering())
        for reason in ("error", None, "x-odd")
    }
    cases["two replies with finish_reason 'error'"] = breaking_off("error", 2, answering())
    await every({what: _require_recovery(kit, what, script) for what, script in by_turns(cases).items()})


@check("retries.final", "retry-8", "A call answered 3xx, 400, 401, 403, 409, 413 or 422 is not made again.")
async def final(kit: Kit) -> None:
    statuses = (*range(300, 304), 307, 308, 400, 401, 402, 403, 406, 409, 413, 415, 418, 421, 422, 423, 424, 431, 451)
    page = Answer(413, b"<!DOCTYPE html><html></html>", {"Content-Type": "text/html"})
    scripts = by_turns({f"{status}": refusing(status, 1, answering()) for status in statuses})
    scripts["413 with a page of HTML"] = first(page, then=answering())
    rollouts = await asyncio.gather(*map(kit.start, scripts.values()))
    await kit.results(rollouts)
    for what, rollout in zip(scripts, rollouts, strict=True):
        if len(attempts := _attempts(rollout)) > 1:
            looked_at(rollout)
            raise Failed(f"one call answered {what}", str(len(attempts)))


@check("retries.aborted_long", "whole-4", f"It is asked for again after {ABORTS} aborts: a pause.")
async def aborted_long(kit: Kit) -> None:
    await _require_recovery(
        kit, f"{ABORTS} aborted replies", asking_at_once(breaking_off("abort", ABORTS, answering()))
    )


@check("retries.gone", "retry-7 absent-1", "A trainer that says it does not know the rollout is not asked again.")
async def gone(kit: Kit) -> None:
    spoken_of = Answer(404, encoded({"detail": "Rollout not found"}))
    told = Answer(404, encoded({"detail": "Not Found", "rollout": "it is not known"}))
    near = Answer(404, encoded({"detail": "Session 404 not found"}))
    page = Answer(410, b"<!DOCTYPE html><html></html>", {"Content-Type": "text/html"})
    answers = (FORGOTTEN, spoken_of, told, near, Answer(410, b"Gone"), page)
    scripts = by_turns({f"{one.status} {one.body.decode()}": first(one, then=answering()) for one in answers})
    await every({what: _require_end(kit, what, script) for what, script in scripts.items()})


async def _require_end(kit: Kit, what: str, script: Script) -> None:
    rollout = await kit.start(script)
    result = await rollout.result()
    extra = result.get("extra_fields")
    outcome = extra.get("outcome") if isinstance(extra, dict) else None
    if not (attempts := _attempts(rollout)):
        return
    if len(attempts) > 1:
        raise Failed(f"one call, answered {what}", f"{len(attempts)}")
    if result.get("status") != "ERROR" or outcome not in ("llm_error", None):
        raise Failed(f"an ERROR, outcome 'llm_error', after {what}", f"{result.get('status')}, {quoted(outcome)}")


@check(
    "retries.no_path",
    "absent-2",
    "A call answered 404 'Not Found' or 405, as of a path that is not served, is made again.",
)
async def no_path(kit: Kit) -> None:
    gateway = Answer(404, encoded({"error": {"message": "no Route matched with those values"}}))
    path = Answer(404, encoded({"status": 404, "error": "Not Found", "path": "/v1/rollout/chat"}))
    answers = (
        Answer(404, encoded({"detail": "Not Found"})),
        gateway,
        path,
        Answer(405, encoded({"detail": "Not allowed"})),
        Answer(404, encoded({"error": {"title": "404 Page Not Found."}})),
        Answer(404, encoded({"messages": ["ROUTE NOT FOUND"]})),
    )
    told = by_turns({f"{one.status} {one.body.decode()}": first(one, then=answering()) for one in answers})
    await every(
        {
            what: _require_recovery(kit, what, script, usually=PATH if '"path"' in what else None)
            for what, script in told.items()
        }
    )
