"""The other end of an HTTP connection, down to the bytes: every answer is scripted, every connection counted."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

CHAT_REPLY: dict[str, Any] = {
    "id": "cmpl-9",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "About 85 grams."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 61, "completion_tokens": 7, "total_tokens": 68},
}

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


def reply(body: Any = CHAT_REPLY, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Answer with ``body``: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(writer: asyncio.StreamWriter) -> None:
        fields = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode("latin-1") + content)

    return answer


def refuse(status: int, text: str = "scripted", headers: dict[str, str] | None = None) -> Answer:
    """Answer with an error status and ``text``."""
    return reply(text.encode(), status, headers)


async def drop(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a word."""
    writer.close()


async def close_half_way(writer: asyncio.StreamWriter) -> None:
    """Promise more than is sent, then close."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"choices": [')
    await writer.drain()
    writer.close()


async def hang(writer: asyncio.StreamWriter) -> None:
    """Say nothing until the other side gives up."""
    await asyncio.Event().wait()


class HttpPeer:
    """Gives ``answers`` one after the other, then ``answer`` for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.answer: Answer = reply()
        self.requests: list[Received] = []
        self.connections = 0
        self._open: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def bodies(self) -> list[Any]:
        """The decoded bodies so far."""
        return [request.json for request in self.requests]

    def sent(self, header: str) -> list[str | None]:
        """One header of each request so far."""
        return [request.headers.get(header.lower()) for request in self.requests]

    async def wait_for_requests(self, count: int) -> None:
        """Until ``count`` requests have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    async def wait_until_all_have_gone(self) -> None:
        """Until every connection is closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    request = await _read(reader)
                    async with self._changed:
                        self.requests.append(request)
                        self._changed.notify_all()
                    answer = self.answers.pop(0) if self.answers else self.answer
                    await answer(writer)
                    await writer.drain()
        finally:
            writer.close()
            async with self._changed:
                self._open.discard(task)
                self._changed.notify_all()


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, target, headers, body)
