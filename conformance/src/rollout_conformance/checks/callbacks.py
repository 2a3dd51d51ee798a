"""What holds for every callback of every rollout that was played."""

import asyncio
import secrets
import time
from dataclasses import replace
from itertools import chain

from rollout_conformance.asking import field_of
from rollout_conformance.audit import audited, first_problem
from rollout_conformance.cases import depends_on
from rollout_conformance.catalogue import check
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import Call, PlayedRollout
from rollout_conformance.scripts import (
    acknowledge,
    answering,
    calling_offered_tools,
    encoded,
    first,
    refusing,
    waiting_for,
)
from rollout_conformance.text import LEAST_SECRET_CHARACTERS, quoted
from rollout_conformance.usual_causes import KEY_KEPT, MADE_ANEW, NEVER_BEGAN, NOT_DELIVERED, OFFERED_ONCE
from rollout_conformance.vocabulary import AUDIT, Failed

POLL_SECONDS, OWED_SECONDS = 0.05, 3.0
ODD_PATH = "/a%2Fb%20c/d;e=f"
NO_KEY = "an api_key that is empty, null or absent is none: then no Authorization header is sent"
TOLD_BACK = "what the trainer answers to a call can repeat its key: take it out before it becomes the error_message"
TOLD_BACK_IN_STATE = "what the trainer answers to a result can repeat its key: take it out before it becomes last_error"
QUOTED = "the refusal of a field repeats its value, in a text or as the input: name the field and its rule"


def _path(call: Call) -> str:
    """Below ``server_url``."""
    return f"/v1{call.request.path.rpartition('/v1')[2]}"


def _calls(rollout: PlayedRollout) -> list[Call]:
    return [*rollout.chats, *rollout.completions]


@check("callbacks.url", "init-6", "Callbacks go to the two paths below server_url, whose own path is kept.", AUDIT)
async def url(kit: Kit) -> None:
    rollouts = await audited(kit)
    if kit.trainer.strays:
        raise Failed("POST to {server_url}/v1/chat/completions or /v1/rollout/completed", quoted(kit.trainer.strays[0]))
    first_problem(
        rollouts,
        "callbacks below the path of server_url",
        lambda rollout: next((f"POST {call.request.path}" for call in _calls(rollout) if not call.was_routed), ""),
    )


@check("callbacks.trailing_slash", "init-6", "A server_url may end in slashes.")
async def trailing_slash(kit: Kit) -> None:
    rollout = await kit.start(trailing="//")
    await rollout.result()
    for call in _calls(rollout):
        if "//" in call.request.path:
            raise Failed("a path without the trailing slashes of server_url", f"POST {call.request.path}")


