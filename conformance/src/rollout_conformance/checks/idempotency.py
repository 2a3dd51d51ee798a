"""The same init again: it starts nothing, and gets the first answer."""

import asyncio
import json
import secrets
from typing import Any

import httpx

from rollout_conformance.asking import describe
from rollout_conformance.catalogue import check
from rollout_conformance.endpoint import Answer
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout
from rollout_conformance.scripts import acknowledge, answering, encoded, first, owing, waiting_for
from rollout_conformance.strict_json import first_difference, is_same_document, parse_object
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import Failed

CONCURRENT_INITS = 8
NULL_IS_A_VALUE = "a null within is taken for an absent field: only the fields of the table have defaults"
TRUE_IS_ONE = "true is taken for 1, as by Python's ==: compare what both are written as"
LEFT_OUT = "this part of the request is left out of what is compared, or put right before it"
TAKEN_OVER = (
    "a request is noted under its key before it is compared: what is refused must not replace what is on record"
)
DEFAULTS: dict[str, Any] = {"max_turns": 10, "max_tokens_total": 8192, "metadata": {}}


def _require_same(first: httpx.Response, again: httpx.Response, after: str = "", usually: str | None = None) -> None:
    if again.status_code != 202:
        raise Failed(f"202 to a repeated init{after}", describe(again), usually=usually)
    if not is_same_document(first.content, again.content):
        differs = first_difference(first.content, again.content)
        raise Failed("the first answer to a repeated init", f"another, which differs at {differs}")


async def _require_one_run(kit: Kit, rollout: PlayedRollout) -> None:
    await rollout.result()
    await kit.settle()
    if len(rollout.completions) > 1:
        raise Failed("one terminal result", f"{len(rollout.completions)} under one idempotency key")
    opening = [call for call in rollout.chats if len(call.messages) == len(rollout.init["messages"])]
    if len(opening) > 1:
        raise Failed("one run of the agent", f"{len(opening)} first calls for a completion under one idempotency key")


@check("idempotency.while_running", "same-1 way-4", "An init repeated while its rollout runs gets the first answer.")
async def while_running(kit: Kit) -> None:
    model = kit.hold()
    rollout = kit.play(waiting_for(model, answering()))
    first = await kit.send(rollout)
    _require_same(first, await kit.post(rollout.init))
    model.set()
    await _require_one_run(kit, rollout)


@check("idempotency.concurrent", "same-2", f"Of {CONCURRENT_INITS} equal inits at once, one starts a rollout.")
async def concurrent(kit: Kit) -> None:
    rollout = kit.play()
    answers = await asyncio.gather(*(kit.post(rollout.init) for _ in range(CONCURRENT_INITS)))
    kit.took(rollout, answers[0])
    for answer in answers[1:]:
        _require_same(answers[0], answer)
    await _require_one_run(kit, rollout)


@check("idempotency.concurrent_conflict", "same-8", "Of two bodies at once under one key one is taken.")
async def concurrent_conflict(kit: Kit) -> None:
    rollout = kit.play()
    bodies = [rollout.init, {**rollout.init, "metadata": {"ground_truth": "5"}}] * CONCURRENT_INITS
    answers = await asyncio.gather(*(kit.post(body) for body in bodies))
    taken = {n % 2 for n, answer in enumerate(answers) if answer.status_code == 202}
    odd = next((one for n, one in enumerate(answers) if one.status_code != (202 if n % 2 in taken else 409)), None)
    if len(taken) != 1 or odd is not None:
        got = describe(odd) if len(taken) == 1 and odd is not None else f"202 to {len(taken)} of them"
        raise Failed("202 to one of two bodies at once under one key, and 409 to the other", got)
    kit.took(rollout, answers[taken.pop()])
    await _require_one_run(kit, rollout)


@check("idempotency.after_completion", "same-1", "An init repeated after the result gets the first answer.")
async def after_completion(kit: Kit) -> None:
    rollout = kit.play()
    first = await kit.send(rollout)
    await rollout.result()
    # The server has yet to read the acknowledgement.
    await kit.settle()
    _require_same(first, await kit.post(rollout.init))
    await _require_one_run(kit, rollout)


