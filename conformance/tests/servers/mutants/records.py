"""Defects of what is known of a rollout that was taken: its key, its state, and that it can be cancelled."""

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from servers.model import Json, Refusal, Rollout
from servers.mutants.mechanism import mutant
from servers.small import SmallServer

REFUSED_FOR_ROOM: dict[str, str] = {}

# Idempotency


async def looks_before_it_leaps(self: SmallServer, usual: Any, init: Json) -> Response:
    known = self.key_of(init) in self.rollouts
    await asyncio.sleep(0.05)
    if not known:
        self.rollouts.pop(self.key_of(init), None)
    answer: Response = await usual(init)
    return answer


async def forgets_after_the_result(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    await usual(rollout, result)
    self.rollouts.pop(self.key_of(rollout.init), None)


async def forgets_before_it_is_delivered(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    kept = self.rollouts.pop(self.key_of(rollout.init))
    await usual(rollout, result)
    self.rollouts.setdefault(self.key_of(rollout.init), kept)


async def takes_the_newest_key(self: SmallServer, usual: Any, init: Json) -> Response:
    if known := self.rollouts.get(self.key_of(init)):
        known.init["api_key"] = init.get("api_key")
    answer: Response = await usual(init)
    return answer


async def knows_what_it_had_no_room_for(self: SmallServer, usual: Any, init: Json) -> Response:
    try:
        answer: Response = await usual(init)
    except Refusal as refusal:
        if refusal.answer.status_code == 429:
            self.rollouts[f"refused:{init['rollout_id']}"] = known = Rollout(init, "")
            known.state = "queued"
        raise
    return answer


async def keeps_the_key_where_it_is_full(self: SmallServer, usual: Any, init: Json) -> Any:
    key, fingerprint = self.key_of(init), self.fingerprint(init)
    if REFUSED_FOR_ROOM.get(key, fingerprint) != fingerprint:
        raise Refusal(409, "Another body under a used key", "key_reused")
    try:
        return await usual(init)
    except Refusal:
        REFUSED_FOR_ROOM[key] = fingerprint
        raise


def remembers_what_it_refused(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal:
        init = self.parse(body)
        if self.is_id(init.get("rollout_id")) and isinstance(init.get("messages"), str):
            self.rollouts[self.key_of(init)] = Rollout(init, "refused")
        raise


mutant(
    "starts-every-init",
    "idempotency.while_running idempotency.concurrent idempotency.after_completion",
    accept=lambda self, usual, init: (self.rollouts.pop(self.key_of(init), None), usual(init))[1],
)
mutant("looks-before-it-leaps", "idempotency.concurrent", accept=looks_before_it_leaps)
mutant("forgets-the-key-after-the-result", "idempotency.after_completion", deliver=forgets_after_the_result)
mutant("forgets-the-key-before-delivery", "idempotency.owed", deliver=forgets_before_it_is_delivered)
mutant("takes-another-body-under-a-key", "idempotency.conflict", fingerprint=lambda s, usual, init: "")
mutant(
    "compares-bytes",
    "idempotency.restated",
    fingerprint=lambda s, usual, init: json.dumps({**init, "rollout_id": 0, "api_key": 0}),
)
mutant(
    "has-one-space-of-keys",
    "idempotency.two_spaces",
    key_of=lambda s, usual, init: init.get("idempotency_key") or init["rollout_id"],
)
mutant(
    "ignores-idempotency-keys",
    "idempotency.two_ids idempotency.two_keys",
    key_of=lambda s, usual, init: str(init["rollout_id"]),
)
mutant("takes-the-newest-key", "idempotency.callback_key", accept=takes_the_newest_key)
mutant("keeps-the-key-where-it-is-full", "load.overload", capacity=30, accept=keeps_the_key_where_it_is_full)
mutant("knows-what-it-had-no-room-for", "load.overload", silent=True, capacity=30, accept=knows_what_it_had_no_room_for)
mutant("remembers-what-it-refused", "idempotency.after_refusal", read=remembers_what_it_refused)

# State and cancel


async def cancels_nothing(self: SmallServer, usual: Any, request: Request) -> Response:
    return JSONResponse({"detail": "Not running", "code": "not_running"}, 409)


def marks_it_and_goes_on(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if rollout.state != "running":
        raise Refusal(409, "The rollout has ended", "not_running")


def cancels_what_has_ended(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if rollout.state == "running":
        usual(rollout)


async def finds_nothing_to_cancel(self: SmallServer, usual: Any, request: Request) -> Response:
    try:
        self.named(request.path_params["rollout_id"])
    except Refusal:
        return JSONResponse({"rollout_id": "", "state": "cancelling"}, 202)
    answer: Response = await usual(request)
    return answer


async def has_no_states(self: SmallServer, usual: Any, request: Request) -> Response:
    return JSONResponse({"detail": "Not found", "code": "unknown_rollout"}, 404)


mutant("has-no-states", "state.running state.ended state.encoded state.cancel_ended", total=True, status=has_no_states)
mutant(
    "says-in-progress",
    "state.running",
    view=lambda s, usual, r: usual(r) | ({"state": "in_progress"} if r.state == "running" else {}),
)
mutant("says-delivered-too-soon", "state.running", view=lambda s, usual, r: usual(r) | {"state": "delivered"})
mutant("tells-no-result", "state.ended", view=lambda s, usual, r: {n: v for n, v in usual(r).items() if n != "result"})
mutant(
    "knows-every-rollout",
    "state.unknown",
    total=True,
    named=lambda s, usual, i: (
        Rollout({"rollout_id": i, "server_url": "", "messages": []}, "") if i.startswith("kit-nobody") else usual(i)
    ),
)
mutant("cuts-ids-in-paths", "state.encoded", named=lambda s, usual, i: usual(i.partition("?")[0]))
mutant("cancels-nothing", "state.cancel", cancel=cancels_nothing)
mutant("says-it-cancels", "state.cancel", silent=True, stop=marks_it_and_goes_on)
mutant(
    "calls-a-cancel-an-agents-error",
    "state.cancel",
    failed=lambda s, usual, r, error, outcome: usual(r, error, "agent_error" if outcome == "cancelled" else outcome),
)
mutant("cancels-what-has-ended", "state.cancel_ended", stop=cancels_what_has_ended)
mutant("finds-nothing-to-cancel", "state.cancel_unknown", cancel=finds_nothing_to_cancel)
