"""The owner of admission: which inits become rollouts, and what each is answered.

Invariants: a 202 leaves only after the journal has ``accepted``; a refused init leaves nothing behind; under one key at
most one rollout starts, however many inits come at once. Their first leads and the others await its future.

    room (429) -> get_tools (500) -> journal "accepted" (503) -> 202 -> run

Where there is no room the journal is asked first: what it has accepted, here or in another process, needs none.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json, to_json

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.core.settings import RolloutServerSettings
from osmosis_ai.rollout.core.tracecontext import TraceContext
from osmosis_ai.rollout.core.watch import Accepted, Observer
from osmosis_ai.rollout.journal import Acceptance, Journal, JournalError, JournalRecord, Payload, UnknownKeyError
from osmosis_ai.rollout.observe.redaction import LOG_CONTEXT, LogContext
from osmosis_ai.rollout.server.offer import ToolOffer
from osmosis_ai.rollout.server.pull.leases import Leases
from osmosis_ai.rollout.server.requests import RefusedError, fingerprint, idempotency_key
from osmosis_ai.rollout.server.rollouts import Rollout, Rollouts
from osmosis_ai.rollout.server.state import AppState
from osmosis_ai.rollout.server.terms import Terms, pull_key

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1
HOPS_TO_REPLY = 2
"""Rounds of the event loop until whoever awaits an init has its reply: the 202 leaves before the agent starts."""


@dataclass(eq=False, slots=True)
class _Init:
    request: RolloutRequest
    body: bytes
    trace: TraceContext | None
    key: str
    fingerprint: str
    terms: Terms | None


class Admission:
    """Takes inits; one per event loop.

    Args:
        state: the key table.
        rollouts: those that were accepted are added there.
        leases: begun there for those of 0.3.
        run: awaited for each accepted rollout, in the task that accepted it.
        spawn: makes a task.
    """

    def __init__(
        self,
        agent_loop: RolloutAgentLoop,
        limits: RolloutServerSettings,
        state: AppState,
        journal: Journal,
        rollouts: Rollouts,
        leases: Leases,
        observer: Observer,
        run: Callable[[Rollout], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.closed = False
        """Whether all inits are refused, as the server ends."""
        self._offer = ToolOffer(agent_loop, limits.tools_timeout_seconds)
        self._limits = limits
        self._state = state
        self._journal = journal
        self._rollouts = rollouts
        self._leases = leases
        self._observer = observer
        self._run = run
        self._spawn = spawn

    async def init(
        self, request: RolloutRequest, body: bytes, trace: TraceContext | None = None, terms: Terms | None = None
    ) -> bytes:
        """Accept ``request``, which ``body`` holds as JSON, or find what its key has accepted before; the reply's body.

        ``trace`` is the trainer's trace context, which goes with every call to it. ``terms`` are those of a start of
        0.3, which is accepted under a key of its own space.

        Raises:
            RefusedError: 409 another body under the key, 429 no room, 500 ``get_tools`` failed, 503 the server ends, or
                it has no journal. Nothing is remembered then.
        """
        LOG_CONTEXT.set(LogContext(request.rollout_id, request.api_key))
        if self.closed:
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server is shutting down.",
                "shutting_down",
                retry_after_seconds=RETRY_AFTER_SECONDS,
                headers={"Connection": "close"},  # the next one may reach a server that stays
            )
        if terms is None:
            init = _Init(request, body, trace, idempotency_key(request), fingerprint(request), None)
        else:
            init = _Init(request, body, trace, pull_key(request.rollout_id), terms.fingerprint, terms)
        future, leads = self._state.get_or_create_init_future(init.key)
        while not leads and self._state.fingerprints.get(init.key) != init.fingerprint and not future.done():
            # Another body has the key only if it is taken: it may be refused, or another process may have this one.
            await asyncio.wait({future})
            future, leads = self._state.get_or_create_init_future(init.key)
        if leads:
            self._state.fingerprints[init.key] = init.fingerprint
            self._spawn(self._lead(init, future))
        elif self._state.fingerprints.get(init.key) != init.fingerprint:
            raise _conflict(terms)
        else:
            self._observer.init_repeated()
        # Shielded: a trainer that hangs up must not take the reply from others who wait for it.
        return await asyncio.shield(future)

    async def _lead(self, init: _Init, future: "asyncio.Future[bytes]") -> None:
        """Answer the first init of a key, and see its rollout through; the task is the rollout's from then on."""
        rollout: Rollout | None = None
        self._rollouts.reserved += 1
        try:
            reply = await self._reply_without_room(init) if self._is_full() else None
            if reply is None and init.key in self._state.completed_rollouts:
                reply = await self._reply_on_record(init)
            if reply is None:
                self._require_room()
                reply, rollout = await self._accept(init)
            if rollout is None:
                self._observer.init_repeated()
                self._state.clear_init_record(init.key)  # the journal answers for it, also after a restart
            future.set_result(reply)
        except Exception as error:  # noqa: BLE001 - whoever awaits the future gets it
            rollout = None
            self._state.clear_init_record(init.key)
            future.set_exception(error)
        except BaseException:
            self._state.clear_init_record(init.key)
            future.cancel()
            raise
        finally:
            self._rollouts.reserved -= 1
        if rollout is not None:
            del init  # its messages may be large, and a delivery may take a day
            for _ in range(HOPS_TO_REPLY):
                await asyncio.sleep(0)
            await self._run(rollout)

    async def _reply_on_record(self, init: _Init) -> bytes | None:
        """What was answered under a key that ended here, until the journal gives the key free."""
        record = await self._journal.get(init.key)
        return None if record is None or self._journal.is_over(record) else await self._same_reply(record, init)

    async def _reply_without_room(self, init: _Init) -> bytes | None:
        """What another process has answered under the key, or this one: a repeat needs no room."""
        self._rollouts.reserved -= 1  # what has no place holds none while it is looked up
        try:
            return await self._reply_on_record(init)
        except JournalError:
            return None  # without it the answer is as for any init that is too many
        finally:
            self._rollouts.reserved += 1

    async def _same_reply(self, record: JournalRecord, init: _Init) -> bytes:
        if record.fingerprint != init.fingerprint:
            raise _conflict(init.terms)
        reply = await self._journal.load(record.key, Payload.INIT_REPLY)
        if reply is None:
            raise UnknownKeyError(record.key)  # removed in this moment; the next init finds the key free
        return reply

    def _is_full(self) -> bool:
        """Whether more than there is room for run, wait or are being accepted, the one that asks included."""
        held = self._rollouts.reserved
        full = self._rollouts.unfinished + held > self._state.max_concurrent + self._limits.max_queued_rollouts
        # Those whose results wait for a dead trainer take no slot, but memory.
        return full or len(self._rollouts) + held > self._limits.max_total_rollouts

    def _require_room(self) -> None:
        if self._is_full():
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "The server has no room for another rollout.",
                "at_capacity",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )

    async def _accept(self, init: _Init) -> tuple[bytes, Rollout | None]:
        """The reply, and the rollout that it promises; none if another process has taken the key before."""
        request = init.request
        # Copied first: from `get_tools` on the request is the agent's, which may change it.
        rollout = Rollout(init.key, request.rollout_id, request.server_url, request.api_key, request, init.trace)
        reply, rollout.tools = offered, _ = await self._offer.make(rollout.rollout_id, request)
        if init.terms is not None:
            rollout.terms, reply = init.terms, init.terms.reply
            rollout.terms.tools = from_json(offered)["tools"]
        acceptance = Acceptance(
            key=init.key,
            rollout_id=rollout.rollout_id,
            fingerprint=init.fingerprint,
            server_url=rollout.server_url,
            api_key=rollout.api_key if init.terms is None else None,  # nothing is delivered that would need it
            init_reply=reply,
            request=init.body if rollout.api_key is None else _without_key(init.body),
        )
        init.body = b""  # not kept for as long as the rollout runs
        try:
            record = await self._journal.accept(acceptance)
            if record is not None:
                return await self._same_reply(record, init), None
        except JournalError as error:
            logger.error("Rollout %a refused: %s", rollout.rollout_id, error)
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The server cannot write its journal, so it accepts nothing.",
                "journal_unavailable",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from error
        about = Accepted(rollout.rollout_id, rollout.server_url, rollout.tools, init.trace, request, offered)
        rollout.watch = self._observer.accepted(about)
        self._rollouts.add(rollout)
        if rollout.terms is not None:
            self._leases.begin(rollout)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - narrows the type; a coroutine runs in a task
        self._state.mark_started(rollout.key, task)
        return reply, rollout


def _conflict(terms: Terms | None) -> RefusedError:
    refusal = (
        "This key was used for another request; send a new idempotency_key or rollout_id."
        if terms is None
        else "This rollout_id was used for another start; send a new rollout_id."
    )
    return RefusedError(HTTPStatus.CONFLICT, refusal, "key_reused")


def _without_key(body: bytes) -> bytes:
    """The body of an init without the callback key, which the journal keeps in a place of its own."""
    fields = from_json(body)
    fields.pop("api_key", None)
    return to_json(fields)
