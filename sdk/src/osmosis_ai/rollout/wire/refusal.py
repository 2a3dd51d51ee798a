"""A trainer's refusal: from an HTTP answer that is no success to the error it stands for.

What the trainer wrote becomes part of an error message, so it is cut short and stripped of the callback key first.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.exceptions import (
    OsmosisAuthenticationError,
    OsmosisNotFoundError,
    OsmosisPayloadTooLargeError,
    OsmosisRateLimitError,
    OsmosisServerError,
    OsmosisValidationError,
)
from osmosis_ai.rollout.wire.backoff import retry_after_seconds

if TYPE_CHECKING:
    import httpx

    from osmosis_ai.rollout.wire.http1 import Reply

MAX_ERROR_TEXT_LENGTH = 500

_ERROR_OF_STATUS: dict[int, type[OsmosisValidationError]] = {
    HTTPStatus.UNAUTHORIZED: OsmosisAuthenticationError,
    HTTPStatus.FORBIDDEN: OsmosisAuthenticationError,
    HTTPStatus.NOT_FOUND: OsmosisNotFoundError,
    HTTPStatus.GONE: OsmosisNotFoundError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: OsmosisPayloadTooLargeError,
    HTTPStatus.REQUEST_TIMEOUT: OsmosisRateLimitError,
    HTTPStatus.TOO_EARLY: OsmosisRateLimitError,
    HTTPStatus.TOO_MANY_REQUESTS: OsmosisRateLimitError,
}
_BEARER_TOKEN = re.compile(r"(?i)\b(bearer)\s+\S+")


def error_of(
    response: "httpx.Response | Reply", where: str, secret: str | None
) -> OsmosisServerError | OsmosisValidationError:
    """The error for a response; its message has the beginning of the text, the status, and ``where``."""
    status = response.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return OsmosisValidationError(f"Unexpected status code {status} ({where})", status)
    message = f"{safe_text(response.text, secret)} (HTTP {status}, {where})"
    error: OsmosisServerError | OsmosisValidationError
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        error = OsmosisServerError(message, status)
    else:
        error = _ERROR_OF_STATUS.get(status, OsmosisValidationError)(message, status)
    error.retry_after_seconds = _retry_after_seconds(response)
    return error


def safe_text(text: str, secret: str | None) -> str:
    """The beginning of ``text``, without ``secret`` and without bearer tokens."""
    text = str(text)
    if secret:
        text = text.replace(secret, "***")
    if len(text) > MAX_ERROR_TEXT_LENGTH:
        text = text[:MAX_ERROR_TEXT_LENGTH] + "..."
    return _BEARER_TOKEN.sub(r"\1 ***", text)


def _retry_after_seconds(response: "httpx.Response | Reply") -> float | None:
    """The ``Retry-After`` of a reply in seconds from now, where it is one (RFC 9110, 10.2.3)."""
    headers = getattr(response, "headers", None)
    if not isinstance(headers, Mapping):
        return None
    value = next((value for name, value in headers.items() if str(name).lower() == "retry-after"), None)
    if not isinstance(value, str):
        return None
    return retry_after_seconds(value)
