"""Any OpenAI-compatible endpoint, called directly.

With LiteLLM between, each call would cost four milliseconds of this process; without, it is a tenth of one.
The wire is OpenAI's ``POST /chat/completions``, streaming off. A base URL without ``/v1`` is tried as it is, and then
with ``/v1`` if nothing is there; what answers first is kept.
"""

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.said import said_by
from osmosis_ai.rollout.core.sampled import sampled_fields
from osmosis_ai.rollout.run.errors import InvalidModelError, ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.models import provider_errors
from osmosis_ai.rollout.run.models.llm_client import ExternalLLMClient
from osmosis_ai.rollout.run.models.replies import completion
from osmosis_ai.rollout.run.models.routes import OPENAI_PREFIX, PLACEHOLDER_API_KEY
from osmosis_ai.rollout.wire.addresses import is_base_url, proxy_for

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger(__name__)

MAX_REPLY_BYTES = 64 * 1024 * 1024
CALL_TIMEOUT_SECONDS = 600.0
CONNECT_TIMEOUT_SECONDS = 10.0
_CHUNK_BYTES = 64 * 1024
_NOT_FOR_THE_WIRE = frozenset({"api_key", "api_base", "timeout", "max_retries"})


_NAMES = re.compile("logprobs|return_token_ids")


class EndpointLLMClient(ExternalLLMClient):
    """The model behind one base URL.

    Raises:
        ProviderError: aiohttp is not installed, or ``api_base`` is no URL.
    """

    token_fields = frozenset({"logprobs", "top_logprobs", "return_token_ids"})
    """What model servers know and hosted models may refuse: sent until one does."""

    def __init__(self, model: str, api_key: str | None, api_base: str) -> None:
        self._name(model, api_key, api_base)
        self._litellm = None
        self._connections = _Connections(api_base)

    async def close(self) -> None:
        """Close the connections; may be called again."""
        self.clear_tools()
        if self._is_open:
            await self._connections.close()

    async def _send(self, arguments: dict[str, Any]) -> Any:
        body = {name: value for name, value in arguments.items() if name not in _NOT_FOR_THE_WIRE}
        body["model"] = str(body["model"]).removeprefix(OPENAI_PREFIX)
        key = str(arguments.get("api_key") or PLACEHOLDER_API_KEY)
        timeout_seconds = arguments.get("timeout") or CALL_TIMEOUT_SECONDS
        asked = self.token_fields & body.keys()
        if asked and self._connections.refused_token_fields:
            body = {name: value for name, value in body.items() if name not in asked}
        try:
            return await self._connections.post(body, key, timeout_seconds)
        except ProviderError as error:
            if not asked & body.keys() or error.failure is not ProviderFailure.REFUSED or not _NAMES.search(str(error)):
                raise
            self._connections.refused_token_fields = True
            return await self._send(arguments)

    async def _ask(self, arguments: dict[str, Any]) -> tuple[CompletionsResult, float | None]:
        return _completion(await self._send(arguments)), None


