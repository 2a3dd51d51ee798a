"""httpx's way to one origin: through a proxy, which ``http1_channel`` does not speak to, or where httptools is missing.

Below ``httpx.AsyncClient``, at its transport: no cookies (they would go from one rollout to another), no redirects, no
headers but those asked for. So a trainer is sent the same request either way.
"""

import asyncio
import ssl
from collections.abc import Mapping

import httpx

from osmosis_ai.rollout.wire.channel import CONNECT_TIMEOUT_SECONDS, MAX_REPLY_BYTES, Limits, Reply, too_large

KEEPALIVE_SECONDS = 30.0


class HttpxChannel:
    """A ``TrainerChannel`` for the URLs of one origin.

    Raises:
        httpx.ProxyError: ``proxy`` is no URL of a proxy, or of a kind that is not supported here.
    """

    def __init__(self, tls: ssl.SSLContext | None, limits: Limits, proxy: str | None) -> None:
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

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], limit_seconds: float) -> Reply:
        """As ``TrainerChannel.post``."""
        # Reading and writing have no limit of their own: httpx counts each anew, so a peer that sends a byte now and
        # then would never be too late.
        limits = {"connect": min(CONNECT_TIMEOUT_SECONDS, limit_seconds), "pool": limit_seconds}
        request = httpx.Request("POST", url, headers=headers, content=body, extensions={"timeout": limits})
        try:
            async with asyncio.timeout(limit_seconds):
                response = await self._transport.handle_async_request(request)
                try:
                    content = await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise httpx.ReadTimeout("") from error
        return Reply(response.status_code, content, response.headers.raw)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise too_large()
    return bytes(body)
