"""The HTTP application around one agent loop. It works without a lifespan too, as in-process clients leave it out."""

import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.core.dotenv import variable
from osmosis_ai.rollout.core.schemas import set_max_metadata_size_bytes
from osmosis_ai.rollout.core.settings import Protocol, RolloutClientSettings, RolloutSettings, get_settings
from osmosis_ai.rollout.core.text import sendable_key
from osmosis_ai.rollout.core.trace.folder import TRACES_VARIABLE, trace_folder
from osmosis_ai.rollout.journal import JournalError
from osmosis_ai.rollout.observe.logs import use_format
from osmosis_ai.rollout.observe.redaction import hide
from osmosis_ai.rollout.server.api_key import bearer_token as _extract_bearer_token  # noqa: F401 - its name in 0.2
from osmosis_ai.rollout.server.attempts import ATTEMPTS_AT_ONCE_PER_TRAINER
from osmosis_ai.rollout.server.error_replies import reply_to
from osmosis_ai.rollout.server.init_endpoint import InitEndpoint
from osmosis_ai.rollout.server.lifespan import Lifespan, register
from osmosis_ai.rollout.server.requests import RefusedError
from osmosis_ai.rollout.server.routes import add_routes
from osmosis_ai.rollout.server.services import Services
from osmosis_ai.rollout.wire.addresses import is_loopback
from osmosis_ai.rollout.wire.channel import TrainerChannel, reply_bytes_for
from osmosis_ai.rollout.wire.channels import TrainerChannels, check_certificates
from osmosis_ai.rollout.wire.client import OsmosisLLMClient
from osmosis_ai.rollout.wire.heads import HEAD_TOO_LARGE, is_too_large
from osmosis_ai.rollout.wire.loopback import LoopbackGuard, refuse
from osmosis_ai.rollout.wire.policy_client import PolicyClient

if TYPE_CHECKING:
    from fastapi import FastAPI


