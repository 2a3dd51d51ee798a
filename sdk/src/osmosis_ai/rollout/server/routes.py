"""The routes: credentials first, then one call of the service, then its answer as JSON."""

import functools
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.schemas import CancelRequest, InitResponse, RolloutRequest
from osmosis_ai.rollout.core.settings import MetricsAccess, Protocol
from osmosis_ai.rollout.observe.redaction import hide
from osmosis_ai.rollout.server.api_key import bearer_token, validate_api_key
from osmosis_ai.rollout.server.init_endpoint import CANCEL_REFUSALS, INIT_REFUSALS, InitEndpoint
from osmosis_ai.rollout.server.pull_routes import add_pull_routes, lifecycle
from osmosis_ai.rollout.server.relay import Meant
from osmosis_ai.rollout.server.requests import RefusedError, headers_of, parse_cancel, unknown_rollout
from osmosis_ai.rollout.server.services import Services
from osmosis_ai.rollout.wire.paths import CANCEL_PATH, INIT_PATH

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel

logger = logging.getLogger(__name__)

_UNAUTHORIZED = "Invalid or missing API key"


_ERROR = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
        "code": {"type": "string"},
    },
}
"""As ``docs/schemas/error.schema.json``."""
_OF_ANY = (HTTPStatus.FORBIDDEN, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE)
"""Refusals of every route: of a page elsewhere, for a defect, without a journal."""


def _refusals(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """For a route's description: what it answers beside success."""
    content = {"application/json": {"schema": _ERROR}}
    return {status.value: {"description": status.phrase, "content": content} for status in (*statuses, *_OF_ANY)}


@functools.cache
def _takes(body: type["BaseModel"]) -> dict[str, Any]:
    """For a route's description: what it reads by itself. Nobody changes it, and all apps of a process share it."""
    content = {"application/json": {"schema": body.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def add_routes(app: "FastAPI", services: Services, api_key: str | None) -> InitEndpoint:
    """Add all routes; the endpoint for inits is returned, to be reached without the router."""
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    settings = services.settings.server
    metrics_keys = [settings.metrics_key.get_secret_value()] if settings.metrics_key is not None else []
    hide(*metrics_keys)

    def authenticate(request: Request, *other_keys: str) -> None:
        keys = other_keys if api_key is None else (api_key, *other_keys)
        if not keys:
            return
        # A key may be any UTF-8 text.
        provided = headers_of(request).get(b"authorization", b"").decode("utf-8", "surrogateescape")
        token = bearer_token(provided)
        if not any(validate_api_key(token, key) for key in keys):
            logger.warning("Refused %s %a: %s.", request.method, request.url.path, _UNAUTHORIZED)
            raise RefusedError(HTTPStatus.UNAUTHORIZED, _UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})

    init_endpoint = InitEndpoint(authenticate, services)

    async def status_object() -> dict[str, Any]:
        service = await services.current()
        return {
            "status": "healthy",
            "agent_loop": services.agent_name,
            "active_rollouts": service.state.active_count,
            "completed_rollouts": service.state.completed_count,
            **({} if settings.protocol is Protocol.PUSH else lifecycle(service)),
        }

    @app.get("/health", responses=_refusals())
    async def health() -> dict[str, Any]:
        """Whether the process serves; counts of this process. Never needs a key."""
        return await status_object()

    @app.get("/ready", responses=_refusals())
    async def ready() -> Response:
        """Whether an init would be taken: 200, or 503 in a drain or without a sound journal. Never needs a key."""
        service = await services.current()
        if service.draining:
            return JSONResponse({"ready": False}, HTTPStatus.SERVICE_UNAVAILABLE)
        if service.journal_problem is not None:  # whose sentence names files, so it is for the log
            return JSONResponse({"ready": False, "code": "journal_unavailable"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return JSONResponse({"ready": True})

    @app.get("/metrics", responses=_refusals(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND))
    async def metrics(request: Request) -> Response:
        """Metrics in Prometheus's text format; for whom, the setting ``metrics`` says."""
        if settings.metrics is not MetricsAccess.OPEN:
            authenticate(request, *metrics_keys)
        if (missing := services.telemetry.why_no_metrics) is not None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"Metrics {missing}.", "no_metrics")
        body, content_type = await services.telemetry.scrape(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    @app.get("/platform/health", responses=_refusals(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND))
    async def platform_health(request: Request) -> dict[str, Any]:
        """As ``/health``, behind the key; 404 on a server without one."""
        if api_key is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "Not found")
        authenticate(request)
        return await status_object()

    if settings.protocol is not Protocol.PUSH:
        add_pull_routes(app, services, authenticate, init_endpoint, _refusals, _takes)
    if settings.protocol is Protocol.PULL:
        return init_endpoint

    @app.post(
        INIT_PATH,
        status_code=HTTPStatus.ACCEPTED,
        response_model=InitResponse,
        responses=_refusals(*INIT_REFUSALS),
        openapi_extra=_takes(RolloutRequest),
    )
    async def init(request: Request) -> Response:
        """Accept a rollout; it runs after the reply."""
        return Response(await init_endpoint.accept(request), HTTPStatus.ACCEPTED, media_type="application/json")

    @app.get(
        "/v1/rollout/{rollout_id:path}",
        responses=_refusals(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED),
    )
    async def rollout_status(request: Request, rollout_id: str) -> dict[str, Any]:
        """State, times (unix seconds) and result summary of a rollout."""
        if request.url.path == INIT_PATH:  # no rollout of the id "init", but a GET where a POST belongs
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "Method Not Allowed", headers={"Allow": "POST"})
        authenticate(request)
        view = await (await services.current()).status(rollout_id)
        if view is None:
            raise unknown_rollout()
        return view

    @app.post(
        "/v1/rollout/{rollout_id:path}/cancel",
        status_code=HTTPStatus.ACCEPTED,
        responses=_refusals(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    )
    async def cancel(request: Request, rollout_id: str) -> dict[str, Any]:
        """End a rollout as ERROR with finish reason ``cancelled``."""
        authenticate(request)
        service = await services.current()
        if await service.cancel_everywhere(Meant(ids=frozenset([rollout_id]))):
            return {"rollout_id": rollout_id, "state": "cancelling"}
        if await service.status(rollout_id) is None:
            raise unknown_rollout()
        raise RefusedError(HTTPStatus.CONFLICT, "The rollout is not running on this server.", "not_running")

    @app.post(
        CANCEL_PATH,
        status_code=HTTPStatus.ACCEPTED,
        responses=_refusals(*CANCEL_REFUSALS),
        openapi_extra=_takes(CancelRequest),
    )
    async def cancel_many(request: Request) -> dict[str, Any]:
        """End rollouts as ERROR with finish reason ``cancelled``: some by id, those with a prefix, or all."""
        authenticate(request)
        asked = parse_cancel(await init_endpoint.bodies.receive(headers_of(request), request.receive))
        meant = Meant(frozenset(asked.ids or ()), asked.prefix, asked.all is True)
        return {"cancelling": len(await (await services.current()).cancel_everywhere(meant))}

    return init_endpoint
