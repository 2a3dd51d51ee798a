"""Bodies that must be refused: a 4xx, nothing started, and the server goes on."""

import asyncio
import codecs
import contextlib
import gzip
import ssl
from collections.abc import Awaitable, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx

from rollout_conformance.asking import INIT_PATH, describe
from rollout_conformance.catalogue import check
from rollout_conformance.kit import Kit
from rollout_conformance.scripts import encoded
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import Failed

KINDS = {
    **dict.fromkeys(("rollout_id", "server_url", "tool_server_url", "api_key", "idempotency_key"), str),
    **dict.fromkeys(("max_turns", "max_tokens_total"), int),
    **dict.fromkeys(("completion_params", "metadata"), dict),
    "messages": list,
}
TOO_MANY_DIGITS = "an integer of more digits than the language converts raises another error than broken JSON does"
EMPTY: tuple[Any, ...] = ("", 0, False, [], {})
"""What ``value or default`` takes for absent, of whatever type it is."""
WRONG_FIELDS: tuple[tuple[str, Any], ...] = (
    *((field, value) for field, kind in KINDS.items() for value in EMPTY if type(value) is not kind),
    ("max_turns", True),
    ("max_tokens_total", True),
    ("metadata", None),
    ("rollout_id", ...),
    ("server_url", ...),
    ("messages", ...),
    ("completion_params", ...),
    ("rollout_id", ""),
    ("rollout_id", "   "),
    ("rollout_id", "x" * 257),
    ("rollout_id", ["a"]),
    ("messages", "hello"),
    ("messages", ["hello"]),
    ("completion_params", None),
    ("completion_params", [1]),
    ("max_turns", "many"),
    ("messages", None),
    ("rollout_id", 7),
    ("metadata", "text"),
    ("api_key", {"a": 1}),
    ("idempotency_key", ["a"]),
    ("max_turns", 2.5),
    ("max_tokens_total", [1]),
    ("tool_server_url", 7),
    ("messages", [7]),
    ("metadata", ["a"]),
    ("rollout_id", None),
    ("server_url", None),
    ("server_url", 7),
    ("server_url", ["http://127.0.0.1:1"]),
    ("messages", [None]),
    ("completion_params", "text"),
    ("max_tokens_total", "many"),
    ("max_tokens_total", 0.5),
    ("metadata", 7),
    ("api_key", 7),
    ("idempotency_key", 7),
    ("tool_server_url", ["a"]),
)
BEYOND: tuple[tuple[str, Any], ...] = (
    *((field, value) for field in ("max_turns", "max_tokens_total") for value in (0, -1)),
    ("max_turns", 100_001),
    ("max_tokens_total", 1_000_000_001),
    ("server_url", "http://127.0.0.1:1/" + "x" * 2048),
    ("idempotency_key", "x" * 257),
    ("api_key", "x" * 4097),
    ("api_key", "k\r\nX-More: 1"),
    ("api_key", "k\u00e9y"),
    ("api_key", " key"),
    ("api_key", "key "),
)
NOT_JSON = (b"", b"{", b"hello", b"[]", b'"text"', b"null", b'{"rollout_id": "a",}', b'{"rollout_id": "\xff\xfe"}')
BAD_URLS = (
    *("ftp://127.0.0.1/x", "127.0.0.1:8000", "http://", "", "file:///etc/passwd", "//127.0.0.1:1/x", "/x", "127.0.0.1"),
    *("http:///x", "ws://127.0.0.1:1", "httpx://127.0.0.1:1", "http:127.0.0.1:1"),
)
ODD_URLS = (
    "http://:80",
    "http://user@",
    "http://127.0.0.1:1/?a=b",
    "http://127.0.0.1:1/#x",
    " http://127.0.0.1:1",
    "http://127.0.0.1:999999",
    "http://user:password@127.0.0.1:1",
    "http://127.0.0.1:1/a b",
    "http://127.0.0.1:port",
    "http://127.0.0.1:0",
)
ANYWHERE: dict[str, Any] = {
    "completion_params": {"x": "@"},
    "metadata": {"x": "@"},
    "messages": [{"role": "user", "content": [{"type": "text", "text": "2 + 2?", "x": "@"}]}],
    "x_unknown": ["@"],
}
"""Where a number may stand that is none, each with ``@`` in its place."""
DEPTH = 50_000
DIGITS = 5_000
METADATA_BYTES = 2 * 1024 * 1024
DECLARED_BODY_BYTES = 1024 * 1024 * 1024
SENT_BODY_BYTES = 64 * 1024 * 1024
CHUNK = b" " * 65_536
ANSWER_SECONDS = 2.0
"""In which a server that has read its fill has said so."""


def _changed(kit: Kit, field: str, value: Any) -> dict[str, Any]:
    init = dict(kit.play().init)
    if value is ...:
        del init[field]
    else:
        init[field] = value
    return init


