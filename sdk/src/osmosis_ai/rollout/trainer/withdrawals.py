"""Rollouts that are cancelled, or that nobody waits for any more: the server is told to stop them, many in a request.

Telling is a courtesy. A server that cannot be told learns of it at the rollout's next chat call, which is refused with
410; so nothing is waited for longer than ``CLOSE_SECONDS`` and no failure is raised. See ``docs/protocol.md``, section
6.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import quote

import httpx

from osmosis_ai.rollout.trainer.book import Rollout, RolloutBook
from osmosis_ai.rollout.trainer.line import ServerLine
from osmosis_ai.rollout.wire.paths import CANCEL_PATH, PULL_CANCEL_PATH

logger = logging.getLogger(__name__)

MAX_IDS = 1000
"""In one request; ids have at most 256 characters, so a request stays below the server's limit of a body."""
ATTEMPTS = 3
ATTEMPT_SECONDS = 5.0
AGAIN_SECONDS = 0.2
CLOSE_SECONDS = 5.0
LAST_REPORTS_SECONDS = 2.0
"""How long leaving waits for the results of what it cancelled."""
CONCURRENT_SINGLES = 16
_NO_SUCH_ROUTE = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


class Withdrawals:
    """Ends rollouts of one book, and tells one server; one that is polled, as in 0.3, sends no result of them."""

    def __init__(self, line: ServerLine, book: RolloutBook, *, is_polled: bool) -> None:
        self._line = line
        self._book = book
        self._is_polled = is_polled
        self._path = PULL_CANCEL_PATH if is_polled else CANCEL_PATH
        self._pending: list[str] = []
        self._telling: asyncio.Task[None] | None = None
        self._takes_many = True
        self._is_reachable = True

    def cancel(self, is_meant: Callable[[str], bool]) -> int:
        """End those in flight whose ids are meant, and have the server told; how many. Returns at once."""
        meant = self._book.in_flight(is_meant)
        for rollout in meant:
            rollout.cancel()
            self.withdraw(rollout)
        return len(meant)

    def withdraw(self, rollout: Rollout) -> None:
        """Have the server told of one that nobody waits for; returns at once. Nothing to do for one it never got."""
        if not rollout.is_sent:
            return
        self._pending.append(rollout.request.rollout_id)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())
        if rollout.was_accepted and rollout.result is None and not self._is_polled:
            self._book.await_report(rollout.request.rollout_id)

    async def told(self) -> None:
        """Wait until the server has been told of all so far, or cannot be."""
        while self._telling is not None and not self._telling.done():
            await asyncio.shield(self._telling)

    async def close(self) -> None:
        """Cancel what is in flight; wait until the server has been told, and has reported, each for seconds at most."""
        self.cancel(lambda rollout_id: True)
        if await self._told_in_time():
            # What nobody takes, a server offers to the closed port until its deadline, a day by default.
            await self._book.reports(LAST_REPORTS_SECONDS)

    async def _told_in_time(self) -> bool:
        if self._telling is None:
            return True
        await asyncio.wait([self._telling], timeout=CLOSE_SECONDS)
        self._telling.cancel()
        await asyncio.wait([self._telling])
        return self._is_reachable and not self._telling.cancelled()

    async def _tell(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:MAX_IDS], self._pending[MAX_IDS:]
            if self._takes_many:
                status = await self._post(self._path, {"ids": batch})
                self._takes_many = status not in _NO_SUCH_ROUTE or self._is_polled
            if not self._takes_many:
                await self._tell_singly(batch)

    async def _tell_singly(self, batch: list[str]) -> None:
        """For a server that takes one id at a time."""
        room = asyncio.Semaphore(CONCURRENT_SINGLES)

        async def tell(rollout_id: str) -> None:
            async with room:
                await self._post(f"/v1/rollout/{quote(rollout_id, safe='')}/cancel", None)

        await asyncio.gather(*map(tell, batch))

    async def _post(self, path: str, content: object) -> int | None:
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(AGAIN_SECONDS * 2**attempt)
            try:
                response = await self._line.post(path, json.dumps(content).encode(), ATTEMPT_SECONDS)
            except httpx.RequestError:
                continue
            if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                self._is_reachable = True
                return response.status_code
        self._is_reachable = False
        logger.info("The rollout server at %s could not be told to cancel rollouts.", self._line.server_url)
        return None
