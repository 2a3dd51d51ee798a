"""How late the kit itself was: on a machine that is too busy what is waited for comes late, through nobody's fault."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

POLL_SECONDS = 0.1
LATE_SECONDS = 1.5
"""Beyond this a failure may be the machine's; the kit's own work holds it up for a fraction of it."""


@dataclass
class Lateness:
    """What was seen until now."""

    worst_seconds: float = 0.0
    """The longest that the kit was woken after its time."""


@asynccontextmanager
async def watched() -> AsyncIterator[Lateness]:
    """Look at the event loop while the block runs."""
    seen = Lateness()
    watching = asyncio.create_task(_watch(seen))
    try:
        yield seen
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch(seen: Lateness) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(POLL_SECONDS)
        seen.worst_seconds = max(seen.worst_seconds, time.monotonic() - before - POLL_SECONDS)
