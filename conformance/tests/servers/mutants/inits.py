"""Defects of what takes an init, and of the rest of the HTTP interface."""

import asyncio
import codecs
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from servers.model import Json, Refusal, Rollout
from servers.mutants.mechanism import mutant
from servers.small import MAX_BODY_BYTES, MAX_METADATA_BYTES, SmallServer


def crashing(reason: str, if_: Any) -> Any:
    """The method, but for a 500 where its first argument says so."""

    def method(self: SmallServer, usual: Any, value: Any, *more: Any) -> Any:
        if if_(value):
            raise Refusal(500, reason)
        return usual(value, *more)

    return method


def rule(name: str, holds: Any) -> Any:
    """``rules`` with another rule for one field."""
    return lambda self, usual, init: usual(init) | {name: holds(init)}


# The init and its answer


async def answers_late(self: SmallServer, usual: Any, init: Json) -> Response:
    answer: Response = await usual(init)
    await asyncio.wait(self.running)
    return answer


async def answers_200(self: SmallServer, usual: Any, init: Json) -> Response:
    answer: Response = await usual(init)
    answer.status_code = 200
    return answer


async def runs_while_connected(self: SmallServer, usual: Any, request: Request) -> Response:
    await request.body()
    await asyncio.sleep(0.05)
    if await request.is_disconnected():
        self.rollouts["id:" + json.loads(await request.body())["rollout_id"]] = Rollout(
            {"server_url": "", "messages": []}, ""
        )
        return Response(status_code=499)
    answer: Response = await usual(request)
    return answer


async def forgets_who_hangs_up(self: SmallServer, usual: Any, request: Request) -> Response:
    await request.body()
    await asyncio.sleep(0.05)
    return Response(status_code=499) if await request.is_disconnected() else await usual(request)


def function_of(tools: list[Json], **change: Any) -> list[Json]:
    first, *more = tools
    return [{**first, "function": {**first["function"], **change}}, *more]


REQUIRING = {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a", "c"]}

mutant("runs-before-its-202", "init.at_once", accept=answers_late)
mutant("makes-ids-of-its-own", "init.accepted ids.odd", reply=lambda s, usual, i: usual(i) | {"rollout_id": "mine"})
mutant("answers-200", "init.accepted", total=True, accept=answers_200)
mutant("refuses-nulls", "init.nulls", rules=rule("api_key", lambda init: isinstance(init.get("api_key", ""), str)))
mutant("requires-what-is-not-there", "init.tools", tools=lambda s, usual: function_of(usual(), parameters=REQUIRING))
mutant("requires-every-field", "init.required_only", rules=rule("max_turns", lambda init: "max_turns" in init))
mutant(
    "refuses-unknown-fields",
    "init.unknown_fields",
    rules=lambda s, usual, init: (known := usual(init)) | {n: n == "tool_server_url" for n in init if n not in known},
)
mutant("writes-nulls-into-tools", "init.tool_nulls", tools=lambda s, usual: function_of(usual(), strict=None))
mutant("drops-who-hangs-up", "init.hang_up", silent=True, init=runs_while_connected)
mutant("forgets-who-hangs-up", "init.hang_up", silent=True, init=forgets_who_hangs_up)


# The rest of the interface


async def busy(self: SmallServer, usual: Any, request: Request) -> Response:
    return JSONResponse({"detail": "busy"}, 500)


async def says_ok(self: SmallServer, usual: Any, request: Request) -> Response:
    return Response("ok")


async def redirects(self: SmallServer, usual: Any, request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "Look elsewhere"}, 400)


async def says_it_plainly(self: SmallServer, usual: Any, request: Request, error: Exception) -> Response:
    return Response("Not Found", getattr(error, "status_code", 500))


mutant("has-no-health", "http.health", health=busy)
mutant("is-ready-in-words", "http.ready", ready=says_ok)
mutant("knows-no-404", "http.unknown", refused=redirects)
mutant("refuses-in-plain-text", "http.refusals", refused=says_it_plainly)

# Its key

