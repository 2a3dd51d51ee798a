"""A request's head, bounded where uvicorn's parser is httptools; and requests that wait for a reply before theirs."""

from http import HTTPStatus
from typing import Any

from osmosis_ai.rollout.wire.bounded import Bounded
from osmosis_ai.rollout.wire.heads import HEAD_TOO_LARGE, MAX_HEAD_BYTES, MAX_HEADERS

MAX_PIPELINED = 4096
"""Requests of all connections that wait for the reply to one before them; each takes kilobytes, and came in tens."""


class _HeadTooLargeError(Exception):
    pass


class BoundedHttptools(Bounded):
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
