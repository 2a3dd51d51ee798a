"""HTTP/1.1 for loopback, both ways: messages with a Content-Length, on connections that stay open."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import cast

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"


class ProtocolError(Exception):
    """The peer sent something this small reader does not know."""


class MessageReader:
    """Cuts a stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed_bytes = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Give head and body of each message that is complete.

        Raises:
            ProtocolError: a message says no length.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed_bytes:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        while data:
            head_bytes = data.find(_HEAD_END) + len(_HEAD_END)
            self._needed_bytes = 0
            if head_bytes < len(_HEAD_END):
                break
            head = data[:head_bytes]
            length = _CONTENT_LENGTH.search(head)
            if length is None and not head.startswith(b"GET "):
                raise ProtocolError(f"A message without Content-Length: {head[:200]!r}")
            self._needed_bytes = head_bytes + (int(length[1]) if length else 0)
            if len(data) < self._needed_bytes:
                break
            yield head, data[head_bytes : self._needed_bytes]
            data = data[self._needed_bytes :]
        self._buffer += data


class Connection(asyncio.Protocol, ABC):
    """One connection; ``message_received`` is called with each message."""

    def __init__(self) -> None:
        self._reader = MessageReader()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        for head, body in self._reader.feed(data):
            self.message_received(head, body)

    @abstractmethod
    def message_received(self, head: bytes, body: bytes) -> None:
        """Take a message."""

    def write(self, data: bytes) -> None:
        """Send bytes, unless the peer has gone."""
        if self.transport is not None:
            self.transport.write(data)

    @property
    def is_open(self) -> bool:
        """Whether the peer is there, as far as is known."""
        return self.transport is not None and not self.transport.is_closing()

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self.transport is not None:
            self.transport.close()


def request(path: bytes, body: bytes, api_key: str) -> bytes:
    """A POST of JSON."""
    return (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path, api_key.encode(), len(body), body)
    )


def response(status: bytes, body: bytes) -> bytes:
    """An answer with JSON."""
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def status_of(head: bytes) -> int:
    """The status of a response."""
    return int(head[9:12])


def closes(head: bytes) -> bool:
    """Whether the server closes the connection after this response (RFC 9112, 9.6)."""
    return b"\r\nconnection: close" in head.lower()
