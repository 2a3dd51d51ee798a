"""A model that grades: an OpenAI-compatible endpoint of its own, with its own deadline and a budget of calls.

Only a whole answer is one. Whatever else comes, or does not come in time, is a ``JudgeError``, which the server reports
as ``reward_error``: a judge that is down says nothing about the answer. Its key is in the request's header and nowhere
else.

A server goes on asking a judge that cannot be reached until the deadline: one that is started anew costs no rollout.
Where somebody waits at a terminal (``IMPATIENT``) it is given up sooner, and the next call of the process tries once.
"""

import asyncio
import functools
import json
import logging
import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from osmosis_ai.rollout.core.exceptions import JudgeError, is_retryable_status
from osmosis_ai.rollout.core.messages import get_message_text
from osmosis_ai.rollout.core.offload import call_in_thread
from osmosis_ai.rollout.core.schemas import MessageDict
from osmosis_ai.rollout.core.settings import OPENAI_BASE_URL, RolloutJudgeSettings, get_settings
from osmosis_ai.rollout.core.text import bare_url, counted, described, escaped, excerpt, redacted

if TYPE_CHECKING:
    import ssl

    import httpx

logger = logging.getLogger(__name__)

MAX_REPLY_BYTES = 1024 * 1024
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 8.0
UNREACHABLE_SECONDS = 5.0
TOLD_AGAIN_SECONDS = 60.0
OPENAI_KEY_VARIABLE = "OPENAI_API_KEY"
WHOLE: Final = "stop"
_PASSING: Final = ("abort", "error")

Log = Callable[..., None]

IMPATIENT: ContextVar[bool] = ContextVar("IMPATIENT", default=False)
"""Whether a judge that cannot be reached is given up after ``UNREACHABLE_SECONDS``, as in ``osmosis test``."""

_told_at: dict[str, float] = {}
_given_up: set[str] = set()


class Judge:
    """One rollout's; ``RolloutContext.judge`` is its ``ask``. A reward function without a context makes its own.

    Args:
        settings: default ``get_settings().judge``, the variables ``OSMOSIS_ROLLOUT_JUDGE_*``.
        log: is told of each call, as ``RolloutContext.log_event`` is.
    """

    def __init__(self, settings: RolloutJudgeSettings | None = None, log: Log | None = None) -> None:
        self.settings = settings or get_settings().judge
        self._log = log
        self._calls = 0

    async def ask(self, prompt: str | list[MessageDict], **sampling: Any) -> str:
        """The text that the judge answers to ``prompt``, a text or messages; ``sampling`` goes along as it is.

        A refused connection, a rate limit and a 5xx are tried again until ``timeout_seconds`` are over, and that is
        logged at the first of them.

        Raises:
            JudgeError: no whole answer came in time, the budget of calls is used up, or no judge is configured.
        """
        settings = self.settings
        if not settings.model:
            raise JudgeError("No judge is configured: set OSMOSIS_ROLLOUT_JUDGE_MODEL, and its BASE_URL and API_KEY.")
        if self._calls >= settings.max_calls:
            raise JudgeError(f"The budget of {settings.max_calls} judge calls (JUDGE_MAX_CALLS) is used up.")
        self._calls += 1
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        began_at = time.monotonic()
        call = _Call(settings)
        told: dict[str, Any] = {"model": settings.model, "messages": messages}
        try:
            told["reply"] = await call.answer({"temperature": 0, **sampling, "messages": messages})
            return str(told["reply"])
        except JudgeError as error:
            told["error"] = str(error)
            raise
        finally:
            if self._log is not None:
                latency_ms = round((time.monotonic() - began_at) * 1000, 3)
                self._log("judge", latency_ms=latency_ms, attempts=call.attempts, **told)


class _PassingError(Exception):
    """What another attempt may get over."""

    def __init__(self, problem: str, wait_seconds: float = 0.0, is_unreachable: bool = False) -> None:
        super().__init__(problem)
        self.wait_seconds = wait_seconds
        self.is_unreachable = is_unreachable


