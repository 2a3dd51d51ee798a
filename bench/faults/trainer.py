"""The trainer of the fault bench: plain HTTP on a loopback socket, so that it can fail in every way there is.

Some calls are answered 503, and some results are kept but the connection is dropped before the acknowledgement. Beyond
that it fails when it is told to: ``away`` closes the port with all its connections, ``refusing`` answers 503, and
``abort`` cuts off what is being generated, as engines do at a weight update.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from secrets import token_hex
from typing import Any, Self

from bench.faults.agent import RUN_NONCE
from bench.faults.ledger import PARTIAL_TEXT, Ledger

CHAT_PATH = "/v1/chat/completions"
RESULT_PATH = "/v1/rollout/completed"
LOOPBACK = "127.0.0.1"
BACKLOG = 4096


@dataclass(frozen=True)
class Faults:
    """How the trainer fails by itself; shares from 0 to 1."""

    refuse: float = 0.0
    """Of all calls, answered 503."""
    drop: float = 0.0
    """Of the results, kept but not acknowledged."""
    latency_seconds: tuple[float, float] = (0.05, 0.15)
    """Least and most, of a chat call."""


class FaultyTrainer:
    """Serves from entry to exit, on a port of its own that stays the same."""

    def __init__(self, ledger: Ledger, faults: Faults, random: Random) -> None:
        self._ledger = ledger
        self._faults = faults
        self._random = random
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._refused_paths: frozenset[str] = frozenset()
        self._retry_after = ""
        self._aborts = 0

    @property
    def url(self) -> str:
        """What an init names as ``server_url``."""
        return f"http://{LOOPBACK}:{self._port}"

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Nobody listens, and every connection is cut."""
        await self._close()
        try:
            yield
        finally:
            await self._open()

    @contextmanager
    def refusing(self, *paths: str, retry_after_seconds: int | None = None) -> Iterator[None]:
        """Every call of ``paths`` gets 503."""
        self._refused_paths = frozenset(paths)
        self._retry_after = "" if retry_after_seconds is None else f"Retry-After: {retry_after_seconds}\r\n"
        try:
            yield
        finally:
            self._refused_paths, self._retry_after = frozenset(), ""

    def abort(self) -> None:
        """Every chat call in flight is answered with what there is, and ``finish_reason`` ``abort``."""
        self._aborts += 1

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self._port, backlog=BACKLOG)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the server was killed, this trainer has gone away, or the bench ends
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        path = head[0].split(" ")[1]
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        refused = path in self._refused_paths or self._random.random() < self._faults.refuse
        if path == CHAT_PATH:
            answer = await self._chat(json.loads(body))
        else:
            rollout_id = json.loads(body)["rollout_id"]
            self._ledger.posted(rollout_id, body, kept=not refused)
            if not refused and self._random.random() < self._faults.drop:
                return False
            answer = {"status": "ok"}
        status = HTTPStatus.SERVICE_UNAVAILABLE if refused else HTTPStatus.OK
        content = json.dumps({"error": "overloaded"} if refused else answer).encode()
        writer.write(
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"{self._retry_after if refused else ''}Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        return True

    async def _chat(self, call: dict[str, Any]) -> dict[str, Any]:
        self._ledger.chatted(call["rollout_id"], call[RUN_NONCE])
        aborts = self._aborts
        await asyncio.sleep(self._random.uniform(*self._faults.latency_seconds))
        is_whole = aborts == self._aborts
        message = {"role": "assistant", "content": f"{'Then' if is_whole else PARTIAL_TEXT} {token_hex(8)}."}
        return {
            "id": token_hex(8),
            "object": "chat.completion",
            "created": 0,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop" if is_whole else "abort"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
