"""The HTTP client of one rollout: ``httpx.AsyncClient`` to whoever looks, ``http1`` underneath where that can be.

Making an ``httpx.AsyncClient`` and sending a request through it costs several times what the rest of a turn does. So
the real one is made only when something other than a plain JSON POST is asked of it, when a proxy stands in between,
when httptools is missing, or when ``httpx.AsyncClient.post`` has been replaced (as the testing helpers do).
"""

from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import httpx

from osmosis_ai.rollout.core.tracecontext import TRACE_HEADERS
from osmosis_ai.rollout.wire.transport import CALL_ID, IDEMPOTENCY_HEADER, SharedTransport, direct_pool

if TYPE_CHECKING:
    from osmosis_ai.rollout.wire.http1 import Reply

_HTTPX_POST = httpx.AsyncClient.post


class Target(NamedTuple):
    """Where a URL leads."""

    scheme: str
    host: str
    port: int
    netloc: str
    head: bytes
    """Request line and ``Host`` header."""


@lru_cache(maxsize=4096)
def _target(url: str) -> Target:
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise httpx.UnsupportedProtocol(f"The URL {url!r} is not an http or https URL with a host.")
    head = b"POST %b HTTP/1.1\r\nHost: %b\r\n" % (parsed.raw_path, parsed.netloc)
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    return Target(parsed.scheme, parsed.raw_host.decode("ascii"), port, parsed.netloc.decode("ascii"), head)


class TrainerHttpClient(httpx.AsyncClient):
    """One rollout's client; ``aclose`` leaves the shared connections open.

    Args:
        headers: sent with every request; ASCII.
        timeout: of one request; ``connect`` limits its connection.
    """

    def __init__(
        self,
        *,
        headers: Mapping[str, str],
        timeout: httpx.Timeout,
        max_connections: int,
        max_keepalive_connections: int,
    ) -> None:
        # Not super().__init__: see __getattr__.
        self.__dict__["_quick"] = _Quick(headers, timeout, max_connections, max_keepalive_connections)

    def __getattr__(self, name: str) -> Any:
        """Whatever is missing is there once the real client is made."""
        quick: _Quick = self.__dict__["_quick"]
        if quick.is_whole:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        quick.is_whole = True
        super().__init__(
            transport=SharedTransport(*quick.limits),
            timeout=quick.timeout,
            headers=dict(quick.headers),
            event_hooks={"request": [_mark_call]},
            follow_redirects=False,
            trust_env=False,
        )
        return getattr(self, name)

    async def post_encoded(self, url: str, body: bytes, call_id: str, limit_seconds: float) -> "Reply | None":
        """POST a JSON body the quick way, in at most ``limit_seconds``; ``None`` where that way is not open.

        Raises:
            httpx.RequestError, httpx.InvalidURL: as ``httpx.AsyncClient.post``.
        """
        if httpx.AsyncClient.post is not _HTTPX_POST:
            return None
        quick: _Quick = self.__dict__["_quick"]
        target = _target(url)
        pool = direct_pool(target.scheme, target.host, target.port, target.netloc, quick.limits)
        if pool is None:
            return None
        return await pool.post(
            quick.head(target, call_id, len(body)),
            body,
            timeout_seconds=min(quick.read_seconds, limit_seconds),
            connect_timeout_seconds=quick.connect_seconds,
        )

    @property
    def is_closed(self) -> bool:
        """Whether ``aclose`` has been called."""
        closed: bool = self.__dict__["_quick"].is_closed
        return closed

    async def aclose(self) -> None:
        """Close the client; the connections are not its own."""
        self.__dict__["_quick"].is_closed = True
        if self.__dict__["_quick"].is_whole:
            await super().aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


class _Quick:
    """What a request needs, and whether the real client has been made."""

    def __init__(
        self, headers: Mapping[str, str], timeout: httpx.Timeout, max_connections: int, max_keepalive_connections: int
    ) -> None:
        self.is_whole = False
        self.is_closed = False
        self.headers = headers
        self.timeout = timeout
        self.limits = max_connections, max_keepalive_connections
        self.read_seconds = timeout.read or 0.0
        self.connect_seconds = timeout.connect or 0.0
        self._own_head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")

    def head(self, target: Target, call_id: str, content_bytes: int) -> bytes:
        """Request line and headers."""
        mark = f"{IDEMPOTENCY_HEADER}: {call_id}\r\nContent-Length: {content_bytes}\r\n\r\n"
        if trace := TRACE_HEADERS.get():
            mark = "".join(f"{name}: {value}\r\n" for name, value in trace) + mark
        return b"%b%b%b" % (target.head, self._own_head, mark.encode("ascii"))


async def _mark_call(request: httpx.Request) -> None:
    if call_id := CALL_ID.get():
        request.headers[IDEMPOTENCY_HEADER] = call_id
    request.headers.update(TRACE_HEADERS.get())
