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

_REDIRECTS = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)


def error_of(reply: Reply, where: str, secret: str | None) -> OsmosisServerError | OsmosisValidationError:
    """The error for a reply; its message has the beginning of the text, the status, and ``where``."""
    status = reply.status_code
    if status < HTTPStatus.BAD_REQUEST:
        return OsmosisValidationError(f"Unexpected status code {status}{_redirection(reply, secret)} ({where})", status)
    message = f"{excerpt(reply.beginning, secret)} (HTTP {status}, {where})"
    error: OsmosisServerError | OsmosisValidationError
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        error = OsmosisServerError(message, status)
    elif is_retryable_status(status):
        error = OsmosisRateLimitError(message, status)
    else:
        error = _ERROR_OF_STATUS.get(status, OsmosisValidationError)(message, status)
    error.retry_after_seconds = retry_after_seconds(reply.headers.get("retry-after", ""))
    return error


def _redirection(reply: Reply, secret: str | None) -> str:
    """Where a redirect leads, and what is usually wrong then; it is not followed."""
    if reply.status_code not in _REDIRECTS or not (location := reply.headers.get("location")):
        return ""
    return (
        f": it redirects to {excerpt(location, secret)}, which is not followed. Usually server_url has http where the"
        " trainer's ingress wants https, or another host or path than its own"
    )
