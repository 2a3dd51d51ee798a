"""Defects that fresh readers of the page planted, and those of the questions that they had left open."""

import asyncio
import json
from typing import Any

import httpx
from starlette.requests import Request

from servers.model import ATTEMPTS, TRACE, ChatError, Json, Refusal, Rollout
from servers.mutants.mechanism import mutant
from servers.small import SmallServer


async def asks_for_room_first(self: SmallServer, usual: Any, init: Json) -> Any:
    self.require_room()
    return await usual(init)


async def takes_the_newest_trace(self: SmallServer, usual: Any, init: Json) -> Any:
    if self.key_of(init) in self.rollouts:
        self.__dict__["newest_trace"] = TRACE.get()
    return await usual(init)


def wants_a_length(self: SmallServer, usual: Any, **about: Any) -> None:
    async def refuse(response: httpx.Response) -> None:
        if response.status_code != 204 and not {"content-length", "transfer-encoding"} & response.headers.keys():
            raise httpx.ReadError("The reply does not say how long it is")

    usual(**about)
    self.http.event_hooks = {"response": [refuse]}


async def bounds_what_is_announced(self: SmallServer, usual: Any, request: Request) -> bytes:
    return await (usual(request) if "content-length" in request.headers else request.body())


def reads_the_first_value(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        text = body.decode()
        return dict(usual(text[: json.JSONDecoder().raw_decode(text)[1]].encode()))
    except ValueError:
        return dict(usual(body))


def reads_names_in_any_case(self: SmallServer, usual: Any, response: httpx.Response) -> Json | None:
    completion = usual(response)
    if isinstance(completion, dict) and isinstance(completion.get("choices"), list):
        choices = [{name.lower(): value for name, value in dict(one).items()} for one in completion["choices"]]
        return {**completion, "choices": choices}
    return completion if completion is None else dict(completion)


async def counts_attempts_of_a_rollout(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    failed = rollout.attempts - rollout.metrics["num_llm_calls"]
    self.__dict__["attempts"] = max(1, ATTEMPTS - failed)
    return dict(await usual(rollout))


async def keeps_the_last_error(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> str:
    before = rollout.last_error
    state = str(await usual(rollout, result))
    rollout.last_error = rollout.last_error or before
    return state


def looks_at_no_element(self: SmallServer, usual: Any, params: Any) -> bool:
    has_list = isinstance(params, dict) and isinstance(params.get("stop"), list)
    return bool(usual({**params, "stop": []} if has_list else params))


def answers_bad_calls_first(self: SmallServer, usual: Any, rollout: Rollout, calls: list[Json]) -> list[Json]:
    return sorted(usual(rollout, calls), key=lambda one: "Error" not in one["content"])


async def delivers_one_after_the_other(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    async with self.__dict__.setdefault("courier", asyncio.Lock()):
        await usual(rollout, result)


def left(init: Json) -> Rollout:
    """A rollout that is known, and does not run."""
    rollout = Rollout(init, "")
    rollout.state = "undeliverable"
    return rollout


async def knows_what_it_refused(self: SmallServer, usual: Any, init: Json) -> Any:
    try:
        return await usual(init)
    except Refusal:
        self.rollouts.setdefault(f"refused:{init['rollout_id']}", left(init))
        raise


async def knows_the_second_id(self: SmallServer, usual: Any, init: Json) -> Any:
    known = self.rollouts.get(self.key_of(init))
    if known is not None and known.init["rollout_id"] != init["rollout_id"]:
        self.rollouts[f"second:{init['rollout_id']}"] = left(init)
    return await usual(init)


async def asks_for_room_once_full(self: SmallServer, usual: Any, init: Json) -> Any:
    if self.key_of(init) in self.rollouts and self.capacity == 30:
        self.capacity += 9  # as where nine of others have ended
    return await asks_for_room_first(self, usual, init)


def counts_calls_that_could_be_made(self: SmallServer, usual: Any, rollout: Rollout, calls: list[Json]) -> list[Json]:
    answers: list[Json] = usual(rollout, calls)
    rollout.metrics["num_tool_calls"] -= sum(one["content"].startswith("Error") for one in answers)
    return answers


mutant("asks-for-room-first", "load.overload", capacity=30, accept=asks_for_room_first)
mutant("asks-for-room-once-full", "load.overload", capacity=30, accept=asks_for_room_once_full)
mutant(
    "takes-an-empty-api-key-for-one",
    "callbacks.key",
    credentials=lambda s, usual, rollout, path: (
        {"Authorization": "Bearer"} if rollout.init.get("api_key") == "" else usual(rollout, path)
    ),
)
mutant(
    "counts-pages-with-429",
    "retries.pause",
    is_pause=lambda s, usual, r, c: usual(r, c) and not (r.status_code == 429 and s.is_page(r)),
)
mutant(
    "takes-the-newest-trace",
    "idempotency.callback_key",
    accept=takes_the_newest_trace,
    trace=lambda s, usual, path: s.__dict__.get("newest_trace") or usual(path),
)
mutant("wants-the-length-of-replies", "chat.any_head delivery.any_body", __init__=wants_a_length)
mutant(
    "has-a-model-of-its-own",
    "chat.sampling chat.more_sampling",
    chat_body=lambda s, usual, rollout: usual(rollout) | {"model": "default"},
)
mutant("reads-the-first-value", "invalid.not_json", parse=reads_the_first_value)
mutant(
    "detects-the-coding-of-json",
    "invalid.not_json",
    parse=lambda s, usual, body: usual(json.dumps(json.loads(body)).encode() if b"\0" in body else body),
)
mutant(
    "replaces-what-is-no-utf-8",
    "invalid.not_json",
    parse=lambda s, usual, body: usual(body.decode("utf-8", "replace").encode()),
)
mutant(
    "reads-names-in-any-case",
    "init.unknown_fields",
    parse=lambda s, usual, body: {name.lower(): value for name, value in usual(body).items()},
)
mutant("reads-names-of-a-reply-in-any-case", "chat.unknown_reply_fields", completion_in=reads_names_in_any_case)
mutant("counts-attempts-of-a-rollout", "retries.later", total=True, chat=counts_attempts_of_a_rollout)
mutant(
    "counts-nothing-of-an-error",
    "errors.counts",
    failed=lambda s, usual, r, e, o: usual(r, e, o) | {"metrics": dict.fromkeys(s.measured(r), 0)},
)
mutant("bounds-what-is-announced", "invalid.body_size", body_of=bounds_what_is_announced)
mutant("keeps-the-last-error", "state.attempts", offer=keeps_the_last_error)
mutant("counts-offers-twice", "state.attempts", view=lambda s, usual, r: usual(r) | {"delivery_attempts": 2 * r.offers})
mutant("counts-no-offers", "state.attempts", view=lambda s, usual, r: usual(r) | {"delivery_attempts": 0})
mutant(
    "looks-at-no-element-of-stop",
    "invalid.sampling",
    are_params=looks_at_no_element,
)
mutant("answers-bad-calls-first", "tools.order", answer_calls=answers_bad_calls_first)
mutant("delivers-one-after-the-other", "load.beside_owed", silent=True, deliver=delivers_one_after_the_other)
mutant(
    "reads-the-first-tracestate",
    "callbacks.tracestate",
    trace_of=lambda s, usual, request: {
        **usual(request),
        **({"tracestate": request.headers["tracestate"]} if "tracestate" in request.headers else {}),
    },
)
mutant(
    "has-doubles-in-messages",
    "chat.large_number",
    conversation=lambda s, usual, r: json.loads(json.dumps(usual(r)), parse_int=lambda text: int(float(text))),
)
mutant(
    "wants-a-content",
    "tools.no_content",
    recorded=lambda s, usual, message: usual({**message, "content": message["content"]}),
)
mutant("knows-what-it-refused", "state.refused", accept=knows_what_it_refused)
mutant("knows-the-second-id", "idempotency.two_ids", accept=knows_the_second_id)
mutant(
    "counts-calls-that-could-be-made",
    "completed.tool_counts",
    answer_calls=counts_calls_that_could_be_made,
)
mutant(
    "counts-errors-as-active",
    "state.health",
    active=lambda s, usual: usual() + sum(one.result.get("status") == "ERROR" for one in s.rollouts.values()),
)


def adds_up_null_counts(self: SmallServer, usual: Any, response: httpx.Response) -> Json | None:
    found: Json | None = usual(response)
    if found is not None and None in (found.get("usage") or {}).values():
        raise ChatError("TypeError: int + None")
    return found


def fails_on_a_null_usage(self: SmallServer, usual: Any, response: httpx.Response) -> Json | None:
    found: Json | None = usual(response)
    if found is not None and found.get("usage", {}) is None:
        raise ChatError("'NoneType' object has no attribute 'get'")
    return found


def has_nested_arguments(call: Json) -> bool:
    try:
        return any(isinstance(value, dict) for value in json.loads(call["function"]["arguments"]).values())
    except (ValueError, TypeError, AttributeError):
        return False


async def tells_its_key_with_an_error(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> str:
    state = str(await usual(rollout, result))
    rollout.last_error = rollout.last_error and f"{rollout.last_error} for {rollout.init.get('api_key')}"
    return state


mutant("adds-up-null-counts", "completed.usage", completion_in=adds_up_null_counts)
mutant("fails-on-a-null-usage", "chat.null_fields", completion_in=fails_on_a_null_usage)
mutant(
    "answers-nested-calls-last",
    "tools.order",
    answer_calls=lambda s, usual, r, calls: usual(r, sorted(calls, key=has_nested_arguments)),
)
mutant("tells-its-key-with-an-error", "callbacks.secret", offer=tells_its_key_with_an_error)


def breaks_on(*spellings: str) -> Any:
    """A tool whose numbers are read by a pattern of its own."""

    def tool_result(self: SmallServer, usual: Any, call: Json) -> str:
        assert not any(f": {one}" in str(call["function"]["arguments"]) for one in spellings)
        return str(usual(call))

    return tool_result


def rounds_exponents(self: SmallServer, usual: Any, message: Json) -> Json:
    text = json.dumps(message)
    return dict(usual(json.loads(text.replace("1e-07", "0.0")) if "1e-07" in text else message))


mutant("knows-no-exponents", "tools.every_tool", tool_result=breaks_on("25e-1"))
mutant("knows-no-negative-numbers", "tools.every_tool", tool_result=breaks_on("-2.5", "-0"))
mutant("rounds-exponents", "chat.reply_kept", recorded=rounds_exponents)