def _shown(field: str, value: Any) -> str:
    return f"an init without {field}" if value is ... else f"an init with {field} {quoted(value)}"


def _require_refusal(what: str, response: httpx.Response) -> None:
    if not 400 <= response.status_code < 500 or response.status_code in (401, 403, 404, 429):
        raise Failed(f"a 4xx such as 422 to {what}", describe(response))


async def _all(refusals: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*refusals)


async def _must_refuse(kit: Kit, what: str, body: dict[str, Any] | bytes) -> None:
    _require_refusal(what, await kit.post(body))


@check("invalid.fields", "init-1", "A field that is missing or of a wrong type or length is refused with a 4xx.")
async def fields(kit: Kit) -> None:
    await _all(_must_refuse(kit, _shown(field, value), _changed(kit, field, value)) for field, value in WRONG_FIELDS)


@check("invalid.named", "err-2", "The refusal names the field.")
async def named(kit: Kit) -> None:
    urls = (("server_url", url) for url in BAD_URLS)
    await _all(_must_name(kit, field, value) for field, value in (*WRONG_FIELDS, *BEYOND, *urls))


async def _must_name(kit: Kit, field: str, value: Any) -> None:
    response = await kit.post(_changed(kit, field, value))
    # A key that was kept by the refusal of another check's init is that of idempotency.after_refusal.
    if 400 <= response.status_code < 500 and response.status_code != 409 and field not in response.text:
        raise Failed(f"the word {field} in the refusal of {_shown(field, value)}", describe(response))


@check("invalid.server_url", "init-4", "A server_url that is no http or https URL with a host is refused.")
async def server_url(kit: Kit) -> None:
    await _all(_must_refuse(kit, _shown("server_url", url), _changed(kit, "server_url", url)) for url in BAD_URLS)


@check("invalid.odd_url", "init-5", "So is one with a query, a fragment, white space, a bad port or only a user.")
async def odd_url(kit: Kit) -> None:
    await _all(_must_refuse(kit, _shown("server_url", url), _changed(kit, "server_url", url)) for url in ODD_URLS)


@check("invalid.not_json", "http-2 err-6", "A body that is no JSON object in UTF-8 is refused, and the server goes on.")
async def not_json(kit: Kit) -> None:
    no_text = encoded(_changed(kit, "messages", [{"role": "user", "content": "a@"}]))
    no_utf8 = (no_text.replace(b"a@", b"a" + octets) for octets in (b"\xff", b"\xe6\x97"))
    codings = (no_text.decode().encode(coding) for coding in ("utf-16", "utf-16-le", "utf-32-be"))
    behind = (encoded(_changed(kit, "max_turns", 8)) + more for more in (b' {"x": 1}', b"nonsense", b"}"))
    bodies = (*NOT_JSON, *no_utf8, *codings, *behind)
    await _all(_must_refuse(kit, f"the body {quoted(body[:40])} ... {quoted(body[-12:])}", body) for body in bodies)
    await kit.must_serve()


@check("invalid.nan", "http-2", "NaN and Infinity are not JSON, and are refused.")
async def nan(kit: Kit) -> None:
    await _all(
        _must_refuse(
            kit,
            f"an init with {constant.decode()} in {field}",
            encoded(_changed(kit, field, value)).replace(b'"@"', constant),
        )
        for constant in (b"NaN", b"Infinity", b"-Infinity")
        for field, value in ANYWHERE.items()
    )


@check("invalid.bounds", "init-1", "A number or a text beyond its bounds is refused.")
async def bounds(kit: Kit) -> None:
    await _all(_must_refuse(kit, _shown(field, value), _changed(kit, field, value)) for field, value in BEYOND)


@check("invalid.nesting", "err-6", f"A body nested {DEPTH:,} deep, or a number of {DIGITS:,} digits, does no harm.")
async def nesting(kit: Kit) -> None:
    deep = b"[" * DEPTH + b"]" * DEPTH
    response = await kit.post(encoded(_changed(kit, "metadata", {"x": "@"})).replace(b'"@"', deep))
    if response.status_code >= 500:
        raise Failed("a 4xx to a deeply nested body", describe(response))
    digits = encoded(_changed(kit, "metadata", {"x": "@"})).replace(b'"@"', b"7" * DIGITS)
    if (response := await kit.post(digits)).status_code >= 500:
        raise Failed(f"a 4xx to a number of {DIGITS} digits", describe(response), usually=TOO_MANY_DIGITS)
    await kit.must_serve()


@check("invalid.metadata_size", "init-19", "Metadata of 2 MiB (the limit is 1 MiB unless raised) is refused.")
async def metadata_size(kit: Kit) -> None:
    init = _changed(kit, "metadata", {"x": "x" * METADATA_BYTES})
    await _must_refuse(kit, "an init with 2 MiB of metadata", init)


