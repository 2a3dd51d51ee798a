"""Defects beside other rollouts, with odd texts, and at the end of the process."""

import asyncio
import itertools
import json
import os
import sys
import time
from typing import Any

from servers.model import ChatError, Json, Refusal, Rollout
from servers.mutants.inits import crashing
from servers.mutants.mechanism import mutant
from servers.small import SmallServer

# Load


def shares_a_conversation(self: SmallServer, usual: Any, rollout: Rollout, finish_reason: str) -> Json:
    others = [other for other in self.rollouts.values() if other.messages[-1]["role"] == "assistant"]
    return dict(usual(others[0], finish_reason)) | {"rollout_id": rollout.init["rollout_id"]}


async def lets_a_failure_spread(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    if self.is_draining:
        raise ChatError("broken since another rollout failed")
    try:
        return str(await usual(rollout))
    except ChatError:
        self.is_draining = True
        raise


async def one_after_the_other(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    while next(other for other in self.rollouts.values() if other.state == "running") is not rollout:  # noqa: ASYNC110 - a state is all there is
        await asyncio.sleep(0.01)
    return str(await usual(rollout))


async def keeps_a_pause_for_all(self: SmallServer, usual: Any, response: Any) -> None:
    self.drain_seconds = time.monotonic() + self.told_seconds(response)  # a place to keep it
    await usual(response)


async def asks_nobody_in_a_pause(self: SmallServer, usual: Any, rollout: Rollout) -> Any:
    await asyncio.sleep(self.drain_seconds - time.monotonic())
    return await usual(rollout)


def eight_at_a_time(step: str) -> Any:
    """``step`` of a rollout under one of eight permits, which what it waits for does not free."""

    async def one_of_eight(self: SmallServer, usual: Any, *arguments: Any) -> Any:
        async with vars(self).setdefault(f"permits to {step}", asyncio.Semaphore(8)):
            return await usual(*arguments)

    return one_of_eight


def refuses_without_retry_after(self: SmallServer, usual: Any) -> None:
    try:
        usual()
    except Refusal:
        raise Refusal(503, "Too many rollouts") from None


def runs_what_it_refuses(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal:
        init = self.parse(body)
        if isinstance(init.get("messages"), str):
            self.spawn(self.play(Rollout(init | {"messages": []}, "")))
        raise


def keeps_places(self: SmallServer, usual: Any) -> None:
    usual()
    # Ten places are free beside: one more is taken all the same.
    if sum(one.is_cancelled or one.state == "running" for one in self.rollouts.values()) >= self.capacity + 10:
        raise Refusal(429, "Too many rollouts", "at_capacity", Retry_After="1")


def waits(self: SmallServer, rollout: Rollout) -> bool:
    """Whether it has no turn yet: ten have one."""
    running = [one for one in self.rollouts.values() if one.state == "running"]
    return rollout in running[10:]


def cancels_what_has_its_turn(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if waits(self, rollout):
        raise Refusal(409, "It does not run", "not_running")
    usual(rollout)


mutant(
    "cancels-only-what-has-its-turn",
    "load.overload",
    total=True,
    capacity=30,
    view=lambda s, usual, r: usual(r) | ({"state": "queued"} if waits(s, r) else {}),
    stop=cancels_what_has_its_turn,
)
mutant("shares-a-conversation", "load.concurrent", completed=shares_a_conversation)
mutant(
    "lets-a-failure-spread",
    "load.beside_failing",
    total=True,
    agent=lets_a_failure_spread,
    require_room=lambda s, usual: None,
)
mutant("runs-one-after-the-other", "load.beside_waiting", silent=True, agent=one_after_the_other)
mutant(
    "keeps-a-pause-for-all",
    "load.beside_paused",
    timed=True,
    drain_seconds=0.0,
    wait_as_told=keeps_a_pause_for_all,
    chat=asks_nobody_in_a_pause,
)
mutant("pauses-with-its-permit", "load.beside_paused", timed=True, chat=eight_at_a_time("chat"))
mutant("is-owed-with-its-permit", "load.beside_owed", silent=True, deliver=eight_at_a_time("deliver"))
mutant("refuses-without-retry-after", "load.overload", capacity=30, require_room=refuses_without_retry_after)
mutant("keeps-places-but-for-ten", "load.overload", silent=True, capacity=30, require_room=keeps_places)
mutant("runs-what-it-refuses", "callbacks.refused", read=runs_what_it_refuses)

# Ids and texts


def drops_half_pairs(self: SmallServer, usual: Any, message: Json) -> Json:
    json.dumps(message, ensure_ascii=False).encode()
    return dict(usual(message))


def is_half_a_pair(body: bytes) -> bool:
    return b"\\ud83d" in body and b"\\ud83d\\u" not in body


async def forgets_half_pairs(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    try:
        json.dumps(result, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    await usual(rollout, result)


mutant("drops-nul", "ids.text", encode=lambda s, usual, body: bytes(usual(body)).replace(b"\\u0000", b""))
mutant(
    "names-files-by-ids",
    "ids.odd",
    reply=crashing("FileNotFoundError", lambda init: "/" in init["rollout_id"] or len(init["rollout_id"]) > 200),
)
mutant(
    "crashes-on-control-characters",
    "ids.control",
    reply=crashing("ValueError: null byte", lambda init: "\0" in init["rollout_id"]),
)
mutant(
    "knows-only-ascii",
    "ids.text",
    encode=lambda s, usual, body: json.dumps(body, ensure_ascii=False).encode("ascii", "replace"),
)
mutant("hangs-on-half-pairs", "ids.surrogates", parse=crashing("UnicodeEncodeError", is_half_a_pair))
mutant("forgets-half-pairs", "ids.surrogate_reply", silent=True, deliver=forgets_half_pairs)

# The process


async def drops_what_runs(self: SmallServer, usual: Any) -> None:
    await self.close()


async def ends_with_an_error(self: SmallServer, usual: Any) -> None:
    await usual()
    os._exit(3)


async def runs_them_again(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    await (usual if rollout.result else self.play)(rollout)


def starts_anew(self: SmallServer, usual: Any) -> None:
    usual()
    self.rollouts.clear()


async def gives_up_a_pause(self: SmallServer, usual: Any, response: Any) -> None:
    waiting = asyncio.ensure_future(usual(response))
    while not waiting.done():
        if self.is_draining:
            raise ChatError("The server ends")
        await asyncio.wait({waiting}, timeout=0.02)


mutant("gives-up-a-pause-at-the-end", "drain.stopped", wait_as_told=gives_up_a_pause, needs="process")
mutant("drops-rollouts-at-the-end", "drain.stopped", silent=True, drain=drops_what_runs, needs="process")
mutant("ends-with-an-error", "drain.exit_code", drain=ends_with_an_error, needs="process")
mutant("is-ready-to-the-end", "drain.answers", ready=lambda s, usual, request: ready_for_ever(), needs="process")
mutant(
    "takes-inits-to-the-end",
    "drain.stopped",
    silent=True,
    drain_seconds=2.5,
    require_room=lambda s, usual: None,
    needs="process",
)
mutant(
    "forgets-at-a-restart", "drain.killed drain.repeated", silent=True, take_over=lambda s, usual: None, needs="process"
)
mutant("runs-them-again-at-a-restart", "drain.cut_off", resume=runs_them_again, needs="process")
mutant("forgets-keys-at-a-restart", "drain.repeated", take_over=starts_anew, needs="process")


def forgets_what_is_delivered(self: SmallServer, usual: Any) -> None:
    usual()
    self.rollouts = {key: rollout for key, rollout in self.rollouts.items() if rollout.state != "delivered"}


def offers_everything_anew(self: SmallServer, usual: Any) -> None:
    usual()
    for rollout in self.rollouts.values():
        if rollout.state == "delivered":
            self.spawn(self.resume(rollout))


def forgets_the_api_keys(self: SmallServer, usual: Any) -> None:
    usual()
    for rollout in self.rollouts.values():
        rollout.init = {**rollout.init, "api_key": None}


def notes_only_the_whole(self: SmallServer, usual: Any, event: Json) -> None:
    if event.get("result", {}).get("final_messages") != []:
        usual(event)


def notes_it_soon(self: SmallServer, usual: Any, event: Json) -> None:
    asyncio.get_running_loop().call_later(0.5, usual, event)


def notes_inits_late(self: SmallServer, usual: Any, event: Json) -> None:
    asyncio.get_running_loop().call_later(1.0 if "accepted" in event else 0.0, usual, event)


async def drops_what_is_owed(self: SmallServer, usual: Any) -> None:
    await usual()
    for rollout in self.rollouts.values():
        if rollout.state == "finished":
            self.note({"settled": rollout.init, "state": "undeliverable"})


async def fails_what_lasts(self: SmallServer, usual: Any) -> None:
    self.is_draining = True
    await asyncio.sleep(self.drain_seconds)
    for rollout in [one for one in self.rollouts.values() if one.state == "running"]:
        self.spawn(self.deliver(rollout, self.failed(rollout, RuntimeError("the server ends"), "agent_error")))
    await usual()


async def waits_for_nothing(self: SmallServer, usual: Any) -> None:
    self.drain_seconds = 2.5
    await usual()
    for rollout in [one for one in self.rollouts.values() if one.state == "running"]:
        await self.deliver(rollout, self.failed(rollout, RuntimeError("the server ends"), "interrupted"))


async def cancels_what_lasts(self: SmallServer, usual: Any) -> None:
    self.is_draining = True
    await asyncio.sleep(self.drain_seconds)
    for rollout in [one for one in self.rollouts.values() if one.state == "running"]:
        self.stop(rollout)
    await usual()


async def keeps_to_its_delays(self: SmallServer, usual: Any, delay_seconds: float) -> None:
    await asyncio.sleep(30)


async def cancels_nothing_at_the_end(self: SmallServer, usual: Any, request: Any) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"detail": "The server ends"}, 503) if self.is_draining else await usual(request)


def prints_its_inits(self: SmallServer, usual: Any, body: bytes) -> Json:
    sys.stderr.write(f"{body!r}\n")
    return dict(usual(body))


def counts_its_own_offers(self: SmallServer, usual: Any) -> None:
    usual()
    for rollout in self.rollouts.values():
        rollout.offers = 0


CALLS = itertools.count()

mutant("counts-its-own-offers", "drain.attempts", take_over=counts_its_own_offers, needs="process")

mutant(
    "counts-pauses-as-time",
    "limits.paused",
    ran_seconds=lambda s, usual, r: time.monotonic() - r.began,
    needs="process",
)
for name, status in {"of-502": 502, "of-504": 504, "of-nobodys-405": 405}.items():
    mutant(
        f"counts-the-time-{name}",
        "limits.paused",
        is_pause=lambda s, usual, response, completion, status=status: (
            response.status_code != status and usual(response, completion)
        ),
        attempts=50,
        needs="process",
    )
mutant(
    "counts-the-time-of-aborts",
    "limits.paused",
    is_pause=lambda s, usual, response, completion: completion is None and usual(response, completion),
    attempts=50,
    needs="process",
)
mutant("stops-its-clock-for-good", "limits.run", go_on=lambda s, usual, rollout: None, needs="process")
mutant(
    "takes-its-limit-for-a-failure-of-the-agent",
    "limits.run",
    outcome_of=lambda s, usual, error: usual(error).replace("timeout", "agent_error"),
    needs="process",
)
mutant(
    "says-nothing-of-its-limit",
    "limits.result",
    failed=lambda s, usual, r, e, o: usual(r, e, o) | ({"error_message": ""} if o == "timeout" else {}),
    needs="process",
)
mutant("forgets-what-is-delivered", "drain.repeated_delivered", take_over=forgets_what_is_delivered, needs="process")
mutant("offers-everything-anew", "drain.delivered", take_over=offers_everything_anew, needs="process")
mutant("forgets-the-api-keys-at-a-restart", "drain.callback_key", take_over=forgets_the_api_keys, needs="process")
mutant("notes-only-the-whole", "drain.refused_same", note=notes_only_the_whole, needs="process")
mutant("notes-it-soon", "drain.killed", silent=True, note=notes_it_soon, needs="process")
mutant("notes-inits-late", "drain.killed", silent=True, note=notes_inits_late, needs="process")
mutant("counts-its-calls", "drain.own_keys", call_key=lambda s, usual, r: f"call-{next(CALLS)}", needs="process")
mutant("drops-what-is-owed-at-the-end", "drain.kept", silent=True, drain=drops_what_is_owed, needs="process")
mutant("cancels-what-lasts", "drain.interrupted", drain=cancels_what_lasts, needs="process")
mutant("fails-what-lasts", "drain.interrupted", drain=fails_what_lasts, needs="process")
mutant("ends-what-lasts-too-soon", "drain.interrupted", drain=waits_for_nothing, needs="process")
mutant("keeps-to-its-delays", "drain.last_offer", wait_to_offer=keeps_to_its_delays, needs="process")
mutant("cancels-nothing-at-the-end", "drain.answers", cancel=cancels_nothing_at_the_end, needs="process")
mutant(
    "rewards-what-was-cut-off",
    "drain.results",
    failed=lambda s, usual, r, e, o: usual(r, e, o) | ({"reward": 0.0} if o == "interrupted" else {}),
    needs="process",
)
mutant(
    "makes-keys-anew-in-each-process",
    "drain.results",
    result_key=lambda self, usual, rollout: f"{usual(rollout)}-{os.getpid()}",
    needs="process",
)
mutant("prints-its-inits", "drain.printed", parse=prints_its_inits, needs="process")


async def is_ready_in_its_503(self: SmallServer, usual: Any, request: Any) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"ready": True}, 503) if self.is_draining else await usual(request)


mutant("is-ready-in-its-503", "drain.answers", ready=is_ready_in_its_503, needs="process")


async def ready_for_ever() -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"ready": True})


def refuses_in_a_word(self: SmallServer, usual: Any) -> None:
    try:
        usual()
    except Refusal as refusal:
        raise Refusal(refusal.answer.status_code, "Not now") from None


mutant(
    "refuses-in-a-word-at-the-end",
    "drain.stopped",
    silent=True,
    beside="drain.answers",
    require_room=refuses_in_a_word,
    needs="process",
)
