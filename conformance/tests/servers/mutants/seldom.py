"""Defects that show only where few look: another spelling, another end, another status, beside another rollout."""

import asyncio
from typing import Any

import h11
import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from servers.model import CALL_SECONDS, TRACE, ChatError, Json, Refusal, Rollout
from servers.mutants.mechanism import mutant
from servers.small import SmallServer


def takes_a_trailer_for_a_cut(self: SmallServer, usual: Any, name: bytes) -> bool:
    if name.lower() == b"trailer":
        raise httpx.ReadError("cut off")
    return bool(usual(name))


async def takes_the_first_head(
    self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str
) -> httpx.Response:
    url, content = httpx.URL(self.callback_url(rollout, path)), self.encode(body)
    headers = {"Host": url.netloc.decode(), "Idempotency-Key": key, "Content-Type": "application/json"}
    headers |= {"Content-Length": str(len(content)), **self.credentials(rollout, path)}
    head = h11.Request(method="POST", target=url.raw_path, headers=list(headers.items()))
    connection, status, found = h11.Connection(h11.CLIENT), 0, bytearray()
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        for event in (head, h11.Data(data=content), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        while not isinstance(got := connection.next_event(), h11.EndOfMessage) and not 100 <= status < 200:
            if got is h11.NEED_DATA:
                connection.receive_data(await reader.read(65_536))
            elif isinstance(got, h11.Response | h11.InformationalResponse):
                status = got.status_code
            elif isinstance(got, h11.Data):
                found += got.data
    except (OSError, h11.RemoteProtocolError) as error:
        raise httpx.ReadError("cut off") from error
    finally:
        writer.close()
    return httpx.Response(status, content=bytes(found))


async def takes_a_month_for_never(self: SmallServer, usual: Any, response: httpx.Response) -> None:
    if self.told_seconds(response) > CALL_SECONDS:
        raise ChatError("The trainer will not be there in time")
    await usual(response)


mutant("takes-a-trailer-for-a-cut", "chat.any_head delivery.any_body", is_read=takes_a_trailer_for_a_cut)
mutant("takes-the-first-head", "wire.interim", post=takes_the_first_head)
mutant("takes-a-month-for-never", "retries.long_wait", wait_as_told=takes_a_month_for_never)

# Inits


def reads_json_by_its_sound(self: SmallServer, usual: Any, request: Request) -> None:
    if "json" not in request.headers.get("content-type", "json"):
        raise Refusal(415, "Send plain JSON", "not_json")


def reads_json_in_small_letters(self: SmallServer, usual: Any, request: Request) -> None:
    usual(request)
    if request.headers.get("content-type", "") != request.headers.get("content-type", "").replace("A", "a"):
        raise Refusal(415, "Send plain JSON", "not_json")


def names_no_bounds(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal:
        turns = self.parse(body).get("max_turns")
        if type(turns) is int and turns > 1:
            raise Refusal(422, "A number is too large") from None
        raise


def reads_numbers_in_texts(self: SmallServer, usual: Any, params: Any) -> bool:
    if isinstance(params, dict) and isinstance(params.get("max_tokens"), str):
        return str(params["max_tokens"]).isdigit()
    return bool(usual(params))


def refuses_strangers_in_a_word(self: SmallServer, usual: Any, header: str) -> None:
    try:
        usual(header)
    except Refusal as refusal:
        refusal.answer = PlainTextResponse("no", 401, {"WWW-Authenticate": "Bearer"})  # type: ignore[assignment]
        raise


async def knows_no_405(self: SmallServer, usual: Any, request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "No"}, 404) if request.method in ("PUT", "DELETE") else await usual(request, error)


async def is_well(self: SmallServer, usual: Any, request: Request) -> Response:
    about = {"agent_loop": "small", "active_rollouts": self.active(), "completed_rollouts": 0}
    return JSONResponse({"status": "ok", **about})


def without(name: str) -> Any:
    def tools(self: SmallServer, usual: Any) -> list[Json]:
        return [
            {**tool, "function": {key: value for key, value in tool["function"].items() if key != name}}
            for tool in usual()
        ]

    return tools


async def ends_its_namesake(self: SmallServer, usual: Any, init: Json) -> Response:
    for other in self.rollouts.values():
        is_other = other.init.get("idempotency_key") != init.get("idempotency_key")
        if other.init["rollout_id"] == init["rollout_id"] and is_other and other.state == "running":
            self.stop(other)
    return await usual(init)  # type: ignore[no-any-return]


def knows_chunks_in_small_letters(self: SmallServer, usual: Any, request: Request) -> None:
    usual(request)
    if request.headers.get("transfer-encoding", "chunked") != "chunked":
        raise Refusal(501, "The coding is not known")


mutant("knows-chunks-in-small-letters", "init.chunked", require_json=knows_chunks_in_small_letters)
mutant("reads-json-by-its-sound", "invalid.content_type", require_json=reads_json_by_its_sound)
mutant("reads-json-in-small-letters", "init.json_types", require_json=reads_json_in_small_letters)
mutant("names-no-bounds", "invalid.named", read=names_no_bounds)
mutant("reads-numbers-in-texts", "invalid.sampling", are_params=reads_numbers_in_texts)
mutant(
    "wants-keys-without-spaces",
    "init.bounds",
    rules=lambda s, usual, init: usual(init) | {"api_key": " " not in (init.get("api_key") or "")},
)
mutant("takes-spaces-around-a-key", "invalid.bounds", is_trimmed=lambda s, usual, text: True)
mutant("refuses-strangers-in-a-word", "http.refusals", needs="key", authorize=refuses_strangers_in_a_word)
mutant("knows-no-405", "http.unknown", refused=knows_no_405)
mutant("is-well", "http.health", health=is_well)
mutant("offers-tools-without-strict", "init.tools", tools=without("strict"))
mutant("offers-tools-without-a-description", "init.tools", tools=without("description"))
mutant("ends-its-namesake", "idempotency.two_keys", accept=ends_its_namesake)

# Calls and results

LATEST: dict[str, str] = {}


def has_one_trace(self: SmallServer, usual: Any, request: Request) -> dict[str, str]:
    if found := dict(usual(request)):
        LATEST.clear()
        LATEST.update(found)
    return found


async def drops_the_trace_of_failures(
    self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str
) -> httpx.Response:
    if body.get("status") == "ERROR":
        TRACE.set({})
    return await usual(rollout, path, body, key)  # type: ignore[no-any-return]


async def obeys_what_is_usual(self: SmallServer, usual: Any, response: httpx.Response) -> None:
    if response.status_code in (200, 429, 503):
        await usual(response)


def takes_calls_for_whole(self: SmallServer, usual: Any, completion: Json) -> bool:
    try:
        return bool(completion["choices"][0]["message"].get("tool_calls")) or usual(completion)
    except (LookupError, TypeError, AttributeError):
        return bool(usual(completion))


def leaves_messages_to_failures(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    is_refused = response.status_code == 422 and result["status"] == "ERROR"
    return "undeliverable" if is_refused else str(usual(response, result))


SEEN: dict[int, Json] = {}


def leaves_messages_out_at_first(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    is_later = id(result) in SEEN
    SEEN[id(result)] = result
    return "undeliverable" if response.status_code == 422 and is_later else str(usual(response, result))


def takes_others_for_good(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    return "undeliverable" if response.status_code in (300, 304) else str(usual(response, result))


def cancels_what_is_undeliverable(self: SmallServer, usual: Any, rollout: Rollout) -> None:
    if rollout.state != "undeliverable":
        usual(rollout)


mutant("has-one-trace", "callbacks.trace", trace_of=has_one_trace, trace=lambda s, usual, path: dict(LATEST))
mutant("drops-the-trace-of-failures", "callbacks.trace", post=drops_the_trace_of_failures)
mutant(
    "takes-599-for-good",
    "retries.server_error delivery.server_error",
    silent=True,
    is_retried=lambda s, usual, status: status != 599 and usual(status),
)
mutant(
    "takes-423-for-a-pause",
    "retries.final delivery.final",
    is_retried=lambda s, usual, status: status == 423 or usual(status),
)
mutant("obeys-what-is-usual", "retries.too_many", timed=True, wait_as_told=obeys_what_is_usual)
mutant(
    "asks-again-for-two-reasons",
    "retries.not_whole",
    is_asked_again=lambda s, usual, r, c: usual(r, c) and (c is None or s.finish_reason(c) in ("error", None, "abort")),
)
mutant("takes-calls-for-whole", "errors.not_whole", is_whole=takes_calls_for_whole)
mutant(
    "takes-pages-with-422-for-its-word",
    "retries.html",
    is_asked_again=lambda s, usual, r, c: usual(r, c) and r.status_code != 422,
)
mutant("takes-other-redirects-for-good", "delivery.html", silent=True, state_after=takes_others_for_good)
mutant("leaves-messages-to-failures", "delivery.refused", silent=True, state_after=leaves_messages_to_failures)
mutant("leaves-messages-out-at-first", "delivery.refused", silent=True, state_after=leaves_messages_out_at_first)

# States

mutant(
    "tells-milliseconds",
    "state.running state.ended",
    total=True,
    view=lambda s, usual, r: usual(r) | {"accepted_at": 1000 * r.accepted_at},
)
mutant(
    "tells-no-outcome-in-short",
    "state.ended",
    view=lambda s, usual, r: usual(r) | {"result": {"status": r.result.get("status")}} if r.result else usual(r),
)
mutant(
    "tells-no-error-in-short",
    "state.ended",
    view=lambda s, usual, r: (
        usual(r) | {"result": {**usual(r)["result"], "error_message": None}} if r.result else usual(r)
    ),
)
mutant("settles-before-its-end", "state.ended", view=lambda s, usual, r: usual(r) | {"settled_at": r.accepted_at - 1})
mutant("cancels-what-is-undeliverable", "state.undeliverable", stop=cancels_what_is_undeliverable)
