"""Defects in one corner of the attempts at a call or a delivery: how long they go on, and what ends them."""

import asyncio
from contextvars import ContextVar
from typing import Any

import httpx

from servers.model import TRACE, ChatError, Json, Rollout
from servers.mutants.mechanism import mutant
from servers.playing import CHAT, COMPLETED
from servers.small import SmallServer


async def gives_up_where_nobody_is(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> str:
    try:
        response = await self.post(rollout, COMPLETED, result, self.result_key(rollout))
    except httpx.ConnectError:
        return "undeliverable"
    except httpx.TransportError:
        return ""
    return self.state_after(response, result)


STEADY_SECONDS = 1.5
"""So long that what a busy machine adds to one wait and not to another is no growth."""


async def without_a_wait(self: SmallServer, usual: Any, delay_seconds: float) -> None:
    """At once."""


async def steadily(self: SmallServer, usual: Any, delay_seconds: float) -> None:
    await usual(STEADY_SECONDS)


async def steadily_too(self: SmallServer, usual: Any, attempts: int) -> None:
    await asyncio.sleep(STEADY_SECONDS)


def leaves_out_nothing(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    if response.status_code == 422 and not result["final_messages"] and "left_out" not in result:
        result["left_out"] = True
        return ""
    return str(usual(response, result))


mutant(
    "says-nothing-of-the-reason",
    "errors.told",
    failed=lambda s, usual, r, e, o: usual(r, e, o) | {"error_message": f"{type(e).__name__}: it failed"},
)
mutant(
    "takes-a-blocked-page-for-final",
    "retries.html",
    is_asked_again=lambda s, usual, response, c: usual(response, c) and response.status_code not in (400, 401, 403),
)
mutant("counts-absence", "retries.no_connection", is_nobody=lambda s, usual, error: False)
mutant("gives-up-where-nobody-is", "delivery.no_connection", silent=True, offer=gives_up_where_nobody_is)
mutant("offers-what-is-empty-again", "delivery.nothing_left", state_after=leaves_out_nothing)
mutant("hammers-with-results", "delivery.delay", timed=True, wait_to_offer=without_a_wait)
mutant("offers-results-steadily", "delivery.delay", timed=True, wait_to_offer=steadily)
mutant("asks-steadily", "retries.delay", timed=True, back_off=steadily_too)
mutant(
    "takes-402-for-a-pause",
    "retries.final delivery.final",
    is_retried=lambda s, usual, status: status == 402 or usual(status),
)
mutant(
    "reads-retry-after-of-refusals-alone",
    "retries.too_many",
    timed=True,
    wait_as_told=lambda s, usual, response: usual(response) if response.status_code != 200 else asyncio.sleep(0),
)
mutant(
    "counts-pages",
    "retries.pause",
    is_pause=lambda s, usual, r, c: not s.is_absent(r) and usual(r, c),
    is_asked_again=lambda s, usual, r, c: s.is_absent(r) or usual(r, c),
)
mutant(
    "wants-200-or-201",
    "delivery.created",
    state_after=lambda s, usual, response, result: (
        "" if response.status_code in (202, 204) else usual(response, result)
    ),
)
mutant(
    "takes-a-blocked-page-for-its-word",
    "delivery.html",
    silent=True,
    state_after=lambda s, usual, response, result: (
        "undeliverable" if response.status_code == 403 else usual(response, result)
    ),
)


MET: ContextVar[int] = ContextVar("MET", default=0)
"""The status of the latest answer to a call of the current task."""


def is_noted(self: SmallServer, usual: Any, response: httpx.Response, completion: Json | None) -> bool:
    MET.set(response.status_code)
    return bool(usual(response, completion))


def waits_but_after(status: int) -> Any:
    async def back_off(self: SmallServer, usual: Any, attempts: int) -> None:
        if MET.get() != status:
            await usual(attempts)

    return back_off


async def has_a_trace_for_new_calls(
    self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str
) -> httpx.Response:
    token = TRACE.set({} if path == CHAT and key in self.kept else TRACE.get())
    self.kept.append(key)
    try:
        return await usual(rollout, path, body, key)  # type: ignore[no-any-return]
    finally:
        TRACE.reset(token)


mutant("asks-at-once-after-an-abort", "retries.delay", timed=True, is_pause=is_noted, back_off=waits_but_after(200))
mutant("asks-at-once-in-a-pause", "retries.delay", timed=True, is_pause=is_noted, back_off=waits_but_after(503))


async def keys_anew_after_a_cut(
    self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str
) -> Any:
    lost = self.__dict__.setdefault("lost", set())
    try:
        return await usual(rollout, path, body, f"{key}-again" if key in lost else key)
    except httpx.TransportError:
        if path == CHAT:
            lost.add(key)
        raise


mutant("keys-a-call-anew-after-a-cut", "chat.key", beside="retries.cut retries.twice", post=keys_anew_after_a_cut)
mutant("has-a-trace-for-new-calls", "callbacks.trace", post=has_a_trace_for_new_calls)


async def leaves_its_call(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    calling = asyncio.ensure_future(usual(rollout))
    calling.add_done_callback(lambda done: done.cancelled() or done.exception())
    self.kept.append(calling)
    return dict(await asyncio.shield(calling))


mutant(
    "leaves-its-call", "callbacks.order state.cancel_hangs_up", beside="state.cancel", silent=True, chat=leaves_its_call
)


def takes_a_reset_for_final(path_of_it: str, ending: type[Exception]) -> Any:
    async def post(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> httpx.Response:
        try:
            return await usual(rollout, path, body, key)  # type: ignore[no-any-return]
        except httpx.ReadError:
            if path == path_of_it:
                raise ending("The trainer has reset the connection") from None
            raise

    return post


mutant("takes-a-reset-of-a-call-for-final", "retries.cut", post=takes_a_reset_for_final(CHAT, ChatError))
mutant(
    "takes-a-reset-of-a-result-for-final",
    "delivery.cut",
    silent=True,
    post=takes_a_reset_for_final(COMPLETED, ConnectionError),
)
