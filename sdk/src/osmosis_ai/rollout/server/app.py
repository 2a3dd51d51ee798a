"""The HTTP application around one agent loop. Spec: server.md, sections 2 and 3.

Handlers are thin: credentials first, then the body, then ``RolloutService``. Everything works without a lifespan, as
in-process ASGI clients leave it out.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.offload import call_in_thread, daemon_threads
from osmosis_ai.rollout.core.optional import FASTAPI_AVAILABLE
from osmosis_ai.rollout.core.schemas import InitResponse, RolloutRequest, set_max_metadata_size_bytes
from osmosis_ai.rollout.core.settings import (
    JOURNAL_OFF,
    MetricsAccess,
    RolloutClientSettings,
    RolloutSettings,
    get_settings,
)
from osmosis_ai.rollout.core.watch import Observer
from osmosis_ai.rollout.journal import Journal, JournalError, MemoryJournal, SqliteJournal
from osmosis_ai.rollout.observe.journal import time_operations
from osmosis_ai.rollout.observe.logs import use_format
from osmosis_ai.rollout.observe.looplag import LoopLag
from osmosis_ai.rollout.observe.redaction import hide
from osmosis_ai.rollout.observe.setup import Telemetry
from osmosis_ai.rollout.server.api_key import validate_api_key
from osmosis_ai.rollout.server.delivery import ATTEMPTS_AT_ONCE_PER_TRAINER
from osmosis_ai.rollout.server.error_replies import ERROR_HANDLERS
from osmosis_ai.rollout.server.init_endpoint import INIT_PATH, InitEndpoint
from osmosis_ai.rollout.server.process import follow_uvicorn_logging, raise_file_limit, set_aside_startup_objects
from osmosis_ai.rollout.server.requests import RefusedError
from osmosis_ai.rollout.server.service import RolloutService
from osmosis_ai.rollout.server.signals import DrainOnSignal
from osmosis_ai.rollout.server.state import AppState
from osmosis_ai.rollout.wire.client import OsmosisLLMClient
from osmosis_ai.rollout.wire.transport import close_transports

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger(__name__)

# A server that stops without a signal (a test client, another ASGI server) gives its rollouts at most this long.
LIFESPAN_DRAIN_SECONDS = 2.0

_UNAUTHORIZED = "Invalid or missing API key"


def create_app(
    agent_loop: RolloutAgentLoop,
    max_concurrent: int | None = None,
    record_ttl_seconds: float | None = None,
    settings: RolloutSettings | None = None,
    credentials: Any = None,
    server_host: str | None = None,
    server_port: int | None = None,
    api_key: str | None = None,
    debug_dir: str | None = None,
    on_startup: Callable[[], Awaitable[None]] | None = None,
    on_shutdown: Callable[[], Awaitable[None]] | None = None,
) -> "FastAPI":
    """The ASGI application that serves ``agent_loop``.

    Args:
        max_concurrent: rollouts that run at once; ``None`` takes ``settings.server.max_concurrent_rollouts``.
        record_ttl_seconds: how long a finished key answers with its first reply; ``None`` takes the setting.
        settings: default ``get_settings()``.
        credentials, server_host, server_port: platform registration, which is not available; kept for compatibility.
        api_key: the key a trainer must send on init; ``None`` takes ``settings.server.api_key``, and no key at all
            means no authentication.
        debug_dir: where traces go, one ``<rollout id>.jsonl`` each; ``None`` writes none.
        on_startup, on_shutdown: awaited before the first request, and after the last rollout has ended.

    Raises:
        ImportError: FastAPI is not installed.
        pydantic.ValidationError: a setting in the environment is out of bounds.
    """
    if not FASTAPI_AVAILABLE:
        raise ImportError("FastAPI is required to serve an agent loop: pip install osmosis-ai[server].")
    from fastapi import FastAPI

    settings = settings or get_settings()
    if "max_metadata_size_bytes" in settings.model_fields_set:
        set_max_metadata_size_bytes(settings.max_metadata_size_bytes)
    if api_key is None and settings.server.api_key is not None:
        api_key = settings.server.api_key.get_secret_value()
    if api_key is not None:
        hide(api_key)
    use_format(settings.server.log_format)
    rollouts = _Rollouts(agent_loop, settings, max_concurrent, record_ttl_seconds, debug_dir)
    lifespan = _Lifespan(rollouts, agent_loop.name, api_key, on_startup, on_shutdown)
    if credentials is not None and server_host is not None and server_port is not None:
        lifespan.registration = (server_host, server_port, credentials)

    class RolloutServer(FastAPI):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                send = lifespan.in_one_sentence(send)
            elif InitEndpoint.takes(scope) and not self.user_middleware:
                await init_endpoint(scope, receive, send)
                return
            await super().__call__(scope, receive, send)

    app = RolloutServer(
        title=f"Osmosis RolloutServer ({agent_loop.name})",
        description="Runs agent rollouts for a trainer that owns the model.",
        lifespan=lifespan.run,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours tells of rollouts, not of requests
        docs_url="/docs" if api_key is None else None,
        redoc_url="/redoc" if api_key is None else None,
        openapi_url="/openapi.json" if api_key is None else None,
    )
    for kind, handler in ERROR_HANDLERS.items():
        app.add_exception_handler(kind, handler)
    init_endpoint = _add_routes(app, rollouts, agent_loop.name, api_key, settings)
    return app


class _Rollouts:
    """The service of the running event loop: made on first use, made anew in another loop or after a shutdown."""

    def __init__(
        self,
        agent_loop: RolloutAgentLoop,
        settings: RolloutSettings,
        max_concurrent: int | None,
        record_ttl_seconds: float | None,
        debug_dir: str | None,
    ) -> None:
        self.settings = settings
        self.served = False
        """Whether a lifespan runs; without one there is no recovery and no drain, so nothing goes on disk either."""
        self._agent_loop = agent_loop
        self._max_concurrent = max_concurrent
        self._record_ttl_seconds = record_ttl_seconds
        self._debug_dir = debug_dir
        self._client_limits = self._client_settings()
        self._next_state: AppState | None = self._new_state()
        self.telemetry = Telemetry(agent_loop.name, self._next_state.max_concurrent, settings.server)
        self._service: RolloutService | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Future[None] | None = None

    @property
    def observer(self) -> Observer:
        """What is told of all that happens."""
        return self.telemetry.observer

    async def service(self) -> RolloutService:
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
            agent_loop_name=self._agent_loop.name,
        )

    def _new_service(self) -> RolloutService:
        state, self._next_state = self._next_state or self._new_state(), None
        return RolloutService(
            self._agent_loop,
            self.settings,
            self._make_client,
            state,
            self._new_journal(),
            self._debug_dir,
            self.observer,
        )

    def _new_journal(self) -> Journal:
        where = self.settings.server.journal
        journal = SqliteJournal(where) if self.served and where != JOURNAL_OFF else MemoryJournal()
        time_operations(journal, self.observer)
        return journal

    def _client_settings(self) -> RolloutClientSettings:
        """Unless they were set, the limits of connections leave room for every rollout that may run, and deliveries."""
        client = self.settings.client
        wanted = (self._max_concurrent or self.settings.server.max_concurrent_rollouts) + ATTEMPTS_AT_ONCE_PER_TRAINER
        connections = client.max_connections
        if "max_connections" not in client.model_fields_set:
            connections = max(connections, wanted, client.max_keepalive_connections)
        idle = client.max_keepalive_connections
        if "max_keepalive_connections" not in client.model_fields_set:
            idle = connections
        return client.model_copy(update={"max_connections": connections, "max_keepalive_connections": idle})

    def _make_client(self, **fields: Any) -> AbstractAsyncContextManager[Any]:
        client_class: Any = OsmosisLLMClient
        if client_class is _SdkClient:
            fields["settings"] = self._client_limits
        client: AbstractAsyncContextManager[Any] = client_class(**fields)
        return client


# `OsmosisLLMClient` is looked up for each rollout, and may have been replaced by a stand-in.
_SdkClient = OsmosisLLMClient


class _Lifespan:
    """Startup and shutdown, in the order of spec server.md 2.1, but for what its weaknesses 11 and 3 put right."""

    def __init__(
        self,
        rollouts: _Rollouts,
        agent_name: str,
        api_key: str | None,
        on_startup: Callable[[], Awaitable[None]] | None,
        on_shutdown: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self.registration: tuple[str, int, Any] | None = None
        self._rollouts = rollouts
        self._agent_name = agent_name
        self._api_key = api_key
        self._on_startup = on_startup
        self._on_shutdown = on_shutdown
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
        follow_uvicorn_logging(self._rollouts.settings.server.log_format)
        raise_file_limit()
        asyncio.get_running_loop().set_default_executor(daemon_threads())
        self._rollouts.served = True
        try:
            service = await self._rollouts.service()
        except JournalError as error:
            self._problem = str(error)
            raise
        state = service.state
        settings = self._rollouts.settings.server
        logger.info("Serving agent loop %r, at most %d rollouts at once.", self._agent_name, state.max_concurrent)
        if self._api_key is None:
            logger.warning(
                "No API key: whoever reaches this port can start rollouts. "
                "Set OSMOSIS_ROLLOUT_SERVER_API_KEY unless it is reachable from this machine only."
            )
        state.start_cleanup_task()
        maintenance = asyncio.create_task(self._maintain(service))
        set_aside_startup_objects()
        loop_lag = LoopLag(self._rollouts.observer.loop_lag)
        registration: asyncio.Task[None] | None = None
        drain_on_signal: DrainOnSignal | None = None
        try:
            if self._on_startup is not None:
                await self._on_startup()
            if self.registration is not None:
                registration = asyncio.create_task(self._register(*self.registration))
            drain_on_signal = DrainOnSignal(lambda: service.close(settings.drain_seconds))
            yield
        finally:
            if drain_on_signal is not None:
                drain_on_signal.restore()
            maintenance.cancel()
            try:
                if registration is not None:
                    await self._end(registration, settings.registration_shutdown_timeout_seconds)
                await state.stop_cleanup_task()
                at_once = drain_on_signal is not None and drain_on_signal.forced
                await self._rollouts.close(None if at_once else min(settings.drain_seconds, LIFESPAN_DRAIN_SECONDS))
            finally:
                loop_lag.stop()
                self._rollouts.served = False
                if self._on_shutdown is not None:
                    await self._on_shutdown()
                await close_transports()
                await self._rollouts.observer.close()

    async def _end(self, registration: "asyncio.Task[None]", timeout_seconds: float) -> None:
        _, pending = await asyncio.wait({registration}, timeout=timeout_seconds)
        if pending:
            logger.warning("The registration did not end within %g s; it is given up.", timeout_seconds)
            registration.cancel()

    async def _maintain(self, service: RolloutService) -> None:
        while True:
            await asyncio.sleep(self._rollouts.settings.server.cleanup_interval_seconds)
            try:
                await service.maintain()
            except JournalError as error:
                logger.warning("Housekeeping of the journal failed: %s", error)
            except Exception:
                logger.exception("Housekeeping failed; the next round tries again.")

    async def _register(self, host: str, port: int, credentials: Any) -> None:
        # By its 0.2 path, as what is behind it may go one day; nothing below knows of the `_compat` package.
        registration = import_module("osmosis_ai.rollout.server.registration")
        about: dict[str, Any] = {
            "host": host,
            "port": port,
            "agent_loop_name": self._agent_name,
            "api_key": self._api_key,
        }
        try:
            register = functools.partial(registration.register_with_platform, **about, credentials=credentials)
            result = await call_in_thread(register)
            registration.print_registration_result(result=result, **about)
        except Exception:
            logger.exception("Registration failed; the server goes on.")


def _add_routes(
    app: "FastAPI", rollouts: _Rollouts, agent_name: str, api_key: str | None, settings: RolloutSettings
) -> InitEndpoint:
    """Add all routes; the endpoint for inits is returned, to be reached without the router."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    metrics_key = settings.server.metrics_key
    metrics_keys = [metrics_key.get_secret_value()] if metrics_key is not None else []
    hide(*metrics_keys)

    def authenticate(request: Request, *other_keys: str) -> None:
        keys = other_keys if api_key is None else (api_key, *other_keys)
        if not keys:
            return
        provided = request.headers.get("authorization", "").encode("latin-1").decode("utf-8", "surrogateescape")
        token = _extract_bearer_token(provided)
        if not any(validate_api_key(token, key) for key in keys):
            logger.warning("Refused %s %a: %s.", request.method, request.url.path, _UNAUTHORIZED)
            raise RefusedError(HTTPStatus.UNAUTHORIZED, _UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})

    init_endpoint = InitEndpoint(authenticate, rollouts.service, lambda: rollouts.telemetry.observer, settings.server)

    async def status_object() -> dict[str, Any]:
        state = (await rollouts.service()).state
        return {
            "status": "healthy",
            "agent_loop": agent_name,
            "active_rollouts": state.active_count,
            "completed_rollouts": state.completed_count,
        }

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the process serves; counts of this process. Never needs a key."""
        return await status_object()

    @app.get("/ready")
    async def ready() -> Response:
        """Whether an init would be taken: 200, or 503 while the server drains. Never needs a key."""
        draining = (await rollouts.service()).draining
        status = HTTPStatus.SERVICE_UNAVAILABLE if draining else HTTPStatus.OK
        return JSONResponse({"ready": not draining}, status)

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """Metrics in Prometheus's text format; for whom, the setting ``metrics`` says."""
        if settings.server.metrics is not MetricsAccess.OPEN:
            authenticate(request, *metrics_keys)
        return await rollouts.telemetry.scrape(request.headers.get("accept", ""))

    @app.get("/platform/health")
    async def platform_health(request: Request) -> dict[str, Any]:
        """As ``/health``, behind the key; 404 on a server without one."""
        if api_key is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "Not found")
        authenticate(request)
        return await status_object()

    @app.post(
        INIT_PATH,
        status_code=HTTPStatus.ACCEPTED,
        response_model=InitResponse,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": RolloutRequest.model_json_schema()}},
            }
        },
    )
    async def init(request: Request) -> Response:
        """Accept a rollout; it runs after the reply."""
        return Response(await init_endpoint.accept(request), HTTPStatus.ACCEPTED, media_type="application/json")

    @app.get("/v1/rollout/{rollout_id:path}")
    async def rollout_status(request: Request, rollout_id: str) -> dict[str, Any]:
        """State, times (unix seconds) and result summary of a rollout."""
        if request.url.path == INIT_PATH:
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", headers={"Allow": "POST"})
        authenticate(request)
        view = await (await rollouts.service()).status(rollout_id)
        if view is None:
            raise _unknown_rollout()
        return view

    @app.post("/v1/rollout/{rollout_id:path}/cancel", status_code=HTTPStatus.ACCEPTED)
    async def cancel(request: Request, rollout_id: str) -> dict[str, Any]:
        """End a rollout as ERROR with finish reason ``cancelled``."""
        authenticate(request)
        service = await rollouts.service()
        if await service.cancel(rollout_id):
            return {"rollout_id": rollout_id, "state": "cancelling"}
        view = await service.status(rollout_id)
        if view is None:
            raise _unknown_rollout()
        raise RefusedError(HTTPStatus.CONFLICT, "The rollout is not running in this process.", "not_running")

    return init_endpoint


def _unknown_rollout() -> RefusedError:
    return RefusedError(HTTPStatus.NOT_FOUND, "No rollout of that id is known.", "unknown_rollout")


def _extract_bearer_token(auth_header: str | None) -> str | None:
    """The token of an ``Authorization`` header: after ``Bearer``, or the whole header. Spec: server.md, 3.4."""
    parts = (auth_header or "").split()
    if len(parts) == 2 and parts[0].lower() == "bearer":
        return parts[1]
    return (auth_header or "").strip() or None
