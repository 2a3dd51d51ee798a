"""Reading what the rollout server sends: credentials first, then a bounded body, then strict JSON."""

import asyncio
import json
import math
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Model = TypeVar("Model", bound=BaseModel)

DRAIN_FACTOR = 4
BODY_SECONDS = 60.0
"""For a body to arrive."""

_JSON_TYPE = "application/json"


class CallbackRefusedError(Exception):
    """A callback that gets a 4xx or 5xx: one sentence and a stable code, as JSON."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.headers = headers

    def response(self) -> Response:
        """The HTTP reply."""
        return json_response({"detail": str(self), "code": self.code}, self.status, self.headers)


def json_response(
    content: object, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """``content`` as strict JSON in ASCII, so that lone surrogates survive.

    Raises:
        ValueError, TypeError, RecursionError: if ``content`` is no JSON.
    """
    return Response(json.dumps(content, allow_nan=False), status, headers, media_type=_JSON_TYPE)


Handler = Callable[[Request], Awaitable[Response]]


def callbacks(handler_of: Callable[[str], Handler | None]) -> ASGIApp:
    """An app that takes POSTs to the paths that ``handler_of`` knows; a handler may raise ``CallbackRefusedError``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        handle = handler_of(scope["path"])
        if handle is None:
            response = json_response({"detail": "Not Found"}, HTTPStatus.NOT_FOUND)
        elif scope["method"] != "POST":
            response = json_response({"detail": "Method Not Allowed"}, HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "POST"})
        else:
            try:
                response = await handle(Request(scope, receive))
            except CallbackRefusedError as error:
                response = error.response()
        await response(scope, receive, send)

    return app


def check_key(request: Request, key: str) -> None:
    """Refuse a request that does not carry ``Authorization: Bearer <key>``."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    expected, given = key.encode(), token.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given, expected):
        raise CallbackRefusedError(
            HTTPStatus.UNAUTHORIZED,
            "unauthorized",
            "The callback key is missing or wrong: send the api_key of the init as a bearer token.",
            {"WWW-Authenticate": "Bearer"},
        )


async def read_json_object(request: Request, max_body_bytes: int) -> dict[str, Any]:
    """The body as a JSON object of finite numbers."""
    body = await _read_body(request, max_body_bytes)
    try:
        decoded = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite_float)
    except (ValueError, RecursionError) as error:
        raise CallbackRefusedError(HTTPStatus.BAD_REQUEST, "invalid_json", f"The body is not JSON: {error}.") from None
    if not isinstance(decoded, dict):
        raise CallbackRefusedError(HTTPStatus.BAD_REQUEST, "invalid_json", "The body is not a JSON object.")
    return decoded


async def _read_body(request: Request, max_body_bytes: int) -> bytes:
    body = bytearray()
    size_bytes = 0
    try:
        # Most clients read no reply before they have sent their body, so some more of it is read, but not kept.
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes <= max_body_bytes:
                    body += chunk
                elif size_bytes > max_body_bytes * DRAIN_FACTOR:
                    break
    except TimeoutError:
        detail = f"The body did not arrive within {BODY_SECONDS:g} s."
        raise CallbackRefusedError(HTTPStatus.REQUEST_TIMEOUT, "body_too_slow", detail) from None
    except ClientDisconnect:
        raise CallbackRefusedError(HTTPStatus.BAD_REQUEST, "incomplete_body", "The body is incomplete.") from None
    if size_bytes > max_body_bytes:
        raise CallbackRefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body_too_large",
            f"The body is larger than {max_body_bytes} bytes.",
            {"Connection": "close"},
        )
    return bytes(body)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def validated(model: type[Model], body: dict[str, Any]) -> Model:
    """``body`` as ``model``; a 422 names the first field that is wrong and does not repeat its value."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, problem["loc"])) or "body"
        raise CallbackRefusedError(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_body", f"{field}: {problem['msg']}."
        ) from None
