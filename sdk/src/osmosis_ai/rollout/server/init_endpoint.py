"""``POST /v1/rollout/init`` as an ASGI application of its own.

It is the one request worth a way around the router, whose matching, wrapping and response objects cost more than
accepting a rollout does. Where the app has middleware, requests come through the router and end here all the same.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.tracecontext import TRACEPARENT, trace_context_of
from osmosis_ai.rollout.core.turnstile import turnstile_of
from osmosis_ai.rollout.journal import JournalError
from osmosis_ai.rollout.server import siblings
from osmosis_ai.rollout.server.bodies import Bodies
from osmosis_ai.rollout.server.error_replies import reply_to
from osmosis_ai.rollout.server.requests import RefusedError, headers_of, parse_init, reason_of
from osmosis_ai.rollout.server.services import Services
from osmosis_ai.rollout.wire.paths import INIT_PATH

if TYPE_CHECKING:
    from starlette.requests import Request

INIT_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
)
"""How a rollout may be refused, whichever protocol asks for it."""
CANCEL_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
"""How the cancel of many may be, likewise."""
_TRACEPARENT = TRACEPARENT.encode()


class InitEndpoint:
    """Credentials first, then the body, then ``RolloutService``.

    Args:
        authenticate: raises ``RefusedError`` for a request without the right key.
    """

    def __init__(self, authenticate: "Callable[[Request], None]", services: Services) -> None:
        limits = services.settings.server
        self._authenticate = authenticate
        self._services = services
        self._siblings = siblings.current()
        self.bodies = Bodies(limits.max_body_bytes, limits.body_timeout_seconds)
        self.allowed_hosts = frozenset(
            host.strip().lower() for host in limits.allowed_trainer_hosts.split(",") if host.strip()
        )

    @staticmethod
    def takes(scope: Any) -> bool:
        """Whether the request is an init to an app that is mounted nowhere else."""
        return bool(
            scope["type"] == "http"
            and scope["path"] == INIT_PATH
            and scope["method"] == "POST"
            and not scope.get("root_path")
        )

    async def accept(self, request: "Request") -> bytes:
        """The body of the 202.

        Raises:
            RefusedError, JournalError: the request is not taken.
        """
        try:
            self._authenticate(request)
            headers = headers_of(request)
            body = await self.bodies.receive(headers, request.receive)
            service = await self._services.current()
            trace = trace_context_of(request.headers) if _TRACEPARENT in headers else None
            return await service.init(parse_init(body, self.allowed_hosts), body, trace)
        except Exception as error:
            self._services.observer.init_refused(reason_of(error))
            raise

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.requests import Request

        request = Request(scope, receive)
        # A burst of inits would be worked off in one round of the loop, and `/health` behind it.
        await turnstile_of(asyncio.get_running_loop()).enter()
        try:
            reply = await self.accept(request)
        except Exception as error:
            await (await reply_to(request, error))(scope, receive, send)
            if not isinstance(error, RefusedError | JournalError):
                raise  # on to the ASGI server, which logs it
        else:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
            if self._siblings is not None and self._siblings.gives_way():
                # uvicorn closes it then, and the trainer's next one goes to whoever has time to accept it.
                headers.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": HTTPStatus.ACCEPTED, "headers": headers})
            await send({"type": "http.response.body", "body": reply})
