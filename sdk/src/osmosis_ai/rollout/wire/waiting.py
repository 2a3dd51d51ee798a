"""The connections of one server that wait for their peers: for a head, a body, or that it reads.

Invariant: ``Inbound.waiting`` holds these connections, and no others, by how long they have waited. Beyond the largest
number of connections the one that has waited longest is closed: whoever sends its request at once is served, however
many do not.
"""

import asyncio
import logging
import math
from collections.abc import Sized
from enum import Enum, auto
from typing import Protocol

logger = logging.getLogger(__name__)

HEAD_SECONDS = 15.0
"""From the connection, or from the first byte where it has been used before."""
UNREAD_SECONDS = 60.0
CLOSE_SECONDS = 5.0
"""For what has been sent to be taken by the peer, once the connection is to be closed."""
LOOK_SECONDS = 1.0
UNFINISHED_HEADS_BYTES = 32 * 1024 * 1024
TELL_SECONDS = 60.0


class For(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    REST = auto()
    """Of a body whose reply has gone."""
    NEXT = auto()
    """The first byte of the next request."""
    READER = auto()
    """The peer is to take what was sent."""
    END = auto()


class Waiter(Protocol):
    """A connection, as far as it matters here."""

    loop: asyncio.AbstractEventLoop
    waits_for: For

    @property
    def connections(self) -> Sized:
        """All of its server."""

    def late(self) -> None:
        """Its peer has taken too long."""

    def abort(self) -> None:
        """Close at once."""


class Inbound:
    """The connections of one server that wait for their peers."""

    def __init__(self, max_connections: int, keep_alive_seconds: float) -> None:
        self.waiting: dict[Waiter, float] = {}
        """Since when, by the loop's clock; the longest wait first."""
        self.unfinished_bytes = 0
        self.pipelined = 0
        self._limits_seconds = {
            For.HEAD: HEAD_SECONDS,
            For.BODY: math.inf,
            For.REST: HEAD_SECONDS,
            For.NEXT: keep_alive_seconds + CLOSE_SECONDS,  # uvicorn closes it earlier, if the peer reads
            For.READER: UNREAD_SECONDS,
            For.END: CLOSE_SECONDS,
        }
        self._max_connections = max_connections
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = -math.inf

    def add(self, connection: Waiter) -> None:
        """From now on ``connection``, which did not, waits for its peer."""
        self.waiting[connection] = connection.loop.time()
        if self._timer is None:
            self._timer = connection.loop.call_later(LOOK_SECONDS, self._look, connection.loop)

    def make_room(self, newest: Waiter) -> None:
        """End the connection that has waited longest, where there is more than may be."""
        count = len(newest.connections)
        if count <= self._max_connections and self.unfinished_bytes <= UNFINISHED_HEADS_BYTES:
            return
        now = newest.loop.time()
        if now - self._told_at > TELL_SECONDS:
            self._told_at = now
            logger.warning(
                "There are %d connections, with %d bytes of unfinished requests: those that send nothing are closed.",
                count,
                self.unfinished_bytes,
            )
        next(iter(self.waiting), newest).abort()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        # A list, as the late are taken out or moved to the end.
        for connection, since in list(self.waiting.items()):
            if now - since > self._limits_seconds[connection.waits_for]:
                connection.late()
        self._timer = loop.call_later(LOOK_SECONDS, self._look, loop) if self.waiting else None
