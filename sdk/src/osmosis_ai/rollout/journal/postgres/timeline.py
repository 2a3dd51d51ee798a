"""The journal's time: it begins with the database's clock, so that replicas agree, and goes on with the steady one."""

from typing import Any

from osmosis_ai.rollout.journal.clock import Clock, Gap, Sign, Timeline
from osmosis_ai.rollout.journal.postgres import statements


class _DatabaseClock(Clock):
    def __init__(self, wall: float) -> None:
        self._wall = wall

    def wall(self) -> float:
        return self._wall


async def begin_timeline(connection: Any, clock: Clock | None, *, serves: bool) -> Timeline:
    """The journal's time from now on; ``clock`` stands for the database's, if given.

    An operator's look (not ``serves``) is no sign of life.
    """
    if clock is None:
        clock = _DatabaseClock(float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())")))
    last = await connection.fetchrow("SELECT boot, steady, time FROM clock")
    gaps = await connection.fetch("SELECT ended_at, away_seconds, unproven_seconds FROM gaps ORDER BY ended_at")
    shared = await connection.fetchval("SELECT EXISTS (SELECT FROM owners WHERE lease_until > clock_timestamp())")
    timeline = Timeline(clock, None if last is None else Sign(*last), [Gap(*gap) for gap in gaps], shared=shared)
    if serves:
        if (gap := timeline.new_gap) is not None:
            await connection.execute(
                "INSERT INTO gaps VALUES ($1, $2, $3)", gap.ended_at, gap.away_seconds, gap.unproven_seconds
            )
        sign = timeline.sign()
        await connection.execute(statements.NOTE_SIGN, sign.boot, sign.steady, sign.time)
    return timeline
