"""Defects that others find elsewhere, in the one place where they do not: a check each is the first for some."""

import asyncio
import json
import unicodedata
from collections.abc import Callable
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response

from servers.model import Json, Refusal, Rollout
from servers.mutants.mechanism import mutant
from servers.playing import CHAT
from servers.small import SmallServer


async def cancels_for_anybody(self: SmallServer, usual: Any, request: Request) -> Response:
    headers = dict(request.scope["headers"])
    request.scope["headers"] = [*({**headers, b"authorization": f"Bearer {self.api_key}".encode()}).items()]
    answer: Response = await usual(Request(request.scope))
    return answer


async def runs_again_while_it_asks(self: SmallServer, usual: Any, init: Json) -> Response:
    known = self.rollouts.get(self.key_of(init))
    answer: Response = await usual(init)
    if known is not None and known.state == "running" and known.attempts:
        self.spawn(self.play(Rollout(known.init, known.fingerprint)))
    return answer


async def reports_long_ones_twice(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    await usual(rollout, result)
    if rollout.metrics["num_llm_calls"] > 1:
        await usual(rollout, result)


def asks_for_what_it_refuses(self: SmallServer, usual: Any, body: bytes) -> Json:
    try:
        return dict(usual(body))
    except Refusal:
        init = self.parse(body)
        if isinstance(init.get("messages"), str):
            rollout = Rollout(init | {"messages": []}, "")
            self.spawn(self.post(rollout, CHAT, self.chat_body(rollout), self.call_key(rollout)))
        raise


def drops_the_path_later(self: SmallServer, usual: Any, rollout: Rollout, path: str) -> str:
    url = httpx.URL(str(usual(rollout, path)))
    return str(url.copy_with(path=path)) if rollout.metrics["num_llm_calls"] > 1 else str(url)


def knows_users(message: Json) -> Json:
    known = ("role", "content", "name")
    return {n: v for n, v in message.items() if n in known} if message.get("role") == "user" else message


async def has_six_turns(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    rollout.init = {"max_turns": 6, **rollout.init}
    return str(await usual(rollout))


def large_rewards(self: SmallServer, usual: Any, body: Json) -> bytes:
    return bytes(usual(body)).replace(b'"reward": 1.0', b'"reward": 1e999')


def answers_otherwise(self: SmallServer, usual: Any) -> None:
    usual()
    for rollout in self.rollouts.values():
        if rollout.state != "delivered":
            rollout.reply = json.dumps({"rollout_id": rollout.init["rollout_id"], "tools": []}).encode()


mutant("cancels-for-anybody", "auth.everywhere", needs="key", cancel=cancels_for_anybody)
mutant("runs-again-while-it-asks", "idempotency.while_running", accept=runs_again_while_it_asks)
mutant(
    "sends-its-key-with-the-first-call",
    "callbacks.key",
    credentials=lambda s, usual, r, path: {} if path == CHAT and r.attempts > 1 else usual(r, path),
)
mutant("reports-long-ones-twice", "callbacks.once", beside="completed.counts", deliver=reports_long_ones_twice)
mutant("asks-for-what-it-refuses", "callbacks.refused", read=asks_for_what_it_refuses)
mutant("drops-the-path-later", "callbacks.url", beside="completed.counts", callback_url=drops_the_path_later)
mutant("knows-users", "chat.unknown_fields", conversation=lambda s, usual, r: list(map(knows_users, usual(r))))
mutant("has-six-turns", "chat.default_limits", agent=has_six_turns)
mutant("has-large-rewards", "completed.reward", encode=large_rewards)
mutant(
    "asks-the-filter-again",
    "errors.filtered",
    is_asked_again=lambda s, usual, response, c: c is not None or usual(response, c),
)
mutant(
    "tells-a-page",
    "errors.short_message",
    failed=lambda s, usual, r, error, outcome: (
        (result := usual(r, error, outcome)) | {"error_message": result["error_message"] * 1_000}
    ),
)
mutant(
    "takes-520-for-good",
    "retries.server_error delivery.server_error",
    silent=True,
    is_retried=lambda s, usual, status: status != 520 and usual(status),
)
mutant(
    "reads-large-refusals",
    "retries.page",
    is_absent=lambda s, usual, response: usual(response) and len(response.text) < 10_000,
)
mutant(
    "composes-texts",
    "ids.text",
    encode=lambda s, usual, body: unicodedata.normalize("NFC", json.dumps(body, ensure_ascii=False)).encode(
        errors="replace"
    ),
)
mutant("answers-otherwise-after-a-restart", "drain.repeated", needs="process", take_over=answers_otherwise)


def by_hand(read: Callable[[str], str]) -> Any:
    """A client with a head of any length; ``read`` is how it reads the name of a coding."""

    async def post(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> Any:
        url, content = httpx.URL(self.callback_url(rollout, path)), self.encode(body)
        headers = {"Host": url.netloc.decode(), "Content-Type": "application/json", "Content-Length": str(len(content))}
        headers |= {
            "Connection": "close",
            "Idempotency-Key": key,
            **self.credentials(rollout, path),
            **self.trace(path),
        }
        lines = [f"POST {url.raw_path.decode()} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        try:
            reader, writer = await asyncio.open_connection(url.host, url.port, limit=10**9)
            try:
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                status, told = "HTTP/1.1 100", list[str]()
                while status.split()[1].startswith("1"):
                    status, *told = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in told)}
                packed = await _body(reader, fields, read(fields.get("transfer-encoding", "")), self.max_reply_bytes)
            finally:
                writer.transport.abort()
        except (OSError, ValueError, EOFError) as error:
            raise httpx.ReadError(str(error)) from error
        kept = {name: value for name, value in fields.items() if name in ("retry-after", "content-type")}
        content = self.unpacked(packed, fields.get("content-encoding", "identity"))
        return httpx.Response(int(status.split()[1]), headers=kept, content=content)

    return post


async def _body(reader: asyncio.StreamReader, fields: dict[str, str], coding: str, most_bytes: int) -> bytes:
    if coding != "chunked":
        length = fields.get("content-length")
        return await (reader.read() if length is None else reader.readexactly(int(length)))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
        if len(body) > most_bytes:
            raise ValueError("The reply is too large")
    await reader.readexactly(2)
    return body


mutant("reads-any-head", "wire.endless_head", timed=True, post=by_hand(str.lower))
mutant("compares-codings-with-case", "chat.any_head", post=by_hand(str))


def reads_errors(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    return "" if response.is_success and '"error"' in response.text else str(usual(response, result))


def offers_nothing_again(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    is_empty = not result["final_messages"] and "messages_refused" not in result["extra_fields"]
    if response.status_code == 422 and is_empty and result["rollout_id"] not in self.kept:
        self.kept.append(result["rollout_id"])
        return ""
    return str(usual(response, result))


mutant("reads-errors-in-acknowledgements", "delivery.any_body", state_after=reads_errors)
mutant(
    "takes-the-type-for-a-page",
    "delivery.any_body",
    is_page=lambda s, usual, response: (
        usual(response) or response.headers.get("content-type", "").startswith("text/html")
    ),
)
mutant("offers-nothing-again", "delivery.nothing_left", state_after=offers_nothing_again)
mutant("reads-pages-in-gzip", "delivery.any_body", is_no_page=lambda s, usual, response: False)
