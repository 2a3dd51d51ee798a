"""Asks a server for its health again and again while it is under load."""

import asyncio
import time
from array import array
from collections import Counter
from contextlib import suppress
from typing import Self

from bench.load.http1 import Connection, status_of

LOOPBACK = "127.0.0.1"
INTERVAL_SECONDS = 0.02
TIMEOUT_SECONDS = 10.0
_REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class HealthPoll:
    """Polls from entry to exit, one request at a time; ``seconds`` has how long each answer took."""

    def __init__(self, port: int) -> None:
        self.seconds: array[float] = array("d")
        self.errors: Counter[str] = Counter()
        self._port = port
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._poll())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        connection: _Poll | None = None
        try:
            while True:
                if connection is None or not connection.is_open:
                    _, connection = await loop.create_connection(_Poll, LOOPBACK, self._port)
                started = time.perf_counter()
                try:
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        status = await connection.ask()
                except TimeoutError:
                    connection.close()
                    self.errors[f"/health took more than {TIMEOUT_SECONDS:g} s"] += 1
                    continue
                self.seconds.append(time.perf_counter() - started)
                if status != 200:
                    self.errors[f"/health answered {status or 'nothing'}"] += 1
                await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            if connection is not None:
                connection.close()


class _Poll(Connection):
    def __init__(self) -> None:
        super().__init__()
        self._answer: asyncio.Future[int] | None = None

    async def ask(self) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        self.write(_REQUEST)
        return await self._answer

    def message_received(self, head: bytes, body: bytes) -> None:
        self._resolve(status_of(head))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._resolve(0)

    def _resolve(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)
