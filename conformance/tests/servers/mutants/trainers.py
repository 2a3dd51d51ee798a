"""Defects that show where a trainer fails, pauses, or answers what goes wrong on the way."""

import asyncio
from typing import Any

import httpx

from servers.model import ChatError, Json, Rollout
from servers.mutants.mechanism import mutant
from servers.playing import CHAT
from servers.small import SmallServer

# Calls that fail


async def never_retries(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
    response = await self.post(rollout, CHAT, self.chat_body(rollout), self.call_key(rollout))
    if response.is_success:
        return dict(response.json())
    raise ChatError(f"The trainer answered {response.status_code}")


async def gives_up_on_a_cut(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> Any:
    try:
        return await usual(rollout, path, body, key)
    except httpx.TransportError:
        if path == CHAT:
            raise ChatError("The trainer does not answer") from None
        raise


async def goes_on(self: SmallServer, usual: Any, *arguments: Any) -> None:
    """Without a wait."""


async def samples_anew(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> Any:
    try:
        return await usual(rollout, path, body, key)
    finally:
        body["attempt"] = body.get("attempt", 0) + 1


def is_gone(response: httpx.Response) -> bool:
    return response.status_code in (404, 410)


async def counts_seconds_alone(self: SmallServer, usual: Any, response: httpx.Response) -> None:
    if response.headers.get("retry-after", "0").isdigit():
        await usual(response)


mutant("never-retries", "retries.server_error retries.twice retries.too_many retries.cut", chat=never_retries)
mutant("retries-once", "retries.twice retries.delay", attempts=2)
mutant("gives-up-on-a-cut-connection", "retries.cut", post=gives_up_on_a_cut)
mutant("retries-what-is-final", "retries.final", is_retried=lambda s, usual, status: status != 200)
mutant("ignores-retry-after", "retries.too_many", timed=True, wait_as_told=goes_on)
mutant("knows-no-dates", "retries.too_many", timed=True, wait_as_told=counts_seconds_alone)
mutant("takes-408-for-final", "retries.too_many", is_retried=lambda s, usual, status: status != 408 and usual(status))
mutant("hammers", "retries.delay", timed=True, back_off=goes_on)
mutant("changes-what-it-asks-again", "retries.server_error retries.twice retries.cut", post=samples_anew)
mutant(
    "counts-pauses",
    "retries.pause",
    is_pause=lambda s, usual, response, c: response.status_code != 503 and usual(response, c),
)
mutant("takes-a-page-for-the-trainers-word", "retries.page delivery.page", is_absent=lambda s, usual, response: False)
mutant(
    "asks-the-forgetful-for-a-reply",
    "retries.gone",
    is_asked_again=lambda s, usual, response, c: is_gone(response) or usual(response, c),
)
mutant(
    "asks-whoever-is-gone",
    "retries.gone",
    is_pause=lambda s, usual, response, c: response.status_code == 410 or usual(response, c),
)
mutant(
    "gives-up-a-call-without-a-path",
    "retries.no_path",
    is_asked_again=lambda s, usual, response, c: usual(response, c) and response.status_code not in (404, 405),
)

# Replies that are not whole


def is_whole_but(*taken: Any) -> Any:
    """Takes these finish reasons too."""
    return lambda self, usual, completion: usual(completion) or self.finish_reason(completion) in taken


mutant(
    "scores-what-was-broken-off",
    "retries.aborted retries.aborted_key retries.not_whole errors.not_whole",
    is_whole=lambda s, usual, c: True,
)
mutant("asks-until-it-passes-the-filter", "errors.filtered", is_asked_again=lambda s, usual, *answer: True)
mutant("scores-what-was-filtered", "errors.not_whole errors.filtered", is_whole=is_whole_but("content_filter"))
mutant("scores-what-nobody-knows", "errors.not_whole", is_whole=is_whole_but("x-unknown"))
mutant(
    "fails-on-an-abort",
    "retries.aborted retries.aborted_key",
    is_asked_again=lambda s, usual, response, c: c is None and usual(response, c),
    is_pause=lambda s, usual, response, c: c is None and usual(response, c),
)
mutant("counts-aborts", "retries.aborted_long", is_pause=lambda s, usual, response, c: c is None and usual(response, c))
mutant(
    "fails-on-half-a-reply",
    "retries.not_whole",
    is_asked_again=lambda s, usual, response, c: c is None and usual(response, c),
)
mutant("keeps-the-key-of-an-abort", "retries.aborted_key", key_after_a_broken_reply=lambda s, usual, r, key: key)
mutant(
    "wants-stop",
    "chat.no_finish_reason chat.cut_off_reply chat.whole",
    is_whole=lambda s, usual, c: c["choices"][0].get("finish_reason") in ("stop", "tool_calls"),
)
mutant(
    "knows-no-function-call",
    "chat.whole",
    is_whole=lambda s, usual, c: usual(c) and s.finish_reason(c) != "function_call",
)

# On the way

READ_BYTES = 65_536


async def _read_loosely(url: str, body: bytes, headers: dict[str, str], most_bytes: int = 0) -> tuple[bytes, bytes]:
    """A reply as a careless client reads it: its end is that of the connection, whatever its head says."""
    where = httpx.URL(url)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        lines = [f"POST {where.path} HTTP/1.1", f"Host: {where.netloc.decode()}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        reply = bytearray()
        while b"\r\n\r\n" not in reply[-READ_BYTES:] and (piece := await reader.read(READ_BYTES)):
            reply += piece
            if most_bytes and len(reply) > most_bytes:
                raise ValueError("a head without end")
        if most_bytes and b"\r\n\r\n" not in reply:
            raise ValueError("a head that is cut off")
        while piece := await reader.read(READ_BYTES):
            reply += piece
        head, _, content = bytes(reply).partition(b"\r\n\r\n")
        return head, content
    finally:
        writer.close()


async def reads_loosely(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> Any:
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, **self.credentials(rollout, path)}
    try:
        head, content = await _read_loosely(self.callback_url(rollout, path), self.encode(body), headers)
        return httpx.Response(int(head.split()[1]), content=content)
    except (OSError, IndexError, ValueError) as error:
        raise httpx.ReadError(str(error)) from error


def reading(*, unlimited_head: bool) -> Any:
    """A client whose heads have no limit; or one that takes a body for whole when its connection ends."""

    async def method(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> Any:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, **self.credentials(rollout, path)}
        try:
            head, content = await _read_loosely(
                self.callback_url(rollout, path), self.encode(body), headers, most_bytes=0 if unlimited_head else 2**16
            )
        except (OSError, ValueError) as error:
            raise httpx.ReadError(str(error)) from error
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        told = {name: value.strip() for name, _, value in lines}
        if not head or b"HTTP" not in head or (unlimited_head and len(content) < int(told.get(b"content-length", 0))):
            raise httpx.ReadError("cut off")
        if told.get(b"transfer-encoding") == b"chunked":
            content = content.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0] or content.partition(b"\r\n")[2]
        return httpx.Response(int(head.split()[1]), content=content.strip())

    return method


async def follows(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> Any:
    self.http.follow_redirects = True
    request = self.http.build_request(
        "POST",
        self.callback_url(rollout, path),
        content=self.encode(body),
        headers={"Content-Type": "application/json", "Idempotency-Key": key},
    )
    response = await self.http.send(request, follow_redirects=True)
    return httpx.Response(response.status_code, content=response.content)


mutant(
    "takes-half-a-head",
    "wire.cut_head wire.cut_body wire.gzip wire.endless_head wire.endless_body",
    silent=True,
    timed=True,
    total=True,
    post=reads_loosely,
)


async def follows_with_a_get(self: SmallServer, usual: Any, rollout: Rollout, path: str, body: Json, key: str) -> Any:
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, **self.credentials(rollout, path)}
    response = await self.http.post(self.callback_url(rollout, path), content=self.encode(body), headers=headers)
    if response.status_code in (301, 302, 303):
        response = await self.http.get(response.headers["Location"])
    return httpx.Response(response.status_code, headers={"Retry-After": "0"}, content=response.content)


def unpacks_all(self: SmallServer, usual: Any, packed: bytes, coding: str) -> bytes:
    self.max_reply_bytes, bound = 10**12, self.max_reply_bytes
    try:
        return bytes(usual(packed, coding))
    finally:
        self.max_reply_bytes = bound


mutant(
    "takes-a-body-as-far-as-it-came",
    "wire.cut_body",
    silent=True,
    timed=True,
    total=True,
    post=reading(unlimited_head=False),
)
mutant(
    "reads-heads-of-any-length",
    "wire.endless_head",
    silent=True,
    timed=True,
    total=True,
    post=reading(unlimited_head=True),
)
mutant("follows-redirects", "wire.redirect", post=follows)
mutant("follows-with-a-get", "wire.redirect", post=follows_with_a_get)
mutant("unpacks-whatever-comes", "wire.bomb", timed=True, total=True, unpacked=unpacks_all)
mutant(
    "knows-no-deflate",
    "wire.gzip",
    total=True,
    unpacked=lambda s, usual, packed, coding: packed if coding == "deflate" else usual(packed, coding),
)
mutant("keeps-a-connection-that-has-more", "wire.behind", silent=True, keeps_connections=10)
mutant("reads-replies-of-any-size", "wire.endless_body wire.bomb", timed=True, max_reply_bytes=10**12)

# Three kinds of 404, and the rest of the pauses

mutant(
    "counts-limits",
    "retries.pause",
    is_pause=lambda s, usual, response, c: response.status_code != 429 and usual(response, c),
)
mutant(
    "counts-bad-gateways",
    "retries.pause",
    is_pause=lambda s, usual, response, c: response.status_code != 502 and usual(response, c),
)
mutant(
    "knows-absence-by-html",
    "retries.page delivery.page",
    silent=True,
    is_absent=lambda s, usual, response: response.status_code == 404 and "<" in response.text,
)
mutant(
    "reads-not-found-anywhere",
    "retries.gone",
    is_no_path=lambda s, usual, response: response.status_code == 404 and "ot found" in response.text,
)
mutant(
    "takes-425-for-final",
    "retries.too_many delivery.too_many",
    is_retried=lambda s, usual, status: status != 425 and usual(status),
)
mutant(
    "asks-again-after-a-conflict", "retries.final", is_retried=lambda s, usual, status: status == 409 or usual(status)
)