@check(
    "invalid.body_size",
    "init-17",
    "A body has a size limit: one of 1 GiB is not read to its end, in chunks neither.",
)
async def body_size(kit: Kit) -> None:
    announced = f"Content-Length: {DECLARED_BODY_BYTES}", CHUNK
    in_chunks = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK)
    for what, (framing, piece) in (
        ("an announced body of 1 GiB", announced),
        ("a body in chunks without end", in_chunks),
    ):
        status = await _send_endless_body(kit, framing, piece)
        if status is None:
            raise Failed(f"a 4xx to {what}", f"no answer after {SENT_BODY_BYTES // 1024**2} MiB of it")
        if not 400 <= status < 500:
            raise Failed(f"a 4xx to {what}", str(status))
    await kit.must_serve()


async def _send_endless_body(kit: Kit, framing: str, piece: bytes) -> int | None:
    """The status the server answers with, or ``None`` if it takes all it gets; a cut connection counts as 413."""
    url = urlsplit(kit.options.server_url)
    tls = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if tls else 80)
    key = f"Authorization: Bearer {kit.options.api_key}\r\n" if kit.options.api_key else ""
    head = (
        f"POST {url.path}{INIT_PATH} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        f"{key}{framing}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=tls)
    answer = asyncio.create_task(reader.readline())
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(kit.options.timeout_seconds):
                writer.write(head.encode("latin-1"))
                for _ in range(SENT_BODY_BYTES // len(CHUNK)):
                    if answer.done():
                        break
                    writer.write(piece)
                    await writer.drain()
        if not await kit.comes_in_time(answer, ANSWER_SECONDS):
            return None
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(answer.result().split()[1])
        return 413
    finally:
        answer.cancel()
        writer.transport.abort()
        await asyncio.gather(answer, return_exceptions=True)


WRONG_SAMPLING: tuple[tuple[str, Any], ...] = (
    ("temperature", "hot"),
    ("top_p", [1]),
    ("max_tokens", 512.5),
    ("logprobs", 5),
    ("stop", 5),
    ("stop", ["a", None]),
    ("stop", [5, "a"]),
    ("model", 7),
    ("temperature", "0.5"),
    ("temperature", True),
    ("top_p", "1"),
    ("max_tokens", "512"),
    ("max_tokens", True),
    ("logprobs", "true"),
    ("logprobs", 1),
)
UNREACHABLE_IDS = ("init", ".", "..", "a\nb")


@check("invalid.content_type", "http-2", "A body that says it is no JSON is refused.")
async def content_type(kit: Kit) -> None:
    named_alike = ("text/json", "application/x-ndjson", "application/jsonl", "text/plain; as=application/json")
    for kind in ("text/plain", "application/x-www-form-urlencoded", *named_alike):
        response = await kit.post(kit.play().init, headers={"Content-Type": kind})
        _require_refusal(f"an init with Content-Type: {kind}", response)


@check("invalid.blank_id", "init-10", "A rollout_id of white space is refused.")
async def blank_id(kit: Kit) -> None:
    await _all(
        _must_refuse(kit, _shown("rollout_id", one), _changed(kit, "rollout_id", one)) for one in (" ", "\t", "")
    )


@check("invalid.sampling", "init-8", "A known field of completion_params with a wrong type is refused.")
async def sampling(kit: Kit) -> None:
    await _all(
        _must_refuse(
            kit, f"completion_params with {name} {quoted(value)}", _changed(kit, "completion_params", {name: value})
        )
        for name, value in WRONG_SAMPLING
    )


@check("invalid.unreachable_id", "init-11", "A rollout_id whose state would have no path is refused.")
async def unreachable_id(kit: Kit) -> None:
    await _all(
        _must_refuse(kit, _shown("rollout_id", one), _changed(kit, "rollout_id", one)) for one in UNREACHABLE_IDS
    )


@check("invalid.number", "init-13", "A number beyond all numbers, such as 1e999, is refused.")
async def number(kit: Kit) -> None:
    for field in ("completion_params", "metadata", "messages"):
        value = ANYWHERE[field]
        body = encoded(_changed(kit, field, value)).replace(b'"@"', b"1e999")
        await _must_refuse(kit, f"an init with 1e999 in {field}", body)


@check("invalid.encoded", "init-14", "A body with a Content-Encoding is 415.")
async def content_encoding(kit: Kit) -> None:
    body = gzip.compress(encoded(kit.play().init))
    response = await kit.post(body, headers={"Content-Encoding": "gzip"})
    if response.status_code != 415:
        raise Failed("415 to an init with Content-Encoding: gzip", describe(response))


@check("invalid.byte_order_mark", "init-15", "A byte order mark before the JSON is no matter.")
async def byte_order_mark(kit: Kit) -> None:
    rollout = kit.play()
    kit.took(rollout, await kit.post(codecs.BOM_UTF8 + encoded(rollout.init)))
    await rollout.result()
