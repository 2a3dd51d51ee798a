"""A trainer's refusal: from an HTTP answer that is no success to the error it stands for.

What the trainer wrote becomes part of an error message: an excerpt, without the callback key.
"""

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
from osmosis_ai.rollout.core.text import excerpt
from osmosis_ai.rollout.wire.backoff import retry_after_seconds

if TYPE_CHECKING:
    import httpx

    from osmosis_ai.rollout.wire.http1 import Reply

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


def error_of(
    response: "httpx.Response | Reply", where: str, secret: str | None
) -> OsmosisServerError | OsmosisValidationError:
    """The error for a response; its message has the beginning of the text, the status, and ``where``."""
    status = response.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return OsmosisValidationError(f"Unexpected status code {status} ({where})", status)
    message = f"{excerpt(response.text, secret)} (HTTP {status}, {where})"
    error: OsmosisServerError | OsmosisValidationError
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        error = OsmosisServerError(message, status)
    else:
        error = _ERROR_OF_STATUS.get(status, OsmosisValidationError)(message, status)
    error.retry_after_seconds = _retry_after_seconds(response)
    return error


def _retry_after_seconds(response: "httpx.Response | Reply") -> float | None:
    """The ``Retry-After`` of a reply in seconds from now, where it is one (RFC 9110, 10.2.3)."""
    headers = getattr(response, "headers", None)
    if not isinstance(headers, Mapping):
        return None
    value = next((value for name, value in headers.items() if str(name).lower() == "retry-after"), None)
    if not isinstance(value, str):
        return None
    return retry_after_seconds(value)