@check("idempotency.two_ids", "same-4", "Two ids under one idempotency_key are one rollout: the first one's.")
async def two_ids(kit: Kit) -> None:
    rollout = kit.play()
    rollout.init["idempotency_key"] = f"{rollout.rollout_id}/1"
    first = await kit.send(rollout)
    other = f"{rollout.rollout_id}-other"
    _require_same(first, await kit.post({**rollout.init, "rollout_id": other}))
    if (state := await kit.status(other)).status_code != 404:
        raise Failed("404 to the state of the second of two ids under one idempotency_key", describe(state))
    await _require_one_run(kit, rollout)


@check("idempotency.two_keys", "same-4", "The same rollout_id under another idempotency_key is another rollout.")
async def two_keys(kit: Kit) -> None:
    model = kit.hold()
    one = kit.play(waiting_for(model, answering()))
    other = kit.play(rollout_id=one.rollout_id, messages=one.init["messages"])
    for number, rollout in enumerate((one, other)):
        rollout.init["idempotency_key"] = f"{one.rollout_id}/{number}"
        rollout.is_shared = True
    await kit.send(one)
    await one.first_chat()
    await kit.send(other)
    results = [await other.result()]
    model.set()
    results.append(await one.result())
    for result in results:
        if result.get("status") != "COMPLETED":
            got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
            raise Failed("COMPLETED, of each of two rollouts of one id that run at once under two keys", got)


@check("idempotency.two_spaces", "same-17", "An idempotency_key that reads like another rollout's id is another key.")
async def two_spaces(kit: Kit) -> None:
    one = kit.play()
    other = kit.play(idempotency_key=one.rollout_id, messages=one.init["messages"])
    for rollout in (one, other):
        answer = parse_object((await kit.send(rollout)).content)
        if answer.get("rollout_id") != rollout.rollout_id:
            raise Failed(f"the rollout_id {rollout.rollout_id} in the 202", quoted(answer.get("rollout_id")))
        await rollout.result()


@check("idempotency.conflict", "same-8", "Another body under a used key is 409, and starts nothing.")
async def conflict(kit: Kit) -> None:
    rollout = kit.play()
    rollout.init["completion_params"] = {**rollout.init["completion_params"], "seed": 1, "stop": ["a", "b"]}
    first = await kit.send(rollout)
    await rollout.result()
    message = {"role": "user", "content": "Something else altogether."}
    params = rollout.init["completion_params"]
    others: list[tuple[str, Any]] = [
        ("messages", [message]),
        ("messages", rollout.init["messages"][::-1]),
        ("completion_params", {"temperature": 0.123}),
        ("completion_params", {**params, "seed": True}),
        ("completion_params", {**params, "seed": "1"}),
        ("completion_params", {**params, "stop": ["b", "a"]}),
        ("completion_params", {**params, "x_own": None}),
        ("metadata", {"ground_truth": "5"}),
        ("max_turns", 3),
        ("max_tokens_total", 4_321),
        ("tool_server_url", "http://tools.example"),
        ("server_url", f"{rollout.init['server_url']}/elsewhere"),
        ("server_url", f"{rollout.init['server_url']}/"),
        ("server_url", rollout.init["server_url"].replace("http", "HTTP", 1)),
    ]
    answers = await asyncio.gather(*(kit.post({**rollout.init, name: value}) for name, value in others))
    taken_alike = [one for one, response in zip(others, answers, strict=True) if response.status_code != 409]
    for (name, value), response in zip(others, answers, strict=True):
        if response.status_code != 409:
            where = first_difference(encoded(rollout.init), encoded({**rollout.init, name: value}))
            usually = {"None": NULL_IS_A_VALUE, "True": TRUE_IS_ONE}.get(where.rpartition(" ")[2], LEFT_OUT)
            what = f"409 under a used key to an init that differs at {where}"
            raise Failed(what, describe(response), usually=usually if len(taken_alike) < len(others) else None)
        if parse_object(response.content).get("code") != "key_reused":
            raise Failed("the code 'key_reused' with the 409", describe(response))
    # Nor does the refused one take the place of the first.
    if (answer := await kit.post({**rollout.init, "messages": [message]})).status_code != 409:
        raise Failed("409 again to an init that was refused with 409", describe(answer), usually=TAKEN_OVER)
    _require_same(first, await kit.post(rollout.init), ", after another one under its key was refused", TAKEN_OVER)
    await _require_one_run(kit, rollout)
    if any(message in call.messages for call in rollout.chats):
        raise Failed("nothing of a refused init", quoted(message))