class _Call:
    def __init__(self, settings: RolloutJudgeSettings) -> None:
        self.attempts = 0
        self._settings = settings
        self._secret = _key(settings)
        self._name = f"The judge at {bare_url(settings.base_url)}"
        self._began_at = time.monotonic()

    async def answer(self, body: dict[str, Any]) -> str:
        """The text of the reply, after as many attempts as there is time for."""
        problem = "it was still being asked"
        content = self._encoded({**body, "model": self._settings.model, "stream": False})
        try:
            async with asyncio.timeout(self._settings.timeout_seconds) as limit, await self._client() as client:
                delay_seconds = FIRST_DELAY_SECONDS
                while True:
                    self.attempts += 1
                    try:
                        text = self._text(*await self._post(client, content))
                        _told_at.pop(self._name, None)
                        _given_up.discard(self._name)
                        return text
                    except _PassingError as error:
                        problem = str(error)
                        self._tell(error)
                        await asyncio.sleep(max(delay_seconds, error.wait_seconds))
                        delay_seconds = min(2 * delay_seconds, LONGEST_DELAY_SECONDS)
        except TimeoutError:
            if not limit.expired():
                raise
            tried = f"JUDGE_TIMEOUT_SECONDS, {counted(self.attempts, 'attempt')}"
            within = f"within {self._settings.timeout_seconds:g} s ({tried})"
            raise JudgeError(f"{self._name} gave no answer {within}: {problem}.") from None

    def _tell(self, error: _PassingError) -> None:
        """Say that the judge is waited for, not at each attempt; or give it up."""
        now, limit_seconds = time.monotonic(), self._settings.timeout_seconds
        if error.is_unreachable and IMPATIENT.get():
            limit_seconds = min(UNREACHABLE_SECONDS, limit_seconds)
            if now - self._began_at >= UNREACHABLE_SECONDS or self._name in _given_up:
                _given_up.add(self._name)
                # In words that differ by numbers alone: failures that are alike are one line.
                tried = f"{now - self._began_at:.1f} s, attempts: {self.attempts}"
                raise JudgeError(f"{self._name} cannot be reached ({tried}): {error}.")
        if now - _told_at.get(self._name, -TOLD_AGAIN_SECONDS) >= TOLD_AGAIN_SECONDS:
            _told_at[self._name] = now
            logger.warning("%s does not answer, and is asked again for %g s: %s.", self._name, limit_seconds, error)

    async def _client(self) -> "httpx.AsyncClient":
        # Reading the certificates takes a while, and so does the import.
        return await call_in_thread(_new_client)

    async def _post(self, client: "httpx.AsyncClient", content: bytes) -> tuple[int, bytes]:
        import httpx

        url = f"{self._settings.base_url.rstrip('/')}/chat/completions"
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._secret:
            headers["Authorization"] = f"Bearer {self._secret}"
        try:
            async with client.stream("POST", url, content=content, headers=headers) as response:
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_REPLY_BYTES:
                        raise JudgeError(f"{self._name} answered more than {MAX_REPLY_BYTES:,} bytes.")
                if is_retryable_status(response.status_code):
                    wait_seconds = _seconds(response.headers.get("retry-after", ""))
                    raise _PassingError(self._refusal(response.status_code, bytes(body)), wait_seconds)
                return response.status_code, bytes(body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise JudgeError(f"{self._name} cannot be called: {self._safe(described(error))}.") from None
        except (httpx.HTTPError, OSError) as error:
            is_unreachable = isinstance(error, httpx.ConnectError)
            raise _PassingError(self._safe(described(error)), is_unreachable=is_unreachable) from None

    def _text(self, status: int, body: bytes) -> str:
        if status != HTTPStatus.OK:
            raise JudgeError(f"{self._name} refuses the call: {self._refusal(status, body)}.")
        try:
            choice = json.loads(body)["choices"][0]
            text, finish_reason = get_message_text(choice["message"]), choice.get("finish_reason", WHOLE)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise JudgeError(f"{self._name} answered what is no chat completion: {self._shown(body)}.") from None
        if finish_reason in _PASSING:
            raise _PassingError(f"its reply is not whole, its finish_reason is '{finish_reason}'")
        if finish_reason != WHOLE:
            shown = self._safe(repr(finish_reason))
            raise JudgeError(f"{self._name} gave no whole answer, its finish_reason is {shown}: raise max_tokens.")
        if not text.strip():
            raise JudgeError(f"{self._name} answered without a text.")
        return text

    def _encoded(self, body: dict[str, Any]) -> bytes:
        try:
            return json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise JudgeError(f"What the judge is asked is no JSON: {error}.") from None

    def _refusal(self, status: int, body: bytes) -> str:
        return f"{status}, {self._shown(body)}" if body else str(status)

    def _shown(self, body: bytes) -> str:
        return self._safe(body[:2000].decode("utf-8", "replace"))

    def _safe(self, text: str) -> str:
        return escaped(redacted(excerpt(text, self._secret))).rstrip(".")


def _key(settings: RolloutJudgeSettings) -> str | None:
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    # Nobody else is sent the key that is meant for OpenAI.
    return os.environ.get(OPENAI_KEY_VARIABLE) or None if settings.base_url.rstrip("/") == OPENAI_BASE_URL else None


@functools.cache
def _certificates() -> "ssl.SSLContext":
    import httpx

    return httpx.create_ssl_context()


def _new_client() -> "httpx.AsyncClient":
    import httpx

    # One a call: it is closed with it, in the loop that made it, and a model takes longer than to connect.
    # No timeout of httpx's: it begins anew with each byte. `_Call.answer` has one for all of it.
    timeout = httpx.Timeout(None)
    return httpx.AsyncClient(verify=_certificates(), timeout=timeout, follow_redirects=False)


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else 0.0
