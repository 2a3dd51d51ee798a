"""Rollouts from init to acknowledgement.

Invariants: a 202 leaves only after the journal has ``accepted``; delivery starts only after it has ``finished``;
nothing is started by a refused init; under one key at most one rollout runs. One service serves one event loop.

    init -> admit -> get_tools -> journal "accepted" -> 202
                                        |
                     queue -> execute -> journal "finished" -> deliver -> journal "delivered"
"""

import asyncio
import logging
import math
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from osmosis_ai.rollout.core.base import RolloutAgentLoop, RolloutContext
from osmosis_ai.rollout.core.results import (
    Outcome,
    Stop,
    StopReason,
    TerminalResult,
    result_of_exception,
)
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.core.settings import RolloutSettings
from osmosis_ai.rollout.core.tracecontext import TRACE_HEADERS, TraceContext
from osmosis_ai.rollout.core.transcript import Transcript
from osmosis_ai.rollout.core.watch import Observer, Phase
from osmosis_ai.rollout.journal import (
    Acceptance,
    Journal,
    JournalError,
    JournalRecord,
)
from osmosis_ai.rollout.observe.logs import FIELDS
from osmosis_ai.rollout.observe.redaction import LOG_CONTEXT, LogContext
from osmosis_ai.rollout.server import siblings
from osmosis_ai.rollout.server.delivery import Courier, Delivery
from osmosis_ai.rollout.server.execution import Execution
from osmosis_ai.rollout.server.offer import ToolOffer
from osmosis_ai.rollout.server.requests import RefusedError, fingerprint, idempotency_key
from osmosis_ai.rollout.server.rollouts import Rollout, view_of_record, view_of_rollout
from osmosis_ai.rollout.server.settlement import ClientFactory, Settlement
from osmosis_ai.rollout.server.state import AppState

if TYPE_CHECKING:
    from osmosis_ai.rollout.observe.traces.recorder import TracedRollout

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1
UNDELIVERABLE_KEPT_SECONDS = 7 * 86_400.0
CANCEL_SECONDS = 1.0
NO_CLIENT = StopReason(Outcome.LLM_ERROR, "error", "the client of the trainer could not be made; see the server's log")
DRAIN_POLL_SECONDS = 0.05
"""How often a drain looks for rollouts that wait in backoff for a trainer that is gone."""
HOPS_TO_REPLY = 2
"""Rounds of the event loop until whoever awaits an init has its reply: the 202 leaves before the agent starts."""


