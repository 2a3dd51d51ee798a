"""How a rollout stands."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from rollout_conformance.asking import describe
from rollout_conformance.catalogue import check
from rollout_conformance.endpoint import Answer
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout
from rollout_conformance.scripts import (
    acknowledge,
    answering,
    first,
    owing,
    refusing,
    waiting_for,
)
from rollout_conformance.strict_json import is_number, is_same_json, parse_object
from rollout_conformance.text import quoted
from rollout_conformance.usual_causes import NOT_ON_RECORD
from rollout_conformance.vocabulary import Failed, NotExercised, Phase

BEFORE_ITS_END = ("queued", "running", "recording", "accepted")
STATES = (*BEFORE_ITS_END, "finished", "delivered", "undeliverable")
ODD_ID = "a/b c?d=%2f+#\u00fc\u65e5"
POLL_SECONDS = 0.05
TIMES = ("accepted_at", "started_at", "finished_at", "settled_at")
YEARS_SECONDS = 10 * 365 * 86_400
"""As far as a clock may be wrong."""
ENDED, ACTIVE_SECONDS = 8, 6.0
ON_RECORD_SECONDS = 2.0
"""In which what was not on record when its 202 left is there."""


def fields_of(answer: httpx.Response, status: int, what: str) -> dict[str, Any]:
    """The object that an answer with this status holds.

    Raises:
        Failed: it has another status, or holds none.
    """
    if answer.status_code != status:
        raise Failed(f"{status} to {what}", describe(answer))
    try:
        return parse_object(answer.content)
    except ValueError as error:
        raise Failed(f"a JSON object with the {status} to {what}", str(error)) from None


async def _view(kit: Kit, rollout: PlayedRollout, what: str) -> dict[str, Any]:
    """Its state, which is one of the table."""
    fields = fields_of(await kit.status(rollout.rollout_id), 200, f"GET /v1/rollout/{{rollout_id}} of {what}")
    if fields.get("rollout_id") != rollout.rollout_id:
        raise Failed(f"rollout_id {quoted(rollout.rollout_id)} in its state", quoted(fields.get("rollout_id")))
    if fields.get("state") not in STATES:
        raise Failed(f"a state of the table: {', '.join(STATES)}", quoted(fields.get("state")))
    for name in TIMES:
        value: Any = fields.get(name)
        if value is None and name != "accepted_at":
            continue
        if not is_number(value) or abs(value - time.time()) > YEARS_SECONDS:
            raise Failed(
                f"{name}, in Unix seconds", quoted(value), usually="the clock has another unit, or another zero"
            )
    return fields


async def until_delivered(kit: Kit, rollout: PlayedRollout) -> dict[str, Any]:
    """Its state once the server has read the acknowledgement."""
    deadline = time.monotonic() + kit.options.timeout_seconds
    while (fields := await _view(kit, rollout, "a rollout that has ended"))["state"] != "delivered":
        if time.monotonic() > deadline:
            raise Failed("the state 'delivered' once the result was acknowledged", quoted(fields["state"]))
        await asyncio.sleep(POLL_SECONDS)
    return fields


@check("state.running", "state-1 state-11", "A rollout that runs has a state that says so.")
async def running(kit: Kit) -> None:
    model = kit.hold()
    rollout = await kit.start(waiting_for(model, answering()))
    await rollout.first_chat()
    state = (await _view(kit, rollout, "a rollout that runs"))["state"]
    model.set()
    await rollout.result()
    if state not in BEFORE_ITS_END:
        raise Failed(f"a state such as 'running' while the model is asked: {', '.join(BEFORE_ITS_END)}", quoted(state))


@check("state.ended", "state-1 state-11", "One that has ended is 'delivered', and has its result in short.")
async def ended(kit: Kit) -> None:
    for script in (answering(), refusing(400, None, answering())):
        rollout = await kit.start(script)
        result = await rollout.result()
        told = await until_delivered(kit, rollout)
        short = told.get("result")
        if not isinstance(short, dict):
            raise Failed("the result in short in the state of a rollout that has ended", quoted(short))
        extra = result.get("extra_fields")
        result["outcome"] = extra.get("outcome") if isinstance(extra, dict) else None
        for name in ("status", "reward", "finish_reason", "outcome", "error_message"):
            if not is_same_json(short.get(name), result.get(name)):
                what = f"the {name} of the result, {quoted(result.get(name))}, in its state"
                raise Failed(
                    what, quoted(short), usually="the short result is made from other fields than the whole one"
                )
        times = [told.get(name) or 0 for name in ("accepted_at", "finished_at", "settled_at")]
        if times != sorted(times):
            what = "finished_at, and settled_at not before it, in the state of what was delivered"
            usually = "a time is noted at another event than its name says"
            raise Failed(what, quoted({name: told.get(name) for name in TIMES}), usually=usually)


@check("state.unknown", "state-2", "The state of a rollout that nobody knows is 404, a JSON object.")
async def unknown(kit: Kit) -> None:
    fields = fields_of(await kit.status(f"kit-nobody-{secrets.token_hex(4)}"), 404, "the state of an unknown rollout")
    if fields.get("code") != "unknown_rollout":
        raise Failed("the code 'unknown_rollout' with the 404", quoted(fields))
    known = await kit.start(rollout_id=f"Kit-{secrets.token_hex(4)}-Z")
    what = "the state of an id that is known in another case"
    fields_of(await kit.status(known.rollout_id.swapcase()), 404, what)
    if (answer := await kit.ask("GET", "/v1/rollout/%FF")).status_code >= 500:
        raise Failed("a 4xx to GET /v1/rollout/%FF, which is no text", describe(answer))


@check("state.encoded", "state-10", "An id with slashes, percent signs and any script is found, percent-encoded.")
async def encoded(kit: Kit) -> None:
    rollout = await kit.start(waiting_for(kit.hold(), answering()), rollout_id=f"{ODD_ID}{secrets.token_hex(4)}")
    await rollout.first_chat()
    await _view(kit, rollout, "a rollout with an odd id")
    path = "/v1/rollout/" + re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), quote(rollout.rollout_id, safe="+"))
    if (answer := await kit.ask("GET", path)).status_code != 200:
        usually = "the path is decoded like a form, where + is a space, or hex digits in lower case are not"
        raise Failed(f"200 to GET {path}, an id with a + in it", describe(answer), usually=usually)
    fields = fields_of(
        await kit.cancel_where_it_runs(rollout.rollout_id), 202, "the cancel of a rollout with an odd id"
    )
    if fields.get("rollout_id") != rollout.rollout_id:
        raise Failed(f"rollout_id {quoted(rollout.rollout_id)} in the answer to its cancel", quoted(fields))
    await rollout.result()


async def start_owed(kit: Kit) -> tuple[PlayedRollout, asyncio.Event]:
    """One that has ended, and whose result is answered 503 until the event is set."""
    is_back = kit.hold()
    rollout = kit.play(on_completed=owing(is_back))
    rollout.has_delivery_faults = True
    await kit.send(rollout)
    await rollout.wait_until(lambda played: bool(played.completions), "a terminal result")
    return rollout, is_back


@check("state.newest", "state-1", "Of two rollouts of one id, the newest one's state is told.")
async def newest(kit: Kit) -> None:
    one = kit.play()
    one.init["idempotency_key"] = f"{one.rollout_id}/0"
    other = kit.play(
        waiting_for(kit.hold(), answering()), rollout_id=one.rollout_id, idempotency_key=f"{one.rollout_id}/1"
    )
    one.is_shared = other.is_shared = True
    await kit.send(one)
    await one.result()
    await until_delivered(kit, one)
    await kit.send(other)
    await other.first_chat()
    state, usually = (await _view(kit, other, "the newest of two rollouts of one id"))["state"], None
    if state not in BEFORE_ITS_END:
        await asyncio.sleep(ON_RECORD_SECONDS)
        later = (await _view(kit, other, "the newest of two rollouts of one id"))["state"]
        usually = NOT_ON_RECORD if later in BEFORE_ITS_END else None
    kit.release()
    await other.result()
    if state not in BEFORE_ITS_END:
        what = "the state of the newest of two rollouts of one id, which runs"
        raise Failed(what, f"{quoted(state)}{', and the right one later' if usually else ''}", usually=usually)


@check("state.undelivered", "state-11", "A result that is not acknowledged yet is 'finished', not 'delivered'.")
async def undelivered(kit: Kit) -> None:
    rollout, is_back = await start_owed(kit)
    # When it is offered again, the server has read the first answer.
    await rollout.wait_until(lambda played: len(played.completions) > 1, "the result again after 503")
    owed = await _view(kit, rollout, "a rollout whose result was answered 503")
    is_back.set()
    await rollout.result()
    if (state := owed["state"]) in ("delivered", "undeliverable"):
        raise Failed("the state 'finished' while a result is offered again", quoted(state))
    after = await until_delivered(kit, rollout)
    for name, while_owed in (("finished_at", after.get("finished_at")), ("settled_at", None)):
        if not is_same_json(owed.get(name), while_owed):
            expected = (
                f"{name} {quoted(while_owed)} while the result is offered again, as it is {quoted(after.get(name))}"
            )
            raise Failed(f"{expected} once that is delivered", quoted(owed.get(name)))


@check(
    "state.attempts", "state-14", "The offers of a result are counted; once it is delivered, there is no last_error."
)
async def attempts(kit: Kit) -> None:
    rollout, is_back = await start_owed(kit)
    is_back.set()
    await rollout.result()
    told, count = await until_delivered(kit, rollout), len(rollout.completions)
    require_attempts(told, count, count)
    if told.get("last_error") is not None:
        raise Failed("no last_error of a result that is delivered", quoted(told["last_error"]))


def require_attempts(told: dict[str, Any], least: int, count: int, by: str = "", *, usually: str | None = None) -> None:
    """That the state of a delivered result says how often it was offered: ``least`` to ``count`` times."""
    given = told.get("delivery_attempts", 0)
    if not is_number(given) or not least <= given <= count:
        what = f"delivery_attempts {count} of a result that was offered {count} times{by}"
        raise Failed(what, quoted(told.get("delivery_attempts")), usually=usually)


@check("state.health", "state-6", "GET /health does not count rollouts as active that have ended.", Phase.ALONE)
async def health(kit: Kit) -> None:
    before = await _active(kit)
    owed = [rollout for rollout, _ in await asyncio.gather(*(start_owed(kit) for _ in range(ENDED)))]
    # What is offered again was read by the server before.
    await _require_inactive(
        kit, before, "results that are offered again", lambda: all(len(one.completions) > 1 for one in owed)
    )
    kit.release()
    failing = await asyncio.gather(*(kit.start(refusing(400, None, answering())) for _ in range(ENDED)))
    cancelled = await asyncio.gather(*(kit.start(waiting_for(kit.hold(), answering())) for _ in range(ENDED)))
    for rollout in cancelled:
        await rollout.first_chat()
        await kit.cancel_where_it_runs(rollout.rollout_id)
    await kit.results((*owed, *failing, *cancelled))
    what = "rollouts that ended as ERROR, and as many that were cancelled"
    await _require_inactive(kit, before, what, lambda: True)


async def _require_inactive(kit: Kit, before: int, what: str, is_settled: Callable[[], bool]) -> None:
    """Whatever else runs on the server ends, or is fewer."""
    deadline = time.monotonic() + ACTIVE_SECONDS
    while (active := await _active(kit)) >= before + ENDED:
        if time.monotonic() > deadline and is_settled():
            raise Failed(f"active_rollouts {before} in GET /health, as before, with {ENDED} {what}", str(active))
        await asyncio.sleep(POLL_SECONDS)


async def _active(kit: Kit) -> int:
    count = fields_of(await kit.get("/health"), 200, "GET /health").get("active_rollouts")
    if not isinstance(count, int) or count < 0:
        raise Failed("active_rollouts, a whole number, in the answer of GET /health", quoted(count))
    return count


@check("state.undeliverable", "state-11", "A result that was refused for good is 'undeliverable'.")
async def undeliverable(kit: Kit) -> None:
    await asyncio.gather(*(_require_undeliverable(kit, status) for status in (401, 403, 409, 410)))


async def _require_undeliverable(kit: Kit, status: int) -> None:
    rollout = kit.play(on_completed=first(Answer(status), then=acknowledge))
    rollout.has_delivery_faults = rollout.is_refused_for_good = True
    await kit.send(rollout)
    await rollout.over()
    what = f"one whose result was answered {status}"
    deadline = time.monotonic() + kit.options.timeout_seconds
    while (state := (await _view(kit, rollout, what))["state"]) != "undeliverable":
        if len(rollout.completions) > 1:
            raise NotExercised(f"the server offers a result again that was answered {status}")
        if state == "delivered" or time.monotonic() > deadline:
            raise Failed(f"the state 'undeliverable' of {what}", quoted(state))
        await asyncio.sleep(POLL_SECONDS)
    fields_of(await kit.cancel(rollout.rollout_id), 409, f"the cancel of {what}")
    if (state := (await _view(kit, rollout, what))["state"]) != "undeliverable":
        raise Failed(f"the state 'undeliverable' of {what}, after its cancel was 409", quoted(state))