class _Connections:
    """One connection pool, made in the event loop that first needs it."""

    def __init__(self, base_url: str) -> None:
        try:
            import aiohttp
        except ImportError as error:
            raise provider_errors.missing_package("aiohttp") from error
        parts = _checked(base_url)
        self.refused_token_fields = False
        self._base_url = base_url
        self._urls = [f"{base_url.rstrip('/')}{path}" for path in _paths_below(parts.path)]
        self._proxy = proxy_for(parts.scheme, parts.hostname or "", parts.netloc)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_known = False
        """Whether there ever was a reply."""

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, body: dict[str, Any], key: str, timeout_seconds: float) -> Any:
        encoded = _encoded(body)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        refusal: ProviderError | None = None
        for url in list(self._urls):
            status, content, reply_headers = await self._exchange(url, encoded, headers, timeout_seconds)
            if len(self._urls) == 1 or not _is_no_such_path(status, content):
                self._urls = [url]
                if status == HTTPStatus.OK:
                    return _decoded(content)
                raise _refusal(status, content, reply_headers, url)
            # The one that knows of models tells more than the one that knows of paths.
            if refusal is None or _is_told_by_a_model_server(content):
                refusal = _refusal(status, content, reply_headers, url)
        raise refusal or AssertionError("there is always a URL")

    async def _exchange(
        self, url: str, body: bytes, headers: dict[str, str], timeout_seconds: float
    ) -> tuple[int, bytes, dict[str, str]]:
        import aiohttp

        try:
            async with asyncio.timeout(timeout_seconds):
                async with self._open_session().post(
                    url, data=body, headers=headers, proxy=self._proxy, allow_redirects=False
                ) as response:
                    content = await _read(response)
                    self._is_known = True
                    return response.status, content, dict(response.headers)
        except aiohttp.ConnectionTimeoutError as error:
            told = f"no connection with {self._base_url} within {CONNECT_TIMEOUT_SECONDS:g} s"
            if self._is_known:  # it is busy
                raise provider_errors.timed_out(told) from error
            raise provider_errors.cannot_connect(told) from error
        except TimeoutError as error:
            told = f"no reply from {self._base_url} within {timeout_seconds:g} s"
            raise provider_errors.timed_out(told) from error
        except aiohttp.ClientConnectorError as error:
            raise provider_errors.cannot_connect(self._reason(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise provider_errors.connection_broke(self._reason(error)) from error

    def _reason(self, error: Exception) -> str:
        return f"{self._base_url}: {provider_errors.provider_message(error) or type(error).__name__}"

    def _open_session(self) -> "aiohttp.ClientSession":
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._loop = loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


_CHAT_PATH = "/chat/completions"


def _paths_below(base_path: str) -> list[str]:
    """Where the endpoint may be: as OpenAI has it, and where the version was forgotten."""
    has_version = re.search(r"/v\d", base_path)
    return [_CHAT_PATH] if has_version else [_CHAT_PATH, f"/v1{_CHAT_PATH}"]


def _is_no_such_path(status: int, content: bytes) -> bool:
    """Whether a server may say so of a path it does not have; LM Studio does with a status of 200."""
    return status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) or b'"Unexpected endpoint' in content[:200]


def _is_told_by_a_model_server(content: bytes) -> bool:
    """Whether it is an error as OpenAI words it, of a model that is not there."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and isinstance(body.get("error"), dict)


def _checked(base_url: str) -> Any:
    if not is_base_url(base_url):
        raise InvalidModelError(f"--base-url {base_url!r} is not a base URL such as http://127.0.0.1:8000/v1.")
    return urlsplit(base_url)


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    except (TypeError, ValueError, RecursionError) as error:
        raise ProviderError(
            f"The agent's messages or sampling settings are no JSON: {error}.", failure=ProviderFailure.REFUSED
        ) from error


async def _read(response: "aiohttp.ClientResponse") -> bytes:
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        size_bytes += len(chunk)
        if size_bytes > MAX_REPLY_BYTES:
            raise ProviderError(f"The reply is larger than {MAX_REPLY_BYTES} bytes.", failure=ProviderFailure.REFUSED)
        chunks.append(chunk)
    return b"".join(chunks)


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"is not JSON ({error})") from error


def _malformed(what: str) -> ProviderError:
    return ProviderError(
        f"The endpoint's reply {what}: check that it is an OpenAI-compatible /chat/completions.",
        failure=ProviderFailure.MALFORMED_REPLY,
    )


def _completion(body: Any) -> CompletionsResult:
    match body:
        case {"choices": [{"message": dict(message), **choice}, *_]}:
            pass
        case {"error": _}:
            raise ProviderError(
                f"LLM API error (in a reply of status 200): {_message_of(body)}", failure=ProviderFailure.SERVER
            )
        case _:
            raise _malformed("holds no choices with a message")
    usage = body.get("usage")
    sampled = sampled_fields(body, body["choices"][0])
    return completion(message, choice.get("finish_reason"), usage if isinstance(usage, dict) else {}, sampled)


def _refusal(status: int, content: bytes, headers: Mapping[str, str], url: str) -> ProviderError:
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return SystemicProviderError(
            f"The endpoint redirects to {headers.get('Location', 'another address')!r}: give that with --base-url.",
            failure=ProviderFailure.CONNECTION,
        )
    try:
        told = _message_of(json.loads(content))
    except (ValueError, RecursionError):
        told = content[:1000].decode("utf-8", "replace")
    message = provider_errors.provider_message(Exception(told))
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        message = f"{message.rstrip('.')} (at {url}: check --model, and --base-url, which usually ends in /v1)"
    if status == HTTPStatus.UNAUTHORIZED:
        return provider_errors.authentication_failed(message)
    retry_after_seconds = provider_errors.retry_after(headers)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return provider_errors.rate_limited(message, retry_after_seconds)
    if provider_errors.speaks_of_context(told):
        return provider_errors.context_exceeded(message)
    return provider_errors.from_status(status, message, retry_after_seconds)


def _message_of(body: Any) -> str:
    return said_by(body) or json.dumps(body)
