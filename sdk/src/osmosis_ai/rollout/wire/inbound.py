"""What a peer may cost a server of ours before its request is whole: bounds around uvicorn's HTTP protocols.

A request head has at most ``MAX_HEAD_BYTES`` (one read more, while it is not whole), ``MAX_HEADERS`` and
``HEAD_SECONDS``, all unfinished heads together ``UNFINISHED_HEADS_BYTES``, and at most ``MAX_PIPELINED`` requests wait
for a reply before theirs; a reply that nobody reads is given up after
``UNREAD_SECONDS``. How long a body may take is for who reads it; one that is still on its way when its reply has gone
has ``HEAD_SECONDS`` more. What takes the parser long, such as a body in chunks of one byte, takes turns (``portions``).

Invariant: ``Inbound.waiting`` holds the connections that wait for their peer (for a head, a body, or that it reads),
and no others, by how long they do. Beyond the largest number of connections the one that has waited longest is closed:
whoever sends its request at once is served, however many do not.
"""

import asyncio
import logging
import math
import signal
import sys
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from osmosis_ai.rollout.core.shortage import descriptor_limit
from osmosis_ai.rollout.core.turnstile import turnstile_of
from osmosis_ai.rollout.wire.channel import MAX_HEAD_BYTES, MAX_HEADERS
from osmosis_ai.rollout.wire.portions import FIRST_BYTES, Portions

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol
else:
    _Protocol = object

logger = logging.getLogger(__name__)

HEAD_SECONDS = 15.0
"""From the connection, or from the first byte where it has been used before."""
UNREAD_SECONDS = 60.0
CLOSE_SECONDS = 5.0
"""For what has been sent to be taken by the peer, once the connection is to be closed."""
LOOK_SECONDS = 1.0
UNFINISHED_HEADS_BYTES = 32 * 1024 * 1024
MAX_PIPELINED = 4096
"""Requests of all connections that wait for the reply to one before them; each takes kilobytes, and came in tens."""
MAX_CONNECTIONS = 4096
MIN_CONNECTIONS = 16
OWN_DESCRIPTORS = 64
"""Journal, traces, listeners, event loop, what the interpreter opens."""
TELL_SECONDS = 60.0


