"""From the start of an app to its end.

Order at the start: the journal first, as a server that cannot use it must not start; the user's ``on_startup`` before
anything is served; signals last, when there is something to drain. At the end the other way round: rollouts end before
``on_shutdown``, connections and telemetry go last.
"""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.offload import call_in_thread, daemon_threads
from osmosis_ai.rollout.journal import JournalError
from osmosis_ai.rollout.observe.looplag import LoopLag
from osmosis_ai.rollout.server import relay, siblings
from osmosis_ai.rollout.server.process import follow_uvicorn_logging, raise_file_limit, set_aside_startup_objects
from osmosis_ai.rollout.server.service import RolloutService
from osmosis_ai.rollout.server.services import Services
from osmosis_ai.rollout.server.signals import DrainOnSignal
from osmosis_ai.rollout.server.watchdog import Watchdog
from osmosis_ai.rollout.wire.channel import TrainerChannel
from osmosis_ai.rollout.wire.inbound import bound_this_server

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger(__name__)

LIFESPAN_DRAIN_SECONDS = 2.0
"""A server that stops without a signal (a test client, another ASGI server) gives its rollouts at most this long."""

DESCRIPTORS_PER_ROLLOUT = 2
"""That inbound connections leave: one to its trainer, one for what its agent opens, or for its delivery."""

Hook = Callable[[], Awaitable[None]]


class Lifespan:
    """Startup and shutdown of one app; ``run`` is what FastAPI calls a lifespan.

    Args:
        is_open: whether a stranger may start rollouts, so far as is known.
    """

    def __init__(
        self,
        services: Services,
        channel: TrainerChannel,
        is_open: bool,
        on_startup: Hook | None,
        on_shutdown: Hook | None,
        register: Hook | None,
    ) -> None:
        self._services = services
        self._channel = channel
        self._is_open = is_open
        self._on_startup = on_startup
        self._on_shutdown = on_shutdown
        self._register = register
        self._problem: str | None = None

    def in_one_sentence(self, send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """``send`` for lifespan messages, telling of a journal that cannot be used without a traceback."""

        async def send_message(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed" and self._problem is not None:
                message = {**message, "message": self._problem}
            await send(message)

        return send_message

    @asynccontextmanager
    async def run(self, app: "FastAPI") -> AsyncIterator[None]:
        """From startup to shutdown.

        Raises:
            JournalError: the journal cannot be used.
        """
        settings = self._services.settings.server
        follow_uvicorn_logging(settings.log_format)
        raise_file_limit()
        import_module("osmosis_ai.rollout.openai_api.endpoint").keep_descriptor()  # not for who only imports the app
        # Threads that an agent's blocking tool still holds must not keep the process from ending.
        asyncio.get_running_loop().set_default_executor(daemon_threads())
        self._services.served = True
        try:
            service = await self._services.current()
        except JournalError as error:
            self._problem = str(error)
            raise
        state = service.state
        logger.info(
            "Serving agent loop %r, at most %d rollouts at once.", self._services.agent_name, state.max_concurrent
        )
        if self._is_open:
            logger.warning(
                "No API key: whoever reaches this port can start rollouts. "
                "Set OSMOSIS_ROLLOUT_SERVER_API_KEY unless it is reachable from this machine only."
            )
        outbound = state.max_concurrent * DESCRIPTORS_PER_ROLLOUT
        self._services.looks_at_heads = not (self._services.by_server and bound_this_server(outbound))
        if self._services.by_server and self._services.looks_at_heads:
            logger.warning(
                "Not served by uvicorn: what a head costs until it is whole is for that server, or a proxy, to bound."
            )
        state.start_cleanup_task()
        maintenance = asyncio.create_task(self._maintain(service))
        set_aside_startup_objects()
        family = siblings.current()

        def report(lag_seconds: float) -> None:
            self._services.observer.loop_lag(lag_seconds)
            if family is not None:
                family.beat()

        async def drain() -> None:
            # From the signal on, though the event loop was blocked when it came.
            waited = time.monotonic() - (drain_on_signal.first_at or time.monotonic()) if drain_on_signal else 0.0
            # The journal is closed when nobody can ask any more: the server has yet to close its listener.
            await service.drain(max(0.0, settings.drain_seconds - waited))

        registration: asyncio.Task[None] | None = None
        drain_on_signal: DrainOnSignal | None = None
        loop_lag: LoopLag | None = None
        watchdog: Watchdog | None = None
        asked_by_others = AsyncExitStack()
        try:
            if self._on_startup is not None:
                await self._on_startup()
            if self._register is not None:
                registration = asyncio.ensure_future(self._register())
            loop_lag = LoopLag(report)
            drain_on_signal = DrainOnSignal(drain)
            watchdog = Watchdog(loop_lag, drain_on_signal, settings, self._services.observer)
            if (others := relay.current()) is not None:
                await asked_by_others.enter_async_context(others.listening(service.cancel))
            if family is not None:
                family.beat()  # from here on this worker serves
            yield
        finally:
            if drain_on_signal is not None:
                # First: what follows may hang, and a signal is then the server's own again.
                drain_on_signal.restore()
            await asked_by_others.aclose()
            maintenance.cancel()  # before the journal closes under it
            try:
                if registration is not None:
                    await _end(registration, settings.registration_shutdown_timeout_seconds)
                await state.stop_cleanup_task()
                at_once = drain_on_signal is not None and drain_on_signal.forced
                await self._services.close(None if at_once else min(settings.drain_seconds, LIFESPAN_DRAIN_SECONDS))
            finally:
                # Until here: an agent may block the loop while it is being ended.
                if watchdog is not None:
                    watchdog.stop()
                if loop_lag is not None:
                    loop_lag.stop()
                self._services.served = False
                if self._on_shutdown is not None:
                    await self._on_shutdown()
                await self._channel.aclose()
                await self._services.observer.close()

    async def _maintain(self, service: RolloutService) -> None:
        while True:
            await asyncio.sleep(self._services.settings.server.cleanup_interval_seconds)
            try:
                await service.maintain()
            except JournalError as error:
                logger.warning("Housekeeping of the journal failed: %s", error)
            except Exception:
                logger.exception("Housekeeping failed; the next round tries again.")


async def _end(registration: "asyncio.Future[None]", timeout_seconds: float) -> None:
    _, pending = await asyncio.wait({registration}, timeout=timeout_seconds)
    if pending:
        logger.warning("The registration did not end within %g s; it is given up.", timeout_seconds)
        registration.cancel()


async def register(credentials: Any, **about: Any) -> None:
    """What a server of 0.2 told the platform of itself, for whoever replaces what stands at that place now.

    Reached by its 0.2 path, as what is behind it may go one day; nothing below knows of the `_compat` package.
    """
    registration = import_module("osmosis_ai.rollout.server.registration")
    try:
        call = functools.partial(registration.register_with_platform, **about, credentials=credentials)
        registration.print_registration_result(result=await call_in_thread(call), **about)
    except Exception:
        logger.exception("Registration failed; the server goes on.")