def _reversed(value: Any) -> Any:
    """With the members of each object in the other order."""
    if isinstance(value, dict):
        return {name: _reversed(inner) for name, inner in reversed(value.items())}
    return list(map(_reversed, value)) if isinstance(value, list) else value


@check(
    "idempotency.no_key",
    "same-17",
    "An idempotency_key that is empty, null or absent is none: the rollout_id is the key.",
)
async def no_key(kit: Kit) -> None:
    for value in ("", None, ...):
        one, other = kit.play(idempotency_key=value), kit.play(idempotency_key=value)
        for rollout in (one, other):
            answer = await kit.post(rollout.init)
            if answer.status_code != 202 or parse_object(answer.content).get("rollout_id") != rollout.rollout_id:
                what = "202 with the rollout_id" if answer.status_code == 202 else "202"
                said = "without" if value is ... else f"with {quoted(value)} as"
                raise Failed(f"{what} to each of two inits {said} idempotency_key", describe(answer))
            kit.took(rollout, answer)
        _require_same(answer, await kit.post(other.init))
        await kit.results((one, other))


@check(
    "idempotency.other_ids",
    "same-4 init-9",
    "Ids and keys that differ in case, or in how a letter is composed, are others.",
)
async def other_ids(kit: Kit) -> None:
    own = secrets.token_hex(4)
    alike = ((f"Kit-{own}-Z\u00fc", f"kit-{own}-z\u00fc"), (f"kit-{own}-\u00e9", f"kit-{own}-e\u0301"))
    for value in (value for pair in alike for value in pair):
        for fields in ({"rollout_id": value}, {"idempotency_key": f"{value}/1"}):
            rollout = kit.play(None, None, **fields)
            answer = await kit.post(rollout.init)
            # For the other one's it would be a repeat, or a conflict.
            if answer.status_code != 202 or parse_object(answer.content).get("rollout_id") != rollout.rollout_id:
                raise Failed(f"202 with its rollout_id to an init with {quoted(fields)}", describe(answer))
            kit.took(rollout, answer)
            await rollout.result()


@check(
    "idempotency.after_error", "same-1 way-4", "An init repeated after an ERROR, or a cancel, gets the first answer."
)
async def after_error(kit: Kit) -> None:
    failing = kit.play(first(Answer(400), then=answering()))
    cancelled = kit.play(waiting_for(kit.hold(), answering()))
    answers = [await kit.send(failing), await kit.send(cancelled)]
    await cancelled.first_chat()
    await kit.cancel_where_it_runs(cancelled.rollout_id)
    await failing.result()
    await kit.settle()
    kit.release()
    for rollout, answer in zip((failing, cancelled), answers, strict=True):
        await rollout.result()
        _require_same(answer, await kit.post(rollout.init))
    await asyncio.gather(*(_require_one_run(kit, rollout) for rollout in (failing, cancelled)))


@check(
    "idempotency.undeliverable",
    "same-1",
    "An init repeated after its result was refused for good gets the first answer.",
)
async def undeliverable(kit: Kit) -> None:
    rollout = kit.play(on_completed=first(Answer(403), then=acknowledge))
    rollout.has_delivery_faults = rollout.is_refused_for_good = True
    answer = await kit.send(rollout)
    await rollout.over()
    await kit.settle()
    _require_same(answer, await kit.post(rollout.init))
    await kit.settle()
    if len(rollout.chats) > 1:
        raise Failed("one run of the agent", f"{len(rollout.chats)} calls, as the result was refused")


