"""Who lives: an owner is an epoch, a number drawn by lot, with a lease on the database's clock.

By lot, as one that the database counts comes twice where its tables were restored, or dropped and made anew, under an
owner that lives.

A living owner renews its lease after a third of it (``RENEW_SHARE``). One whose lease has run out is taken over by
another, unless it renews before: then its lease is set to ``-infinity``, for good, and whatever it writes later changes
nothing (``statements``). It learns that at its next renewal, and goes on as a new owner that has nothing.

The database's clock alone takes nobody over, as it may be set: whoever takes over has seen, on its own steady clock,
that the other has not renewed for longer than a living one ever waits (``silence``). Nor does it keep anybody: where it
was set back, a lease ends when it would have, on the steady clock of whoever looks.

An owner that was stopped does not know whether it still is one (``is_in_doubt``): before it does what others see, it
asks (``make_sure``). One that is cut off from the database has asked, in vain, and goes on.
"""

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from osmosis_ai.rollout.journal.clock import Clock, Sign
from osmosis_ai.rollout.journal.errors import JournalError
from osmosis_ai.rollout.journal.postgres import statements
from osmosis_ai.rollout.journal.postgres.address import Address
from osmosis_ai.rollout.journal.postgres.explain import journal_error
from osmosis_ai.rollout.journal.postgres.link import Link
from osmosis_ai.rollout.journal.postgres.silence import Silences

logger = logging.getLogger(__name__)

RENEW_SHARE = 1 / 3
"""Of a lease, after which it is renewed."""
SILENT_SHARE = 1.5 * RENEW_SHARE
"""Of a lease, what a silence must exceed: half as long again as a living one waits."""
EPOCH_BITS = 62
RETRY_SECONDS = 1.0
RENEW_TIMEOUT_SECONDS = 4.0
RELEASE_SECONDS = 2.0
"""Short, as who ends may be cut off, and has to end all the same."""


