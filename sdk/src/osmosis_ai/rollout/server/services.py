"""The service of the running event loop: made on first use, made anew in another loop or after a shutdown.

Whatever an app runs on belongs to one event loop, but the app itself does not: test clients call it from several, one
after the other, and some without a lifespan.
"""

import asyncio

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.settings import DEFAULT_JOURNAL, JOURNAL_OFF, RolloutSettings
from osmosis_ai.rollout.core.watch import Observer
from osmosis_ai.rollout.journal import Journal, JournalError, MemoryJournal, Retention
from osmosis_ai.rollout.journal.place import journal_at, secret_of
from osmosis_ai.rollout.observe.journal import time_operations
from osmosis_ai.rollout.observe.redaction import hide
from osmosis_ai.rollout.observe.setup import Telemetry
from osmosis_ai.rollout.server.attempts import ClientFactory
from osmosis_ai.rollout.server.service import RolloutService
from osmosis_ai.rollout.server.state import AppState


class Services:
    """One ``RolloutService`` at a time for one app.

    Args:
        make_client: called once a rollout with ``server_url``, ``rollout_id`` and ``api_key``.
    """

    def __init__(
        self,
        agent_loop: RolloutAgentLoop,
        settings: RolloutSettings,
        make_client: ClientFactory,
        max_concurrent: int | None,
        record_ttl_seconds: float | None,
        debug_dir: str | None,
    ) -> None:
        self.settings = settings
        self.agent_name = agent_loop.name
        self.served = False
        """Whether a lifespan runs; without one there is no recovery and no drain, so nothing goes on disk either."""
        self.looks_at_heads = True
        """Whether the app has to: nobody before it bounds them."""
        self.by_server = False
        """Whether it is a server's own process that runs the lifespan; only there the journal has a default."""
        self._agent_loop = agent_loop
        self._make_client = make_client
        self._max_concurrent = max_concurrent
        self._record_ttl_seconds = record_ttl_seconds
        self._debug_dir = debug_dir
        # Made here, so that arguments out of bounds are refused when the app is made, not at its first request.
        self._next_state: AppState | None = self._new_state()
        self.telemetry = Telemetry(self.agent_name, self._next_state.max_concurrent, settings.server, debug_dir)
        self._service: RolloutService | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Future[None] | None = None

    @property
    def observer(self) -> Observer:
        """What is told of all that happens."""
        return self.telemetry.bus

    async def current(self) -> RolloutService:
        """The opened service.

        Raises:
            JournalError: the journal cannot be opened; the next call tries again.
        """
        loop = asyncio.get_running_loop()
        if self._service is None or self._loop is not loop:
            self._loop = loop
            self._service = self._new_service()
            self._opening = asyncio.ensure_future(self._service.open())
        service, opening = self._service, self._opening
        if opening is not None and not (opening.done() and opening.exception() is None):
            try:
                # Shielded: a request that goes away must not cancel the opening for all others.
                await asyncio.shield(opening)
            except JournalError:
                if self._opening is opening:
                    self._service = None
                raise
        return service

    async def close(self, drain_seconds: float | None) -> None:
        """Close the service of this loop, at once if ``None``; a later use opens a new one."""
        service = self._service
        if service is None or self._loop is not asyncio.get_running_loop():
            return
        try:
            await (service.close_at_once() if drain_seconds is None else service.close(drain_seconds))
        finally:
            if self._service is service:
                self._service = None

    def _new_state(self) -> AppState:
        return AppState(
            max_concurrent=self._max_concurrent,
            record_ttl_seconds=self._record_ttl_seconds,
            settings=self.settings.server,
            agent_loop_name=self.agent_name,
        )

    def _new_service(self) -> RolloutService:
        state, self._next_state = self._next_state or self._new_state(), None
        return RolloutService(
            self._agent_loop,
            self.settings,
            self._make_client,
            state,
            self._new_journal(state.record_ttl),
            self._debug_dir,
            self.observer,
        )

    def _new_journal(self, record_ttl_seconds: float) -> Journal:
        where = self.settings.server.journal
        if self.by_server and "journal" not in self.settings.server.model_fields_set:
            where = DEFAULT_JOURNAL
        limits = self.settings.server
        retention = Retention(delivered_seconds=record_ttl_seconds)
        journal: Journal = MemoryJournal(retention=retention)
        if self.served and where != JOURNAL_OFF:
            hide(secret_of(where) or "")
            journal = journal_at(where, retention=retention, synchronous=limits.journal_synchronous)
        time_operations(journal, self.observer)
        return journal
