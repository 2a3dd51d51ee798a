"""The init and its answer, and the rest of the HTTP interface."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import Any

from rollout_conformance.asking import describe
from rollout_conformance.catalogue import check
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.lateness import LATE_SECONDS, reaction_seconds, too_late, watched
from rollout_conformance.played import PlayedRollout, objects_of
from rollout_conformance.same_connection import status_behind
from rollout_conformance.scripts import answering, encoded, waiting_for
from rollout_conformance.strict_json import parse_object
from rollout_conformance.text import quoted
from rollout_conformance.tool_schemas import problem_of
from rollout_conformance.vocabulary import Failed

METADATA_BYTES = 1024 * 1024
ODD_CHUNK_BYTES, LARGE_CHUNK_BYTES = 300, 100_000
LEAST_CONTENT_BYTES = 6_000
HANG_UPS = 2
"""Beside the one that is sent again."""
TRIES = 6
"""Of hang-ups that may have met a server without room."""
REQUIRED = ("rollout_id", "messages", "completion_params")


@check("init.accepted", "offer-1", "An init gets 202 with its rollout_id and a list of tools.")
async def accepted(kit: Kit) -> None:
    rollout = kit.play()
    fields = parse_object((await kit.send(rollout)).content)
    if fields.get("rollout_id") != rollout.rollout_id:
        raise Failed(f"rollout_id {rollout.rollout_id} in the 202", quoted(fields.get("rollout_id")))
    if not isinstance(fields.get("tools"), list):
        raise Failed("a list tools in the 202", quoted(fields.get("tools")))
    await rollout.result()


@check("init.tools", "offer-3", "Each tool is a function schema as the OpenAI chat API takes it.")
async def tools(kit: Kit) -> None:
    rollout = kit.play()
    offered = parse_object((await kit.send(rollout)).content).get("tools")
    names = []
    for number, tool in enumerate(offered if isinstance(offered, list) else [], start=1):
        if problem := problem_of(tool):
            raise Failed("OpenAI function schemas as tools", f"a tool {number} that {problem}")
        names.append(tool["function"]["name"])
    if len(set(names)) < len(names):
        raise Failed("tools with different names", quoted(names))
    await rollout.result()


@check("init.at_once", "offer-2", "The 202 is sent before the agent has run, not after.")
async def at_once(kit: Kit) -> None:
    model = kit.hold()
    rollout = kit.play(waiting_for(model, answering()))
    answer = asyncio.create_task(kit.send(rollout))
    ended_early = asyncio.create_task(rollout.first_chat())
    await asyncio.wait({answer, ended_early}, return_when=asyncio.FIRST_COMPLETED)
    ended_early.cancel()
    await asyncio.gather(ended_early, return_exceptions=True)
    # The model is not answered, so a server that runs the agent first never gets to its 202.
    began = time.monotonic()
    limit = max(1.0, kit.options.timeout_seconds * 2 / 3)
    await asyncio.wait({answer}, timeout=limit)
    if not answer.done():
        model.set()
        await asyncio.gather(answer, return_exceptions=True)
        waited = time.monotonic() - began
        raise Failed("202 while the first call for a completion waits", f"none in {min(waited, limit):.1f} s")
    await answer
    model.set()
    await rollout.result()


@check("init.required_only", "init-3", "The four required fields are enough; the rest may be left out.")
async def required_only(kit: Kit) -> None:
    rollout = kit.play()
    for name in set(rollout.init) - {*REQUIRED, "server_url", *kit.options.init_fields}:
        del rollout.init[name]
    await kit.send(rollout)
    await rollout.result()


AT_BOUNDS: tuple[tuple[str, Any], ...] = (
    ("max_turns", 1),
    ("max_turns", 100_000),
    ("max_tokens_total", 1),
    ("max_tokens_total", 1_000_000_000),
    ("idempotency_key", "x" * 247),
    ("idempotency_key", "\U0001f3b2" * 247),
    ("api_key", "k" * 4096),
    ("api_key", 'a key: ~!"\\,'),
    ("metadata", {}),
    ("messages", []),
)


@check("init.bounds", "init-22", "What is at its bounds is taken: 1 turn, long keys, no messages, nearly 1 MiB.")
async def bounds(kit: Kit) -> None:
    large = ("metadata", {"ground_truth": "4", "x": "x" * (METADATA_BYTES - 64)})
    fields = [one for one in (*AT_BOUNDS, large) if one[0] not in kit.options.init_fields]

    async def taken(name: str, value: Any) -> None:
        own = f"{value}-{secrets.token_hex(4)}" if name == "idempotency_key" else value
        fields: dict[str, Any] = {name: own}
        rollout = kit.play(None, None, **fields)
        answer = await kit.post(rollout.init)
        if answer.status_code != 202:
            raise Failed(f"202 to an init with {name} {quoted(value)}", describe(answer))
        kit.took(rollout, answer)
        await rollout.result()

    await asyncio.gather(*(taken(*one) for one in fields))


@check("init.json_types", "http-1", "application/json with a charset is JSON, and so is ...+json.")
async def json_types(kit: Kit) -> None:
    for kind in (
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/vnd.kit+json",
        "Application/JSON",
    ):
        rollout = kit.play()
        answer = await kit.post(rollout.init, headers={"Content-Type": kind})
        if answer.status_code != 202:
            raise Failed(f"202 to an init with 'Content-Type: {kind}'", describe(answer))
        kit.took(rollout, answer)
        await rollout.result()


@check("init.addresses", "init-24", "A server_url may have its scheme in capitals, and an IPv6 address.")
async def addresses(kit: Kit) -> None:
    scheme, _, rest = kit.trainer.base_url.partition(":")
    await _require_address(kit, f"{scheme.upper()}:{rest}")
    if kit.options.callback_url:
        return
    try:
        door = kit.door("::1")
    except OSError:  # this machine has none
        return
    async with door:
        await door.open()
        await _require_address(kit, door.url)


async def _require_address(kit: Kit, url: str) -> None:
    rollout = kit.play(at=url)
    response = await kit.post(rollout.init)
    if response.status_code != 202:
        raise Failed(f"202 to an init with the server_url {quoted(rollout.init['server_url'])}", describe(response))
    kit.took(rollout, response)
    await rollout.result()


@check(
    "http.refused_body", "err-6", "What comes behind a refused init, on its connection, is not read out of its body."
)
async def refused_body(kit: Kit) -> None:
    plain = {"Content-Type": "text/plain"} | ({"Authorization": "Bearer wrong"} if kit.options.api_key else {})
    status = await status_behind(kit, plain, "/health")
    if status not in (None, 200):
        raise Failed("200 to GET /health behind an init that was refused, or a closed connection", str(status))


@check("init.chunked", "http-18", "An init whose body comes in chunks is accepted.")
async def chunked(kit: Kit) -> None:
    rollout = kit.play()
    answer = await kit.post(rollout.init, in_chunks=True)
    if answer.status_code != 202:
        raise Failed("202 to an init with 'Transfer-Encoding: chunked'", describe(answer))
    kit.took(rollout, answer)
    await rollout.result()
    by_hand = "the sizes of chunks are read by hand: what stands behind a semicolon is left out"
    bounded = "chunks have a bound of their own, in size or number: that of the body is the only one"
    any_case = "Transfer-Encoding is compared with case: the name of a coding has none"
    await asyncio.gather(
        # As RFC 9112, 7.1 allows: zeros before sizes, capitals, an extension; fields behind the last chunk.
        _taken_in_chunks(kit, "whose sizes have an extension", ODD_CHUNK_BYTES, b"00%X;name=value", by_hand),
        _taken_in_chunks(kit, f"of {LARGE_CHUNK_BYTES} bytes", LARGE_CHUNK_BYTES, b"%x", bounded),
        _taken_in_chunks(kit, "of one byte, thousands of them", 1, b"%x", bounded),
        _taken_in_chunks(kit, "with 'Transfer-Encoding: Chunked'", ODD_CHUNK_BYTES, b"%x", any_case, "Chunked"),
    )


async def _taken_in_chunks(
    kit: Kit, what: str, chunk_bytes: int, size: bytes, usually: str, coding: str = "chunked"
) -> None:
    rollout = kit.play(messages=[{"role": "user", "content": "x" * max(chunk_bytes, LEAST_CONTENT_BYTES)}])
    body = encoded(rollout.init)
    pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
    chunks = b"".join(size % len(piece) + b"\r\n%b\r\n" % piece for piece in pieces)
    answer = await kit.post_raw(f"Transfer-Encoding: {coding}", chunks + b"0\r\nX-More: 1\r\n\r\n")
    if answer is None or answer.status_code != 202:
        got = "no answer" if answer is None else str(answer.status_code)
        raise Failed(f"202 to an init in chunks {what}", got, usually=usually)
    rollout.is_accepted = True
    rollout.accepted.set()
    await rollout.result()


@check("init.nulls", "init-3", "api_key, idempotency_key and tool_server_url may be null.")
async def nulls(kit: Kit) -> None:
    rollout = await kit.start(api_key=None, idempotency_key=None, tool_server_url=None)
    await rollout.result()


@check("init.unknown_fields", "http-4", "Fields that the server does not know are ignored.")
async def unknown_fields(kit: Kit) -> None:
    alike: dict[str, Any] = {"ROLLOUT_ID": "another", "Messages": [], "Max_Turns": 0, "maxTurns": 0}
    rollout = kit.play(x_from_a_later_version={"a": [1, None]}, **alike)
    answer = await kit.send(rollout)
    if parse_object(answer.content).get("rollout_id") != rollout.rollout_id:
        raise Failed("the rollout_id, and no field with a name alike, in the 202", describe(answer))
    call = await rollout.first_chat()
    await rollout.result()
    if call.messages != rollout.init["messages"]:
        raise Failed("messages, and no field with a name alike, in a call for a completion", quoted(call.messages))


@check("http.health", "state-6", "GET /health answers 200 with a JSON object that has a status, without a key.")
async def health(kit: Kit) -> None:
    response = await kit.get("/health")
    if response.status_code != 200:
        raise Failed("200 to GET /health", describe(response))
    try:
        fields = parse_object(response.content)
    except ValueError as error:
        raise Failed("a JSON object from GET /health", str(error)) from None
    if not isinstance(fields.get("status"), str):
        raise Failed("a text status in the answer of GET /health", quoted(fields))
    if fields["status"] != "healthy":
        raise Failed("the status 'healthy' in the answer of GET /health", quoted(fields))
    if not isinstance(fields.get("agent_loop"), str):
        raise Failed("agent_loop, the agent's name, in the answer of GET /health", quoted(fields))
    for name in ("active_rollouts", "completed_rollouts"):
        if type(fields.get(name)) is not int or fields[name] < 0:
            raise Failed(f"{name}, a whole number, in the answer of GET /health", quoted(fields))


@check("http.unknown", "err-5", "An unknown path is 404, another method on the init's path is 405.")
async def unknown(kit: Kit) -> None:
    init = "/v1/rollout/init"
    for method, path, status in (
        ("GET", "/v1/no-such-thing", 404),
        ("POST", "/v1/no-such-thing", 404),
        *((method, init, 405) for method in ("GET", "PUT", "DELETE")),
        ("POST", "/health", 405),
    ):
        response = await kit.ask(method, path)
        if response.status_code != status:
            raise Failed(f"{status} to {method} {path}", describe(response))


@check("init.tool_nulls", "offer-4", "A tool has no nulls but those of its author.")
async def tool_nulls(kit: Kit) -> None:
    rollout = kit.play()
    offered = parse_object((await kit.send(rollout)).content).get("tools")
    await rollout.result()
    for tool in objects_of(offered):
        for part in _parts(tool):
            # What an author may write as null is a value: a default, a constant.
            null = {name for name, value in part.items() if value is None} - {"default", "const"}
            if null:
                raise Failed("tools without nulls", f"{min(null)} null in {quoted(part)}")


def _parts(tool: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tool, its function, its parameters and the schema of each."""
    yield tool
    for name in ("function", "parameters"):
        inner = tool.get(name)
        if not isinstance(inner, dict):
            return
        tool = inner
        yield tool
    properties = tool.get("properties")
    yield from objects_of(list(properties.values()) if isinstance(properties, dict) else [])