def connection_limit(outbound: int) -> int:
    """How many connections a server may hold in a process that opens up to ``outbound`` of its own."""
    usable = descriptor_limit() - OWN_DESCRIPTORS
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, max(usable // 4, usable - outbound)))


def bound(config: "uvicorn.Config", max_connections: int) -> None:
    """Bound the connections that a server of ``config`` accepts from now on."""
    if not config.loaded:
        config.load()
    protocol: Any = config.http_protocol_class
    guard = _guard_of(protocol)
    if guard is None:
        logger.warning("%s is not known here: what a request's head may cost is not bounded.", protocol.__name__)
        return
    members = {"inbound": Inbound(max_connections, config.timeout_keep_alive)}
    config.http_protocol_class = type(f"Bounded{protocol.__name__}", (guard, protocol), members)


def bound_this_server(outbound: int) -> bool:
    """Bound the uvicorn whose lifespan is starting in this process, however it was started; whether one was found.

    Args:
        outbound: how many descriptors are to be left for connections of the server's own, and its agent's files.
    """
    import uvicorn

    # No app is told of its server; but uvicorn's is who gets the signals of a process, before any lifespan begins.
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(server, uvicorn.Server):
        return False
    bound(server.config, connection_limit(outbound))
    return True


def has_whole_body(receive: Any) -> bool:
    """Whether ``receive`` is uvicorn's, and gives at once all that is to come of the body."""
    cycle: Any = getattr(receive, "__self__", None)
    return getattr(cycle, "more_body", True) is False and cycle.message_event.is_set()


def _guard_of(protocol: type) -> "type[Bounded] | None":
    guards = {"httptools_impl.HttpToolsProtocol": _BoundedHttptools, "h11_impl.H11Protocol": _BoundedH11}
    for name, guard in guards.items():
        module, _, kind = f"uvicorn.protocols.http.{name}".rpartition(".")
        # Whoever has a class of it has it loaded.
        if module in sys.modules and issubclass(protocol, getattr(sys.modules[module], kind)):
            return guard
    return None


HEAD_TOO_LARGE = {"detail": f"A request's head may have {MAX_HEADERS} headers and {MAX_HEAD_BYTES} bytes."}


def is_too_large(scope: Any) -> bool:
    """Whether a head is, that has come through a server without these bounds."""
    headers = scope["headers"]
    sizes = [len(name) + len(value) + 4 for name, value in headers[: MAX_HEADERS + 1]]
    return len(headers) > MAX_HEADERS or sum(sizes) + len(scope.get("raw_path") or b"") > MAX_HEAD_BYTES


class _For(Enum):
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


class Inbound:
    """The connections of one server that wait for their peers."""

    def __init__(self, max_connections: int, keep_alive_seconds: float) -> None:
        self.waiting: dict[Bounded, float] = {}
        """Since when, by the loop's clock; the longest wait first."""
        self.unfinished_bytes = 0
        self.pipelined = 0
        self._limits_seconds = {
            _For.HEAD: HEAD_SECONDS,
            _For.BODY: math.inf,
            _For.REST: HEAD_SECONDS,
            _For.NEXT: keep_alive_seconds + CLOSE_SECONDS,  # uvicorn closes it earlier, if the peer reads
            _For.READER: UNREAD_SECONDS,
            _For.END: CLOSE_SECONDS,
        }
        self._max_connections = max_connections
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = -math.inf

    def add(self, connection: "Bounded") -> None:
        """From now on ``connection``, which did not, waits for its peer."""
        self.waiting[connection] = connection.loop.time()
        if self._timer is None:
            self._timer = connection.loop.call_later(LOOK_SECONDS, self._look, connection.loop)

    def make_room(self, newest: "Bounded") -> None:
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


class Bounded(_Protocol):
    """What the bounds need of either of uvicorn's protocols, in front of which it stands."""

    inbound: Inbound

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # uvicorn makes each line before it asks whether anybody reads it.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self.waits_for = _For.HEAD
        """The last that it did, where it does not wait."""
        self._unfinished_bytes = 0
        """Of a head whose end has not come."""
        self._is_ours = True
        self._is_unread = False
        self._portions: Portions | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._resume_flow = self.flow.resume_reading
        self.flow.resume_reading = self._resume_reading  # type: ignore[method-assign]
        self.inbound.add(self)
        self.inbound.make_room(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def data_received(self, data: bytes) -> None:
        if not self._is_ours:
            return
        if self._portions is not None:
            self._portions.add(data)
        elif len(data) <= FIRST_BYTES:
            self._feed(data)
            self._look(len(data))
        else:
            self._portions = Portions(self.transport, self.loop, self._take, lambda: not self.flow.read_paused)
            self._portions.add(data)

    def _take(self, portion: bytes, _: bool) -> bool:
        if self._is_ours:
            self._feed(portion)
            self._look(len(portion))
        elif not self.transport.is_closing() and (protocol := self.transport.get_protocol()) is not self:
            cast(asyncio.Protocol, protocol).data_received(portion)  # after a change to WebSocket
        else:
            return False
        return True

    def _resume_reading(self) -> None:
        """As ``FlowControl``; but while something waits, ``Portions`` resumes when it is done."""
        if self._portions is not None and self._portions.waiting:
            self.flow.read_paused = False
        else:
            self._resume_flow()

    def _feed(self, data: bytes) -> None:
        super().data_received(data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._is_unread = True
        if self._is_ours:
            self._wait(_For.READER)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._is_unread = False
        self._look()

    def handle_websocket_upgrade(self, *arguments: Any) -> None:
        self._is_ours = False
        self._forget()
        super().handle_websocket_upgrade(*arguments)

    def late(self) -> None:
        """Its peer has taken too long."""
        if self.waits_for in (_For.READER, _For.END) or self.transport.is_closing():
            self.abort()
        elif self.waits_for is _For.HEAD and self._unfinished_bytes:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, f"The request's head did not arrive within {HEAD_SECONDS:g} s.")
        else:
            self._end()

    def abort(self) -> None:
        """Close at once; what has not been taken by the peer is lost."""
        self._is_ours = False
        self._forget()  # now, as the loop tells of the end only in its next round
        self.transport.abort()

    def refuse(self, status: HTTPStatus, sentence: str) -> None:
        """Answer in place of the app, and close."""
        body = b'{"detail":"%b"}' % sentence.encode("ascii")
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self._end()

    def _end(self) -> None:
        self._is_ours = False
        self._wait(_For.END)
        self.transport.close()

    def _wait(self, what: _For) -> None:
        self._forget()
        self.waits_for = what
        self.inbound.add(self)

    def _forget(self) -> None:
        self.inbound.waiting.pop(self, None)
        if self._unfinished_bytes:
            self.inbound.unfinished_bytes -= self._unfinished_bytes
            self._unfinished_bytes = 0

    def _look(self, received_bytes: int = 0) -> None:
        """Find out whether it waits for its peer, and for what."""
        if not self._is_ours or self._is_unread or self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or (cycle.response_complete and received_bytes and self.waits_for is not _For.REST):
            if self.waits_for is _For.NEXT:  # one that was used waits for the head since its first byte
                self._wait(_For.HEAD)
            self._unfinished_bytes += received_bytes
            self.inbound.unfinished_bytes += received_bytes
            self.inbound.make_room(self)
        elif not cycle.response_complete:
            if not cycle.more_body:
                self.waits_for = _For.HEAD
                self._forget()
            elif self.waits_for is not _For.BODY or self not in self.inbound.waiting:
                self._wait(_For.BODY)
        elif received_bytes:
            self._pause_reading()
        else:
            self._wait(_For.REST if cycle.more_body else _For.NEXT)

    def _pause_reading(self) -> None:
        """Take turns in reading what is thrown away: uvloop reads 8 MB a round from whoever sends that much."""
        if self.flow.read_paused:
            return
        self.flow.pause_reading()
        turn = self.loop.create_future()
        turn.add_done_callback(lambda _: self.flow.resume_reading())
        turnstile_of(self.loop).resolve(turn, None)


class _HeadTooLargeError(Exception):
    pass


class _BoundedHttptools(Bounded):
    """httptools tells of a piece of a head when it has the whole of it, and keeps what it has until then."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._piece_bytes = 0
        self._body_bytes = 0
        self._overhead_bytes = 0
        """Of this message, what came after its first piece and is no body; in a body of chunks, since the last one."""
        self._begins_here = False
        self._is_too_large = False
        self._pipelined = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.pipeline.clear()
        self._count_pipelined()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._pipelined:
            self._count_pipelined()

    def _count_pipelined(self) -> None:
        self.inbound.pipelined += len(self.pipeline) - self._pipelined
        self._pipelined = len(self.pipeline)

    def _feed(self, data: bytes) -> None:
        self._piece_bytes, self._body_bytes, self._begins_here = len(data), 0, False
        super()._feed(data)
        if not self._is_ours or self._is_too_large:
            return
        if self.headers and len(self.headers) > MAX_HEADERS:  # trailers; of a head they are counted where it ends
            self._refuse_head()
            return
        if not self._begins_here:
            self._overhead_bytes += len(data) - self._body_bytes
        elif len(data) > MAX_HEAD_BYTES:
            self._overhead_bytes = self._head_bytes()
        if self._overhead_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begins_here, self._overhead_bytes = True, 0

    def on_chunk_header(self) -> None:
        self._begins_here, self._overhead_bytes = True, 0

    def on_headers_complete(self) -> None:
        # Looked at only where what has come is more than a head may have.
        may_be_large = self._unfinished_bytes + self._piece_bytes > MAX_HEAD_BYTES
        if len(self.headers) > MAX_HEADERS or (may_be_large and self._head_bytes() > MAX_HEAD_BYTES):
            self._is_too_large = True
            raise _HeadTooLargeError
        super().on_headers_complete()
        if self.pipeline:
            self._count_pipelined()
            if self.inbound.pipelined > MAX_PIPELINED:
                self._is_too_large = True
                raise _HeadTooLargeError

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn does where the parser gives up, as it does on what is raised above."""
        if self._is_too_large:
            self._refuse_head()
        else:
            super().send_400_response(msg)

    def _head_bytes(self) -> int:
        return len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers])

    def _refuse_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # behind the head, so there is a reply to come
            self.abort()
            return
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, HEAD_TOO_LARGE["detail"])


class _BoundedH11(Bounded):
    """h11 has a bound of its own for a head or a trailer (16 KiB), which holds for what is not complete."""
