"""The server under test as its client sees it: what is asked of it, and what it answers."""

import asyncio
import contextlib
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx

from rollout_conformance.endpoint import PIECE_SECONDS, cut_within_character
from rollout_conformance.evidence import sending
from rollout_conformance.kit_trainer import KitTrainer
from rollout_conformance.options import KitOptions
from rollout_conformance.own_connections import OwnConnections
from rollout_conformance.played import init_in_words
from rollout_conformance.scripts import encoded
from rollout_conformance.strict_json import parse_object
from rollout_conformance.text import MAX_QUOTED_CHARACTERS, quoted, shortened
from rollout_conformance.usual_causes import NO_ANSWER, NO_ROOM, WITHOUT_TIME
from rollout_conformance.vocabulary import Failed

INIT_PATH = "/v1/rollout/init"
LEAST_PAUSE_SECONDS = 0.1
TIME_TO_ASK = "429 or 503 with Retry-After to an init too many"
BODY_SECONDS = 5.0
"""How long a server that wants the body first is given."""
ELSEWHERE_SECONDS, ASKED_AGAIN_SECONDS = 15.0, 0.05
"""How long, and how often, a process is looked for behind one address that others answer at too."""


class Asking:
    """Requests to the server, with its key; ``Failed`` where there is no answer."""

    def __init__(self, options: KitOptions, http: OwnConnections, trainer: KitTrainer) -> None:
        self.options = options
        self.http = http
        self.trainer = trainer

    async def post(
        self,
        body: Mapping[str, Any] | bytes,
        *,
        key: str | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        insist: bool = True,
        in_chunks: bool = False,
    ) -> httpx.Response:
        """POST an init with the server's key (or ``key``; an empty one sends none), whatever the answer.

        Args:
            insist: send it again while the server is full: 429 or 503 with Retry-After.
            in_chunks: send the body without a Content-Length.

        Raises:
            Failed: there is no answer, no room for as long as the kit waits, or no word when to ask again.
        """
        content = body if isinstance(body, bytes) else encoded(body)
        key = self.options.api_key if key is None else key
        sent: dict[str, str | bytes] = {"Content-Type": "application/json"}
        sent |= {"Authorization": f"Bearer {key}"} if key else {}
        sent |= headers or {}
        pairs = [(name.encode(), v if isinstance(v, bytes) else v.encode("latin-1")) for name, v in sent.items()]
        rollout = None if isinstance(body, bytes) else self.trainer.of_init(body)
        told = quoted(body) if isinstance(body, bytes) else init_in_words(body)
        sending(f"POST {INIT_PATH} {told}{_headers_in_words(sent, self.options.api_key)}", rollout)

        async def once() -> httpx.Response:
            sent_as = _halves(content) if in_chunks else content
            response = await self._answered("POST", INIT_PATH, content=sent_as, headers=pairs)
            if rollout is not None:
                rollout.statuses.append(response.status_code)
            return response

        return await (self._once_there_is_room(once) if insist else once())

    async def _once_there_is_room(self, ask: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """The answer to what is asked again while the server is full: 429 or 503 with Retry-After.

        The checks open more rollouts at once than a small server need take, so being full is no fault of its.
        """
        deadline = time.monotonic() + self.trainer.patience.seconds
        while (response := await ask()).status_code in (429, 503):
            pause_seconds = retry_after_seconds(response)
            if pause_seconds is None:
                raise Failed(TIME_TO_ASK, without_time(response), usually=WITHOUT_TIME)
            if time.monotonic() + pause_seconds > deadline:
                self.trainer.patience.lost += 1
                raise Failed("room for an init, once rollouts have ended", describe(response), usually=NO_ROOM)
            await asyncio.sleep(max(pause_seconds, LEAST_PAUSE_SECONDS))
        return response

    async def post_and_hang_up(self, init: Mapping[str, Any]) -> None:
        """Send an init over a connection that is closed at once, whatever is answered.

        Raises:
            Failed: no connection came about.
        """
        body = encoded(init)
        try:
            async with self.own_connection() as (_, writer):
                writer.write(self._head_of_init(f"Content-Length: {len(body)}") + body)
                if self.options.server_url.startswith("http:") and not writer.transport.get_write_buffer_size():
                    # At once: the transport closes in the next turn of an event loop that is busy.
                    writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                else:
                    await writer.drain()
        except OSError as error:
            raise Failed(f"a connection for POST {INIT_PATH}", str(error)) from None

    async def post_head(self, framing: str, begun: bytes = b"") -> int | None:
        """The status that the head of an init gets whose body, framed by this header, never comes, or not to its end.

        ``None`` if that is waited for. ``begun`` is what comes of it.
        """
        sending(f"POST {INIT_PATH}, {'the head alone' if not begun else 'not to its end'}")
        with contextlib.suppress(OSError, IndexError, ValueError):
            async with self.own_connection() as (reader, writer):
                writer.write(self._head_of_init(framing) + begun)
                line = asyncio.create_task(reader.readline())
                try:
                    is_there = await self.comes_in_time(line, BODY_SECONDS)
                    return int(line.result().split()[1]) if is_there else None
                finally:
                    line.cancel()
                    await asyncio.gather(line, return_exceptions=True)
        return None

    async def comes_in_time(self, answer: asyncio.Task[bytes], seconds: float) -> bool:
        """Whether it is there ``seconds`` after now.

        On a machine that is busy it takes longer; then so does the answer to what is asked meanwhile.
        """
        await asyncio.wait({answer}, timeout=seconds)
        if not answer.done():
            await self.get("/health")
            await asyncio.wait({answer}, timeout=seconds)
        return answer.done()

    async def post_raw(self, framing: str, body: bytes) -> httpx.Response | None:
        """The head of the answer to an init whose body is framed by this header; ``None`` if there is no answer.

        Raises:
            Failed: no room for as long as the kit waits.
        """
        sending(f"POST {INIT_PATH} with {framing!r}")
        with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, IndexError, ValueError):
            return await self._once_there_is_room(lambda: self._raw(self._head_of_init(framing) + body))
        return None

    async def _raw(self, request: bytes) -> httpx.Response:
        async with asyncio.timeout(self.options.timeout_seconds), self.own_connection() as (reader, writer):
            writer.write(request)
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = [(name, value.strip()) for name, colon, value in (one.partition(":") for one in lines) if colon]
            return httpx.Response(int(status.split()[1]), headers=fields)

    def _head_of_init(self, framing: str) -> bytes:
        url = httpx.URL(f"{self.options.server_url}{INIT_PATH}")
        headers = {"Host": url.netloc.decode(), "Content-Type": "application/json", **self._own_key}
        lines = [f"POST {url.raw_path.decode()} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, framing, "", ""]).encode("latin-1")

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to the server that nothing has been sent over."""
        url = httpx.URL(self.options.server_url)
        tls = ssl.create_default_context() if url.scheme == "https" else None
        reader, writer = await asyncio.open_connection(url.host, url.port or (443 if tls else 80), ssl=tls)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def get(self, path: str) -> httpx.Response:
        """GET a path without a key, whatever the answer.

        Raises:
            Failed: there is no answer.
        """
        return await self._answered("GET", path)

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Ask, with the server's key, whatever the answer.

        Raises:
            Failed: there is no answer.
        """
        sending(f"{method} {path}")
        content = None if body is None else encoded(body)
        headers = {**self._own_key, "Content-Type": "application/json"}
        return await self._answered(method, path, headers=headers, content=content)

    async def status(self, rollout_id: str) -> httpx.Response:
        """Ask, with the server's key, how a rollout stands.

        Raises:
            Failed: there is no answer.
        """
        return await self._answered("GET", path_of(rollout_id), headers=self._own_key)

    async def cancel(self, rollout_id: str) -> httpx.Response:
        """Ask, with the server's key, for the end of a rollout.

        Raises:
            Failed: there is no answer.
        """
        path = f"{path_of(rollout_id)}/cancel"
        sending(f"POST {path}")
        answer = await self._answered("POST", path, headers=self._own_key)
        if (rollout := self.trainer.of_id(rollout_id)) is not None:
            rollout.was_cancelled(answer.status_code)
        return answer

    async def cancel_where_it_runs(
        self, rollout_id: str, what: str = "a rollout that runs", usually: str | None = None
    ) -> httpx.Response:
        """The 202 to the cancel of ``what``; asked for again while it is 409, as of another process.

        Raises:
            Failed: there is no answer, or another one.
        """
        deadline = time.monotonic() + min(ELSEWHERE_SECONDS, self.trainer.patience.seconds)
        answer = await self.cancel(rollout_id)
        while answer.status_code == 409 and time.monotonic() < deadline:
            # Not one right after the other: while a process is busy, another one takes all connections.
            await asyncio.sleep(ASKED_AGAIN_SECONDS)
            answer = await self.cancel(rollout_id)
        if answer.status_code != 202:
            raise Failed(f"202 to the cancel of {what}", describe(answer), usually=usually)
        return answer

    @property
    def _own_key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.options.api_key}"} if self.options.api_key else {}

    async def _answered(self, method: str, path: str, **request: Any) -> httpx.Response:
        if method != "POST":
            sending(f"{method} {path}")
        try:
            return await self.http.request(method, f"{self.options.server_url}{path}", **request)
        except httpx.TimeoutException:
            got = f"none within {self.options.timeout_seconds:g} s"
            raise Failed(f"an answer to {method} {path}", got, usually=NO_ANSWER) from None
        except httpx.TransportError as error:
            got = f"{type(error).__name__}: {shortened(str(error))}"
            raise Failed(f"an answer to {method} {path}", got, usually=NO_ANSWER) from None