@check(
    "idempotency.restated", "same-5", "An init that says the same in other words is the same: order, spaces, defaults."
)
async def restated(kit: Kit) -> None:
    unsaid = {name: value for name, value in DEFAULTS.items() if name not in kit.options.init_fields}
    rollout = kit.play(waiting_for(model := kit.hold(), answering()))
    rollout.init = {name: value for name, value in rollout.init.items() if name not in unsaid}
    rollout.init["messages"] = [*rollout.init["messages"], {"role": "user", "content": "\u00dcber \u65e5"}]
    first = await kit.send(rollout)
    said = {
        "with its members in another order": encoded(_reversed(rollout.init)),
        "with spaces between, and texts that are not escaped": json.dumps(
            rollout.init, indent=2, ensure_ascii=False
        ).encode(),
        "with a field that the table does not have": encoded({**rollout.init, "x_from_a_later_version": 1}),
        **{f"with the default of {name} said": encoded({**rollout.init, name: v}) for name, v in unsaid.items()},
        "with null for tool_server_url": encoded({**rollout.init, "tool_server_url": None}),
    }
    answers = await asyncio.gather(*map(kit.post, said.values()))
    model.set()
    for how, answer in zip(said, answers, strict=True):
        _require_same(first, answer, f" {how}", f"an init {how} is taken for another: compare values")
    await _require_one_run(kit, rollout)


def _trace() -> tuple[str, dict[str, str]]:
    trace_id = secrets.token_hex(16)
    return trace_id, {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}


@check(
    "idempotency.callback_key",
    "same-9",
    "A repeat with another api_key or traceparent does not change those of the callbacks.",
)
async def callback_key(kit: Kit) -> None:
    model, own, (_, headers) = kit.hold(), secrets.token_urlsafe(12), _trace()
    rollout = kit.play(waiting_for(model, answering()), api_key=own)
    first = await kit.post(rollout.init, headers=headers)
    kit.took(rollout, first)
    await rollout.first_chat()
    other_id, others = _trace()
    repeated = await kit.post({**rollout.init, "api_key": secrets.token_urlsafe(12)}, headers=others)
    _require_same(first, repeated)
    model.set()
    await _require_one_run(kit, rollout)
    for call in (*rollout.chats, *rollout.completions):
        if call.request.headers.get("authorization") != f"Bearer {own}":
            raise Failed("the api_key of the first init in a callback", f"another with {rollout.name_of(call)}")
        # One that is neither's has nothing to do with the repeat.
        if other_id in call.request.headers.get("traceparent", ""):
            usually = "a repeated init writes its traceparent into the record"
            got = f"that of its repeat with {rollout.name_of(call)}"
            raise Failed("the trace of the first init in a callback", got, usually=usually)


@check(
    "idempotency.owed",
    "same-11 same-9",
    "An init repeated while its result is refused for a time gets the first answer.",
)
async def owed(kit: Kit) -> None:
    was_repeated = kit.hold()
    own = secrets.token_urlsafe(12)
    rollout = kit.play(on_completed=owing(was_repeated), api_key=own)
    rollout.has_delivery_faults = True
    first = await kit.send(rollout)
    await rollout.wait_until(lambda played: bool(played.completions), "a terminal result")
    _require_same(first, await kit.post({**rollout.init, "api_key": secrets.token_urlsafe(12)}))
    # One may have been on its way: the next but one was made after the repeat.
    count = len(rollout.completions)
    await rollout.wait_until(lambda played: len(played.completions) > count, "the result again after 503")
    was_repeated.set()
    await rollout.result()
    if any(call.request.headers.get("authorization") != f"Bearer {own}" for call in rollout.completions):
        raise Failed("the api_key of the first init with a result that is owed", "another")
    await kit.settle()
    if rollout.contradiction() or len(rollout.chats) > 1:
        raise Failed("one run, whose result is owed", f"{len(rollout.chats)} calls; {rollout.contradiction()}")


@check("idempotency.after_refusal", "same-13", "A refused init does not take its key: put right, it is accepted.")
async def after_refusal(kit: Kit) -> None:
    rollout = kit.play()
    response = await kit.post({**rollout.init, "messages": "none"})
    if response.status_code == 202:
        raise Failed("a 4xx to an init whose messages are no list", describe(response))
    await kit.send(rollout)
    await rollout.result()
