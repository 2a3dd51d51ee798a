"""Rollouts from init to acknowledgement: who is asked in which order. One service serves one event loop.

    init -> Admission -> 202
               |
           Scheduler (slot, agent) -> Courier: record, deliver, settle
                                        |
                              Recovery: what dead processes left

Invariants: delivery starts only after the journal has ``finished``; under one key at most one rollout runs.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.offload import call_in_thread
from osmosis_ai.rollout.core.results import Outcome, ResultSummary, Stop, StopReason, TerminalResult
from osmosis_ai.rollout.core.settings import RolloutSettings
from osmosis_ai.rollout.core.text import described
from osmosis_ai.rollout.core.tracecontext import TRACE_HEADERS
from osmosis_ai.rollout.core.watch import Observer, Phase
from osmosis_ai.rollout.journal import Journal, JournalError, Payload
from osmosis_ai.rollout.observe.logs import FIELDS
from osmosis_ai.rollout.server import relay
from osmosis_ai.rollout.server.admission import RETRY_AFTER_SECONDS, Admission
from osmosis_ai.rollout.server.attempts import ClientFactory, Delivery
from osmosis_ai.rollout.server.delivery import Courier
from osmosis_ai.rollout.server.parcels import Parcel
from osmosis_ai.rollout.server.pull.lane import PullLane
from osmosis_ai.rollout.server.pull.results import as_pulled
from osmosis_ai.rollout.server.recovery import Recovery, result_of_unrun
from osmosis_ai.rollout.server.relay import Meant
from osmosis_ai.rollout.server.requests import RefusedError
from osmosis_ai.rollout.server.rollouts import Rollout, Rollouts, view_of_delivery, view_of_record, view_of_rollout
from osmosis_ai.rollout.server.scheduler import Scheduler
from osmosis_ai.rollout.server.state import AppState
from osmosis_ai.rollout.server.terms import is_pulled

logger = logging.getLogger(__name__)

CANCEL_SECONDS = 1.0
ELSEWHERE_SECONDS = 0.25
"""For which an answer about rollouts of this process waits for what other replicas say, who have been asked too."""
NO_CLIENT = StopReason(Outcome.LLM_ERROR, "the client of the trainer could not be made; see the server's log")
DRAIN_POLL_SECONDS = 0.05
"""How often a drain looks for rollouts whose trainer is gone."""


class RolloutService:
    """Accepts, runs and delivers the rollouts of one agent loop.

    Args:
        state: the key table, of the running loop.
        journal: opened by ``open``, closed by ``close``.
        observer: told of every step.
    """

    def __init__(
        self,
        agent_loop: RolloutAgentLoop,
        settings: RolloutSettings,
        make_client: ClientFactory,
        state: AppState,
        journal: Journal,
        debug_dir: str | None,
        observer: Observer,
    ) -> None:
        limits = settings.server
        self.state = state
        self._flush_seconds = limits.flush_seconds
        self._make_client = make_client
        self._journal = journal
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking = asyncio.Lock()
        self._recovers = False
        self._rollouts = Rollouts()
        self._scheduler = Scheduler(agent_loop, limits, state.semaphore, debug_dir, journal.in_doubt)
        self._courier = Courier(journal, make_client, settings.client, limits.delivery_deadline_seconds)
        self.pull = PullLane(
            journal,
            self._rollouts,
            limits.poll_wait_seconds,
            limits.poll_lease_seconds,
            limits.delivery_deadline_seconds,
        )
        """Of rollouts of 0.3, whose results are fetched."""
        self._recovery = Recovery(journal, self._courier, self.pull, observer, self._spawn)
        self._admission = Admission(
            agent_loop, limits, state, journal, self._rollouts, self.pull.leases, observer, self._run, self._spawn
        )
        self.init = self._admission.init

    @property
    def draining(self) -> bool:
        """Whether all inits are refused, as the server ends."""
        return self._admission.closed

    @property
    def load(self) -> tuple[int, int]:
        """How many rollouts run here, and how many wait for a slot."""
        running = sum(rollout.phase is Phase.RUNNING for rollout in self._rollouts.without_result())
        return running, self._rollouts.unfinished - running

    @property
    def active_everywhere(self) -> int:
        """How many rollouts have no result yet, those of all workers together."""
        return self._rollouts.unfinished_everywhere

    @property
    def journal_problem(self) -> str | None:
        """Why nothing can be put on record now, so that inits are refused; for the operator, as it names files."""
        return self._journal.problem

    async def open(self) -> None:
        """Open the journal and take up what an earlier process left behind.

        Raises:
            JournalError: the journal cannot be used; the message says why.
        """
        loop, journal = asyncio.get_running_loop(), self._journal
        journal.on_abandoned = partial(_call, loop, self._recover_soon)
        journal.on_lost = partial(_call, loop, self._drop_all)
        journal.on_cancel = lambda keys: _call(loop, partial(self._cancel_keys, keys))
        await journal.open()
        self._rollouts.announce()
        self._recover_soon()

    async def drain(self, drain_seconds: float) -> None:
        """Refuse inits, let rollouts end for ``drain_seconds``, end the rest as ERROR, flush results.

        What has become of them is still told: the journal stays open until ``close``.
        """
        self._admission.closed = self._courier.ending = True
        await self._finish_running(drain_seconds)
        self._courier.close()
        self.pull.close()
        await self._end_tasks(self._flush_seconds)

    async def close(self, drain_seconds: float) -> None:
        """``drain``, and close the journal."""
        await self.drain(drain_seconds)
        await self._journal.close()

    async def close_at_once(self) -> None:
        """Leave everything as it stands in the journal, for the next process."""
        self._admission.closed = self._courier.ending = True
        self.pull.close()
        await self._end_tasks(0.0)
        await self._journal.close()

    async def status(self, rollout_id: str) -> dict[str, Any] | None:
        """What is known of the newest rollout with that id; ``None`` if nothing is.

        One of 0.3 is told of only where none of 0.2 has the id, whose trainer would take its end for the other's.
        """
        rollout = self._rollouts.newest(rollout_id)
        if rollout is not None and rollout.phase is not Phase.DELIVERING:
            return view_of_rollout(rollout)
        try:
            records = await self._journal.find(rollout_id)
        except JournalError:
            if rollout is None:
                raise
            return view_of_delivery(rollout, self._courier.under_way.get(rollout.key))
        record = next((record for record in records if not is_pulled(record.key)), None)
        if record is None:
            rollout = self._rollouts.newest(rollout_id, pulled=True)
            if rollout is not None and rollout.phase is not Phase.DELIVERING:
                return view_of_rollout(rollout)
            if not records:
                return None
            record = records[0]
        delivery = self._courier.under_way.get(record.key)
        async with self._looking:  # one at a time, as results may be large; and away from the event loop
            result = await self._journal.load(record.key, Payload.RESULT)
            return await call_in_thread(lambda: view_of_record(record, result, delivery))

    def cancel(self, meant: Meant) -> list[str]:
        """Stop the queued and running rollouts of this process that are meant; their ids."""
        stopped = [
            rollout
            for rollout in self._rollouts.without_result()
            if meant.includes(rollout.rollout_id) and meant.pulled is (rollout.terms is not None)
        ]
        for rollout in stopped:
            rollout.stop(Stop.CANCELLED.value)
        return [rollout.rollout_id for rollout in stopped]

    async def cancel_everywhere(self, meant: Meant) -> list[str]:
        """The same for all workers and replicas of this server.

        What is meant by ids that this process all has is answered at once, whether the others can be asked or not.

        Raises:
            RefusedError: 503 the other replicas cannot be asked; what ran here is stopped all the same.
        """
        stopped = self.cancel(meant)
        is_all_here = meant.is_by_ids and meant.ids <= self._rollouts.ids(pulled=meant.pulled)
        try:
            # Whoever waits no more has asked all the same (``Journal``).
            async with asyncio.timeout(ELSEWHERE_SECONDS if is_all_here else None):
                asked = await self._journal.ask_cancel(meant.ids, meant.prefix, meant.all, spaces=meant.key_spaces)
        except (JournalError, TimeoutError) as error:
            if is_all_here:
                return stopped
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "What ran in this process is cancelled; the other replicas cannot be asked now: send it again.",
                "journal_unavailable",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error
        if asked is None and (others := relay.current()) is not None:
            asked = await others.ask_others(meant)
        return stopped + (asked or [])

    async def maintain(self) -> None:
        """One round of housekeeping: old records go, and rollouts of other processes that died are taken up."""
        await self.pull.maintain()
        await self._journal.prune()
        await self._recovery.take_up_abandoned()

    def _cancel_keys(self, keys: list[str]) -> None:
        for rollout in self._rollouts.without_result():
            if rollout.key in keys:
                rollout.stop(Stop.CANCELLED.value)

    def _drop_all(self) -> None:
        """Another replica has taken over what runs here: its results are dropped, so it need not go on."""
        for rollout in self._rollouts.without_result():
            rollout.stop(Stop.RESTART.value)

    def _recover_soon(self) -> None:
        if not self._recovers and not self.draining:
            self._recovers = True
            self._spawn(self._recover())

    async def _recover(self) -> None:
        try:
            await self._recovery.take_up_abandoned()
        except Exception as error:  # noqa: BLE001 - the next round tries again
            logger.error("What an earlier process left in the journal is not taken up yet: %s", described(error))
        finally:
            self._recovers = False

    async def _run(self, rollout: Rollout) -> None:
        """See an accepted rollout through; nothing that happens here may end without its result."""
        if rollout.trace is not None:
            TRACE_HEADERS.set(rollout.trace.headers)
        try:
            has_slot = await self._scheduler.wait_for_slot(rollout)
            about: dict[str, Any] = {} if rollout.terms is None else {"tools": rollout.terms.tools}
            async with self._make_client(
                server_url=rollout.server_url, rollout_id=rollout.rollout_id, api_key=rollout.api_key, **about
            ) as rollout.llm:
                delivery = await self._deliver(rollout, await self._result_of(rollout, has_slot))
            if delivery is not None:
                rollout.let_go()
                await self._courier.carry_on(delivery)
        except Exception:
            logger.exception("Rollout %a: the client of its trainer failed.", rollout.rollout_id)
            if rollout.is_unfinished:  # on record for the next process: without a client it cannot go out from here
                result = await result_of_unrun(self._journal, rollout, NO_CLIENT)
                rollout.watch.result_made(result.encoded)
                if rollout.terms is not None:
                    result = as_pulled(rollout.rollout_id, result, rollout.terms)
                await self._courier.record(Parcel.of(rollout.key, result), rollout.rollout_id)
                _tell_end(rollout, result.summary, rollout.age_seconds)
        finally:
            self._scheduler.release(rollout)
            self.state.mark_completed(rollout.key)
            self.state.clear_init_record(rollout.key)  # from here on the journal answers for it
            self._rollouts.remove(rollout)
            self.pull.leases.end(rollout.key)
            rollout.watch.gone()

    async def _result_of(self, rollout: Rollout, has_slot: bool) -> TerminalResult:
        if has_slot:
            return await self._scheduler.run(rollout)
        return await result_of_unrun(self._journal, rollout, rollout.stop_reason or Stop.SHUTDOWN.value)

    async def _deliver(self, rollout: Rollout, result: TerminalResult) -> Delivery | None:
        """The delivery after its first attempt; ``None`` if the result must not go out from here."""
        seconds = rollout.age_seconds
        self._rollouts.finish(rollout)
        rollout.watch.result_made(result.encoded)
        if rollout.terms is not None:
            result = await call_in_thread(as_pulled, rollout.rollout_id, result, rollout.terms)
        parcel = Parcel.of(rollout.key, result)
        if not await self._courier.record(parcel, rollout.rollout_id):
            return None
        await rollout.watch.flushed()  # whoever has the result can read the trace
        rollout.enter(Phase.DELIVERING)
        _tell_end(rollout, result.summary, seconds)
        if rollout.terms is not None:
            self.pull.finished(rollout)
            return None
        delivery = Delivery(parcel, rollout.rollout_id, rollout.server_url, rollout.api_key, rollout.llm, rollout.watch)
        await self._courier.attempt(delivery)
        self.state.mark_completed(rollout.key)  # for 0.2 it has ended, also if its trainer is dead
        return delivery

    async def _finish_running(self, drain_seconds: float) -> None:
        """Wait until nothing is about to start and nothing runs, stopping what waits in vain or takes too long.

        A result that cannot be put on record (a full disk) is waited for as long as an agent is.
        """
        deadline = time.monotonic() + drain_seconds
        out_of_time = False
        while (
            self._rollouts.reserved > 0
            or self._rollouts.unfinished > 0
            or (self._rollouts.has_unrecorded and not out_of_time)
        ):
            out_of_time = time.monotonic() >= deadline
            for rollout in self._rollouts.without_result():
                if out_of_time or rollout.waits_in_vain:
                    rollout.stop(Stop.SHUTDOWN.value)
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    async def _end_tasks(self, patience_seconds: float) -> None:
        if not self._tasks:
            return
        _, unended = await asyncio.wait(self._tasks, timeout=patience_seconds)
        for task in unended:
            task.cancel()
        if unended:
            logger.warning("%d rollouts are not delivered at the shutdown.", len(unended))
            await asyncio.wait(unended, timeout=CANCEL_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        # The event loop keeps only weak references to tasks.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _call(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """``work`` in ``loop``, from any thread."""
    with contextlib.suppress(RuntimeError):  # it is closed, and all that was in it gone
        loop.call_soon_threadsafe(work)


def _tell_end(rollout: Rollout, summary: ResultSummary, seconds: float) -> None:
    """Its observers hear of it, and the log has one line."""
    rollout.watch.ended(summary, seconds)
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "Rollout %a ended: status=%s finish_reason=%a outcome=%s duration=%.3f s",
            rollout.rollout_id,
            summary.status,
            summary.finish_reason,
            summary.outcome,
            seconds,
            extra={FIELDS: {**asdict(summary), "duration_seconds": seconds}},
        )