FASTAPI_422 = "Validation Error"
"""As FastAPI describes what it would answer itself."""


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
    *,
    channel: TrainerChannel | None = None,
) -> "FastAPI":
    """The ASGI application that serves ``agent_loop``.

    Under an ASGI server, accepted rollouts are kept in the journal ``.osmosis/journal.db`` unless a setting names
    another place, or ``off``. In a test client, or without a lifespan, nothing is written to disk unasked.

    Args:
        max_concurrent: rollouts that run at once; ``None`` takes ``settings.server.max_concurrent_rollouts``.
        record_ttl_seconds: how long a finished key answers with its first reply; ``None`` takes the setting.
        settings: default ``get_settings()``.
        credentials: platform registration, which is not available; kept for compatibility, as the next two are.
        server_host: what the server is bound to; a name that it may be called by, and see ``credentials``.
        server_port: see ``credentials``.
        api_key: the key a trainer must send on init; ``None`` takes ``settings.server.api_key``, and no key at all
            means no authentication.
        debug_dir: where traces go, one ``<rollout id>.jsonl`` each; ``None`` takes a folder named by the time below
            ``ROLLOUT_DEBUG_DIR``, and writes none where that is not set or empty.
        on_startup: awaited before the first request.
        on_shutdown: awaited after the last rollout has ended.
        channel: carries the calls to trainers, and is closed at the shutdown; ``None`` opens connections of its own.

    Raises:
        ImportError: FastAPI is not installed.
        SettingsError: a setting in the environment is out of bounds.
        ValueError: no header can carry ``api_key``, or ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` name nothing that can be
            used.
    """
    try:
        from fastapi import FastAPI
    except ImportError as error:
        raise ImportError("FastAPI is required to serve an agent loop: pip install osmosis-ai[server].") from error

    settings = settings or get_settings()
    if "max_metadata_size_bytes" in settings.model_fields_set:
        set_max_metadata_size_bytes(settings.max_metadata_size_bytes)
    if api_key is None and settings.server.api_key is not None:
        api_key = settings.server.api_key.get_secret_value()
    if api_key is not None:
        api_key = api_key.strip()
        if api_key.isascii() and api_key:  # the empty one locks everybody out; what is no ASCII may come as UTF-8
            sendable_key(api_key, "api_key")
        hide(api_key)
    if settings.judge.api_key is not None:
        hide(settings.judge.api_key.get_secret_value())
    use_format(settings.server.log_format)
    if debug_dir is None and (parent := variable(TRACES_VARIABLE)):
        debug_dir = str(trace_folder(parent))
    client_settings = _client_settings(settings, max_concurrent)
    trainers = channel or _channels(client_settings, settings.server.max_result_bytes)

    def make_client(**fields: Any) -> OsmosisLLMClient:
        kind = PolicyClient if "tools" in fields else OsmosisLLMClient
        return kind(**fields, settings=client_settings, channel=trainers)

    services = Services(agent_loop, settings, make_client, max_concurrent, record_ttl_seconds, debug_dir)
    registers = None
    if credentials is not None and server_host is not None and server_port is not None:
        about = {"host": server_host, "port": server_port, "agent_loop_name": agent_loop.name, "api_key": api_key}
        registers = partial(register, credentials, **about)
    is_open = api_key is None and not (server_host and is_loopback(server_host))
    lifespan = Lifespan(services, trainers, is_open, on_startup, on_shutdown, registers)

    # No page has the key. Where there is none, what comes over the loopback interface may come from a browser.
    guard = LoopbackGuard([server_host, socket.gethostname()]) if api_key is None else None

    takes_inits = settings.server.protocol is not Protocol.PULL

    class RolloutServer(FastAPI):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                # A server says which ASGI it speaks (ASGI 3.0, "Lifespan Protocol"), where a test client leaves it out;
                # and it runs where signals arrive, where a test puts it into a thread.
                services.by_server = "asgi" in scope and threading.current_thread() is threading.main_thread()
                send = lifespan.in_one_sentence(send)
            elif services.looks_at_heads and scope["type"] == "http" and is_too_large(scope):
                await refuse(HEAD_TOO_LARGE, send, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            elif guard is not None and scope["type"] == "http" and (problem := guard.problem_of(scope)) is not None:
                await refuse(problem, send)
                return
            elif takes_inits and InitEndpoint.takes(scope) and not self.user_middleware:
                await init_endpoint(scope, receive, send)
                return
            await super().__call__(scope, receive, send)

        def openapi(self) -> dict[str, Any]:
            schema = super().openapi()
            # FastAPI lists a 422 wherever there is a parameter; an id in a path cannot be invalid.
            for operations in schema["paths"].values():
                for operation in operations.values():
                    if operation["responses"].get("422", {}).get("description") == FASTAPI_422:
                        del operation["responses"]["422"]
            return schema

    app = RolloutServer(
        title=f"Osmosis RolloutServer ({agent_loop.name})",
        description="Runs agent rollouts for a trainer that owns the model.",
        lifespan=lifespan.run,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours tells of rollouts, not of requests
        docs_url="/docs" if api_key is None else None,
        redoc_url="/redoc" if api_key is None else None,
        openapi_url="/openapi.json" if api_key is None else None,
    )
    for kind in (RefusedError, JournalError, Exception):
        app.add_exception_handler(kind, reply_to)
    init_endpoint = add_routes(app, services, api_key)
    return app


def _channels(settings: RolloutClientSettings, max_result_bytes: int) -> TrainerChannels:
    check_certificates()
    return TrainerChannels(
        settings.max_connections, settings.max_keepalive_connections, reply_bytes_for(max_result_bytes)
    )


def _client_settings(settings: RolloutSettings, max_concurrent: int | None) -> RolloutClientSettings:
    """Unless they were set, the limits of connections leave room for every rollout that may run, and deliveries."""
    client = settings.client
    wanted = (max_concurrent or settings.server.max_concurrent_rollouts) + ATTEMPTS_AT_ONCE_PER_TRAINER
    connections = client.max_connections
    if "max_connections" not in client.model_fields_set:
        connections = max(connections, wanted, client.max_keepalive_connections)
    idle = client.max_keepalive_connections
    if "max_keepalive_connections" not in client.model_fields_set:
        idle = connections
    return client.model_copy(update={"max_connections": connections, "max_keepalive_connections": idle})
