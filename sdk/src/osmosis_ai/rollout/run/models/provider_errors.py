"""What a failed call means: foreign exceptions and HTTP statuses turned into ``ProviderError`` sentences."""

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from osmosis_ai.rollout.core.said import said_by
from osmosis_ai.rollout.core.text import cut
from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.wire.backoff import retry_after_seconds

MAX_MESSAGE_CHARACTERS = 200
MAX_CAUSES = 20

_SYSTEMIC_STATUSES: dict[int, ProviderFailure] = {
    HTTPStatus.UNAUTHORIZED: ProviderFailure.AUTHENTICATION,
    HTTPStatus.FORBIDDEN: ProviderFailure.AUTHENTICATION,
    HTTPStatus.NOT_FOUND: ProviderFailure.UNKNOWN_MODEL,
}
_TRANSIENT_STATUSES: dict[int, ProviderFailure] = {
    HTTPStatus.REQUEST_TIMEOUT: ProviderFailure.TIMEOUT,
    HTTPStatus.CONFLICT: ProviderFailure.SERVER,
    HTTPStatus.TOO_EARLY: ProviderFailure.SERVER,
    HTTPStatus.TOO_MANY_REQUESTS: ProviderFailure.RATE_LIMIT,
}
_CONNECTION_TEXTS = (
    "connection error",
    "connection refused",
    "name or service not known",
    "nodename nor servname provided",
    "connect call failed",
)
# By name, of httpx, aiohttp and openai: none of them is imported for this.
_NO_CONNECTION = frozenset({"ClientConnectorError", "ConnectError", "ConnectTimeout", "ConnectionRefusedError"})
_BROKEN_CONNECTION = frozenset({"ReadError", "RemoteProtocolError", "ServerDisconnectedError", "WriteError"})
_STATUS_ERRORS = frozenset({"APIStatusError", "HTTPStatusError"})
_PARSING_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_NO_PROVIDER_TEXTS = ("llm provider not provided", "pass in the llm provider you are trying to call")
_NO_CREDENTIALS_TEXTS = ("missing credentials", "api_key client option must be set", "missing api key")
_NO_QUOTA_TEXTS = ("insufficient_quota", "exceeded your current quota")
_CONTEXT_TEXTS = ("context_length_exceeded", "maximum context length", "exceeds the available context size")

# "litellm.BadRequestError: ContextWindowExceededError: OpenAIException - ..."
_LITELLM_PREFIX = re.compile(r"litellm\.\w+: (?:[\w.]+(?:Error|Exception)(?: - |: | ))*")
_LITELLM_NOISE = re.compile(r"\n(?:Received Model Group=|Request to |give\])|\sTraceback \(most recent call last")
_LITELLM_OBJECTS = re.compile(r" ssl:(?:<[^>]*>|\w+)| Handle with `litellm\.\w+`\.")
_MISSING_MODULE = re.compile(r"No module named '([\w.]+)'")


def provider_message(error: BaseException) -> str:
    """The provider's own words, without LiteLLM's, in one line; at most ``MAX_MESSAGE_CHARACTERS`` and ``...``."""
    given = getattr(error, "message", None)
    text = given if isinstance(given, str) else str(error)
    if text.startswith("litellm."):
        text = _said_in_json(_LITELLM_PREFIX.sub("", text, count=1))
    return cut(" ".join(_LITELLM_OBJECTS.sub("", _LITELLM_NOISE.split(text)[0]).split()), MAX_MESSAGE_CHARACTERS)


def _said_in_json(text: str) -> str:
    try:
        body, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return text
    return said_by(body) or text


def from_litellm(error: Exception, routed_model: str, api_base: str | None) -> ProviderError:
    """What an exception of ``acompletion`` means."""
    from osmosis_ai.rollout.run.models import litellm

    message = provider_message(error)
    if isinstance(error, litellm.AuthenticationError):
        return authentication_failed(message)
    if isinstance(error, litellm.BudgetExceededError):
        return SystemicProviderError(f"Budget/quota exceeded. Details: {message}", failure=ProviderFailure.BUDGET)
    if isinstance(error, litellm.RateLimitError):
        return rate_limited(message, retry_after(_headers(error)))
    if package := _missing_package(error):
        return missing_package(package)
    if _caused_by(error, _NO_CONNECTION):
        return cannot_connect(_at(api_base, message))
    if (broken := _caused_by(error, _BROKEN_CONNECTION)) is not None:
        return connection_broke(_at(api_base, provider_message(broken) or message))
    if isinstance(error, litellm.Timeout):
        return timed_out(message)
    if isinstance(error, litellm.ContextWindowExceededError) or speaks_of_context(message):
        return context_exceeded(message)
    if (unread := _unread(error)) is not None:
        text = provider_message(unread)
        told = message if text in message and text != message else f"{type(unread).__name__}: {text}"
        return ProviderError(
            f"LiteLLM cannot read the provider's reply, or the conversation. Details: {told}",
            failure=ProviderFailure.MALFORMED_REPLY,
        )
    if isinstance(error, litellm.APIConnectionError) and len(list(_chain(error))) > 1:
        # LiteLLM's word for whatever it has no other for
        return ProviderError(f"LLM API error: {message}", failure=ProviderFailure.SERVER)
    return _other(error, message, routed_model, api_base)


def _at(api_base: str | None, message: str) -> str:
    return f"{api_base}: {message}" if api_base else message


def _caused_by(error: Exception, names: frozenset[str]) -> BaseException | None:
    """What of the errors below ``error`` is one of ``names``: LiteLLM calls much else an APIConnectionError."""
    causes = list(_chain(error))[1:]
    return next((cause for cause in causes if names & {kind.__name__ for kind in type(cause).__mro__}), None)


