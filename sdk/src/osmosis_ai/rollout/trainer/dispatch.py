"""Posting inits: one rollout at a time, repeated with the same bytes until the server has decided.

Statuses 429 and 503 ask for a later repeat (RFC 9110, section 10.2.3). See ``docs/protocol.md``, section 3.2.
"""

import asyncio
import random
import time
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, Protocol

import httpx

from osmosis_ai.rollout.core.exceptions import is_retryable_status
from osmosis_ai.rollout.core.text import shortened
from osmosis_ai.rollout.trainer.book import Phase, Rollout
from osmosis_ai.rollout.trainer.errors import InitRefusedError
from osmosis_ai.rollout.trainer.line import ServerLine
from osmosis_ai.rollout.trainer.vocabulary import RetryPolicy
from osmosis_ai.rollout.wire.backoff import retry_after_seconds
from osmosis_ai.rollout.wire.channel import Reply
from osmosis_ai.rollout.wire.paths import INIT_PATH

_random = random.SystemRandom()


class _Decision(Enum):
    ACCEPTED = auto()
    LATER = auto()
    AGAIN = auto()
    KEY_REFUSED = auto()
    REFUSED = auto()


_DECISIONS: dict[int, _Decision] = {
    HTTPStatus.UNAUTHORIZED: _Decision.KEY_REFUSED,
    HTTPStatus.FORBIDDEN: _Decision.KEY_REFUSED,
    HTTPStatus.TOO_MANY_REQUESTS: _Decision.LATER,
    HTTPStatus.SERVICE_UNAVAILABLE: _Decision.LATER,
}


def _decision(status: int) -> _Decision:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return _Decision.ACCEPTED
    return _DECISIONS.get(status, _Decision.AGAIN if is_retryable_status(status) else _Decision.REFUSED)


class Dialect(Protocol):
    """How a server is asked to take a rollout."""

    path: str

    def body(self, rollout: Rollout) -> bytes:
        """What is posted, the same bytes each time."""

    def accepted(self, rollout: Rollout, response: Reply) -> None:
        """Note the 202 in ``rollout``, which is running from then on; raises ``InitRefusedError`` if it is none."""


class InitDialect:
    """An init of 0.2."""

    path = INIT_PATH

    def body(self, rollout: Rollout) -> bytes:
        """That of the init."""
        return rollout.request.model_dump_json(exclude_none=True).encode()

    def accepted(self, rollout: Rollout, response: Reply) -> None:
        """Note its tools."""
        rollout.start(_tools(response))


class Dispatcher:
    """Sends rollouts to one server, in its ``dialect``."""

    def __init__(self, line: ServerLine, retry: RetryPolicy, dialect: Dialect | None = None) -> None:
        self._line = line
        self._retry = retry
        self._dialect = dialect or InitDialect()

    async def dispatch(self, rollout: Rollout) -> None:
        """Post the init until it is accepted; notes in ``rollout`` what came. Returns early once it has finished.

        Raises:
            InitRefusedError: if it will not be accepted.
        """
        body = self._dialect.body(rollout)
        unreachable_since: float | None = None
        failures = 0
        while rollout.phase is Phase.DISPATCHING:
            try:
                response = await self._line.post(self._dialect.path, body, self._retry.attempt_timeout_seconds)
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
                unreachable_since = unreachable_since or time.monotonic()
                if time.monotonic() - unreachable_since >= self._retry.unreachable_seconds:
                    raise InitRefusedError(
                        f"The rollout server at {self._line.server_url} cannot be reached: {reason}.", systemic=True
                    ) from error
                failures += 1
                rollout.waiting_for = f"the server to be reachable again ({reason})"
                await asyncio.sleep(self._backoff_seconds(failures))
                continue
            unreachable_since = None
            match _decision(response.status_code):
                case _Decision.ACCEPTED:
                    return self._dialect.accepted(rollout, response)
                case _Decision.LATER:
                    rollout.waiting_for = f"the server to accept it (it answered {response.status_code})"
                    await asyncio.sleep(self._asked_delay_seconds(response))
                case _Decision.AGAIN if failures + 1 < self._retry.max_failed_attempts:
                    failures += 1
                    rollout.waiting_for = f"the server to accept it (it answered {response.status_code})"
                    await asyncio.sleep(self._backoff_seconds(failures))
                case _Decision.KEY_REFUSED:
                    raise InitRefusedError(
                        f"The rollout server refused the key ({response.status_code}): give its key with --server-key.",
                        systemic=True,
                    )
                case _:
                    raise InitRefusedError(
                        f"The rollout server refused the rollout ({response.status_code}): {_detail(response)}"
                    )
        return None

    def _backoff_seconds(self, failures: int) -> float:
        ceiling = min(self._retry.base_delay_seconds * 2.0 ** min(failures - 1, 32), self._retry.max_delay_seconds)
        return ceiling * _random.uniform(0.5, 1.0)

    def _asked_delay_seconds(self, response: Reply) -> float:
        asked = retry_after_seconds(response.headers.get("Retry-After", ""))
        delay = self._retry.base_delay_seconds if asked is None else asked
        # All that were refused together are told the same moment; come back spread out behind it.
        return min(delay, self._retry.max_retry_after_seconds) + _random.uniform(0, self._retry.base_delay_seconds)


def _tools(response: Reply) -> list[dict[str, Any]]:
    try:
        tools = response.json().get("tools", [])
    except (ValueError, AttributeError, RecursionError):
        tools = None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InitRefusedError(
            f"The rollout server answered {response.status_code}, but the body has no list of tools."
        )
    return tools


def _detail(response: Reply) -> str:
    return shortened(response.beginning) or "no reason given."
