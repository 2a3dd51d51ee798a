"""httpx's way to one origin: through a proxy, which ``http1_channel`` does not speak to, or where httptools is missing.

Below ``httpx.AsyncClient``, at its transport: no cookies (they would go from one rollout to another), no redirects, no
headers but those asked for. So a trainer is sent the same request either way.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from operator import attrgetter

import httpx

from osmosis_ai.rollout.wire.channel import (
    CONNECT_TIMEOUT_SECONDS,
    DISCARD_SECONDS,
    DISCARDED_BYTES,
    PAGE_BYTES,
    Limits,
    Reply,
    may_be_page,
    too_large,
)
from osmosis_ai.rollout.wire.coding import decoded, is_coded
from osmosis_ai.rollout.wire.httpx_reading import Meter, measure

KEEPALIVE_SECONDS = 30.0


class HttpxChannel:
    """A ``TrainerChannel`` for the URLs of one origin.

    Raises:
        httpx.ProxyError: ``proxy`` is no URL of a proxy, or of a kind that is not supported here.
    """

    def __init__(self, tls: ssl.SSLContext | None, limits: Limits, proxy: str | None) -> None:
        self._max_reply_bytes = limits.max_reply_bytes
        try:
            self._transport = httpx.AsyncHTTPTransport(
                # Not left to httpx, which would load the certificate store (tens of milliseconds) for plain http too.
                verify=tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                limits=httpx.Limits(
                    max_connections=limits.max_connections,
                    max_keepalive_connections=limits.max_idle,
                    keepalive_expiry=KEEPALIVE_SECONDS,
                ),
                proxy=proxy,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise httpx.ProxyError(f"The proxy that the environment names cannot be used: {error}") from error
        measure(self._transport)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], limit_seconds: float, *, only_status: bool = False
    ) -> Reply:
        """As ``TrainerChannel.post``."""
        # Reading and writing have no limit of their own: httpx counts each anew, so a peer that sends a byte now and
        # then would never be too late.
        limits = {"connect": min(CONNECT_TIMEOUT_SECONDS, limit_seconds), "pool": limit_seconds}
        request = httpx.Request("POST", url, headers=headers, content=body, extensions={"timeout": limits})
        meter = Meter()
        meter.start()
        try:
            async with asyncio.timeout(limit_seconds):
                response = await self._transport.handle_async_request(request)
                try:
                    meter.end_of_head(response.headers.raw)
                    if only_status and response.is_success:
                        beginning = await _discard(response, meter)
                        return Reply(response.status_code, beginning, response.headers.raw)
                    content = await self._read(response, meter)
                finally:
                    if _has_leftovers(response):
                        await response.extensions["network_stream"].aclose()
                    await response.aclose()
        except TimeoutError as error:
            raise httpx.ReadTimeout("") from error
        return Reply(response.status_code, content, response.headers.raw)

    async def _read(self, response: httpx.Response, meter: Meter) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_raw():
            await meter.take_turns()
            meter.body_bytes += len(chunk)
            body += chunk
            if len(body) > self._max_reply_bytes:
                body.clear()  # the error's traceback holds it for as long as somebody keeps the error
                raise too_large(self._max_reply_bytes)
        # Not httpx's decoders, which take half a body for the whole, and decompress without a bound.
        if is_coded(response.headers.get("content-encoding", "").encode("latin-1")):
            return await decoded(bytes(body), self._max_reply_bytes)
        return bytes(body)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


# httpcore puts a connection back with what has come behind the reply, and takes that for the reply to the next request.
_trailing_data = attrgetter("stream._httpcore_stream._stream._connection._h11_state.trailing_data")


def _has_leftovers(response: httpx.Response) -> bool:
    try:
        return bool(_trailing_data(response)[0])
    except AttributeError:
        return True  # another httpcore, which does not show it: a new connection for each request is dear, but right


async def _discard(response: httpx.Response, meter: Meter) -> bytes:
    """Receive a short body that comes at once, so that the connection can be used again; gives a page's beginning."""
    beginning = b""
    is_kept = may_be_page({name.lower(): value for name, value in response.headers.raw})
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            async for chunk in response.aiter_raw():
                await meter.take_turns()
                if is_kept and len(beginning) < PAGE_BYTES:
                    beginning += chunk[:PAGE_BYTES]
                meter.body_bytes += len(chunk)
                if meter.body_bytes > DISCARDED_BYTES:
                    break
    return beginning
