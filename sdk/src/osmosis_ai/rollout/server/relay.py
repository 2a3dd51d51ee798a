"""What one worker of a server was asked to cancel, asked of the others.

A rollout runs in the worker that accepted it, and a request reaches any. Each worker listens on a Unix socket in a
folder that only this user can enter, for one line of JSON and one in reply. A worker that does not answer in
``REPLY_SECONDS`` (stopped, or just starting) is passed over: what it runs goes on.
"""

import asyncio
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from osmosis_ai.rollout.server.requests import KEY_SPACES
from osmosis_ai.rollout.server.terms import PULL

logger = logging.getLogger(__name__)

REPLY_SECONDS = 1.0
MAX_FOLDER_CHARACTERS = 80
"""A socket's name has at most 108 (104 on macOS)."""
MAX_LINE_BYTES = 16 * 1024 * 1024
"""More than the largest request."""


@dataclass(frozen=True, slots=True)
class Meant:
    """The rollouts that are to be cancelled: by their ids, by a prefix of them, or all."""

    ids: frozenset[str] = frozenset()
    prefix: str | None = None
    all: bool = False
    pulled: bool = False
    """Whether rollouts of 0.3 are meant, or those of 0.2."""

    @property
    def is_by_ids(self) -> bool:
        """Whether ids say it all."""
        return self.prefix is None and not self.all

    @property
    def key_spaces(self) -> Sequence[str]:
        """What the journal's keys of those that can be meant begin with."""
        return (PULL,) if self.pulled else KEY_SPACES

    def includes(self, rollout_id: str) -> bool:
        """Whether the rollout of that id, of the right protocol, is one."""
        return self.all or rollout_id in self.ids or (self.prefix is not None and rollout_id.startswith(self.prefix))


class Relay:
    """Of the worker ``index`` of ``count``, in ``folder``."""

    def __init__(self, folder: Path, count: int, index: int) -> None:
        self._own = folder / str(index)
        self._others = [folder / str(number) for number in range(count) if number != index]

    @property
    def server_id(self) -> str:
        """The same for all workers of one server, and no other server's."""
        return self._own.parent.name

    @asynccontextmanager
    async def listening(self, cancel: Callable[[Meant], list[str]]) -> AsyncIterator[None]:
        """While it lasts, do with ``cancel`` what other workers ask for; it gives the ids of those it stopped."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                asked = json.loads(await reader.readline())
                meant = Meant(frozenset(asked["ids"]), asked["prefix"], asked["all"], asked["pulled"])
                writer.write(json.dumps(cancel(meant)).encode() + b"\n")
                await writer.drain()
            finally:
                writer.close()

        try:
            self._own.unlink(missing_ok=True)  # of the worker whose place this one has taken
            server = await asyncio.start_unix_server(answer, self._own, limit=MAX_LINE_BYTES)
        except OSError as error:
            logger.warning("Rollouts of this worker can be cancelled by a request to itself only: %s.", error)
            yield
            return
        try:
            yield
        finally:
            server.close()

    async def ask_others(self, meant: Meant) -> list[str]:
        """The ids of the rollouts that the other workers stopped."""
        line = json.dumps(asdict(meant) | {"ids": list(meant.ids)}).encode() + b"\n"
        return list(chain(*await asyncio.gather(*(self._ask(path, line) for path in self._others))))

    async def _ask(self, path: Path, line: bytes) -> list[str]:
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
                try:
                    writer.write(line)
                    await writer.drain()
                    return [str(rollout_id) for rollout_id in json.loads(await reader.readline() or b"[]")]
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            logger.warning("Worker %s was not reached to cancel rollouts: %s.", path.name, type(error).__name__)
            return []


def short_folder() -> str | None:
    """Where a folder's path is short enough for the name of a Unix socket; ``None`` for the usual place."""
    return "/tmp" if len(tempfile.gettempdir()) > MAX_FOLDER_CHARACTERS else None  # noqa: S108 - for a folder of our own


_current: Relay | None = None


def join(relay: Relay) -> None:
    """Make ``relay`` this process's."""
    global _current
    _current = relay


def current() -> Relay | None:
    """This process's; ``None`` where it serves alone."""
    return _current
