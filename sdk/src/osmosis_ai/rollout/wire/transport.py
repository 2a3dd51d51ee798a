"""Connections to trainers, shared by all rollouts of one event loop.

A rollout has a client of its own, which is cheap, on top of connections that are not: a pool a trainer origin, and one
TLS context a process. ``direct_pool`` gives the quick ones (``http1``), ``SharedTransport`` what httpx needs. Closing a
rollout's client leaves the pool open; ``close_transports`` closes the pools of the running loop. Beyond ``MAX_POOLS``
origins, the pools that have waited longest without a request in flight are closed.
"""

import asyncio
import itertools
import os
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

import httpx

if TYPE_CHECKING:
    from osmosis_ai.rollout.wire.http1 import Pool as DirectPool

KEEPALIVE_EXPIRY_SECONDS = 30.0
MAX_POOLS = 256

IDEMPOTENCY_HEADER = "Idempotency-Key"
CALL_ID: ContextVar[str] = ContextVar("CALL_ID", default="")
"""The value of ``IDEMPOTENCY_HEADER`` for the requests of the current task; empty sends none."""

_calls = itertools.count()
_process_prefix = ""


def new_call_id() -> str:
    """A value of ``IDEMPOTENCY_HEADER`` that no other call has, in this process or another; no secret."""
    global _process_prefix
    _process_prefix = _process_prefix or os.urandom(8).hex()
    return f"{_process_prefix}{next(_calls):08x}"


def _forget_prefix() -> None:
    global _process_prefix
    _process_prefix = ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_prefix)


class SharedTransport(httpx.AsyncBaseTransport):
    """Sends through the pool of the request's origin in the running loop."""

    def __init__(self, max_connections: int, max_keepalive_connections: int) -> None:
        self._max_connections = max_connections
        self._max_keepalive_connections = max_keepalive_connections

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; errors are httpx's own."""
        pools = _pools_of_loop.setdefault(asyncio.get_running_loop(), {})
        url = request.url
        key = (url.scheme, url.host, url.port, self._max_connections, self._max_keepalive_connections)
        pool = pools.pop(key, None) or self._new_pool(url)
        pools[key] = pool  # the one used last comes last
        pool.requests_in_flight += 1
        try:
            await _close_surplus(pools)
            response = await pool.transport.handle_async_request(request)
        except BaseException:
            pool.requests_in_flight -= 1
            raise
        response.stream = _CountedStream(cast(httpx.AsyncByteStream, response.stream), pool)
        return response

    def _new_pool(self, url: httpx.URL) -> "_Pool":
        try:
            transport = httpx.AsyncHTTPTransport(
                verify=tls_context() if url.scheme == "https" else _unused_tls_context(),
                limits=httpx.Limits(
                    max_connections=self._max_connections,
                    max_keepalive_connections=self._max_keepalive_connections,
                    keepalive_expiry=KEEPALIVE_EXPIRY_SECONDS,
                ),
                proxy=proxy_for(url.scheme, url.host, url.netloc.decode("ascii")),
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise httpx.ProxyError(f"The proxy that the environment names cannot be used: {error}") from error
        return _Pool(transport)


class _Pool:
    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self.transport = transport
        self.requests_in_flight = 0


class _CountedStream(httpx.AsyncByteStream):
    """A response body; its request is in flight until it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, pool: _Pool) -> None:
        self._stream = stream
        self._pool: _Pool | None = pool

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        pool, self._pool = self._pool, None
        try:
            await self._stream.aclose()
        finally:
            if pool is not None:
                pool.requests_in_flight -= 1


def direct_pool(scheme: str, host: str, port: int, netloc: str, limits: tuple[int, int]) -> "DirectPool | None":
    """The running loop's direct connections to an origin; ``None`` behind a proxy, or where httptools is missing.

    ``limits``: connections at once, and of those kept open when idle.
    """
    pools = _direct_pools_of_loop.setdefault(asyncio.get_running_loop(), {})
    key = (scheme, host, port, *limits)
    pool = pools.pop(key, None)
    if pool is None:
        if not _httptools_is_here() or proxy_for(scheme, host, netloc):
            return None
        from osmosis_ai.rollout.wire.http1 import Origin, Pool

        pool = Pool(Origin(host, port, tls_context() if scheme == "https" else None), *limits)
    pools[key] = pool  # the one used last comes last
    if len(pools) > MAX_POOLS:
        unused = [key for key, other in pools.items() if other.is_unused and other is not pool]
        for surplus in unused[: len(pools) - MAX_POOLS]:
            pools.pop(surplus).close()
    return pool


_PoolKey = tuple[str, str, int | None, int, int]
_Pools = dict[_PoolKey, _Pool]

_pools_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pools] = WeakKeyDictionary()


_direct_pools_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str, int, int, int], "DirectPool"]]
_direct_pools_of_loop = WeakKeyDictionary()


async def close_transports() -> None:
    """Close every pool of the running loop; a later request opens a new one."""
    for direct in _direct_pools_of_loop.pop(asyncio.get_running_loop(), {}).values():
        direct.close()
    pools = _pools_of_loop.pop(asyncio.get_running_loop(), {})
    for pool in pools.values():
        await pool.transport.aclose()


async def _close_surplus(pools: _Pools) -> None:
    surplus = len(pools) - MAX_POOLS
    if surplus <= 0:
        return
    unused = [key for key, pool in pools.items() if pool.requests_in_flight == 0][:surplus]
    for pool in [pools.pop(key) for key in unused]:
        await pool.transport.aclose()


def proxy_for(scheme: str, host: str, netloc: str) -> str | None:
    """The proxy that the environment names for a URL (``HTTPS_PROXY`` and so on); none for this machine itself."""
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return proxy if proxy and not (_is_this_machine(host) or proxy_bypass(netloc)) else None


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@cache
def tls_context() -> ssl.SSLContext:
    """The process's TLS context; loading its certificates takes tens of milliseconds."""
    return httpx.create_ssl_context()


@cache
def _unused_tls_context() -> ssl.SSLContext:
    # httpx would load the certificate store (tens of milliseconds) for a pool that never speaks TLS.
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _httptools_is_here() -> bool:
    return find_spec("httptools") is not None
