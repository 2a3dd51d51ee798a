"""What a failed request is answered with: one JSON object whose ``detail`` says what was wrong."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from osmosis_ai.rollout.journal import JournalError
from osmosis_ai.rollout.server.requests import RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger(__name__)


async def refused(_: "Request", error: Exception) -> "Response":
    """As the refusal says."""
    from starlette.responses import JSONResponse

    assert isinstance(error, RefusedError)  # noqa: S101 - narrows the type of a handler registered for it alone
    return JSONResponse(error.body, error.status_code, error.headers)


async def no_journal(_: "Request", error: Exception) -> "Response":
    """503: it may work again soon."""
    from starlette.responses import JSONResponse

    logger.error("%s", error)
    body = {"detail": "The server cannot use its journal.", "code": "journal_unavailable"}
    return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"})


async def crashed(_: "Request", error: Exception) -> "Response":
    """500, without what the server knows of it."""
    from starlette.responses import JSONResponse

    body = {"detail": f"Internal error: {type(error).__name__}.", "code": "internal_error"}
    return JSONResponse(body, HTTPStatus.INTERNAL_SERVER_ERROR)


ERROR_HANDLERS: dict[type[Exception], Callable[["Request", Exception], Awaitable["Response"]]] = {
    RefusedError: refused,
    JournalError: no_journal,
    Exception: crashed,
}
