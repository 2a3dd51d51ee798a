"""Many rollouts: at once, beside failing ones, and more than the server takes."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import httpx

from rollout_conformance.asking import TIME_TO_ASK, describe, field_of, retry_after_seconds, without_time
from rollout_conformance.catalogue import check
from rollout_conformance.checks.refused import require_nothing
from rollout_conformance.conversation import difference
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout, objects_of
from rollout_conformance.scripts import (
    acknowledge,
    answering,
    calling_offered_tools,
    cutting,
    need_tools,
    owing,
    raw,
    refusing,
    waiting_for,
)
from rollout_conformance.strict_json import is_same_document
from rollout_conformance.text import quoted
from rollout_conformance.usual_causes import FEW_CONNECTIONS, KEY_KEPT, WITHOUT_TIME, cause_of_refusal
from rollout_conformance.vocabulary import LATE, Failed, NotExercised, Phase, TooBusy

NEIGHBOURS = 8
STUCK, PAIR = 3, 2
MANY = 20
"""More than a pool has that somebody sized by hand; of a server with less room, as many as it takes."""
BATCH, FEW = 50, 8
SERVERS_ASKED = 8
PAUSE_SECONDS, PAUSES, SLACK_SECONDS = 4, 3, 1.0
TIMES_FULL = 4
"""As others come and go, a moment with room is between two refusals now and then."""
POLL_SECONDS = 0.1
WAITING = 5
"""Of the newest so many are asked whether they wait."""
NOT_OF_WAITING = "what has no task yet is not found among what runs: what waits for its turn is cancelled, too"
PLACE_KEPT = "a place is not given back however its rollout ends, as by a cancel; or what was refused has kept one"


async def _require_own_answers(kit: Kit, count: int) -> None:
    """Of ``count`` rollouts at once, each with another conversation, each ends with its own."""
    rollouts = await asyncio.gather(*(kit.start(answering(f"#### {number}")) for number in range(count)))
    await _require_own_answer(rollouts)


async def _require_own_answer(rollouts: Sequence[PlayedRollout]) -> None:
    for rollout in rollouts:
        result = await rollout.result()
        if result.get("status") != "COMPLETED":
            got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
            raise Failed("COMPLETED, of each of many rollouts of one trainer", got)
        await rollout.first_chat()
        own, messages = rollout.chats[-1].continued, objects_of(result.get("final_messages"))
        if difference(own, messages):
            raise Failed(f"the rollout's own answer {quoted(own[-1:])}", quoted(messages[-1:]))


@check("load.concurrent", "way-8", "Many rollouts at once each end with their own answer.", Phase.ALONE)
async def concurrent(kit: Kit) -> None:
    # By itself: beside others a server that takes few has no room for more rollouts than its pool has connections.
    kit.group()
    model, count = kit.hold(), kit.options.concurrent_rollouts
    rollouts = [kit.play(waiting_for(model, answering(f"#### {number}"))) for number in range(count)]
    taken = await send_as_many(kit, rollouts, PAIR)
    await _require_calls(kit, taken)
    model.set()
    await _require_own_answer(taken)


async def send_as_many(kit: Kit, rollouts: Sequence[PlayedRollout], at_least: int = 1) -> list[PlayedRollout]:
    """Those of ``rollouts`` that there is room for."""
    # Where all wait for something, a small server would be waited for in vain.
    await asyncio.gather(*map(kit.send, rollouts[:at_least]))
    answers = await asyncio.gather(*(kit.post(one.init, insist=False) for one in rollouts[at_least:]))
    for rollout, answer in zip(rollouts[at_least:], answers, strict=True):
        if answer.status_code not in (429, 503):
            kit.took(rollout, answer)
    return [one for one in rollouts if one.is_accepted]


async def _require_calls(kit: Kit, rollouts: Sequence[PlayedRollout]) -> None:
    """Of those that run each has called, while no call of the others is answered."""
    deadline = time.monotonic() + kit.options.timeout_seconds
    while silent := [one for one in rollouts if not one.chats]:
        states = await asyncio.gather(*(kit.status(one.rollout_id) for one in silent))
        running = [one for one, state in zip(silent, states, strict=True) if field_of(state, "state") == "running"]
        if not running:
            return
        if time.monotonic() > deadline:
            looked_at(running[0])
            what = f"a call of each of {len(rollouts)} rollouts that run, while those of the others are not answered"
            raise Failed(what, f"none of {len(running)} of them", usually=FEW_CONNECTIONS)
        await asyncio.sleep(POLL_SECONDS)


@check("load.beside_failing", "way-8", "Rollouts that fail, each in another way, do not disturb the others.")
async def beside_failing(kit: Kit) -> None:
    kit.group()
    calls_as_number = raw(b'{"choices": [{"message": {"role": "assistant", "tool_calls": 7}}]}')
    scripts = (cutting(None, answering()), refusing(400, None, answering()), raw(b"not JSON"), calls_as_number)
    failing = await asyncio.gather(*map(kit.start, scripts))
    await failing[1].result()  # one has failed, while others still go on
    await _require_own_answers(kit, NEIGHBOURS)
    await kit.results(failing)


@check("load.beside_waiting", "way-8", "Rollouts whose trainer is slow hold up no others.")
async def beside_waiting(kit: Kit) -> None:
    kit.group()
    model = kit.hold()
    waiting = [await kit.start(waiting_for(model, answering())) for _ in range(STUCK)]
    await _require_own_answers(kit, NEIGHBOURS)
    model.set()
    await kit.results(waiting)


@check("load.beside_paused", "way-8", "A trainer that asks for patience delays its own rollout, and no other.")
async def beside_paused(kit: Kit) -> None:
    kit.group()
    # A machine that stands still delays one now and then; a server that does, each.
    waits = [waited := await _wait_beside_pause(kit)]
    with contextlib.suppress(Failed):  # another check's pause may hold up all that begins after it
        while waited >= PAUSE_SECONDS and len(waits) < PAUSES:
            waits.append(waited := await _wait_beside_pause(kit))
    if waited >= PAUSE_SECONDS:
        what = f"the next call of a rollout while the calls of others are answered 503, Retry-After: {PAUSE_SECONDS}"
        told = ", ".join(f"{seconds:.1f}" for seconds in waits)
        raise Failed(what, f"none until that was over, {told} s later")


async def _wait_beside_pause(kit: Kit) -> float:
    """Seconds from the pauses of others to the next call of one that could go on at once, or until it was too late."""
    model = kit.hold()
    # It runs already: one that begins meanwhile may have to wait for its place.
    other = await kit.start(waiting_for(model, calling_offered_tools()))
    need_tools(other.tools)
    await other.first_chat()
    pauses = [refusing(503, 1, answering(), {"Retry-After": str(PAUSE_SECONDS)}) for _ in range(MANY)]
    paused = await send_as_many(kit, [kit.play(pause) for pause in pauses])
    asked = await paused[0].first_chat()
    with contextlib.suppress(TimeoutError):  # not all run where few may
        async with asyncio.timeout(SLACK_SECONDS):
            await asyncio.gather(*(one.first_chat() for one in paused))
    model.set()
    looked_at(other)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PAUSE_SECONDS + SLACK_SECONDS):
            await other.wait_until(lambda played: len(played.chats) > 1, "its next call")
    waited = (other.chats[1].came_at if len(other.chats) > 1 else time.monotonic()) - asked.came_at
    if waited < PAUSE_SECONDS:
        await kit.results((*paused, other))
        looked_at(other)
    return waited


@check("load.beside_owed", "way-8", "Results that are refused for a time, or left unanswered, hold up no others.")
async def beside_owed(kit: Kit) -> None:
    kit.group()
    is_back = kit.hold()
    ends = (owing(is_back) if number % 2 else waiting_for(is_back, acknowledge) for number in range(MANY))
    owed = [kit.play(on_completed=end) for end in ends]
    for rollout in owed:
        rollout.has_delivery_faults = True
    owed = await send_as_many(kit, owed, 2 * STUCK)
    for rollout in owed:
        await rollout.wait_until(
            lambda played: bool(played.completions), "its result, beside others that are not taken"
        )
    await _require_own_answers(kit, NEIGHBOURS)
    is_back.set()
    await kit.results(owed)


@check(
    "load.overload",
    "limit-1 err-4 same-13 same-18 state-3 way-3",
    "A server that is full refuses with 429 or 503 and Retry-After.",
    LATE,
)
async def overload(kit: Kit) -> None:
    kit.group()
    model = kit.hold()
    accepted: list[tuple[PlayedRollout, httpx.Response]] = []
    refused: list[tuple[PlayedRollout, httpx.Response]] = []

    async def send(count: int) -> None:
        batch = [kit.play(waiting_for(model, answering())) for _ in range(count)]
        answers = await asyncio.gather(*(kit.post(one.init, insist=False) for one in batch))
        for rollout, answer in zip(batch, answers, strict=True):
            if answer.status_code == 202:
                kit.took(rollout, answer)
            (accepted if answer.status_code == 202 else refused).append((rollout, answer))

    times_full = 0
    # Not all at once: a server may take many more than it needs to for this, and all are owed a result.
    while times_full < TIMES_FULL and len(accepted) < kit.options.overload_rollouts:
        await send(min(FEW if refused else BATCH, kit.options.overload_rollouts - len(accepted)))
        if refused and not accepted:
            break
        if refused:
            await _require_repeat(kit, *accepted[0])
            # Others may have ended meanwhile: if there is none after it either, there was hardly any room between.
            before = len(refused)
            await send(1)
            times_full += len(refused) > before
    # Others have places as well: where none comes back, more cancels than that use up all.
    places = sum(one.is_accepted and not one.is_over for one in kit.trainer.rollouts)
    if refused and accepted:
        await _require_cancel_of_waiting(kit, [one for one, _ in accepted[: -WAITING - 1 : -1]])
    # A place is free again however its rollout ends.
    await asyncio.gather(*(_cancel(kit, one) for one, _ in accepted))
    model.set()
    for _, answer in refused:
        if answer.status_code not in (429, 503) or retry_after_seconds(answer) is None:
            usually = WITHOUT_TIME if answer.status_code in (429, 503) else cause_of_refusal(answer.status_code)
            raise Failed(TIME_TO_ASK, without_time(answer), usually=usually)
    await kit.results(one for one, _ in accepted)
    if not refused:
        raise NotExercised(f"the server took {len(accepted)} rollouts without refusing one; --overload N sends more")
    # What was refused has left nothing behind: the same init is taken later, and so is another under its id.
    await asyncio.gather(*(require_nothing(kit, one, "want of room") for one in {refused[0][0], refused[-1][0]}))
    refused[-1][0].init["metadata"] = {"ground_truth": "5"}
    await asyncio.gather(
        _require_room_again(kit, *refused[0]),
        _require_room_again(kit, *refused[-1]),
        _require_as_many_again(kit, places),
    )
    if not times_full:
        raise TooBusy("there was room again whenever an init was repeated, as others had ended")


async def _require_repeat(kit: Kit, rollout: PlayedRollout, first_answer: httpx.Response) -> None:
    """That there is no room is no matter of who has a place."""
    # At once, before a place is free; behind one address there may be several, of which each has the answer.
    answers = await asyncio.gather(*(kit.post(rollout.init, insist=False) for _ in range(SERVERS_ASKED)))
    again = next((one for one in answers if one.status_code != 202), answers[0])
    if again.status_code != 202 or not is_same_document(first_answer.content, again.content):
        looked_at(rollout)
        usually = "whether there is room is asked before the key is looked up"
        raise Failed("the first answer to a repeated init, though the server is full", describe(again), usually=usually)


async def _require_cancel_of_waiting(kit: Kit, newest_first: Sequence[PlayedRollout]) -> None:
    """One that waits for its turn is cancelled like one that runs; where none is said to wait, nothing is seen."""
    for rollout in newest_first:
        if field_of(await kit.status(rollout.rollout_id), "state") != "queued":
            continue
        looked_at(rollout)
        await kit.cancel_where_it_runs(rollout.rollout_id, "a rollout that waits for its turn", NOT_OF_WAITING)
        result = await rollout.result()
        extra = result.get("extra_fields")
        outcome = extra.get("outcome") if isinstance(extra, dict) else None
        if result.get("status") != "ERROR" or outcome not in ("cancelled", None):
            what = "an ERROR, outcome 'cancelled', of a rollout that was cancelled while it waited for its turn"
            raise Failed(what, f"{result.get('status')}, {quoted(outcome)}")
        return


async def _cancel(kit: Kit, rollout: PlayedRollout) -> None:
    """Once its call is here: one on its way would be read after the result, though it was sent before that."""
    # Those that are queued begin as others are cancelled.
    await rollout.wait_until(lambda played: bool(played.chats or played.completions), "a call to /v1/chat/completions")
    await kit.cancel(rollout.rollout_id)


async def _require_as_many_again(kit: Kit, count: int) -> None:
    """A place that a cancel frees is free for another, and so on: each of ``count`` more is taken, and cancelled."""

    async def another() -> None:
        rollout = kit.play(waiting_for(model, answering()))
        await _take(kit, rollout, f"202 to each of {count} inits, once as many had been cancelled")
        await rollout.first_chat()
        await kit.cancel_where_it_runs(rollout.rollout_id)
        await rollout.result()

    model = kit.hold()
    for begun in range(0, count, BATCH):
        await asyncio.gather(*(another() for _ in range(min(BATCH, count - begun))))


async def _require_room_again(kit: Kit, rollout: PlayedRollout, answer: httpx.Response) -> None:
    await asyncio.sleep(min(retry_after_seconds(answer) or 0, kit.options.timeout_seconds))
    await _take(kit, rollout, "202 to an init that was refused, once the server is idle and Retry-After is over")
    await rollout.wait_until(lambda one: one.is_over, "the result of an init that was taken once there was room")


async def _take(kit: Kit, rollout: PlayedRollout, what: str) -> None:
    try:
        answer = await kit.post(rollout.init)
    except Failed as failure:
        raise Failed(what, f"a server that stays full: {failure.got}", usually=PLACE_KEPT) from None
    if answer.status_code != 202:
        raise Failed(what, describe(answer), usually=KEY_KEPT if answer.status_code == 409 else PLACE_KEPT)
    kit.took(rollout, answer)
