"""A trainer's refusal: from an HTTP answer that is no success to the error it stands for.

What the trainer wrote becomes part of an error message: an excerpt, without the callback key.
"""

from http import HTTPStatus

from osmosis_ai.rollout.core.exceptions import (
    OsmosisAuthenticationError,
    OsmosisNotFoundError,
    OsmosisPayloadTooLargeError,
    OsmosisRateLimitError,
    OsmosisServerError,
    OsmosisValidationError,
    is_retryable_status,
)
from osmosis_ai.rollout.core.text import excerpt
from osmosis_ai.rollout.wire.backoff import retry_after_seconds
from osmosis_ai.rollout.wire.channel import Reply

_ERROR_OF_STATUS: dict[int, type[OsmosisValidationError]] = {
    HTTPStatus.UNAUTHORIZED: OsmosisAuthenticationError,
    HTTPStatus.FORBIDDEN: OsmosisAuthenticationError,
    HTTPStatus.NOT_FOUND: OsmosisNotFoundError,
    HTTPStatus.GONE: OsmosisNotFoundError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: OsmosisPayloadTooLargeError,
}


def error_of(reply: Reply, where: str, secret: str | None) -> OsmosisServerError | OsmosisValidationError:
    """The error for a reply; its message has the beginning of the text, the status, and ``where``."""
    status = reply.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return OsmosisValidationError(f"Unexpected status code {status} ({where})", status)
    message = f"{excerpt(reply.text, secret)} (HTTP {status}, {where})"
    error: OsmosisServerError | OsmosisValidationError
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        error = OsmosisServerError(message, status)
    elif is_retryable_status(status):
        error = OsmosisRateLimitError(message, status)
    else:
        error = _ERROR_OF_STATUS.get(status, OsmosisValidationError)(message, status)
    error.retry_after_seconds = retry_after_seconds(reply.headers.get("retry-after", ""))
    return error
