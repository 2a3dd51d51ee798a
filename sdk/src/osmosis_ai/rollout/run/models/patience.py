"""Waiting out what a later call may cure: rate limits, busy servers, lost connections.

``PatientClient`` stands between an agent and its client. Clients that share a ``Gate`` wait together: once one is told
to slow down, none calls before the time is over.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass, field
from typing import Any

from osmosis_ai.rollout.core.llm_client import CompletionsResult
from osmosis_ai.rollout.core.schemas import MessageDict
from osmosis_ai.rollout.run.errors import ProviderError, ProviderFailure, SystemicProviderError
from osmosis_ai.rollout.run.models.protocol import LocalLLMClientProtocol
from osmosis_ai.rollout.run.models.wrapped import WrappedClient

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to go on trying."""

    max_retries: int = 3
    """Attempts after the first, rate limits not counted."""
    first_delay_seconds: float = 0.5
    """Doubles with every further attempt; the delay is between half of that and all of it."""
    max_delay_seconds: float = 30.0
    """Longest delay that the provider did not ask for."""
    max_rate_limited_seconds: float = 600.0
    """How long one call may be kept waiting by rate limits."""


@dataclass(slots=True)
class Gate:
    """Closed until a point of the monotonic clock, for all who share it."""

    opens_at_seconds: float = 0.0
    waits: int = field(default=0)
    """How often somebody was told to slow down."""

    def close_for(self, delay_seconds: float) -> None:
        """Let nobody through for ``delay_seconds``."""
        self.waits += 1
        self.opens_at_seconds = max(self.opens_at_seconds, time.monotonic() + delay_seconds)

    async def passed(self) -> None:
        """Wait until the gate is open."""
        while (delay_seconds := self.opens_at_seconds - time.monotonic()) > 0:  # noqa: ASYNC110 - time is the event
            await asyncio.sleep(delay_seconds)


class PatientClient(WrappedClient):
    """``client``, tried again where that may help."""

    def __init__(self, client: LocalLLMClientProtocol, gate: Gate, patience: Patience | None = None) -> None:
        super().__init__(client)
        self._gate = gate
        self._patience = patience or Patience()

    async def chat_completions(self, messages: list[MessageDict], **kwargs: Any) -> CompletionsResult:
        """The next message.

        Raises:
            ProviderError: the error of the last attempt.
        """
        started_seconds = time.monotonic()
        retries = rate_limited = 0
        while True:
            await self._gate.passed()
            try:
                result: CompletionsResult = await self._wrapped.chat_completions(messages, **kwargs)
            except ProviderError as error:
                if not error.is_transient:
                    raise
                is_rate_limit = error.failure is ProviderFailure.RATE_LIMIT
                rate_limited, retries = rate_limited + is_rate_limit, retries + (not is_rate_limit)
                delay_seconds = self._delay_seconds(error, rate_limited if is_rate_limit else retries)
                waited_seconds = time.monotonic() - started_seconds
                if retries > self._patience.max_retries or (
                    is_rate_limit and waited_seconds + delay_seconds > self._patience.max_rate_limited_seconds
                ):
                    await self._look_after(error)
                    raise
                logger.debug("Trying again in %.1f s: %s", delay_seconds, error)
                if is_rate_limit:
                    self._gate.close_for(delay_seconds)
                else:
                    await asyncio.sleep(delay_seconds)
            else:
                return result

    async def _look_after(self, error: ProviderError) -> None:
        """Whether it is this call that breaks every connection, or anybody's: a tiny one shows.

        Raises:
            SystemicProviderError: that one breaks as well.
        """
        check = getattr(self._wrapped, "preflight_check", None)
        if error.failure is ProviderFailure.CONNECTION and not isinstance(error, SystemicProviderError) and check:
            await check()

    def _delay_seconds(self, error: ProviderError, attempt: int) -> float:
        if error.retry_after_seconds is not None:
            # Doubled, as one that always asks for nothing would be called thousands of times.
            return max(
                error.retry_after_seconds, min(0.001 * 2.0 ** min(attempt, 16), self._patience.max_delay_seconds)
            )
        backoff_seconds = self._patience.first_delay_seconds * 2.0 ** min(attempt - 1, 16)
        return min(backoff_seconds, self._patience.max_delay_seconds) * random.uniform(0.5, 1)  # noqa: S311 - no secret