mutant(
    "forgets-to-authorize",
    "auth.missing auth.wrong auth.first auth.everywhere",
    needs="key",
    authorize=lambda s, u, h: None,
)
mutant(
    "compares-the-start-of-a-key",
    "auth.wrong",
    needs="key",
    authorize=lambda self, usual, header: usual(header[: len("Bearer ") + len(self.api_key or "")]),
)
mutant(
    "crashes-on-odd-keys", "auth.hostile", needs="key", authorize=crashing("UnicodeError", lambda h: not h.isascii())
)
mutant(
    "reads-bearer-with-case",
    "auth.scheme",
    needs="key",
    authorize=lambda s, usual, h: usual(h if h[0:1] != "b" else ""),
)
mutant("wants-the-word-bearer", "auth.raw_key", needs="key", authorize=lambda s, usual, h: usual(h if " " in h else ""))


def asks_for_its_key_later(self: SmallServer, usual: Any, header: str) -> None:
    """Only where the body was read."""


async def looks_at_the_body_first(self: SmallServer, usual: Any, request: Request) -> Response:
    try:
        self.read(await request.body())
    except Refusal as refusal:
        return refusal.answer
    answer: Response = await usual(request)
    return answer


def challenges_nobody(self: SmallServer, usual: Any, header: str) -> None:
    try:
        usual(header)
    except Refusal as refusal:
        del refusal.answer.headers["WWW-Authenticate"]
        raise


mutant("looks-at-the-body-first", "auth.first", needs="key", init=looks_at_the_body_first)
mutant("challenges-nobody", "auth.challenge", needs="key", authorize=challenges_nobody)
mutant(
    "tells-its-states-to-anybody", "auth.everywhere", needs="key", status=lambda s, u, request: open_status(s, request)
)


async def open_status(self: SmallServer, request: Request) -> Response:
    return JSONResponse(self.view(self.named(request.path_params["rollout_id"])))


# Bodies


