"""Running one agent, contained: whatever it does ends in exactly one ``TerminalResult``, and harms nobody else.

The agent runs in a task of its own, so that a stop (time limit, cancel, shutdown) does not depend on its cooperation:
it is cancelled, given ``CANCEL_GRACE_SECONDS``, and abandoned if it swallows that. One that blocks the event loop, so
that nothing of this can happen, is interrupted by the watchdog (``watchdog``).

Both of its limits stand still while a chat call waits for a trainer that pauses: that is not the agent's time. What
bounds the wait is the call's own deadline; after a call that waited for nothing the limits run on, whatever the agent
does, until there is a reply again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from osmosis_ai.rollout.core.base import ChatWatch, RolloutAgentLoop, RolloutContext, RolloutResult
from osmosis_ai.rollout.core.exceptions import OsmosisNotFoundError, OsmosisProtocolError
from osmosis_ai.rollout.core.grading import CURRENT_GRADING
from osmosis_ai.rollout.core.loop_blocks import CURRENT_RUN, LoopBlock, RunInterrupted, note_block
from osmosis_ai.rollout.core.resources import run_agent
from osmosis_ai.rollout.core.results import (
    Outcome,
    StopReason,
    TerminalResult,
    forgotten,
    result_of_exception,
    result_of_return,
    result_of_stop,
    time_limit,
    tool_turn_limit,
)
from osmosis_ai.rollout.core.text import text_of
from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.core.watch import CURRENT_WATCH, NO_WATCH, RolloutWatch
from osmosis_ai.rollout.core.where import places_of, places_of_task
from osmosis_ai.rollout.server.clock import Clock
from osmosis_ai.rollout.server.graded_run import GradedRun
from osmosis_ai.rollout.server.terms import Terms

logger = logging.getLogger(__name__)

CANCEL_GRACE_SECONDS = 1.0


class Execution(ChatWatch):
    """One run of ``agent_loop`` over ``ctx``.

    Args:
        rollout_id: as the trainer gave it; the agent's own copy of the request may say anything.
        limit_seconds: of the whole run, without the time that its calls wait for a paused trainer.
        tool_turn_seconds: of the time between a reply of the policy and the next chat call, or the end.
        watch: told of the run's chat calls and, through ``CURRENT_WATCH``, of its tool calls.
        terms: whether and how long it is graded; ``None``: as the agent does it, within its limit.
        in_doubt: the journal's.
    """

    def __init__(
        self,
        rollout_id: str,
        agent_loop: RolloutAgentLoop,
        ctx: RolloutContext,
        limit_seconds: float,
        tool_turn_seconds: float,
        watch: RolloutWatch = NO_WATCH,
        terms: Terms | None = None,
        in_doubt: Callable[[], Awaitable[None] | None] = lambda: None,
    ) -> None:
        self._rollout_id = rollout_id
        self._agent_loop = agent_loop
        self._ctx = ctx
        self._limit_seconds = limit_seconds
        self._tool_turn_seconds = tool_turn_seconds
        self._watch = watch
        self._in_doubt = in_doubt
        self._interruption: StopReason | None = None
        self._task: asyncio.Task[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._limit = Clock(self._loop, self._time_ends)
        self._tool_turn = Clock(self._loop, self._tool_turn_ends)
        self._grading = None if terms is None else GradedRun(terms, self._loop, self._limit, self.stop)
        self._pauses = 0
        """Chat calls that wait for a paused trainer now."""
        self._waited_in_vain = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._stop_reason: StopReason | None = None
        self._is_forgotten = False

    @property
    def is_grading(self) -> bool:
        """Whether a reward function or a judge of it works now."""
        return self._grading is not None and self._grading.is_grading

    def stop(self, reason: StopReason) -> None:
        """End the run for ``reason``; the first reason stands."""
        if not self._ended.done():
            self._stop_reason = reason
            self._ended.set_result(None)

    def forget(self) -> None:
        """Let go of what may be large, once there is a result: the agent's context, and through it messages and client.

        ``CURRENT_RUN`` is in the context of every timer and connection that came about in the run, which may live long.
        """
        self._is_forgotten = True
        del self._ctx

    def overdue(self) -> StopReason | None:
        """Why the current task, which works for it, should have ended by now; ``None`` if it may go on."""
        if self._ended.done():
            # Of what it has started only its own task: another may serve other rollouts by now.
            return self._stop_reason if asyncio.current_task() is self._task else None
        if self._grading is not None and self._grading.is_over:
            return self._grading.limit
        if self._limit.is_over:
            return time_limit(self._limit_seconds)
        return tool_turn_limit(self._tool_turn_seconds) if self._tool_turn.is_over else None

    def interrupt(self, reason: StopReason, place: str) -> RunInterrupted:
        """What to raise in its code at ``place``, which blocks the event loop; the run ends for ``reason``."""
        message = f"{reason.message}; it blocked the event loop at {place}: use asyncio.to_thread"
        if not self._ended.done():
            self._interruption = replace(reason, message=message)
        return RunInterrupted(message)

    def note_block(self, place: str, seconds: float) -> LoopBlock:
        """It has blocked the event loop for ``seconds`` and still does, at ``place``; from any thread."""
        if self._is_forgotten:  # something that the agent left behind
            return LoopBlock(place, round(seconds, 3))
        self._ctx.log_event(TraceEvent.LOOP_BLOCKED, place=place, seconds=round(seconds, 3))
        return note_block(self._ctx, place, seconds)

    def chat_begins(self, messages: Sequence[Any], sampling: dict[str, Any]) -> Any:
        """The agent has done its turn."""
        self._tool_turn.cancel()
        return self._watch.chat_begins(messages, sampling)

    def in_doubt(self) -> Awaitable[None] | None:
        """Another replica may have reported it while this one was stopped; then its trainer is done with it."""
        doubt = self._in_doubt()
        return None if doubt is None else self._unless_stopped(doubt)

    async def _unless_stopped(self, doubt: Awaitable[None]) -> None:
        await doubt
        if self._ended.done():
            raise OsmosisProtocolError(f"Rollout {self._rollout_id!r} has ended; no chat call may follow.")

    def chat_ends(self, chat: Any, reply: Any) -> None:
        """The agent has a reply to work on: its turn begins."""
        self._watch.chat_ends(chat, reply)
        self._waited_in_vain = False
        self._tool_turn.start(self._tool_turn_seconds)

    def _tool_turn_ends(self) -> None:
        self.stop(tool_turn_limit(self._tool_turn_seconds))

    def chat_failed(self, chat: Any, error: BaseException) -> None:
        """A trainer that does not know the rollout will never take another call of it."""
        self._watch.chat_failed(chat, error)
        if isinstance(error, OsmosisNotFoundError):
            self.stop(forgotten(error))

    def pause_begins(self, cause: str, problem: str, seconds: float) -> Any:
        """The agent waits for its trainer: its time stands still."""
        logger.info("Rollout %a: waits for its trainer (%s): %s", self._rollout_id, cause, problem)
        pause = self._watch.pause_begins(cause, problem, seconds)
        if self._waited_in_vain:
            return pause, False
        self._pauses += 1
        if self._pauses == 1:
            self._limit.stand_still(seconds)
            self._tool_turn.stand_still()
        return pause, True

    def pause_ends(self, pause: Any, seconds: float, since: float, answered: bool) -> None:
        """The trainer is back, or the call has given it up: the agent's time runs again."""
        pause, stands_still = pause
        self._watch.pause_ends(pause, seconds, since, answered)
        self._waited_in_vain = self._waited_in_vain or not answered
        if stands_still:
            self._pauses -= 1
            if self._pauses == 0 and not self._ended.done():
                self._limit.go_on(since)
                self._tool_turn.go_on()

    async def result(self) -> TerminalResult:
        """Run to the end; to be awaited once."""
        self._ctx.watcher = self
        self._limit.start(self._limit_seconds)
        run = self._task = self._loop.create_task(self._run())
        run.add_done_callback(self._run_ends)
        try:
            await self._ended
            if self._interruption is not None:
                return await self._cut_short(run, self._interruption)
            # A run that ended as it was stopped keeps its result, unless it hid from us that its trainer is gone.
            reason = self._stop_reason
            if run.done() and self._ctx.resources is not None:  # some are left after a GeneratorExit of the agent's own
                await self._ctx.resources.close()
            if reason is None or (run.done() and reason.outcome is not Outcome.LLM_ERROR):
                return self._result_of(run)
            return await self._cut_short(run, reason)
        finally:
            self._limit.cancel()
            self._tool_turn.cancel()
            if self._grading is not None:
                self._grading.cancel()
            # Where this itself is cancelled, the agent must not go on alone.
            run.cancel()
            self._ctx.close()
            if self._ctx.trace is not None:
                self._ctx.trace.close()

    def _time_ends(self) -> None:
        self.stop(time_limit(self._limit_seconds))

    def _run_ends(self, run: "asyncio.Task[RolloutResult | BaseException]") -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _run(self) -> RolloutResult | BaseException:
        CURRENT_WATCH.set(self._watch)
        CURRENT_RUN.set(self)
        if self._grading is not None:
            CURRENT_GRADING.set(self._grading)
        self._watch.agent_begins()
        try:
            return await run_agent(self._agent_loop.run, self._ctx)
        # SystemExit, GeneratorExit and a stray CancelledError are the agent's failure too. Where `_break_off` has
        # closed the coroutine, nobody reads this.
        except BaseException as error:  # noqa: BLE001 - as said
            return error

    def _result_of(self, run: "asyncio.Task[RolloutResult | BaseException]") -> TerminalResult:
        returned = run.result()
        if not isinstance(returned, BaseException):
            return result_of_return(self._rollout_id, self._ctx, returned, self._agent_loop.run)
        logger.error("Rollout %a: the agent failed.", self._rollout_id, exc_info=returned)
        self._ctx.log_event(
            TraceEvent.ROLLOUT_ERROR, error=f"{type(returned).__name__}: {text_of(returned)}", where=places_of(returned)
        )
        return result_of_exception(self._rollout_id, self._ctx, returned, self._agent_loop.run)

    async def _cut_short(
        self, run: "asyncio.Task[RolloutResult | BaseException]", reason: StopReason
    ) -> TerminalResult:
        places = places_of_task(run)
        result = result_of_stop(self._rollout_id, self._ctx, reason, told={"where": places} if places else None)
        logger.warning("Rollout %a: %s.", self._rollout_id, reason.message)
        self._ctx.log_event(TraceEvent.ROLLOUT_ERROR, error=reason.message, where=places)
        run.cancel()
        # Not `wait_for`, which waits on for a task that swallows its cancellation.
        _, unended = await asyncio.wait({run}, timeout=CANCEL_GRACE_SECONDS)
        if unended:
            logger.error("Rollout %a: the agent ignores its cancellation; abandoned.", self._rollout_id)
            _break_off(run)
            if self._ctx.resources is not None:
                await self._ctx.resources.close(limit_seconds=CANCEL_GRACE_SECONDS)
        return result


def _break_off(run: "asyncio.Task[RolloutResult | BaseException]") -> None:
    """Close the coroutine under a task that will not be cancelled, or the event loop could never be closed."""
    coroutine: Any = run.get_coro()
    try:
        coroutine.close()
    except RuntimeError as error:
        logger.error("An abandoned agent goes on until the process ends: %s", error)
