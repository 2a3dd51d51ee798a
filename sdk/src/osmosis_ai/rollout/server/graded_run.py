"""The grading of one run of 0.3: whether it is wanted, and its own limit, while which the agent's stands still.

Reward functions may be called in any thread, and several at once; clocks belong to the event loop.
"""

import asyncio
import threading
from collections.abc import Callable

from osmosis_ai.rollout.core.results import StopReason, grader_limit
from osmosis_ai.rollout.server.clock import Clock
from osmosis_ai.rollout.server.terms import Terms


class GradedRun:
    """A ``Grading``.

    Args:
        agent_limit: of the run, which stands still meanwhile if grading has a limit of its own.
        stop: ends the run for a reason.
    """

    def __init__(
        self, terms: Terms, loop: asyncio.AbstractEventLoop, agent_limit: Clock, stop: Callable[[StopReason], None]
    ) -> None:
        self.is_wanted = terms.grade
        self._seconds = terms.grader_seconds
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._agent_limit = agent_limit
        self._own_limit = Clock(loop, lambda: stop(self.limit))
        self._under_way = 0
        self._has_begun = False

    @property
    def limit(self) -> StopReason:
        """The reason for which it ends the run."""
        return grader_limit(self._seconds or 0.0)

    @property
    def is_over(self) -> bool:
        """Whether its time is up; for any thread."""
        return self._own_limit.is_over

    @property
    def is_grading(self) -> bool:
        """Whether it is under way."""
        return self._under_way > 0

    def grading_begins(self) -> None:
        """Its time runs instead of the agent's."""
        self._in_loop(self._begin)

    def grading_ends(self) -> None:
        """The agent's time runs again, when the last has ended."""
        self._in_loop(self._end)

    def cancel(self) -> None:
        """It ends with its run."""
        self._own_limit.cancel()

    def _in_loop(self, change: Callable[[], None]) -> None:
        if threading.get_ident() == self._loop_thread:
            change()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(change)

    def _begin(self) -> None:
        self._under_way += 1
        if self._seconds is None or self._under_way > 1:
            return
        self._agent_limit.stand_still()
        if self._has_begun:
            self._own_limit.go_on()
        else:
            self._has_begun = True
            self._own_limit.start(self._seconds)

    def _end(self) -> None:
        self._under_way -= 1
        if self._seconds is None or self._under_way:
            return
        self._own_limit.stand_still()
        self._agent_limit.go_on()
