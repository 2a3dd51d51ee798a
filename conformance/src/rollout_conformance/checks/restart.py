"""A server that is killed while rollouts run, and started again: what it has accepted is reported, and once."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from rollout_conformance.asking import describe, field_of
from rollout_conformance.catalogue import check
from rollout_conformance.checks.starting import start_again, start_with_short_limit
from rollout_conformance.checks.turns import NOT_BEGUN, many_more, require_reports_of
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout, Script
from rollout_conformance.scripts import (
    acknowledge,
    answering,
    calling_offered_tools,
    encoded,
    owing,
    refusing,
    waiting_for,
)
from rollout_conformance.strict_json import is_same_document
from rollout_conformance.text import quoted
from rollout_conformance.usual_causes import NOT_ON_RECORD, OFFERED_ONCE
from rollout_conformance.vocabulary import STOPPING, Failed, NotExercised, Skipped

if TYPE_CHECKING:
    from rollout_conformance.server_command import ServerCommand

ROLLOUTS = 4
POLL_SECONDS = 0.05
RUN_AGAIN = "the key of what was cut off is free: an init that is repeated then runs its rollout again"
RUN_AGAIN_ENDED = "how it ended is not on record before its result is sent, as of an ERROR, so that it is run again"
TAKEN_FOR_ONE = "what was cut off is kept by what rollouts share, as server_url or messages: keep each by its key"
SHORTENED_SECONDS = 5.0
READ_SECONDS = 5.0
"""In which a server has read that a result was acknowledged, where its state does not tell."""


@dataclass
class Restart:
    """What was seen of a server that was killed while rollouts ran, and started again."""

    running: list[PlayedRollout]
    """They wait for the model when it is killed."""
    owed: PlayedRollout
    """Its result is answered 503 until the server is back."""
    shortened: PlayedRollout
    """Its result is answered 422, so that it comes without messages, and then 503 until the server is back."""
    delivered: PlayedRollout
    """It has ended, and its result was acknowledged."""
    offered: PlayedRollout
    """Its result was not answered yet."""
    refused: PlayedRollout
    """Its result was refused for good."""
    failed: PlayedRollout
    """It has ended as an ERROR, whose result is answered 503 until the server is back."""
    cancelled: PlayedRollout
    """So has this one, which was cancelled."""
    is_read: bool = False
    """Whether the server had read that when it was killed."""
    problem: Failed | None = None
    """Why results are missing."""
    altered: Failed | None = None
    """How one that came is not as it was offered before."""
    repeated: dict[str, tuple[httpx.Response, httpx.Response]] = field(default_factory=dict)
    """By rollout_id: the answers to its init before and after."""
    conflict: httpx.Response | None = None
    """The answer to another body under the key of ``delivered``."""
    chats: dict[str, int] = field(default_factory=dict)
    """By rollout_id: how many calls there were before."""
    before: dict[str, int] = field(default_factory=dict)
    """By rollout_id: how many deliveries there were before."""
    state_of_delivered: httpx.Response | None = None
    """As the next process told it."""
    longer: Failed | None = None
    """Why what was owed since the process before is missing, or another result."""
    anew: PlayedRollout | None = None
    """Started, and ended, after it."""

    @property
    def is_shortened(self) -> bool:
        """Whether the server offers a result without its messages, so that it has one of these to keep."""
        calls = self.shortened.completions
        return len(calls) > 1 and calls[1].is_rest_of(calls[0])

    def is_run_again(self, rollout: PlayedRollout) -> bool:
        """Whether it has made a further call after the server was killed."""
        return len(rollout.chats) > self.chats[rollout.rollout_id]

    @property
    def rollouts(self) -> list[PlayedRollout]:
        """All of them."""
        ended = [self.owed, self.shortened, self.delivered, self.offered, self.refused, self.failed, self.cancelled]
        return [*self.running, *ended]


async def restart_of(kit: Kit) -> Restart:
    """The one restart of the run, which the checks of this module look at."""
    if kit.command is None:
        raise Skipped("the kit can kill and start only what it has started itself: give --command")
    if kit.trainer.stop is not None and not (await asyncio.shield(kit.trainer.stop)).is_back:
        raise NotExercised("the server did not come back after SIGTERM", cause="drain.kept")
    if kit.trainer.restart is None:
        kit.trainer.restart = asyncio.create_task(_restart(kit, kit.command))
    return await asyncio.shield(kit.trainer.restart)


async def _restart(kit: Kit, command: "ServerCommand") -> Restart:
    model, is_back = kit.hold(), asyncio.Event()
    kit.group()

    def play(on_chat: Script, on_completed: Script = acknowledge, **fields: str) -> PlayedRollout:
        return kit.play(on_chat, on_completed, api_key=secrets.token_urlsafe(12), **fields)

    restart = Restart(
        [play(waiting_for(model, answering())) for _ in range(ROLLOUTS)],
        play(calling_offered_tools(), owing(is_back, retry_after="0"), idempotency_key=secrets.token_hex(8)),
        play(calling_offered_tools(), owing(is_back, Answer(422, encoded({"detail": "no"})), retry_after="0")),
        play(answering()),
        play(calling_offered_tools(), waiting_for(is_back, acknowledge)),
        play(answering(), refusing(403, None, acknowledge)),
        play(refusing(400, None, answering()), owing(is_back, retry_after="0")),
        play(waiting_for(model, answering()), owing(is_back, retry_after="0")),
    )
    owed_ends = (restart.owed, restart.offered, restart.failed, restart.cancelled)
    for rollout in (*owed_ends, restart.shortened, restart.refused):
        rollout.has_delivery_faults = True
    restart.refused.is_refused_for_good = True
    answers = await asyncio.gather(*map(kit.send, restart.rollouts))
    first = {rollout.rollout_id: answer for rollout, answer in zip(restart.rollouts, answers, strict=True)}
    await restart.delivered.result()
    for rollout in (*restart.running, restart.cancelled):
        await rollout.first_chat()
    with contextlib.suppress(Failed):
        await kit.cancel_where_it_runs(restart.cancelled.rollout_id)
        await restart.cancelled.wait_until(lambda played: bool(played.completions), "a terminal result")
    for rollout in (restart.owed, restart.offered, restart.failed, restart.refused):
        await rollout.wait_until(lambda played: bool(played.completions), "a terminal result")
    # That it is offered again is another check's matter.
    with contextlib.suppress(TimeoutError, Failed):
        async with asyncio.timeout(SHORTENED_SECONDS):
            await restart.shortened.wait_until(lambda played: len(played.completions) > 1, "one without its messages")
    restart.is_read = await _is_read(kit, restart.delivered)
    before = None if kit.trainer.stop is None else await asyncio.shield(kit.trainer.stop)
    owed_longer = [] if before is None else before.owed_longer
    with contextlib.suppress(TimeoutError, Failed):
        async with asyncio.timeout(SHORTENED_SECONDS):
            for rollout in owed_longer:
                await rollout.wait_until(lambda played: bool(played.completions), "a terminal result")
    many = await many_more(kit, waiting_for(model, answering()))
    # Its 202 says that it is on record: nothing may lie between that and the kill.
    just_accepted = play(waiting_for(model, answering()))
    first[just_accepted.rollout_id] = await kit.send(just_accepted)
    await command.kill()
    restart.running.append(just_accepted)
    restart.before = {rollout.rollout_id: len(rollout.completions) for rollout in restart.rollouts}
    restart.chats = {rollout.rollout_id: len(rollout.chats) for rollout in restart.rollouts}
    model.set()
    try:
        if before is not None:
            # Nothing but the checks of ``limits`` comes after it.
            kit.trainer.has_short_limit = await start_with_short_limit(command, "kill -9")
        else:
            await start_again(command, "kill -9")
        restart.state_of_delivered = await kit.status(restart.delivered.rollout_id)
        for rollout in (restart.owed, restart.delivered, restart.refused, restart.running[0]):
            own = rollout.rollout_id
            restart.repeated[own] = first[own], await kit.post(rollout.init)
        another = {**restart.delivered.init, "messages": [{"role": "user", "content": "another body"}]}
        restart.conflict = await kit.post(another)
        is_back.set()
        owed = [*restart.running, *owed_ends]
        if restart.is_shortened:
            owed.append(restart.shortened)
        await require_reports([*owed, restart.delivered], "kill -9 and a new start")
        await require_reports_of(many, "kill -9 and a new start")
        for rollout in owed:
            # What an init has started that was repeated is drain.repeated's matter.
            if not (rollout.rollout_id in restart.repeated and restart.is_run_again(rollout)):
                restart.altered = restart.altered or _alteration(restart, rollout)
        if before is not None:
            before.is_long_over.set()
        restart.longer = await _difference_of(owed_longer)
        restart.anew = await kit.start(calling_offered_tools(turns=2))
        await restart.anew.result()
    except Failed as failure:
        is_kept = restart.owed.is_over and not restart.is_run_again(restart.owed)
        missing = [one for one in restart.running if not one.completions]
        if is_kept and missing:
            # The first one's init was sent again, so that it may have run as if it were new.
            unknown = [just_accepted], restart.running, restart.running[1:]
            failure.usually = NOT_ON_RECORD if missing in unknown else TAKEN_FOR_ONE
            if missing == [just_accepted] and any(not (one.chats or one.completions) for one in many):
                failure.usually = NOT_BEGUN
        restart.problem = failure
    finally:
        is_back.set()
    return restart


async def _difference_of(owed_longer: Sequence[PlayedRollout]) -> Failed | None:
    """Of results that two processes have left."""
    for rollout in owed_longer:
        try:
            await rollout.result()
        except Failed as failure:
            return failure
        if text := rollout.contradiction():
            looked_at(rollout)
            return Failed("the same result from the process after the next one", text, usually=rollout.why_contradicted)
    return None


def _alteration(restart: Restart, rollout: PlayedRollout) -> Failed | None:
    looked_at(rollout)
    if rollout not in restart.running and restart.is_run_again(rollout):
        count = len(rollout.chats) - restart.chats[rollout.rollout_id]
        what = "no further call for a completion of a rollout that had ended before kill -9 and a new start"
        return Failed(what, f"{count}", usually=RUN_AGAIN_ENDED)
    if rollout is not restart.shortened and rollout.contradiction():
        what = "the same result after kill -9 and a new start"
        return Failed(what, rollout.contradiction(), usually=rollout.why_contradicted)
    if len(keys := {call.key for call in rollout.completions}) > 1:
        what = "the same Idempotency-Key with a result after kill -9 and a new start"
        usually = "the key is made anew by each process: make it from the rollout_id"
        return Failed(what, quoted(sorted(keys)), usually=usually)
    return None


async def _is_read(kit: Kit, rollout: PlayedRollout) -> bool:
    """Whether the server has read that its result was acknowledged, once it has, as far as its state tells."""
    deadline = time.monotonic() + READ_SECONDS
    while (
        response := await kit.status(rollout.rollout_id)
    ).status_code != 200 or b'"delivered"' not in response.content:
        if time.monotonic() > deadline:
            # One that tells no states has had the time.
            return response.status_code != 200
        await asyncio.sleep(POLL_SECONDS)
    return True


async def require_reports(rollouts: list[PlayedRollout], after: str) -> None:
    """A result of each.

    Raises:
        Failed: some are missing.
    """
    results = await asyncio.gather(*(rollout.result() for rollout in rollouts), return_exceptions=True)
    missing = [rollout for rollout, result in zip(rollouts, results, strict=True) if isinstance(result, Failed)]
    if missing:
        looked_at(missing[0])
        raise Failed(
            f"a terminal result for each of {len(rollouts)} accepted rollouts after {after}",
            f"none that was acknowledged for {len(missing)}",
            usually=OFFERED_ONCE if all(rollout.completions for rollout in missing) else None,
        )


@check(
    "drain.killed",
    "way-2 offer-2",
    "After kill -9 and a new start, every rollout that had a 202 is reported.",
    STOPPING,
)
async def killed(kit: Kit) -> None:
    if problem := (await restart_of(kit)).problem:
        raise problem


@check(
    "drain.cut_off", "way-5", "What ran when the process was killed is reported as an ERROR, not run again.", STOPPING
)
async def cut_off(kit: Kit) -> None:
    restart = await reported(kit)
    # One was repeated, which is drain.repeated's matter.
    for rollout in restart.running[1:]:
        end, calls = (await rollout.result()).get("status"), len(rollout.chats)
        if end != "ERROR" or (calls > restart.chats[rollout.rollout_id] and rollout is not restart.running[-1]):
            looked_at(rollout)
            what = "an ERROR, and no further call, for a rollout that ran when the process was killed"
            raise Failed(what, f"{end}, after {calls} calls")
        extra = (await rollout.result()).get("extra_fields")
        if not isinstance(extra, dict) or extra.get("outcome", "interrupted") != "interrupted":
            looked_at(rollout)
            usually = "what a process before has left goes through the code for an agent that raised"
            raise Failed("the outcome 'interrupted' of what was cut off", quoted(extra), usually=usually)


async def reported(kit: Kit) -> Restart:
    """The restart, after which all was reported.

    Raises:
        NotExercised: it was not.
    """
    restart = await restart_of(kit)
    if restart.problem:
        raise NotExercised("what was accepted before kill -9 was not reported after it", cause="drain.killed")
    return restart


def _require_first_answer(restart: Restart, rollout: PlayedRollout, whose: str) -> None:
    if rollout.rollout_id not in restart.repeated:
        raise NotExercised("the server gave no answer after kill -9 and a new start", cause="drain.killed")
    first, again = restart.repeated[rollout.rollout_id]
    looked_at(rollout)
    if again.status_code != 202 or not is_same_document(first.content, again.content):
        raise Failed(f"the first answer to an init repeated after kill -9 and a new start, {whose}", describe(again))
    if restart.is_run_again(rollout):
        got = f"{len(rollout.chats) - restart.chats[rollout.rollout_id]} further calls"
        what = f"no further run of a rollout, {whose}, when its init is repeated after kill -9"
        raise Failed(what, got, usually=RUN_AGAIN if rollout in restart.running else None)


@check("drain.repeated", "same-3", "An init repeated after that gets the first answer, and starts nothing.", STOPPING)
async def repeated(kit: Kit) -> None:
    restart = await restart_of(kit)
    _require_first_answer(restart, restart.owed, "whose result was owed")
    _require_first_answer(restart, restart.running[0], "which ran")


@check(
    "drain.repeated_delivered",
    "same-3",
    "So does one whose result was delivered before; another body is 409.",
    STOPPING,
)
async def repeated_delivered(kit: Kit) -> None:
    restart = await restart_of(kit)
    _require_first_answer(restart, restart.delivered, "whose result was delivered")
    _require_first_answer(restart, restart.refused, "whose result was refused for good")
    if restart.conflict is not None and restart.conflict.status_code != 409:
        what = "409 to another body under a key whose result was delivered before kill -9"
        usually = "the key is on record without what it stood for: keep a digest of the request beside it"
        raise Failed(what, describe(restart.conflict), usually=usually)


@check("drain.refused_same", "deliver-6", "What was offered without its messages is so after the kill, too.", STOPPING)
async def refused_same(kit: Kit) -> None:
    restart = await reported(kit)
    if not restart.is_shortened:
        is_there = any(call.fields.get("final_messages") == [] for call in restart.shortened.completions)
        got = "its result without messages is another one" if is_there else "it offers no result without its messages"
        raise NotExercised(f"the server was not seen to leave out messages alone: {got}", cause="delivery.refused")
    looked_at(restart.shortened)
    if difference := restart.shortened.contradiction():
        has_messages = any(call.fields.get("final_messages") for call in restart.shortened.completions[2:])
        what = "the result without its messages again after kill -9 and a new start"
        raise Failed(what, difference, usually=None if has_messages else restart.shortened.why_contradicted)


@check("drain.callback_key", "key-7", "What is delivered after the kill has the api_key of its init.", STOPPING)
async def callback_key(kit: Kit) -> None:
    restart = await reported(kit)
    for rollout in restart.rollouts:
        for call in rollout.completions[restart.before[rollout.rollout_id] :]:
            if call.request.headers.get("authorization") != f"Bearer {rollout.init['api_key']}":
                looked_at(rollout)
                sent = "another" if "authorization" in call.request.headers else "none"
                raise Failed("'Authorization: Bearer <api_key>' with a result after kill -9 and a new start", sent)


@check("drain.own_keys", "chat-8", "A call after the kill has no Idempotency-Key of one before.", STOPPING)
async def own_keys(kit: Kit) -> None:
    anew = (await reported(kit)).anew
    before = {call.key for rollout in kit.trainer.rollouts if rollout is not anew for call in rollout.chats}
    for call in anew.chats if anew else []:
        if call.key in before:
            looked_at(call.rollout)
            raise Failed("an Idempotency-Key of its own for each call, over a new start", f"{quoted(call.key)} again")


@check("drain.state", "state-1", "The state of what was delivered before the kill is told after it, too.", STOPPING)
async def state(kit: Kit) -> None:
    restart = await restart_of(kit)
    looked_at(restart.delivered)
    told = restart.state_of_delivered
    if told is None:
        raise NotExercised("the server gave no answer after kill -9 and a new start", cause="drain.killed")
    found = field_of(told, "state")
    if told.status_code != 200 or (restart.is_read and found != "delivered"):
        raise Failed(
            "200 and the state 'delivered' of a rollout that was, before kill -9 and a new start", describe(told)
        )