async def _halves(content: bytes) -> AsyncIterator[bytes]:
    first, second = cut_within_character(content)
    yield first
    await asyncio.sleep(PIECE_SECONDS)
    yield second


def _headers_in_words(headers: Mapping[str, str | bytes], own_key: str | None) -> str:
    """Those that are not as always; the server's own key is not shown."""
    plain = {"Content-Type": "application/json", "Authorization": f"Bearer {own_key}"}
    odd = {name: value for name, value in headers.items() if plain.get(name) != value}
    return f" with {quoted(odd)}" if odd else " without a key" if own_key and "Authorization" not in headers else ""


def path_of(rollout_id: str) -> str:
    """Where a rollout's state is asked for."""
    return f"/v1/rollout/{quote(rollout_id, safe='')}"


def field_of(response: httpx.Response, name: str) -> object:
    """That of the object which it holds; ``None`` if it holds none."""
    try:
        return parse_object(response.content).get(name)
    except ValueError:
        return None


def retry_after_seconds(answer: httpx.Response) -> float | None:
    """What Retry-After asks for (RFC 9110, 10.2.3); ``None`` if it is not there or means nothing."""
    value = answer.headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,6}", value):
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def without_time(response: httpx.Response) -> str:
    """A refusal that does not say, as one can read it, when to ask again."""
    return f"{describe(response)}, Retry-After {quoted(response.headers.get('retry-after'))}"


def describe(response: httpx.Response) -> str:
    """A response, short and printable."""
    text = shortened(response.text, MAX_QUOTED_CHARACTERS)
    return f"{response.status_code}: {text}" if text else f"{response.status_code} without a body"