class Lease:
    """The lease of this owner, renewed by ``keep``, in one task.

    Attributes:
        address: of the journal.
        epoch: of this owner; 0 before the first.
        was_lost: whether another has ever taken this one over.
        problem: why the lease may run out, and so nothing new may be promised.
        on_lost, on_abandoned, on_cancel, on_problem, on_backlog: called as those of ``Journal``.
        prove: raises within so many seconds where nothing can be written, though the lease is renewed.
    """

    def __init__(self, address: Address, seconds: float, sign: Callable[[], Sign] | None) -> None:
        self.epoch = 0
        self.was_lost = False
        self.problem: JournalError | None = None
        self.on_lost: Callable[[], None] = _nothing
        self.on_abandoned: Callable[[], None] = _nothing
        self.on_cancel: Callable[[list[str]], None] = _nothing
        self.on_problem: Callable[[str | None], None] = _nothing
        self.on_backlog: Callable[[int, float], None] = _nothing
        self.prove: Callable[[float], Awaitable[None]] = _nothing_to_prove
        self.sign = sign
        self.address = address
        self._seconds = seconds
        self._renew_seconds = seconds * RENEW_SHARE
        self._retry_seconds = min(RETRY_SECONDS, self._renew_seconds / 2)
        self._attempt_seconds = min(RENEW_TIMEOUT_SECONDS, seconds / 2)
        self._link = Link(address, "owner")
        self._link.on_connected = self._listen
        self._soon = asyncio.Event()
        self._clock = Clock()
        self._sure_until = 0.0
        """On the steady clock: the lease was given for so long."""
        self._attempted_at = 0.0
        """When the last attempt to renew began that has ended."""
        self._attempted = asyncio.Event()
        # Within a longer step of all machines at once, leases run out of owners that live.
        self._silences = Silences(seconds - self._renew_seconds)
        self._ends_at: dict[tuple[int, int], float] = {}
        """Of each owner's last renewal, on the steady clock: when the lease that it gave ends, as first seen."""
        self._told: set[str] = set()

    @property
    def channel(self) -> str:
        """Of the database's notifications for this journal."""
        return f"osmosis.{self.address.schema}"

    async def register(self) -> None:
        """Become a new owner. Raises what asyncpg raises."""
        async with self._link.held(RENEW_TIMEOUT_SECONDS + self._renew_seconds) as connection:
            await self._register(connection)

    async def keep(self) -> None:
        """Renew until cancelled, and see to the others."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), self._retry_seconds if self.problem else self._renew_seconds)
            self._soon.clear()
            await self.renew()

    @property
    def is_in_doubt(self) -> bool:
        """Whether another may have taken this one over, and nobody here has asked; from any thread."""
        now = self._clock.steady()
        if now < self._sure_until:
            return False
        # What was asked before the lease ran out says nothing of after it.
        longest_seconds = self._retry_seconds + 2 * self._attempt_seconds
        return self._attempted_at < self._sure_until or now - self._attempted_at > longest_seconds

    async def make_sure(self) -> None:
        """Wait until it is known, or cannot be known now; ``on_lost`` is called before this ends."""
        while self.is_in_doubt:
            self.renew_soon()
            await self._attempted.wait()

    def renew_soon(self) -> None:
        """There is a reason to look now."""
        self._soon.set()

    async def renew(self) -> None:
        """Renew now; never raises, ``problem`` says how it went."""
        began = self._clock.steady()
        try:
            async with self._link.held(self._attempt_seconds) as connection:
                if await connection.fetchval(statements.RENEW, self.epoch, self._seconds):
                    self._sure_until = began + self._seconds
                else:
                    await self._start_anew(connection)
                await self._look_around(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round tries again
            self._silences.begin_anew()
            self.note(error)
        else:
            self.note(await self._writing_problem())
        self._attempted_at = began
        self._attempted.set()
        self._attempted.clear()

    async def _writing_problem(self) -> Exception | None:
        try:
            await self.prove(self._attempt_seconds)
        except Exception as error:  # noqa: BLE001 - as above
            return error
        return None

    def note(self, error: BaseException | None) -> None:
        """The database cannot be used, or can."""
        problem = None if error is None else journal_error(self.address, error)
        changed = str(problem) != str(self.problem)
        self.problem = problem
        if changed:
            if problem is not None:
                logger.error("%s Until then no rollout is accepted; those that run go on.", problem)
                self.renew_soon()
            else:
                logger.warning("The journal at %s is in order again.", self.address)
            self.on_problem(None if problem is None else str(problem))

    def has_run_out(self) -> JournalError:
        """What to raise where it has; it is renewed as soon as it can be."""
        self.renew_soon()
        return JournalError(
            f"The lease on the journal at {self.address} has run out: nothing is written until it is renewed."
        )

    async def require_live(self, connection: Any) -> None:
        """Raises ``JournalError``."""
        if not await connection.fetchval(statements.IS_LIVE, self.epoch):
            raise self.has_run_out()

    async def release(self) -> None:
        """Give up the lease, if there is one, so that others need not wait for its end."""
        try:
            if self.epoch:
                async with self._link.held(RELEASE_SECONDS) as connection:
                    await connection.execute(statements.RELEASE, self.epoch)
                    await connection.execute(statements.SWEEP)
                    await connection.execute("SELECT pg_notify($1, 'released')", self.channel)
        except Exception as error:  # noqa: BLE001 - then it runs out
            logger.warning("The journal did not close well: %s", journal_error(self.address, error))
        await self._link.close()

    async def _register(self, connection: Any) -> None:
        name, began = f"{socket.gethostname()}:{os.getpid()}", self._clock.steady()
        epoch = 1 + secrets.randbits(EPOCH_BITS)
        await connection.execute(statements.REGISTER, epoch, name, self._seconds)
        self.epoch, self._sure_until = epoch, began + self._seconds

    async def _start_anew(self, connection: Any) -> None:
        logger.error(
            "The lease on the journal at %s ran out, and another replica has taken over what this one ran;"
            " it goes on with new rollouts.",
            self.address,
        )
        self.was_lost = True
        self._told.clear()
        self.on_lost()
        await self._register(connection)

    async def _look_around(self, connection: Any) -> None:
        rows, now = await connection.fetch(statements.OTHERS, self.epoch), self._clock.steady()
        left = {(row["epoch"], row["beats"]): row["left"] for row in rows if row["left"] > -math.inf}
        gone = len(left) < len(rows)
        self._ends_at = {renewal: self._ends_at.get(renewal, now + seconds) for renewal, seconds in left.items()}
        silences = self._silences.look(dict(left.keys()), now)
        for (epoch, beats), seconds in left.items():
            has_ended = seconds < 0 or self._ends_at[epoch, beats] < now
            if has_ended and silences[epoch] > SILENT_SHARE * self._seconds:
                await connection.execute(statements.TAKE_OVER, epoch, beats, self.channel)
                gone = True
        if gone:
            await connection.execute(statements.SWEEP)
            self.on_abandoned()
        if self.sign is not None:
            sign = self.sign()
            await connection.execute(statements.NOTE_SIGN, sign.boot, sign.steady, sign.time)
            row = await connection.fetchrow(statements.BACKLOG)
            self.on_backlog(row["amount"], max(sign.time - row["oldest"], 0.0) if row["amount"] else 0.0)
        asked = {row["key"] for row in await connection.fetch(statements.CANCELLED, self.epoch)}
        if new := asked - self._told:
            self.on_cancel([statements.read(key) or "" for key in new])
        self._told = asked

    async def _listen(self, connection: Any) -> None:
        await connection.add_listener(self.channel, self._hear)
        connection.add_termination_listener(lambda _: self.renew_soon())

    def _hear(self, *_: object) -> None:
        self.renew_soon()


def _nothing(*_: object) -> None:
    """Nobody is told."""


async def _nothing_to_prove(seconds: float) -> None:
    """Nothing was refused."""
