"""Kept-alive HTTP/1.1 connections to one origin, in one event loop: the quick way to a trainer.

A general client spends more on one request than the rest of a turn together: URL objects, header multidicts, cookies,
redirects, a pool that is searched linearly. Here a request is a few bytes joined, and a connection is taken from the
top of a stack. Nothing is retried, but for a kept-alive connection that turns out to have been closed by the peer
before it answered anything: that request goes out once more on a fresh one.

Invariant: a request under way holds one of ``max_connections`` places. A place that is given back goes to whoever has
waited longest, and only if nobody waits it is free.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping

import httpx

from osmosis_ai.rollout.core.turnstile import turnstile_of
from osmosis_ai.rollout.wire.channel import CONNECT_TIMEOUT_SECONDS, Limits, Origin, Reply, target_of
from osmosis_ai.rollout.wire.http1 import Http1Connection

KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which common servers close an idle connection."""


class Http1Channel:
    """A ``TrainerChannel`` for the URLs of ``origin``; ``tls`` for https."""

    def __init__(self, origin: Origin, tls: ssl.SSLContext | None, limits: Limits) -> None:
        self._origin = origin
        self._tls = tls
        self._max_idle = limits.max_idle
        self._max_reply_bytes = limits.max_reply_bytes
        self._free_places = limits.max_connections
        self._idle: list[Http1Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()
        self._turnstile = turnstile_of(self._loop)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], limit_seconds: float, *, only_status: bool = False
    ) -> Reply:
        """As ``TrainerChannel.post``; the errors are those httpx has for the same troubles."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{target_of(url).head}{lines}Content-Length: {len(body)}\r\n\r\n".encode("ascii")
        deadline = self._loop.time() + limit_seconds
        if self._free_places > 0:
            self._free_places -= 1
        else:
            await self._wait_for_place(limit_seconds)
        connection: Http1Connection | None = None
        try:
            connection = self._take_idle()
            if connection is not None:
                try:
                    return await connection.exchange(head, body, deadline, only_status)
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    # Once it has answered a byte it may have acted on the request: whether to repeat that is for the
                    # caller, who marks it with an Idempotency-Key (RFC 9112, section 9.3.1).
                    if connection.answered_anything:
                        raise
            connection = await self._connect(min(CONNECT_TIMEOUT_SECONDS, deadline - self._loop.time()))
            return await connection.exchange(head, body, deadline, only_status)
        finally:
            self._give_back(connection)

    async def aclose(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        self._max_idle = 0
        while self._idle:
            self._idle.pop().close()

    async def _connect(self, limit_seconds: float) -> Http1Connection:
        try:
            async with asyncio.timeout(limit_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: Http1Connection(self._loop, self._turnstile, self._max_reply_bytes),
                    self._origin.host,
                    self._origin.port,
                    ssl=self._tls,
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("") from error
        except (OSError, UnicodeError) as error:  # a label of the host may be no IDNA, which only looking it up shows
            raise httpx.ConnectError(str(error) or type(error).__name__) from error
        return connection

    async def _wait_for_place(self, limit_seconds: float) -> None:
        place = self._loop.create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(limit_seconds):
                await place
        except BaseException as error:
            # Given a place and cancelled in the same round of the loop: without this it would be lost for good.
            if place.done() and not place.cancelled():
                self._give_place()
            if isinstance(error, TimeoutError):
                raise httpx.PoolTimeout("") from error
            raise

    def _take_idle(self) -> Http1Connection | None:
        # The one used last first: the others grow old and are closed when they come up, so a burst leaves nothing.
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < KEEPALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: Http1Connection | None) -> None:
        if connection is not None:
            if connection.reusable and connection.is_open and len(self._idle) < self._max_idle:
                connection.idle_since = self._loop.time()
                self._idle.append(connection)
            else:
                connection.close()
        self._give_place()

    def _give_place(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():  # it may have timed out since
                place.set_result(None)
                return
        self._free_places += 1