class RolloutService:
    """Accepts, runs and delivers the rollouts of one agent loop.

    Args:
        make_client: called once a rollout with ``server_url``, ``rollout_id`` and ``api_key``.
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
        self.state = state
        self.draining = False
        self._agent_loop = agent_loop
        self._settings = settings
        self._make_client = make_client
        self._journal = journal
        self._debug_dir = debug_dir
        self._observer = observer
        self._courier = Courier(settings.client, settings.server.delivery_deadline_seconds)
        self._settlement = Settlement(journal, self._courier, make_client, observer)
        self._offer = ToolOffer(agent_loop, settings.server.tools_timeout_seconds)
        self._rollouts: dict[str, Rollout] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reserved = 0
        self._unfinished = 0
        self._siblings = siblings.current()

    async def open(self) -> None:
        """Open the journal and take up what an earlier process left behind.

        Raises:
            JournalError: the journal cannot be used; the message says why.
        """
        await self._journal.open()
        self._count_unfinished(0)
        self._spawn(self._recover())

    async def close(self, drain_seconds: float) -> None:
        """Drain: let rollouts end for ``drain_seconds``, end the rest as ERROR, flush results, close the journal."""
        self.draining = self._settlement.ending = True
        await self._finish_running(drain_seconds)
        self._courier.close()
        await self._end_tasks(self._settings.server.flush_seconds)
        await self._journal.close()

    async def close_at_once(self) -> None:
        """Leave everything as it stands in the journal, for the next process."""
        self.draining = self._settlement.ending = True
        await self._end_tasks(0.0)
        await self._journal.close()

    async def _end_tasks(self, patience_seconds: float) -> None:
        if not self._tasks:
            return
        _, unended = await asyncio.wait(self._tasks, timeout=patience_seconds)
        for task in unended:
            task.cancel()
        if unended:
            logger.warning("%d rollouts are not delivered at the shutdown.", len(unended))
            await asyncio.wait(unended, timeout=CANCEL_SECONDS)

    async def init(self, request: RolloutRequest, body: bytes, trace: TraceContext | None = None) -> bytes:
        """Accept ``request``, which ``body`` holds as JSON, or find what its key has accepted before; the reply's body.

        ``trace`` is the trainer's trace context, which goes with every call to it.

        Raises:
            RefusedError: 409 another body under the key, 429 no room, 500 ``get_tools`` failed, 503 draining or no
                journal. Nothing is remembered then.
        """
        LOG_CONTEXT.set(LogContext(request.rollout_id, request.api_key))
        if self.draining:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server is shutting down.",
                "shutting_down",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        key, print_ = idempotency_key(request), fingerprint(request)
        future, leads = self.state.get_or_create_init_future(key)
        if leads:
            self.state.fingerprints[key] = print_
            self._spawn(self._lead(key, print_, request, body, trace, future))
        elif self.state.fingerprints.get(key) != print_:
            raise _conflict()
        else:
            self._observer.init_repeated()
        return await asyncio.shield(future)

    async def status(self, rollout_id: str) -> dict[str, Any] | None:
        """What is known of the newest rollout with that id; ``None`` if nothing is."""
        rollout = self._newest(rollout_id)
        if rollout is not None and rollout.phase is not Phase.DELIVERING:
            return view_of_rollout(rollout)
        records = await self._journal.find(rollout_id)
        return view_of_record(records[0]) if records else None

    async def cancel(self, rollout_id: str) -> bool:
        """Stop a queued or running rollout of this process; ``False`` if there is none of that id."""
        rollout = self._newest(rollout_id)
        if rollout is None or not rollout.is_unfinished:
            return False
        rollout.stop(Stop.CANCELLED.value)
        return True

    async def maintain(self) -> None:
        """One round of housekeeping: old records go, and rollouts of other processes that died are taken up."""
        now = time.time()
        await self._journal.prune(now - self.state.record_ttl, undeliverable_before=now - UNDELIVERABLE_KEPT_SECONDS)
        await self._settlement.take_up_abandoned(self._spawn)

    async def _recover(self) -> None:
        try:
            await self._settlement.take_up_abandoned(self._spawn)
        except JournalError as error:
            logger.error("What an earlier process left in the journal is not taken up yet: %s", error)

    async def _lead(
        self,
        key: str,
        print_: str,
        request: RolloutRequest,
        body: bytes,
        trace: TraceContext | None,
        future: "asyncio.Future[bytes]",
    ) -> None:
        """Accept the first init of a key, and see the rollout through to its acknowledgement."""
        self._reserved += 1
        rollout: Rollout | None = None
        try:
            if key in self.state.completed_rollouts and (reply := await self._reply_on_record(key, print_)) is not None:
                self._observer.init_repeated()
                self.state.clear_init_record(key)
                future.set_result(reply)
                return
            self._admit()
            # From here on the request is the agent's, which may change it; what the server needs of it, it has.
            rollout = Rollout(key, request.rollout_id, request.server_url, request.api_key, request, trace)
            reply, rollout.tools = await self._offer.make(rollout.rollout_id, request)
            record = await self._accept(rollout, print_, body, reply)
            body = b""  # not kept for as long as the rollout runs
            if record is None:
                self._start(rollout, reply)
            else:
                rollout, reply = None, _same_reply(record, print_)
                self._observer.init_repeated()
                self.state.clear_init_record(key)
            future.set_result(reply)
        except Exception as error:  # noqa: BLE001 - whoever awaits the future gets it
            rollout = None
            self.state.clear_init_record(key)
            future.set_exception(error)
        except BaseException:
            self.state.clear_init_record(key)
            future.cancel()
            raise
        finally:
            self._reserved -= 1
        if rollout is not None:
            for _ in range(HOPS_TO_REPLY):
                await asyncio.sleep(0)
            await self._run(rollout)

    async def _reply_on_record(self, key: str, print_: str) -> bytes | None:
        """What was answered under ``key``, within the record lifetime; ``None`` where nothing was."""
        record = await self._journal.get(key)
        expired = record is None or (record.settled_at or math.inf) < time.time() - self.state.record_ttl
        return None if record is None or expired else _same_reply(record, print_)

    def _admit(self) -> None:
        limits = self._settings.server
        full = self._unfinished + self._reserved > self.state.max_concurrent + limits.max_queued_rollouts
        if full or len(self._rollouts) + self._reserved > limits.max_total_rollouts:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "The server has no room for another rollout.",
                "at_capacity",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    async def _accept(self, rollout: Rollout, print_: str, body: bytes, reply: bytes) -> JournalRecord | None:
        acceptance = Acceptance(
            key=rollout.key,
            rollout_id=rollout.rollout_id,
            fingerprint=print_,
            server_url=rollout.server_url,
            api_key=rollout.api_key,
            init_reply=reply,
            request=body if rollout.api_key is None else _without_key(body),
        )
        try:
            return await self._journal.accept(acceptance, replace_settled_before=time.time() - self.state.record_ttl)
        except JournalError as error:
            logger.error("Rollout %a refused: %s", rollout.rollout_id, error)
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server cannot write its journal, so it accepts nothing.",
                "journal_unavailable",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error

    def _start(self, rollout: Rollout, reply: bytes) -> None:
        rollout.watch = self._observer.accepted(rollout.rollout_id, rollout.server_url, rollout.tools, rollout.trace)
        if self._debug_dir:
            rollout.watch = rollout.traced = self._trace(rollout, self._debug_dir, reply)
        self._rollouts[rollout.key] = rollout
        self._count_unfinished(+1)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - narrows the type; a coroutine runs in a task
        self.state.mark_started(rollout.key, task)

    def _trace(self, rollout: Rollout, directory: str, reply: bytes) -> "TracedRollout":
        from osmosis_ai.rollout.observe.traces.recorder import TracedRollout

        return TracedRollout(directory, self._agent_loop.name, rollout.request, reply, rollout.watch)

    async def _run(self, rollout: Rollout) -> None:
        if rollout.trace is not None:
            TRACE_HEADERS.set(rollout.trace.headers)
        try:
            if not await self._wait_for_slot(rollout):
                result = await self._settlement.result_of_unrun(rollout, rollout.stop_reason or Stop.SHUTDOWN.value)
                async with self._client_of(rollout) as rollout.llm:
                    await self._finish(rollout, result)
                return
            rollout.has_slot = True
            async with self._client_of(rollout) as rollout.llm:
                result = await self._execute(rollout)
                self._release_slot(rollout)
                await self._finish(rollout, result)
        except Exception:
            logger.exception("Rollout %a: the client of its trainer failed.", rollout.rollout_id)
            if rollout.is_unfinished:
                result = await self._settlement.result_of_unrun(rollout, NO_CLIENT)
                await self._settlement.record(rollout, result)
                rollout.watch.ended(result.summary, time.time() - rollout.accepted_at)
        finally:
            self._release_slot(rollout)
            if rollout.is_unfinished:
                self._count_unfinished(-1)
            self.state.mark_completed(rollout.key)
            self.state.clear_init_record(rollout.key)  # from here on the journal answers for it
            del self._rollouts[rollout.key]
            rollout.watch.gone()

    def _client_of(self, rollout: Rollout) -> AbstractAsyncContextManager[Any]:
        return self._make_client(server_url=rollout.server_url, rollout_id=rollout.rollout_id, api_key=rollout.api_key)

    async def _wait_for_slot(self, rollout: Rollout) -> bool:
        if rollout.stop_reason is not None:
            return False
        if not self.state.semaphore.locked():
            return await self.state.semaphore.acquire()
        rollout.slot = asyncio.ensure_future(self.state.semaphore.acquire())
        await asyncio.wait({rollout.slot})
        return not rollout.slot.cancelled()

    def _release_slot(self, rollout: Rollout) -> None:
        if rollout.has_slot:
            rollout.has_slot = False
            self.state.semaphore.release()

    async def _execute(self, rollout: Rollout) -> TerminalResult:
        rollout.started_at = time.time()
        rollout.enter(Phase.RUNNING)
        ctx = RolloutContext(
            request=rollout.request,
            tools=rollout.tools,
            llm=rollout.llm,
            _start_time=time.monotonic(),
            _debug_dir=self._debug_dir,
        )
        if isinstance(transcript := getattr(rollout.llm, "transcript", None), Transcript):
            ctx.share_transcript(transcript)
        if rollout.traced is not None:
            ctx.trace_to(rollout.traced.trace)
        limits = self._settings.server
        rollout.execution = Execution(
            rollout.rollout_id,
            self._agent_loop,
            ctx,
            limits.request_timeout_seconds,
            limits.tool_turn_timeout_seconds,
            rollout.watch,
        )
        if rollout.stop_reason is not None:
            rollout.execution.stop(rollout.stop_reason)
        try:
            result = await rollout.execution.result()
        except Exception as error:
            logger.exception("Rollout %a: no result could be made of its run.", rollout.rollout_id)
            result = result_of_exception(rollout.rollout_id, ctx, error)
        return result.within(limits.max_result_bytes)

    async def _finish(self, rollout: Rollout, result: TerminalResult) -> None:
        rollout.finished_at = time.time()
        rollout.enter(Phase.RECORDING)
        self._count_unfinished(-1)
        if not await self._settlement.record(rollout, result):
            return
        if rollout.traced is not None:
            await rollout.traced.trace.flushed()
        rollout.enter(Phase.DELIVERING)
        seconds = rollout.finished_at - rollout.accepted_at
        rollout.watch.ended(result.summary, seconds)
        if logger.isEnabledFor(logging.INFO):
            summary = result.summary
            logger.info(
                "Rollout %a ended: status=%s finish_reason=%a outcome=%s duration=%.3f s",
                rollout.rollout_id,
                summary.status,
                summary.finish_reason,
                summary.outcome,
                seconds,
                extra={FIELDS: {**asdict(summary), "duration_seconds": seconds}},
            )
        rollout.delivery = Delivery(rollout.rollout_id, rollout.server_url, rollout.llm, result, rollout.watch)
        await self._courier.attempt(rollout.delivery)
        self.state.mark_completed(rollout.key)
        await self._settlement.carry_on(rollout.key, rollout.delivery)

    def _newest(self, rollout_id: str) -> Rollout | None:
        found = (rollout for rollout in reversed(self._rollouts.values()) if rollout.rollout_id == rollout_id)
        return next(found, None)

    def _count_unfinished(self, more: int) -> None:
        self._unfinished += more
        if self._siblings is not None:
            self._siblings.note(self._unfinished)

    async def _finish_running(self, drain_seconds: float) -> None:
        """Wait until nothing is about to start and nothing runs, stopping what waits in vain or takes too long."""
        deadline = time.monotonic() + drain_seconds
        while self._reserved > 0 or self._unfinished > 0:
            out_of_time = time.monotonic() >= deadline
            for rollout in [rollout for rollout in self._rollouts.values() if rollout.is_unfinished]:
                waits_in_vain = rollout.phase is Phase.QUEUED or getattr(rollout.llm, "backing_off", False) is True
                if out_of_time or waits_in_vain:
                    rollout.stop(Stop.SHUTDOWN.value)
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    def _spawn(self, work: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _conflict() -> RefusedError:
    return RefusedError(
        HTTPStatus.CONFLICT,
        "This key was used for another request; send a new idempotency_key or rollout_id.",
        "key_reused",
    )


def _same_reply(record: JournalRecord, print_: str) -> bytes:
    if record.fingerprint != print_:
        raise _conflict()
    return record.init_reply


def _without_key(body: bytes) -> bytes:
    """The body of an init without the callback key, which the journal keeps in a place of its own."""
    fields = from_json(body)
    fields.pop("api_key", None)
    return to_json(fields)
