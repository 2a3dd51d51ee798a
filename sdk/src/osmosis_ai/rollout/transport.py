"""Connections to trainers, shared by all rollouts of one event loop.

A rollout has an ``httpx.AsyncClient`` of its own, which is cheap, on top of a ``SharedTransport``, which is not: one
connection pool a trainer origin, and one TLS context a process. Closing a rollout's client leaves the pool open;
``close_transports`` closes the pools of the running loop.
"""

import asyncio
import ssl
from functools import cache
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import httpx

_PoolKey = tuple[str, str, int | None, int, int]
_Pools = dict[_PoolKey, httpx.AsyncHTTPTransport]

_pools_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pools] = WeakKeyDictionary()
KEEPALIVE_EXPIRY_SECONDS = 30.0
_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})


class SharedTransport(httpx.AsyncBaseTransport):
    """Sends through the pool of the request's origin in the running loop."""

    def __init__(self, max_connections: int, max_keepalive_connections: int) -> None:
        self._max_connections = max_connections
        self._max_keepalive_connections = max_keepalive_connections

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; errors are httpx's own."""
        return await self._pool(request.url).handle_async_request(request)

    def _pool(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        pools = _pools_of_loop.setdefault(asyncio.get_running_loop(), {})
        key = (url.scheme, url.host, url.port, self._max_connections, self._max_keepalive_connections)
        pool = pools.get(key)
        if pool is None:
            pool = pools[key] = httpx.AsyncHTTPTransport(
                verify=_tls_context() if url.scheme == "https" else _unused_tls_context(),
                limits=httpx.Limits(
                    max_connections=self._max_connections,
                    max_keepalive_connections=self._max_keepalive_connections,
                    keepalive_expiry=KEEPALIVE_EXPIRY_SECONDS,
                ),
                proxy=_proxy_for(url),
            )
        return pool


async def close_transports() -> None:
    """Close every pool of the running loop; a later request opens a new one."""
    pools = _pools_of_loop.pop(asyncio.get_running_loop(), {})
    for pool in pools.values():
        await pool.aclose()


def _proxy_for(url: httpx.URL) -> str | None:
    """The proxy that the environment names for ``url`` (``HTTPS_PROXY`` and so on); none for this machine itself."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    direct = url.host in _THIS_MACHINE or proxy_bypass(url.netloc.decode("ascii"))
    return proxy if proxy and not direct else None


@cache
def _tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@cache
def _unused_tls_context() -> ssl.SSLContext:
    # httpx would load the certificate store (tens of milliseconds) for a pool that never speaks TLS.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