def _unread(error: Exception) -> BaseException | None:
    """What LiteLLM failed with on a reply that is not the provider's, or a conversation that does not fit.

    It makes a status of 500 out of that; one that the provider sent has an error of HTTP below it.
    """
    is_status_500 = getattr(error, "status_code", None) == HTTPStatus.INTERNAL_SERVER_ERROR
    if not is_status_500 or _caused_by(error, _STATUS_ERRORS) is not None:
        return None
    return next((cause for cause in list(_chain(error))[1:] if isinstance(cause, _PARSING_ERRORS)), None)


def _other(error: Exception, message: str, routed_model: str, api_base: str | None) -> ProviderError:
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) else None
    text = f"{getattr(error, 'message', '')} {error}".lower()
    if status in _SYSTEMIC_STATUSES:
        return from_status(status, message)
    if any(part in text for part in _NO_CREDENTIALS_TEXTS):
        return authentication_failed(message)
    if any(part in text for part in _CONNECTION_TEXTS):
        return cannot_connect(message)
    if any(part in text for part in _NO_PROVIDER_TEXTS):
        return _no_provider(next(line for line in str(error).splitlines() if line.strip()), routed_model, api_base)
    if status is not None:
        return from_status(status, message, retry_after(_headers(error)))
    return ProviderError(f"Unexpected error: {message or type(error).__name__}")


def _no_provider(hint: str, routed_model: str, api_base: str | None) -> SystemicProviderError:
    hint = provider_message(Exception(hint))
    if api_base:
        text = f"Cannot connect to custom endpoint (model='{routed_model}', base_url='{api_base}'). Details: {hint}"
        return SystemicProviderError(text, failure=ProviderFailure.CONNECTION)
    text = f"LiteLLM does not know the provider of '{routed_model}': use provider/model. Details: {hint}"
    return SystemicProviderError(text, failure=ProviderFailure.UNKNOWN_MODEL)


def from_status(status: int, message: str, retry_after_seconds: float | None = None) -> ProviderError:
    """What an HTTP status without a more telling exception means."""
    text = f"LLM API error (HTTP {status}): {message}"
    if status in _SYSTEMIC_STATUSES:
        return SystemicProviderError(text, failure=_SYSTEMIC_STATUSES[status])
    otherwise = ProviderFailure.SERVER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ProviderFailure.REFUSED
    failure = _TRANSIENT_STATUSES.get(status, otherwise)
    return ProviderError(text, failure=failure, retry_after_seconds=retry_after_seconds)


def authentication_failed(message: str) -> SystemicProviderError:
    """The key is missing or wrong."""
    return SystemicProviderError(
        "Authentication failed: give the right key with --model-api-key, or in the provider's environment variable."
        f" Details: {message}",
        failure=ProviderFailure.AUTHENTICATION,
    )


def cannot_connect(message: str) -> SystemicProviderError:
    """Nothing answers at the address."""
    return SystemicProviderError(
        f"Cannot connect to API endpoint: check the address and the network. Details: {message}",
        failure=ProviderFailure.CONNECTION,
    )


def connection_broke(message: str) -> ProviderError:
    """Somebody answers at the address, and has left before this reply was there."""
    return ProviderError(
        f"The connection broke before the reply was there: the server's own log may say why. Details: {message}",
        failure=ProviderFailure.CONNECTION,
    )


def timed_out(message: str) -> ProviderError:
    """No reply within the time of the call."""
    return ProviderError(f"Request timed out. Details: {message}", failure=ProviderFailure.TIMEOUT)


def rate_limited(message: str, retry_after_seconds: float | None) -> ProviderError:
    """Too many calls; with a used-up quota, one that no waiting helps."""
    no_quota = any(part in message.lower() for part in _NO_QUOTA_TEXTS)
    return ProviderError(
        f"Rate limit exceeded. Details: {message}",
        failure=ProviderFailure.BUDGET if no_quota else ProviderFailure.RATE_LIMIT,
        retry_after_seconds=retry_after_seconds,
    )


def context_exceeded(message: str) -> ProviderError:
    """The conversation is too long for the model."""
    return ProviderError(f"Context window exceeded. Details: {message}", failure=ProviderFailure.CONTEXT_WINDOW)


def speaks_of_context(message: str) -> bool:
    """Whether a refusal's text is about the length of the conversation."""
    return any(part in message.lower() for part in _CONTEXT_TEXTS)


def missing_package(package: str) -> SystemicProviderError:
    """A package that calling the model takes is not installed."""
    return SystemicProviderError(
        f"Calling this model needs the package '{package}', which is not installed: install 'osmosis-ai[llm]', or"
        f" '{package}' itself.",
        failure=ProviderFailure.MISSING_PACKAGE,
    )


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that ``Retry-After`` asks to wait, as a number or a date (RFC 9110, section 10.2.3)."""
    if not headers:
        return None
    value = headers.get("retry-after") or headers.get("Retry-After")
    if not isinstance(value, str):
        return None
    return retry_after_seconds(value)


def _headers(error: Exception) -> Mapping[str, str] | None:
    candidates: tuple[Any, ...] = (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    )
    return next((headers for headers in candidates if isinstance(headers, Mapping) and headers), None)


def _missing_package(error: BaseException) -> str | None:
    found = (_MISSING_MODULE.search(str(cause)) for cause in _chain(error))
    return next((match[1].partition(".")[0] for match in found if match), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