@check("callbacks.json", "http-1 chat-1 result-1", "Every callback is a JSON object, sent as application/json.", AUDIT)
async def json(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        for call in _calls(rollout):
            media_type = call.request.headers.get("content-type", "none").partition(";")[0].strip().lower()
            if call.problem:
                return call.problem
            if media_type != "application/json":
                return f"the content type {media_type}"
        return ""

    first_problem(await audited(kit), "a JSON object as application/json in a callback", problem)


@check("callbacks.rollout_id", "chat-1 result-1", "Every callback names its rollout.", AUDIT)
async def rollout_id(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        named = [call.fields.get("rollout_id") for call in _calls(rollout) if not call.problem]
        return next((f"rollout_id {quoted(name)}" for name in named if name != rollout.rollout_id), "")

    first_problem(await audited(kit), "the rollout_id of the init in a callback", problem)


@check("callbacks.key", "key-7", "The init's api_key is the Bearer of every callback; without one there is none.")
async def key(kit: Kit) -> None:
    token = secrets.token_urlsafe(12)
    for api_key, expected in ((token, f"Bearer {token}"), (None, None), ("", None)):
        again = refusing(503, 1, acknowledge, {"Retry-After": "0"})
        rollout = kit.play(refusing(503, 1, answering(), {"Retry-After": "0"}), again, api_key=api_key)
        rollout.has_delivery_faults = True
        await kit.send(rollout)
        await rollout.result()
        for call in _calls(rollout):
            sent = call.request.headers.get("authorization")
            if sent != expected:
                where = f"with {rollout.name_of(call)}"
                what = "'Authorization: Bearer <api_key>'" if expected else "no Authorization header"
                usually = None if expected else NO_KEY
                raise Failed(f"{what} {where}", quoted(sent) if sent else "none", usually=usually)


@check("callbacks.every_key", "key-7", "So it is with every rollout, however it ended.", AUDIT)
async def every_key(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        own = rollout.init.get("api_key")
        expected = f"Bearer {own}" if own else None
        for call in [] if rollout.is_shared else _calls(rollout):
            if (sent := call.request.headers.get("authorization")) != expected:
                where = f"with {rollout.name_of(call)}"
                return (
                    f"{'another' if sent else 'none'} {where}" if expected else f"{quoted(sent)} {where}, without a key"
                )
        return ""

    first_problem(await audited(kit), "the init's api_key as the Bearer of every callback", problem)


@check("callbacks.secret_kept", "key-10", "So it is with every rollout, whatever went wrong.", AUDIT)
async def secret_kept(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        key = str(rollout.init.get("api_key") or "")
        if len(key) < LEAST_SECRET_CHARACTERS:
            return ""
        told = (call for call in _calls(rollout) if key.encode() in call.request.body)
        return next((f"it in a POST to {_path(call)}, {call.result_in_words}" for call in told), "")

    first_problem(await audited(kit), "the init's api_key in no callback's body", problem)


@check("callbacks.path", "init-6", "The path of server_url is kept as it is, percent signs and all.")
async def path(kit: Kit) -> None:
    rollout = await kit.start(trailing=ODD_PATH)
    await rollout.result()
    for call in _calls(rollout):
        if f"{ODD_PATH}/v1/" not in call.request.path:
            raise Failed(f"a path with {ODD_PATH}, as server_url has it", f"POST {call.request.path}")


@check(
    "callbacks.secret", "key-10 err-3", "The init's api_key is never echoed: in no answer and in no callback's body."
)
async def secret(kit: Kit) -> None:
    token = secrets.token_urlsafe(12)
    echo = Answer(400, encoded({"detail": f"The kit does not like the key {token}."}))
    good, bad = kit.play(api_key=token), kit.play(first(echo, then=answering()), api_key=token)
    refused = kit.play(on_completed=first(replace(echo, status=403), then=acknowledge), api_key=token)
    refused.has_delivery_faults = refused.is_refused_for_good = True
    answers = [await kit.send(good), await kit.send(bad), await kit.send(refused)]
    await kit.results((good, bad))
    await refused.over()
    await kit.settle()
    answers += [await kit.status(one.rollout_id) for one in (good, bad, refused)]
    told = replace(echo, status=503), Answer(302, b"", {"Location": f"{kit.trainer.base_url}/login?token={token}"})
    owed = [kit.play(on_completed=first(one, then=acknowledge), api_key=token) for one in told]
    for one in owed:
        one.has_delivery_faults = True
        answers.append(await kit.send(one))
        await one.wait_until(lambda played: bool(played.completions), "a terminal result")
    deadline = time.monotonic() + OWED_SECONDS
    while not all(one.is_over for one in owed) and time.monotonic() < deadline:
        answers += [await kit.status(one.rollout_id) for one in owed]
        await asyncio.sleep(POLL_SECONDS)
    kit.trainer.forget_strays("/login")
    answers.append(await kit.post(encoded({**kit.play().init, "api_key": token})[:-1]))
    refused_as = [("messages", [token]), *(("api_key", key) for key in ([token], *_bad_keys(token)))]
    answers += [await kit.post({**kit.play().init, "api_key": token, name: value}) for name, value in refused_as]
    answers.append(await kit.post({**good.init, "messages": [{"role": "user", "content": "another body"}]}))
    for call in (*_calls(good), *_calls(bad), *_calls(refused), *chain.from_iterable(map(_calls, owed))):
        if token.encode() in call.request.body:
            looked_at(call.rollout)
            where = next((f"its {name}" for name, value in call.fields.items() if token in str(value)), "its body")
            what = f"a POST to {_path(call)} without the api_key"
            raise Failed(what, f"the api_key in {where}", usually=TOLD_BACK if where == "its error_message" else None)
    for answer in answers:
        if any(token in text for text in (answer.text, *answer.headers.values())):
            asked = f"{answer.request.method} {answer.request.url.path}"
            for rollout in (good, bad, refused, *owed):
                if asked.endswith(rollout.rollout_id):
                    looked_at(rollout)
            where = next((name for name in ("last_error", "result") if token in str(field_of(answer, name))), "")
            usually = QUOTED if answer.status_code == 422 else TOLD_BACK_IN_STATE if where == "last_error" else None
            what = f"an answer {answer.status_code} to {asked} without the api_key"
            raise Failed(what, f"the api_key in its {where}" if where else "the api_key in it", usually=usually)


def _bad_keys(token: str) -> tuple[str, ...]:
    """Keys that are refused for their characters, and one for its length; the token is left by an escape, or a cut."""
    return f"kit {token} ", f"kit\x00{token}\nkit", f"kit-\u00e9{token}\u00e9", token * 300


@check("callbacks.order", "way-7 order-1", "The terminal result comes last: no call for a completion after it.", AUDIT)
async def order(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        if not rollout.completions or rollout.is_shared:
            return ""
        late = [chat for chat in rollout.chats if chat.order > rollout.completions[0].order]
        return f"{len(late)} after it, {'first ' if len(late) > 1 else ''}{rollout.name_of(late[0])}" if late else ""

    first_problem(await audited(kit), "no call for a completion after the terminal result", problem)


@check("callbacks.once", "way-1", "A rollout has one terminal result; a repeated delivery has the same content.", AUDIT)
async def once(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        count = len(rollout.completions)
        is_repeated = count > 1 and not rollout.has_delivery_faults
        repeated = f"{count} deliveries, though the first was answered 200" if is_repeated else ""
        return rollout.contradiction() or repeated

    rollouts = await audited(kit)
    usually = MADE_ANEW if any(rollout.contradiction() for rollout in rollouts) else None
    first_problem(rollouts, "one terminal result", problem, usually)


@check("callbacks.every", "way-1", "Every init that got a 202 ends in a terminal result.", AUDIT)
async def every(kit: Kit) -> None:
    rollouts = await audited(kit)
    lost = [rollout for rollout in rollouts if _is_lost(rollout)]
    first_problem(
        rollouts,
        "a terminal result for every 202",
        lambda rollout: f"none that was acknowledged, after {rollout.calls_in_words}" if _is_lost(rollout) else "",
        _usual_loss(lost),
    )


def _is_lost(rollout: PlayedRollout) -> bool:
    # One whose body was refused was offered; that it comes once more, without its messages, is a SHOULD of its own.
    return not rollout.is_over and not (rollout.completions and rollout.completions[-1].refuses_body)


def _usual_loss(lost: list[PlayedRollout]) -> str | None:
    if any(rollout.completions for rollout in lost):
        return OFFERED_ONCE
    if any(rollout.chats for rollout in lost):
        return NOT_DELIVERED
    return KEY_KEPT if 2 * sum(rollout.was_refused_first for rollout in lost) > len(lost) else NEVER_BEGAN


@check("callbacks.refused", "way-3", "An init that was refused starts nothing.", AUDIT)
async def refused(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        calls = len(_calls(rollout))
        was_refused = bool(rollout.statuses) and 202 not in rollout.statuses
        return f"{calls} callbacks" if calls and was_refused else ""

    first_problem(await audited(kit, refused_too=True), "no callbacks for a refused init", problem)


@check("callbacks.trace", "http-13", "The trace that an init's traceparent names is that of every callback.")
async def trace(kit: Kit) -> None:
    # All at once, so that each has to keep its own.
    model, away = kit.hold(), {"Retry-After": "0"}
    held = waiting_for(model, refusing(500, 1, calling_offered_tools()))
    rollouts = {
        kit.play(held, refusing(503, 1, acknowledge, away)): secrets.token_hex(16),
        kit.play(waiting_for(model, refusing(400, None, answering()))): secrets.token_hex(16),
        kit.play(waiting_for(model, answering())): secrets.token_hex(16),
    }
    for number, (rollout, trace_id) in enumerate(rollouts.items()):
        rollout.has_delivery_faults = number == 0
        name = "Traceparent" if number else "traceparent"  # names of headers have no case
        headers = {name: f"00-{trace_id}-{secrets.token_hex(8)}-01", "tracestate": f"kit={number}"}
        kit.took(rollout, await kit.post(rollout.init, headers=headers))
        await rollout.first_chat()
    model.set()
    await kit.results(rollouts)
    for number, (rollout, trace_id) in enumerate(rollouts.items()):
        looked_at(rollout)
        without = [rollout.name_of(call) for call in _calls(rollout) if not _is_of_trace(call, trace_id)]
        having = [rollout.name_of(call) for call in _calls(rollout) if _is_of_trace(call, trace_id)]
        for call in _calls(rollout):
            where = rollout.name_of(call)
            sent = call.request.headers.get("traceparent", "none")
            if where in without:
                is_other = any(one in sent for one in rollouts.values())
                usually = depends_on(without, having) if having else None
                usually = "the trace is kept for the process: keep it with the rollout" if is_other else usually
                raise Failed(f"a traceparent of the trace {trace_id} with {where}", quoted(sent), usually=usually)
            state = call.request.headers.get("tracestate", "none")
            if f"kit={number}" not in state:
                raise Failed(f"the tracestate 'kit={number}' with {where}", quoted(state))


def _is_of_trace(call: Call, trace_id: str) -> bool:
    return trace_id in call.request.headers.get("traceparent", "").split("-")


@check("callbacks.tracestate", "http-19", "Several lines of tracestate are passed on, all of them, in their order.")
async def tracestate(kit: Kit) -> None:
    rollout = kit.play()
    headers = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
    # Names that differ in case are two lines of one header.
    kit.took(rollout, await kit.post(rollout.init, headers={**headers, "tracestate": "kit=1", "Tracestate": "more=2"}))
    await rollout.result()
    for call in _calls(rollout):
        sent = call.request.headers.get("tracestate", "none")
        if not 0 <= sent.find("kit=1") < sent.find("more=2"):
            raise Failed("the tracestate 'kit=1,more=2' of an init with a line for each of the two", quoted(sent))


@check("callbacks.user_agent", "http-8", "Callbacks have a User-Agent, and ask for no content coding.", AUDIT)
async def user_agent(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        for call in _calls(rollout):
            if not call.request.headers.get("user-agent"):
                return "no User-Agent"
            coding = call.request.headers.get("accept-encoding", "identity")
            if coding not in ("identity", ""):
                return f"Accept-Encoding {quoted(coding)}"
        return ""

    first_problem(await audited(kit), "a User-Agent, and no Accept-Encoding but identity, in a callback", problem)
