"""The ways to all trainers: a channel an origin, opened when it is first called, ours or httpx's as the facts have it.

Rollouts come and go and share what is dear: connections, and one TLS context a process. What is open belongs to the
event loop that opened it. Beyond ``MAX_ORIGINS`` in a loop, the channels that were used longest ago and have no request
under way are closed. Where this machine has no descriptor or memory for a connection, a call waits for it until its
limit: that is no failure of the trainer's.
"""

import asyncio
import logging
import math
import os
import ssl
import sys
import time
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from weakref import WeakKeyDictionary

import httpx

from osmosis_ai.rollout.core.shortage import descriptor_limit, hindered_connecting
from osmosis_ai.rollout.wire.addresses import proxy_for
from osmosis_ai.rollout.wire.channel import MAX_REPLY_BYTES, Limits, Origin, Reply, TrainerChannel, target_of

logger = logging.getLogger(__name__)

MAX_ORIGINS = 256
MIN_SHORTAGE_PAUSE_SECONDS = 0.05
MAX_SHORTAGE_PAUSE_SECONDS = 1.0
TELL_SECONDS = 60.0


class TrainerChannels:
    """A ``TrainerChannel`` to every origin; may be used in several event loops, one after the other or at once.

    Args:
        max_connections: to one origin at once.
        max_idle: of these, kept open when idle.
        max_reply_bytes: of one reply's body, before and after decompression.
    """

    def __init__(self, max_connections: int, max_idle: int, max_reply_bytes: int = MAX_REPLY_BYTES) -> None:
        self._limits = Limits(max_connections, max_idle, max_reply_bytes)
        self._told_at = -math.inf
        self._of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Origin, _Open]] = WeakKeyDictionary()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], limit_seconds: float, *, only_status: bool = False
    ) -> Reply:
        """As ``TrainerChannel.post``."""
        origin = target_of(url).origin
        loop = asyncio.get_running_loop()
        channels = self._of_loop.get(loop)
        if channels is None:
            channels = self._of_loop[loop] = {}
        deadline = time.monotonic() + limit_seconds
        pause_seconds = MIN_SHORTAGE_PAUSE_SECONDS
        while True:
            open_: _Open | None = None
            try:
                open_ = channels.pop(origin, None) or _Open(_new_channel(origin, self._limits))
                channels[origin] = open_  # the one used last comes last
                open_.requests += 1  # before anything is awaited: another call must not find it unused and close it
                if len(channels) > MAX_ORIGINS:
                    await _close_surplus(channels)
                return await open_.channel.post(url, body, headers, limit_seconds, only_status=only_status)
            except (httpx.ConnectError, httpx.ConnectTimeout, OSError) as error:
                if not hindered_connecting(error):
                    raise
                # Nothing has been sent, and it is no failure of the trainer's.
                self._tell_of_shortage()
                left_seconds = deadline - time.monotonic()
                if left_seconds <= 0:
                    raise httpx.ConnectTimeout(f"This machine is short of what a connection needs: {error}") from error
            finally:
                if open_ is not None:
                    open_.requests -= 1
            await asyncio.sleep(min(pause_seconds, left_seconds))
            pause_seconds = min(2 * pause_seconds, MAX_SHORTAGE_PAUSE_SECONDS)
            limit_seconds = max(deadline - time.monotonic(), 0.001)

    def _tell_of_shortage(self) -> None:
        now = time.monotonic()
        if now - self._told_at > TELL_SECONDS:
            self._told_at = now
            logger.error(
                "No more files, sockets or memory for a connection to a trainer (at most %d open files): calls wait for"
                " some. Raise the limit (ulimit -n), or run fewer rollouts at once.",
                descriptor_limit(),
            )

    async def aclose(self) -> None:
        """Close every channel of the running loop; a later ``post`` opens a new one."""
        for open_ in self._of_loop.pop(asyncio.get_running_loop(), {}).values():
            await open_.channel.aclose()


class _Open:
    __slots__ = ("channel", "requests")

    def __init__(self, channel: TrainerChannel) -> None:
        self.channel = channel
        self.requests = 0
        """Under way."""


async def _close_surplus(channels: "dict[Origin, _Open]") -> None:
    unused = [origin for origin, open_ in channels.items() if open_.requests == 0]
    # Taken out before anything is awaited, so that nobody gets one that is being closed.
    for open_ in [channels.pop(origin) for origin in unused[: len(channels) - MAX_ORIGINS]]:
        await open_.channel.aclose()


def direct_channel(url: str, max_idle: int) -> TrainerChannel:
    """A channel to the origin of ``url`` past any proxy, in the running event loop; as many connections as it takes.

    Raises:
        httpx.InvalidURL, httpx.UnsupportedProtocol: ``url`` leads nowhere.
    """
    return _new_channel(target_of(url).origin, Limits(sys.maxsize, max_idle), is_direct=True)


def _new_channel(origin: Origin, limits: Limits, *, is_direct: bool = False) -> TrainerChannel:
    tls = tls_context() if origin.scheme == "https" else None
    proxy = None if is_direct else proxy_for(origin.scheme, origin.host, origin.netloc)
    if proxy is None and httptools_is_here():
        from osmosis_ai.rollout.wire.http1_channel import Http1Channel

        return Http1Channel(origin, tls, limits)
    from osmosis_ai.rollout.wire.httpx_channel import HttpxChannel

    return HttpxChannel(tls, limits, proxy)


_shared: dict[Limits, TrainerChannels] = {}


def shared_channels(max_connections: int, max_idle: int) -> TrainerChannels:
    """The process's own channels of these limits, for clients that are handed none."""
    limits = Limits(max_connections, max_idle)
    return _shared.get(limits) or _shared.setdefault(limits, TrainerChannels(max_connections, max_idle))


async def close_shared_channels() -> None:
    """Close what ``shared_channels`` has opened in the running loop."""
    for channels in list(_shared.values()):
        await channels.aclose()


def check_certificates() -> None:
    """Find out at the start whether trainers can be called over https, and not in every rollout.

    Raises:
        ValueError: ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` is set, and names nothing that can be used.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file:
        try:
            tls_context()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "strerror", None) or str(error)
            raise ValueError(f"SSL_CERT_FILE names {file!r}, which holds no certificates: {reason}.") from error
    elif folder and not Path(folder).is_dir():
        raise ValueError(f"SSL_CERT_DIR names {folder!r}, which is no folder.")


@cache
def tls_context() -> ssl.SSLContext:
    """The process's TLS context; loading its certificates takes tens of milliseconds."""
    return httpx.create_ssl_context()


@cache
def httptools_is_here() -> bool:
    """Whether our own HTTP/1.1 can be had: its parser is an extra's."""
    return find_spec("httptools") is not None