@check("init.hang_up", "http-15", "An init runs whose sender hung up before the 202, and once where it is sent again.")
async def hang_up(kit: Kit) -> None:
    for _ in range(TRIES):
        alone = await _hang_up(kit)
        # Nobody has read what it was answered: where it is not known either, it may be that there was no room.
        if alone is None or not kit.trainer.refused_for_room or not await _is_unknown(kit, alone):
            break
        await kit.must_serve()
    if alone:
        looked_at(alone)
        raise Failed("the result of an init whose sender hung up and does not ask again", alone.calls_in_words)


async def _hang_up(kit: Kit) -> PlayedRollout | None:
    """One that did not run, though its init was sent; none if all did, and as they should."""
    rollout = kit.play()
    unread = [kit.play() for _ in range(HANG_UPS)]
    async with watched() as lateness:
        await asyncio.gather(*(kit.post_and_hang_up(one.init) for one in (rollout, *unread)))
        response = await kit.send(rollout)
        if parse_object(response.content).get("rollout_id") != rollout.rollout_id:
            raise Failed(f"rollout_id {rollout.rollout_id} in the 202", describe(response))
        with contextlib.suppress(Failed):
            await rollout.over()
        if rollout.is_over:
            await asyncio.gather(*(_over_if_known(kit, one) for one in unread), return_exceptions=True)
    if alone := next((one for one in unread if not one.completions), None):
        # A server that is so late may have answered it 408, as one whose head did not come.
        if (late := max(lateness.worst_seconds, reaction_seconds(rollout))) >= LATE_SECONDS:
            raise too_late(late, LATE_SECONDS)
        return alone
    for one in (rollout, *unread):
        if (result := await one.result()).get("status") != "COMPLETED":
            looked_at(one)
            got = f"{result.get('status')}: {quoted(result.get('error_message'))}"
            raise Failed("COMPLETED, of an init whose sender hung up", got)
    await kit.settle()
    if len(rollout.completions) > 1 or len(rollout.chats) > 1:
        got = f"{len(rollout.chats)} calls and {len(rollout.completions)} results"
        raise Failed("one run of an init that was sent again after the connection was closed", got)
    return None


