"""Bounds on what httpx reads: a network backend below it that counts, and shares the event loop's time.

httpcore reads 64 KiB at once and works off whatever is in there, interim replies and chunks of one byte too, for as
long as they come. Here what a call receives beside its body is bounded as in ``http1``, and it takes turns.
"""

import asyncio
import ssl
import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import httpx

from osmosis_ai.rollout.core.turnstile import turnstile_of
from osmosis_ai.rollout.wire.channel import head_too_large
from osmosis_ai.rollout.wire.heads import MAX_HEAD_BYTES, MAX_HEADER_BYTES, MAX_HEADERS

if TYPE_CHECKING:  # it loads 20 modules, for whoever has a proxy
    import httpcore

HEAD_PIECE_BYTES = 4096
"""Read at once of a head; it may be hundreds of interim replies."""
TURN_SECONDS = 0.001


class Meter:
    """What one call has received."""

    def __init__(self) -> None:
        self.body_bytes = 0
        self._received_bytes = 0
        self._head_is_whole = False
        self._turn_ends = 0.0

    def start(self) -> None:
        """From here on the reads of this task are this call's."""
        _meter.set(self)

    def end_of_head(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Raises ``httpx.RemoteProtocolError`` for headers beyond their bounds."""
        self._head_is_whole = True
        sizes = [len(name) + len(value) for name, value in headers]
        if len(sizes) > MAX_HEADERS or max(sizes, default=0) > MAX_HEADER_BYTES or sum(sizes) > MAX_HEAD_BYTES:
            raise head_too_large()

    def piece_bytes(self, wanted: int) -> int:
        """How much to read at once."""
        return wanted if self._head_is_whole else min(wanted, HEAD_PIECE_BYTES)

    def add(self, size_bytes: int) -> None:
        """So much has been read. Raises ``httpx.RemoteProtocolError`` if there is too much beside the body."""
        self._received_bytes += size_bytes
        # Up to one read is no body yet, but may be.
        if self._received_bytes - size_bytes > MAX_HEAD_BYTES + 2 * self.body_bytes:
            raise head_too_large()

    async def take_turns(self) -> None:
        """Let others have the event loop, if this call has had it for long."""
        now = time.monotonic()
        if now > self._turn_ends:
            if self._turn_ends:
                await asyncio.sleep(0)
                await turnstile_of(asyncio.get_running_loop()).enter()
            self._turn_ends = time.monotonic() + TURN_SECONDS


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


def measure(transport: httpx.AsyncHTTPTransport) -> None:
    """Have the connections that ``transport`` opens counted by the ``Meter`` of the call that reads."""
    pool: Any = transport._pool
    pool._network_backend = _Backend(pool._network_backend)


class _Stream:
    """An ``httpcore.AsyncNetworkStream``."""

    def __init__(self, stream: "httpcore.AsyncNetworkStream") -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        meter = _meter.get()
        if meter is None:
            return await self._stream.read(max_bytes, timeout)
        await meter.take_turns()
        data = await self._stream.read(meter.piece_bytes(max_bytes), timeout)
        meter.add(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as above
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> "_Stream":
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend:
    """An ``httpcore.AsyncNetworkBackend``."""

    def __init__(self, backend: "httpcore.AsyncNetworkBackend") -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        local_address: str | None = None,
        socket_options: "Iterable[httpcore.SOCKET_OPTION] | None" = None,
    ) -> _Stream:
        return _Stream(await self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        socket_options: "Iterable[httpcore.SOCKET_OPTION] | None" = None,
    ) -> _Stream:
        return _Stream(await self._backend.connect_unix_socket(path, timeout, socket_options))

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)
