"""A server's side of an HTTP connection, in front of uvicorn's protocol: what its peer may cost.

It finds out whether the connection waits for its peer, and tells ``Inbound``. What takes the parser long, such as a
body in chunks of one byte, takes turns (``portions``).
"""

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from osmosis_ai.rollout.core.turnstile import turnstile_of
from osmosis_ai.rollout.wire.portions import FIRST_BYTES, Portions
from osmosis_ai.rollout.wire.waiting import HEAD_SECONDS, For, Inbound

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol
else:
    _Protocol = object


class Bounded(_Protocol):
    """What the bounds need of either of uvicorn's protocols, in front of which it stands."""

    inbound: Inbound

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # uvicorn makes each line before it asks whether anybody reads it.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        self.waits_for = For.HEAD
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
            self._wait(For.READER)

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
        if self.waits_for in (For.READER, For.END) or self.transport.is_closing():
            self.abort()
        elif self.waits_for is For.HEAD and self._unfinished_bytes:
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
        self._wait(For.END)
        self.transport.close()

    def _wait(self, what: For) -> None:
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
        if cycle is None or (cycle.response_complete and received_bytes and self.waits_for is not For.REST):
            if self.waits_for is For.NEXT:  # one that was used waits for the head since its first byte
                self._wait(For.HEAD)
            self._unfinished_bytes += received_bytes
            self.inbound.unfinished_bytes += received_bytes
            self.inbound.make_room(self)
        elif not cycle.response_complete:
            if not cycle.more_body:
                self.waits_for = For.HEAD
                self._forget()
            elif self.waits_for is not For.BODY or self not in self.inbound.waiting:
                self._wait(For.BODY)
        elif received_bytes:
            self._pause_reading()
        else:
            self._wait(For.REST if cycle.more_body else For.NEXT)

    def _pause_reading(self) -> None:
        """Take turns in reading what is thrown away: uvloop reads 8 MB a round from whoever sends that much."""
        if self.flow.read_paused:
            return
        self.flow.pause_reading()
        turn = self.loop.create_future()
        turn.add_done_callback(lambda _: self.flow.resume_reading())
        turnstile_of(self.loop).resolve(turn, None)


class BoundedH11(Bounded):
    """h11 has a bound of its own for a head or a trailer (16 KiB), which holds for what is not complete."""
