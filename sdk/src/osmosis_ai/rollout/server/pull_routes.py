"""The routes of 0.3: credentials first, then one call of the service, then its answer as JSON."""

import asyncio
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.tracecontext import trace_context_of
from osmosis_ai.rollout.server import relay
from osmosis_ai.rollout.server.init_endpoint import CANCEL_REFUSALS, INIT_REFUSALS, InitEndpoint
from osmosis_ai.rollout.server.pull.bodies import (
    CancelReply,
    CancelRollouts,
    ResultReply,
    StartReply,
    StartRequest,
    parse_cancel,
    parse_start,
)
from osmosis_ai.rollout.server.relay import Meant
from osmosis_ai.rollout.server.requests import RefusedError, headers_of, reason_of
from osmosis_ai.rollout.server.service import RolloutService
from osmosis_ai.rollout.server.services import Services
from osmosis_ai.rollout.wire.paths import PULL_CANCEL_PATH, START_PATH

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

LEASE_HEADER = "X-Osmosis-Rollout-Lease"
_LEASE = LEASE_HEADER.lower().encode()
MAX_LEASE_CHARACTERS = 256

_process_id = str(uuid.uuid4())


def add_pull_routes(
    app: "FastAPI",
    services: Services,
    authenticate: "Callable[[Request], None]",
    init_endpoint: InitEndpoint,
    refusals: Callable[..., dict[int | str, dict[str, Any]]],
    takes: Callable[..., dict[str, Any]],
) -> None:
    """Add them; ``refusals`` and ``takes`` describe a route, as for the others."""
    from starlette.requests import Request
    from starlette.responses import Response

    limits = services.settings.server

    def answer(service: RolloutService, body: bytes, status: HTTPStatus) -> Response:
        # In a drain a connection that is kept would lead back here, where soon nobody is.
        headers = {"Connection": "close"} if service.draining else None
        return Response(body, status, headers, media_type="application/json")

    @app.post(
        START_PATH,
        status_code=HTTPStatus.ACCEPTED,
        response_model=StartReply,
        responses=refusals(*INIT_REFUSALS),
        openapi_extra=takes(StartRequest),
    )
    async def start(request: Request) -> Response:
        """Accept a rollout of 0.3; it runs after the reply, and its result is fetched."""
        try:
            authenticate(request)
            body = await init_endpoint.bodies.receive(headers_of(request), request.receive)
            service = await services.current()
            asked = parse_start(
                body,
                init_endpoint.allowed_hosts,
                limits.poll_wait_seconds,
                limits.poll_lease_seconds,
                limits.request_timeout_seconds,
            )
            trace = trace_context_of(request.headers)
            reply = await service.init(asked.request, asked.body, trace, asked.terms)
            return answer(service, await service.pull.started(asked, reply), HTTPStatus.ACCEPTED)
        except Exception as error:
            services.observer.init_refused(reason_of(error))
            raise

    @app.get(
        START_PATH + "/{rollout_id}/result",
        response_model=ResultReply,
        responses=refusals(
            HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def result(request: Request, rollout_id: str) -> Response:
        """Wait for the result of a rollout of 0.3, and renew its lease."""
        authenticate(request)
        token = headers_of(request).get(_LEASE, b"").decode("utf-8", "surrogateescape")
        if not token or len(token) > MAX_LEASE_CHARACTERS:
            problem = f"Send the rollout's polling_lease_token in the header {LEASE_HEADER}."
            detail = [{"type": "missing", "loc": ["header", LEASE_HEADER], "msg": problem}]
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
        service = await services.current()
        gone = asyncio.ensure_future(_gone(request))
        try:
            return answer(service, await service.pull.poll(rollout_id, token, gone), HTTPStatus.OK)
        finally:
            gone.cancel()

    @app.post(
        PULL_CANCEL_PATH,
        response_model=CancelReply,
        responses=refusals(*CANCEL_REFUSALS),
        openapi_extra=takes(CancelRollouts),
    )
    async def cancel(request: Request) -> dict[str, Any]:
        """End rollouts of 0.3: some by id, those with a prefix, or all, in every worker."""
        authenticate(request)
        asked = parse_cancel(await init_endpoint.bodies.receive(headers_of(request), request.receive))
        meant = Meant(frozenset(asked.ids or ()), asked.prefix, asked.all, pulled=True)
        dispositions = dict.fromkeys(asked.ids or (), "not_found")
        stopped = await (await services.current()).cancel_everywhere(meant)
        return {"dispositions": dispositions | dict.fromkeys(stopped, "cancelled_running")}


async def _gone(request: "Request") -> None:
    """Until whoever sent ``request`` has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def lifecycle(service: RolloutService) -> dict[str, Any]:
    """What a client of 0.3 wants to know of ``/health``: which server it is, and how much it has to do."""
    siblings = relay.current()
    server_id = _process_id if siblings is None else siblings.server_id
    running, queued = service.load
    return {
        "concurrency": {"max_concurrent": service.state.max_concurrent, "queued": queued, "running": running},
        "instance_id": server_id,
        "process_id": server_id,
        "lifecycle": {"accepting_rollouts": not service.draining, "active_rollouts": service.active_everywhere},
    }