def does_not_name_the_field(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal as refusal:
        raise Refusal(refusal.answer.status_code, "The body is wrong") from None


def echoes(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal as refusal:
        raise Refusal(422, f"{json.loads(bytes(refusal.answer.body))['detail']}: {body!r}") from None


def crashes_on_what_is_no_json(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal:
        if any(word in body for word in (b"NaN", b"Infinity", b"[[[", b"1e999", b"\\ud83d")):
            raise
        raise Refusal(500, "JSONDecodeError") from None


def crashes_on_nesting(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal as refusal:
        if isinstance(refusal.__cause__, RecursionError):
            raise Refusal(500, "RecursionError") from None
        raise


async def reads_to_the_end(self: SmallServer, usual: Any, request: Request) -> bytes:
    kept = b""
    async for chunk in request.stream():
        kept = kept if len(kept) > MAX_BODY_BYTES else kept + chunk
    return kept


def crashes_on_missing_fields(self: SmallServer, usual: Any, body: bytes) -> Json:
    init = self.parse(body.removeprefix(codecs.BOM_UTF8))
    if "messages" not in init or "completion_params" not in init:
        raise Refusal(500, "KeyError")
    return dict(usual(body))


def without_numbers(body: bytes) -> bytes:
    return body.replace(b"NaN", b"null").replace(b"-Infinity", b"0").replace(b"Infinity", b"0")


def is_positive(init: Json) -> bool:
    return isinstance(init.get("max_turns", 10), int)


def is_counted(init: Json) -> bool:
    return isinstance(init.get("max_turns", 10), int) and 1 <= init.get("max_turns", 10) <= 100_000


def is_object_or_empty(init: Json) -> bool:
    metadata = init.get("metadata") or {}
    return isinstance(metadata, dict) and len(json.dumps(metadata)) <= MAX_METADATA_BYTES


mutant("crashes-on-missing-fields", "invalid.fields", read=crashes_on_missing_fields)
mutant("takes-true-for-1", "invalid.fields", rules=rule("max_turns", is_counted))
mutant("takes-what-is-empty-for-absent", "invalid.fields", rules=rule("metadata", is_object_or_empty))
mutant("does-not-name-the-field", "invalid.named", read=does_not_name_the_field)
mutant("calls-any-url", "invalid.server_url invalid.odd_url", is_url=lambda s, u, url: isinstance(url, str))
mutant(
    "takes-odd-urls",
    "invalid.odd_url",
    is_url=lambda s, usual, url: usual(url) or (isinstance(url, str) and url.startswith("http://127.0.0.1:1/")),
)
mutant("takes-port-0", "invalid.odd_url", is_url=lambda s, usual, url: usual(url) or url == "http://127.0.0.1:0")
mutant("crashes-on-what-is-no-json", "invalid.not_json", parse=crashes_on_what_is_no_json)
mutant(
    "takes-nan-in-messages",
    "invalid.nan",
    parse=lambda s, usual, body: usual(without_numbers(body) if b'"2 + 2?", "x"' in body else body),
)
mutant("takes-nan", "invalid.nan", parse=lambda s, usual, body: usual(without_numbers(body)))
mutant("takes-1e999", "invalid.number", parse=lambda s, usual, body: usual(body.replace(b"1e999", b"1")))
mutant("takes-any-number", "invalid.bounds", rules=rule("max_turns", is_positive))
mutant("crashes-on-nesting", "invalid.nesting", parse=crashes_on_nesting)
mutant(
    "takes-any-metadata",
    "invalid.metadata_size",
    rules=rule("metadata", lambda i: isinstance(i.get("metadata", {}), dict)),
)
mutant("reads-bodies-of-any-size", "invalid.body_size", body_of=reads_to_the_end)
mutant("reads-any-content-type", "invalid.content_type invalid.encoded", require_json=lambda s, usual, request: None)
mutant(
    "takes-a-coding-for-rubbish",
    "invalid.encoded",
    require_json=lambda s, usual, request: None if "content-encoding" in request.headers else usual(request),
)
mutant(
    "takes-blank-ids",
    "invalid.blank_id invalid.fields",
    is_id=lambda s, usual, value: usual(value) or value in (" ", "   ", "\t"),
)
mutant(
    "takes-ids-without-a-path",
    "invalid.unreachable_id",
    is_id=lambda s, usual, value: usual(value) or value in ("init", ".", "..", "a\nb"),
)
mutant("takes-any-sampling", "invalid.sampling", are_params=lambda s, usual, params: isinstance(params, dict))
mutant(
    "trips-over-a-byte-order-mark",
    "invalid.byte_order_mark",
    read=crashing("JSONDecodeError", lambda b: b[:3] == codecs.BOM_UTF8),
)
mutant("echoes-the-body", "callbacks.secret", read=echoes)

# What of an init is told, and compared


def tells_the_key(self: SmallServer, usual: Any, header: str) -> None:
    try:
        usual(header)
    except Refusal:
        raise Refusal(401, f"The key is not {self.api_key}", WWW_Authenticate="Bearer") from None


def says_nothing_of_the_conflict(self: SmallServer, usual: Any, init: Json) -> str:
    known = self.rollouts.get(self.key_of(init))
    if known and known.fingerprint != usual(init):
        raise Refusal(409, "No")
    return str(usual(init))


def forgets_what_it_showed(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    return {**usual(rollout), "init": rollout.init}


mutant("tells-the-key", "auth.secret", needs="key", authorize=tells_the_key)
mutant("shows-its-inits", "callbacks.secret", view=forgets_what_it_showed)
mutant(
    "takes-line-breaks-in-keys",
    "invalid.bounds",
    rules=rule("api_key", lambda i: isinstance(i.get("api_key"), str | None)),
)
mutant(
    "takes-keys-of-any-length",
    "invalid.bounds",
    rules=rule("idempotency_key", lambda i: isinstance(i.get("idempotency_key"), str | None)),
)
mutant(
    "compares-messages-alone", "idempotency.conflict", fingerprint=lambda s, usual, init: json.dumps(init["messages"])
)
mutant(
    "compares-all-but-where",
    "idempotency.conflict",
    fingerprint=lambda s, usual, init: usual({**init, "server_url": ""}),
)
mutant("says-nothing-of-the-conflict", "idempotency.conflict", fingerprint=says_nothing_of_the_conflict)
mutant(
    "is-delivered-at-once",
    "state.undelivered",
    view=lambda s, usual, r: usual(r) | ({"state": "delivered"} if r.result else {}),
)
