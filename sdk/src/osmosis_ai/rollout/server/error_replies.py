"""What a failed request is answered with: one JSON object whose ``detail`` says what was wrong."""

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from osmosis_ai.rollout.journal import JournalError
from osmosis_ai.rollout.server.requests import RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

logger = logging.getLogger(__name__)


async def reply_to(_: "Request", error: Exception) -> "Response":
    """As a refusal says; 503 for a journal that may work again soon; else 500, without what the server knows of it."""
    from starlette.responses import JSONResponse

    if isinstance(error, RefusedError):
        return JSONResponse(error.body, error.status_code, error.headers)
    if isinstance(error, JournalError):
        logger.error("%s", error)
        body = {"detail": "The server cannot use its journal.", "code": "journal_unavailable"}
        return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"})
    body = {"detail": f"Internal error: {type(error).__name__}.", "code": "internal_error"}
    return JSONResponse(body, HTTPStatus.INTERNAL_SERVER_ERROR)
