"""The end of a rollout on request: of that one alone, and while it runs."""

import asyncio
import secrets
import time

import httpx

from rollout_conformance.asking import describe
from rollout_conformance.catalogue import check
from rollout_conformance.checks.state import POLL_SECONDS, fields_of, start_owed, until_delivered
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout, Script
from rollout_conformance.scripts import answering, calling_offered_tools, refusing, waiting_for
from rollout_conformance.text import quoted
from rollout_conformance.usual_causes import MADE_ANEW
from rollout_conformance.vocabulary import Failed

CANCELS = 6
"""Rollouts that are cancelled at once: where a server has several processes, another may answer for some."""
LONG_PAUSE_SECONDS = 600
PAUSE_SECONDS = 3
"""Long enough for a cancel within it, on a machine that stands still for a while."""


async def _cancelled(kit: Kit, script: Script, *, insist: bool = False) -> tuple[PlayedRollout, httpx.Response]:
    """A rollout whose model is asked, and what its cancel was answered."""
    rollout = await kit.start(script, api_key=secrets.token_urlsafe(12))
    await rollout.first_chat()
    return rollout, await (kit.cancel_where_it_runs if insist else kit.cancel)(rollout.rollout_id)


@check("state.cancel", "state-3", "A rollout that runs is cancelled: 202, and an ERROR result, outcome 'cancelled'.")
async def cancel(kit: Kit) -> None:
    model, at_once = kit.hold(), {"Retry-After": "0"}
    # An agent that goes on all the same has more to ask, and a call that does is made again: the audits see both.
    ends = calling_offered_tools(turns=3), refusing(500, None, answering(), at_once)
    pauses = (
        refusing(503, None, answering(), {"Retry-After": str(seconds)})
        for seconds in (LONG_PAUSE_SECONDS, PAUSE_SECONDS)
    )
    answers = await asyncio.gather(
        *(_cancelled(kit, waiting_for(model, ends[number % 2])) for number in range(CANCELS)),
        # Nothing else ends one that backs off within the check.
        *(_cancelled(kit, script, insist=True) for script in pauses),
    )
    # One of another server on the same journal is 409; workers of one server pass it on.
    taken = [(rollout, answer) for rollout, answer in answers if answer.status_code != 409]
    if not taken:
        raise Failed("202 to the cancel of a rollout that runs", describe(answers[0][1]))
    for rollout, answer in taken:
        fields = fields_of(answer, 202, "the cancel of a rollout that runs")
        if fields.get("rollout_id") != rollout.rollout_id or fields.get("state") != "cancelling":
            raise Failed("the rollout_id and state 'cancelling' in the answer to a cancel", quoted(fields))
        result = await rollout.result()
        extra = result.get("extra_fields")
        outcome = extra.get("outcome") if isinstance(extra, dict) else None
        if result.get("status") != "ERROR" or outcome != "cancelled":
            raise Failed("an ERROR with the outcome 'cancelled'", f"{result.get('status')}, {quoted(outcome)}")
    model.set()
    # So is a call that was planned for the end of the pause.
    await asyncio.sleep(PAUSE_SECONDS)
    await kit.settle()


@check("state.cancel_one", "way-8", "A cancel ends the rollout of that very id, and none whose id is nearly alike.")
async def cancel_one(kit: Kit) -> None:
    model, own = kit.hold(), f"kit-{secrets.token_hex(4)}-a1"
    meant = await kit.start(waiting_for(model, answering()), rollout_id=own)
    others = f"{own}1", own.upper(), f"x{own}"
    alike = {other: kit.play(waiting_for(model, answering()), rollout_id=other) for other in others}
    await asyncio.gather(*map(kit.send, alike.values()))
    for rollout in (meant, *alike.values()):
        await rollout.first_chat()
    await kit.cancel_where_it_runs(own)
    await meant.result()
    model.set()
    for other, result in zip(alike, await kit.results(alike.values()), strict=True):
        if result.get("status") != "COMPLETED":
            looked_at(alike[other])
            what = f"COMPLETED, of rollout_id {quoted(other)} when {quoted(own)} is cancelled"
            raise Failed(what, f"{result.get('status')}: {quoted(result.get('error_message'))}")


@check("state.cancel_again", "state-13", "A rollout that is cancelled twice has one result; the second is 202 or 409.")
async def cancel_again(kit: Kit) -> None:
    rollout = await kit.start(waiting_for(kit.hold(), answering()))
    await rollout.first_chat()
    await kit.cancel_where_it_runs(rollout.rollout_id)
    if (again := await kit.cancel(rollout.rollout_id)).status_code not in (202, 409):
        raise Failed("202 or 409 to the second cancel of a rollout", describe(again))
    await rollout.result()
    await kit.settle()
    if len(rollout.completions) > 1:
        raise Failed("one result of a rollout that was cancelled twice", f"{len(rollout.completions)}")


@check(
    "state.cancel_hangs_up", "order-3", "The connection of a call that waits is closed when its rollout is cancelled."
)
async def cancel_hangs_up(kit: Kit) -> None:
    rollout = await kit.start(waiting_for(kit.hold(), answering()))
    call = await rollout.first_chat()
    await kit.cancel_where_it_runs(rollout.rollout_id)
    await rollout.result()
    deadline = time.monotonic() + kit.options.timeout_seconds
    while not call.request.is_abandoned():
        if time.monotonic() > deadline:
            raise Failed("the connection of its call closed once a rollout was cancelled", "an open one")
        await asyncio.sleep(POLL_SECONDS)


@check("state.cancel_ended", "state-4", "The cancel of a rollout that has ended is 409, and changes nothing.")
async def cancel_ended(kit: Kit) -> None:
    for how, script in (("has ended", answering()), ("has ended as ERROR", refusing(400, None, answering()))):
        rollout = await kit.start(script)
        await rollout.result()
        await until_delivered(kit, rollout)
        fields = fields_of(await kit.cancel(rollout.rollout_id), 409, f"the cancel of a rollout that {how}")
        if fields.get("code") != "not_running":
            raise Failed("the code 'not_running' with the 409", quoted(fields))
        await until_delivered(kit, rollout)
    await _cancel_owed(kit)


async def _cancel_owed(kit: Kit) -> None:
    """The cancel of one that has ended, and whose result is answered 503."""
    rollout, is_back = await start_owed(kit)
    fields_of(await kit.cancel(rollout.rollout_id), 409, "the cancel of a rollout whose result is owed")
    count = len(rollout.completions)
    is_back.set()
    try:
        await rollout.result()
    except Failed:
        got = f"none; it had been answered 503 before it, {count} times"
        usually = "the cancel ends the delivery, too: what has ended is not cancelled any more"
        raise Failed("the result again after a cancel that was answered 409", got, usually=usually) from None
    if contradiction := rollout.contradiction():
        raise Failed("the same result after the cancel of a rollout that had ended", contradiction, usually=MADE_ANEW)


@check("state.cancel_unknown", "state-5", "The cancel of a rollout that nobody knows is 404.")
async def cancel_unknown(kit: Kit) -> None:
    nobody = f"kit-nobody-{secrets.token_hex(4)}"
    fields = fields_of(await kit.cancel(nobody), 404, "the cancel of an unknown rollout")
    if fields.get("code") != "unknown_rollout":
        raise Failed("the code 'unknown_rollout' with the 404", quoted(fields))
