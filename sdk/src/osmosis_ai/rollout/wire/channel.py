"""A channel carries POSTs to trainers: the two methods that a client needs of HTTP, and what goes in and comes out.

``http1_channel`` and ``httpx_channel`` each serve one origin. ``channels`` has one of the two for every origin, and is
a channel itself; that one is handed to clients where an app is built, and tests hand over one of their own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import httpx
from pydantic_core import from_json

from osmosis_ai.rollout.wire.heads import MAX_HEAD_BYTES, MAX_HEADER_BYTES, MAX_HEADERS

CONNECT_TIMEOUT_SECONDS = 10.0
MAX_REPLY_BYTES = 64 * 1024 * 1024
"""Of a body, before and after decompression, where nothing else is said."""
MIN_REPLY_BYTES = 16 * 1024 * 1024
"""The least that ``reply_bytes_for`` gives: token ids and logprobs come with a message, and are no part of results."""
BEGINNING_BYTES = 16_384
PAGE_BYTES = 1024
"""Of a page of HTML, enough to see that it is one."""
DISCARDED_BYTES = 65_536
"""Of a body that nobody reads, which may be received for the sake of the connection. Beyond it is closed."""
DISCARD_SECONDS = 1.0
"""The same in time."""


@dataclass(slots=True)
class Reply:
    """A response, complete with its body."""

    status_code: int
    content: bytes
    raw_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def headers(self) -> httpx.Headers:
        """The headers, whatever the case of their names."""
        return httpx.Headers(self.raw_headers)

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 become replacement characters."""
        return self.content.decode("utf-8", "replace")

    @property
    def beginning(self) -> str:
        """What stands first in ``text``: as much as errors quote of a body that may have megabytes."""
        return self.content[:BEGINNING_BYTES].decode("utf-8", "replace")

    def json(self) -> Any:
        """The body, decoded. Raises ``ValueError`` if it is no JSON."""
        try:
            return from_json(self.content)
        except ValueError:  # stricter than the standard library, which takes lone surrogates and a byte order mark
            return json.loads(self.content)


class TrainerChannel(Protocol):
    """Carries the POSTs of many rollouts at once."""

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], limit_seconds: float, *, only_status: bool = False
    ) -> Reply:
        """POST ``body`` and give the whole reply, whatever its status; redirects are not followed.

        Args:
            headers: all but ``Host`` and ``Content-Length``; ASCII.
            limit_seconds: for all of it, above 0; connecting takes at most ``CONNECT_TIMEOUT_SECONDS`` of that.
            only_status: of a 2xx the status is all that is asked for. Its body may be left out, unread; of one that
                says it is HTML, and is not coded, the beginning is given, as far as it comes at once.

        Raises:
            httpx.RequestError, httpx.InvalidURL: no reply, or none that can be used.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the connections that the running event loop has; a later ``post`` opens new ones."""
        ...


class Origin(NamedTuple):
    """Where connections lead to (RFC 9110, section 4.3.1)."""

    scheme: str
    host: str
    port: int
    netloc: str
    """Host and port as they stand in the URL, without a default port."""


class Target(NamedTuple):
    """What a URL comes to in an HTTP/1.1 request."""

    origin: Origin
    head: str
    """Request line and ``Host`` header."""


# A rollout's two URLs are called again and again, and parsing one costs as much as the rest of a request.
@lru_cache(maxsize=4096)
def target_of(url: str) -> Target:
    """Where ``url`` leads. Raises ``httpx.InvalidURL`` or ``httpx.UnsupportedProtocol`` where that is nowhere."""
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise httpx.UnsupportedProtocol(f"The URL {url!r} is not an http or https URL with a host.")
    netloc, path = parsed.netloc.decode("ascii"), parsed.raw_path.decode("ascii")
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    origin = Origin(parsed.scheme, parsed.raw_host.decode("ascii"), port, netloc)
    return Target(origin, f"POST {path} HTTP/1.1\r\nHost: {netloc}\r\n")


def may_be_page(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a reply with these headers, their names in lower case, says that it is HTML, in no coding."""
    return headers.get(b"content-type", b"")[:9].lower() == b"text/html" and b"content-encoding" not in headers


def reply_bytes_for(max_result_bytes: int) -> int:
    """How large a reply may be where results may have ``max_result_bytes``: what fits in none need not be read."""
    return max(max_result_bytes, MIN_REPLY_BYTES)


def too_large(max_bytes: int) -> httpx.RemoteProtocolError:
    """The error for a body beyond ``max_bytes``."""
    return httpx.RemoteProtocolError(f"The reply is larger than {max_bytes} bytes.")


def head_too_large() -> httpx.RemoteProtocolError:
    """The error for a reply with more beside its body than it may have."""
    return httpx.RemoteProtocolError(
        f"The reply's headers are too large: {MAX_HEADERS}, {MAX_HEADER_BYTES} bytes each and {MAX_HEAD_BYTES} in all"
        " are the most."
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the connections to one origin, and of what comes over them."""

    max_connections: int
    max_idle: int
    """Of these, kept open when idle."""
    max_reply_bytes: int = MAX_REPLY_BYTES