async def _over_if_known(kit: Kit, rollout: PlayedRollout) -> None:
    await kit.settle()
    if rollout.chats or not await _is_unknown(kit, rollout):
        await rollout.over()


async def _is_unknown(kit: Kit, rollout: PlayedRollout) -> bool:
    return (await kit.status(rollout.rollout_id)).status_code == 404


@check("http.ready", "state-7", "GET /ready answers 200 with 'ready' true, without a key.")
async def ready(kit: Kit) -> None:
    response = await kit.get("/ready")
    try:
        is_ready = response.status_code == 200 and parse_object(response.content).get("ready") is True
    except ValueError:
        is_ready = False
    if not is_ready:
        raise Failed('200 and {"ready": true} to GET /ready', describe(response))


@check("http.refusals", "err-1", "A refusal is a JSON object with a detail: a sentence, or a list of what is wrong.")
async def refusals(kit: Kit) -> None:
    answers = {
        "GET /v1/no-such-thing": await kit.get("/v1/no-such-thing"),
        "GET /v1/rollout/init": await kit.get("/v1/rollout/init"),
        "an init without fields": await kit.post({}),
        "a body that is no JSON": await kit.post(b"{"),
        "an init that says it is text/plain": await kit.post({}, headers={"Content-Type": "text/plain"}),
        "the state of an unknown rollout": await kit.status("kit-nobody"),
        "the cancel of an unknown rollout": await kit.cancel("kit-nobody"),
    }
    if kit.options.api_key:
        answers["an init with a wrong key"] = await kit.post({}, key="wrong")
        answers["the state of a rollout, with a wrong key"] = await kit.with_key("wrong").status("kit-nobody")
    for what, answer in answers.items():
        try:
            detail = parse_object(answer.content).get("detail")
        except ValueError:
            detail = None
        if not (detail and (isinstance(detail, str) or objects_of(detail) == detail)):
            raise Failed(f'{{"detail": ...}} with the refusal of {what}', describe(answer))
