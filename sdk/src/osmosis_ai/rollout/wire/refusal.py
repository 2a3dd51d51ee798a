"""A trainer's refusal: from an HTTP answer that is no success to the error it stands for, and to what comes then.

What the trainer wrote becomes part of an error message: an excerpt, without the callback key.

A 404 has three meanings, and only the first ends a rollout: the trainer does not know it (a JSON object that says so; a
410 needs none), the trainer, or a gateway, does not know the path (a JSON object that says "not found", and nothing of
a rollout), or somebody else answers while the trainer is away (a page, a text, nothing). A 405 is one of the latter,
as both paths are there to be posted to. A page of HTML, whatever its status, is a firewall's, a proxy's or a portal's;
but 410 and 413 hold whoever says them. See ``docs/protocol.md``, section 4.3.
"""

from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from osmosis_ai.rollout.core.exceptions import (
    OsmosisAuthenticationError,
    OsmosisNotFoundError,
    OsmosisPayloadTooLargeError,
    OsmosisRateLimitError,
    OsmosisServerError,
    OsmosisTrainerAbsentError,
    OsmosisValidationError,
    is_retryable_status,
)
from osmosis_ai.rollout.core.text import excerpt
from osmosis_ai.rollout.wire.backoff import retry_after_seconds
from osmosis_ai.rollout.wire.channel import BEGINNING_BYTES, PAGE_BYTES, Reply

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

PAUSE_STATUSES = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Not now: of the trainer itself, or of the proxy before one that starts anew (RFC 9110, 15.6; RFC 6585, section 4)."""

_NO_SUCH_PATH = frozenset(
    {
        *("not found", "404 not found", "page not found", "404 page not found", "route not found"),
        *("404 route not found", "no route matched with those values"),
    }
)
"""What frameworks and gateways say of a path that they do not have."""


_PAGE_BEGINNINGS = (b"<!doctype html", b"<html")
_TRUE_OF_ANYBODY = frozenset({HTTPStatus.GONE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})


class Then(Enum):
    """What comes after an attempt that gave nothing."""

    GIVE_UP = auto()
    COUNT = auto()
    """Another attempt, as many as are allowed."""
    WAIT = auto()
    """Another attempt, as long as the call may take: the trainer pauses."""


def after(reply: Reply) -> Then:
    """What comes after a reply that is no success."""
    status = reply.status_code
    if status in PAUSE_STATUSES:
        return Then.WAIT
    if status == HTTPStatus.NOT_FOUND:
        return _after_not_found(reply)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return Then.WAIT if _after_not_found(reply) is Then.WAIT else Then.COUNT
    is_anybodys = status >= HTTPStatus.BAD_REQUEST and status not in _TRUE_OF_ANYBODY and is_page(reply)
    return Then.COUNT if is_retryable_status(status) or is_anybodys else Then.GIVE_UP


def is_page(reply: Reply) -> bool:
    """Whether the body begins as HTML does."""
    return reply.content[:PAGE_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE_BEGINNINGS)


def _after_not_found(reply: Reply) -> Then:
    try:
        said = reply.json() if len(reply.content) <= BEGINNING_BYTES else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not said:
        return Then.WAIT
    return Then.COUNT if _is_of_the_path(said) else Then.GIVE_UP


def _is_of_the_path(said: dict[str, Any]) -> bool:
    """Whether a JSON object says that a path is not there; what speaks of a rollout, but as a path, is of that."""
    is_not_there, left = False, list[Any]([said])
    while left:
        match left.pop():
            case dict(members):
                left += [*members, *members.values()]
            case list(items):
                left += items
            case str(text):
                words = [word for word in text.lower().split() if "/" not in word]
                if any("rollout" in word for word in words):
                    return False
                is_not_there = is_not_there or " ".join(words).strip(". ") in _NO_SUCH_PATH
    return is_not_there


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
    elif after(reply) is not Then.GIVE_UP:
        error = OsmosisTrainerAbsentError(message, status)
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
