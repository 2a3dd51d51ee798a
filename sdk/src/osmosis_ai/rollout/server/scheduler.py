"""The owner of execution: so many rollouts run at once, each contained (``execution``); the others wait in line."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext
from osmosis_ai.rollout.core.results import TerminalResult, result_of_exception
from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.core.watch import Phase
from osmosis_ai.rollout.server.execution import Execution
from osmosis_ai.rollout.server.rollouts import Rollout
from osmosis_ai.rollout.server.terms import Terms

logger = logging.getLogger(__name__)


class Scheduler:
    """Runs ``agent_loop``.

    Args:
        slots: one is held by each rollout that runs.
        debug_dir: where the agent's own events go; ``None`` drops them.
        in_doubt: the journal's.
    """

    def __init__(
        self,
        agent_loop: RolloutAgentLoop,
        limits: RolloutServerSettings,
        slots: asyncio.Semaphore,
        debug_dir: str | None,
        in_doubt: Callable[[], Awaitable[None] | None],
    ) -> None:
        self._agent_loop = agent_loop
        self._limits = limits
        self._slots = slots
        self._debug_dir = debug_dir
        self._in_doubt = in_doubt

    async def wait_for_slot(self, rollout: Rollout) -> bool:
        """Wait in line; ``False`` if the rollout was stopped before its turn. ``release`` gives the slot back."""
        if rollout.stop_reason is not None:
            return False
        if self._slots.locked():
            # A future of its own, which `Rollout.stop` cancels: the rollout's task goes on, to report its end.
            rollout.slot = asyncio.ensure_future(self._slots.acquire())
            await asyncio.wait({rollout.slot})
            rollout.has_slot = not rollout.slot.cancelled()
        else:
            rollout.has_slot = await self._slots.acquire()
        return rollout.has_slot

    def release(self, rollout: Rollout) -> None:
        """Give the slot back, if the rollout holds one."""
        if rollout.has_slot:
            rollout.has_slot = False
            self._slots.release()

    async def run(self, rollout: Rollout) -> TerminalResult:
        """Run the agent, whatever comes of it; the slot is free afterwards."""
        rollout.started_at = time.time()
        rollout.enter(Phase.RUNNING)
        ctx = RolloutContext(
            request=rollout.request,
            tools=rollout.tools,
            llm=rollout.llm,
            _start_time=time.monotonic(),
            _debug_dir=self._debug_dir,
        )
        ctx.transcript = rollout.llm.transcript
        ctx.trace = rollout.watch.agent_trace()
        rollout.execution = Execution(
            rollout.rollout_id,
            self._agent_loop,
            ctx,
            _limit(self._limits.request_timeout_seconds, rollout.terms),
            self._limits.tool_turn_timeout_seconds,
            rollout.watch,
            rollout.terms,
            self._in_doubt,
        )
        rollout.llm.watcher = rollout.execution
        if rollout.stop_reason is not None:  # it came between the slot and here
            rollout.execution.stop(rollout.stop_reason)
        try:
            result = await rollout.execution.result()
        except Exception as error:
            logger.exception("Rollout %a: no result could be made of its run.", rollout.rollout_id)
            result = result_of_exception(rollout.rollout_id, ctx, error)
        result = result.within(self._limits.max_result_bytes)
        self.release(rollout)
        return result


def _limit(seconds: float, terms: Terms | None) -> float:
    asked = None if terms is None else terms.agent_seconds
    return seconds if asked is None else asked
