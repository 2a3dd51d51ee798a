"""Times that an agent blocked the event loop, and with it every other rollout of its process.

Who runs agents puts a ``WatchedRun`` into ``CURRENT_RUN``; the watchdog (``server/watchdog.py``) finds it there.
"""

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Protocol

LOOP_BLOCKS = "event_loop_blocked"
"""Where a result (``extra_fields``) and a record of a results file have them."""
MAX_NOTED = 10
_MAX_PLACE_CHARACTERS = 200


@dataclass(eq=False, slots=True)
class LoopBlock:
    """One such time; ``seconds`` grows as long as it lasts."""

    place: str
    """``agent.py:12 in SqlAgent.run``."""
    seconds: float


class RunInterrupted(BaseException):
    """Raised in the midst of an agent's code that blocks the event loop beyond its limit, by the watchdog alone."""


class WatchedRun(Protocol):
    """A run of an agent, as the watchdog sees it."""

    def overdue(self) -> Any:
        """Why the current task, which works for it, should have ended by now; ``None`` if it may go on."""

    def interrupt(self, reason: Any, place: str) -> RunInterrupted:
        """What to raise in its code at ``place``, which blocks the event loop; the run ends for ``reason``."""

    def note_block(self, place: str, seconds: float) -> LoopBlock:
        """It has blocked the event loop for ``seconds`` and still does, at ``place``; from any thread."""


CURRENT_RUN: ContextVar[WatchedRun | None] = ContextVar("CURRENT_RUN", default=None)
"""The run that the current task works for."""


class _Holder(Protocol):
    """A ``RolloutContext``, as far as it is known here."""

    loop_blocks: tuple[LoopBlock, ...]


def note_block(ctx: _Holder, place: str, seconds: float) -> LoopBlock:
    """Note a block with the rollout; beyond ``MAX_NOTED`` with nobody."""
    block = LoopBlock(place, round(seconds, 3))
    if len(ctx.loop_blocks) < MAX_NOTED:
        ctx.loop_blocks += (block,)
    return block


def blocks_of(ctx: _Holder) -> list[dict[str, Any]]:
    """Those of a rollout, as JSON."""
    return [asdict(block) for block in ctx.loop_blocks]


def known_blocks(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that foreign ``fields`` hold, such as a result's ``extra_fields``."""
    given = fields.get(LOOP_BLOCKS)
    return [
        {"place": place[:_MAX_PLACE_CHARACTERS], "seconds": float(seconds)}
        for each in (given[:MAX_NOTED] if isinstance(given, list) else ())
        if isinstance(each, dict)
        and isinstance(place := each.get("place"), str)
        and isinstance(seconds := each.get("seconds"), int | float)
        and abs(seconds) <= sys.float_info.max
    ]
