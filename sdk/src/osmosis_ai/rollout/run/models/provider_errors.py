"""What a failed call means: foreign exceptions and HTTP statuses turned into ``ProviderError`` sentences."""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

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
_CONNECTION_ERRORS = frozenset(
    {"ClientConnectorError", "ConnectError", "ConnectTimeout", "ReadError", "RemoteProtocolError", "WriteError"}
)
_PARSING_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_NO_PROVIDER_TEXTS = ("llm provider not provided", "pass in the llm provider you are trying to call")
_NO_CREDENTIALS_TEXTS = ("missing credentials", "api_key client option must be set", "missing api key")
_NO_QUOTA_TEXTS = ("insufficient_quota", "exceeded your current quota")
_CONTEXT_TEXTS = ("context_length_exceeded", "maximum context length", "exceeds the available context size")

_LITELLM_PREFIX = re.compile(r"litellm\.\w+: ")
_LITELLM_NOISE = re.compile(r"\n(?:Received Model Group=|Traceback|Request to |give\])")
_LITELLM_OBJECTS = re.compile(r" ssl:(?:<[^>]*>|\w+)| Handle with `litellm\.\w+`\.")
_MISSING_MODULE = re.compile(r"No module named '([\w.]+)'")


def provider_message(error: BaseException) -> str:
    """The provider's own words, without LiteLLM's; at most ``MAX_MESSAGE_CHARACTERS`` and ``...``."""
    given = getattr(error, "message", None)
    return _cut(given if isinstance(given, str) else str(error))


def _cut(text: str) -> str:
    bare = _LITELLM_NOISE.split(_LITELLM_PREFIX.sub("", text, count=1) if text.startswith("litellm.") else text)[0]
    return cut(_LITELLM_OBJECTS.sub("", bare).strip(), MAX_MESSAGE_CHARACTERS)


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
    if _is_connection_lost(error):
        return cannot_connect(f"{api_base}: {message}" if api_base else message)
    if isinstance(error, litellm.Timeout):
        return ProviderError(f"Request timed out. Details: {message}", failure=ProviderFailure.TIMEOUT)
    if isinstance(error, litellm.ContextWindowExceededError):
        return context_exceeded(message)
    if isinstance(error, litellm.APIConnectionError):  # LiteLLM's word for whatever it has no other for
        return _unreadable(error, message)
    return _other(error, message, routed_model, api_base)


def _is_connection_lost(error: Exception) -> bool:
    """Whether a connection was not made, or broke: by the cause, as LiteLLM calls much else an APIConnectionError."""
    from osmosis_ai.rollout.run.models import litellm

    causes = list(_chain(error))[1:]
    if not causes:
        return isinstance(error, litellm.APIConnectionError)
    return any(isinstance(cause, ConnectionError) or type(cause).__name__ in _CONNECTION_ERRORS for cause in causes)


def _unreadable(error: Exception, message: str) -> ProviderError:
    """LiteLLM failed on what it read: a reply that is not the provider's, or a conversation that does not fit."""
    if any(isinstance(cause, _PARSING_ERRORS) for cause in list(_chain(error))[1:]):
        return ProviderError(
            f"LiteLLM cannot read the provider's reply, or the conversation. Details: {message}",
            failure=ProviderFailure.MALFORMED_REPLY,
        )
    return ProviderError(f"LLM API error: {message}", failure=ProviderFailure.SERVER)


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
        return _no_provider(message, routed_model, api_base)
    if status is not None:
        return from_status(status, message, retry_after(_headers(error)))
    return ProviderError(f"Unexpected error: {message or type(error).__name__}")


def _no_provider(message: str, routed_model: str, api_base: str | None) -> SystemicProviderError:
    hint = next((line.strip() for line in message.splitlines() if line.strip()), "")
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
    """LiteLLM needs a package that is not installed."""
    return SystemicProviderError(
        f"LiteLLM needs the package '{package}', which is not installed: install 'osmosis-ai[llm]', or"
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
