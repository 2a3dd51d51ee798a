"""How late the kit and the server were: on a machine that is too busy what is waited for comes late, through nobody's
fault.

A time that the kit has measured is never shorter than it was, and may be longer by as much as they were late. So what
came too soon by it did; that something did not, or came too late, counts only where they were in time.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollout_conformance.vocabulary import TooBusy

if TYPE_CHECKING:
    from rollout_conformance.played import PlayedRollout

TRIES = 4
POLL_SECONDS = 0.1
LATE_SECONDS = 1.5
"""Beyond this a failure may be the machine's; the kit's own work holds it up for a fraction of it."""


@dataclass
class Lateness:
    """What was seen until now."""

    worst_seconds: float = 0.0
    """The longest that the kit was woken after its time."""
    asleep_since: float = 0.0
    """When it last went to sleep for ``POLL_SECONDS``."""

    def look(self) -> None:
        """Note how late it is now, where it should have been woken."""
        self.worst_seconds = max(self.worst_seconds, time.monotonic() - self.asleep_since - POLL_SECONDS)


def reaction_seconds(rollout: "PlayedRollout") -> float:
    """From the model's last reply to the result, between which a server has nothing to wait for: so late it may be."""
    if not rollout.answered_chats or not rollout.completions:
        return 0.0
    return rollout.completions[0].came_at - (rollout.answered_chats[-1].answered_at or 0)


@asynccontextmanager
async def watched() -> AsyncIterator[Lateness]:
    """Look at the event loop while the block runs."""
    seen = Lateness(asleep_since=time.monotonic())
    watching = asyncio.create_task(_watch(seen))
    try:
        yield seen
    finally:
        seen.look()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def too_late(late_seconds: float, least_seconds: float) -> TooBusy:
    """The verdict where something was so late, and ``least_seconds`` had to be told."""
    return TooBusy(f"it was {late_seconds:.1f} s late, where {least_seconds:.1f} s had to be told")


def require_in_time(lateness: Lateness, least_seconds: float) -> None:
    """Of what did not come too soon, where ``least_seconds`` were to pass.

    Raises:
        TooBusy: the kit was late by half of that, so that it may have.
    """
    if lateness.worst_seconds >= least_seconds / 2:
        raise too_late(lateness.worst_seconds, least_seconds)


async def told_in_time(look: Callable[[], Awaitable[None]], least_seconds: float) -> None:
    """Run ``look``, which raises of what comes before ``least_seconds``, again where the kit was too late to tell.

    Raises:
        TooBusy: it was in each of ``TRIES``.
    """
    for _ in range(TRIES):
        async with watched() as lateness:
            await look()
        if lateness.worst_seconds < least_seconds / 2:
            return
    require_in_time(lateness, least_seconds)


async def _watch(seen: Lateness) -> None:
    while True:
        seen.asleep_since = time.monotonic()
        await asyncio.sleep(POLL_SECONDS)
        seen.look()
