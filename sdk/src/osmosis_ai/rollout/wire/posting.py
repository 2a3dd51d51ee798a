"""POSTs of one rollout, each tried again until the trainer has decided, the attempts are used up or time is.

Retried is what ``is_retryable_status`` says, and every failure to get an answer; how long in between, ``backoff`` says.
All attempts of one call carry one ``Idempotency-Key``, as a trainer may have acted on one whose reply was lost. See
``docs/protocol.md``, sections 4 and 5.
"""

import asyncio
import itertools
import os
import time

import httpx

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION, package_name
from osmosis_ai.rollout.core.exceptions import (
    OsmosisRolloutError,
    OsmosisTimeoutError,
    OsmosisTransportError,
    is_retryable_status,
)
from osmosis_ai.rollout.core.settings import RolloutClientSettings
from osmosis_ai.rollout.core.text import described, excerpt
from osmosis_ai.rollout.core.tracecontext import TRACE_HEADERS
from osmosis_ai.rollout.wire.addresses import check_callable, is_sendable
from osmosis_ai.rollout.wire.backoff import delay_seconds
from osmosis_ai.rollout.wire.channel import Reply, TrainerChannel
from osmosis_ai.rollout.wire.refusal import error_of

IDEMPOTENCY_HEADER = "Idempotency-Key"

_calls = itertools.count()
_process_prefix = ""


def new_call_id() -> str:
    """A value of ``IDEMPOTENCY_HEADER`` that no other call has, in this process or another; no secret."""
    global _process_prefix
    _process_prefix = _process_prefix or os.urandom(8).hex()
    return f"{_process_prefix}{next(_calls):08x}"


def _forget_prefix() -> None:
    global _process_prefix
    _process_prefix = ""


if hasattr(os, "register_at_fork"):  # a forked worker goes on counting where its parent stood
    os.register_at_fork(after_in_child=_forget_prefix)


class Poster:
    """Posts to one trainer, with one key."""

    def __init__(
        self,
        channel: TrainerChannel,
        server_url: str,
        api_key: str | None,
        timeout_seconds: float,
        settings: RolloutClientSettings,
    ) -> None:
        self.backing_off = False
        self._channel = channel
        self._server_url = server_url
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        self._settings = settings
        self._headers: dict[str, str] | None = None

    async def post(
        self, path: str, body: bytes, attempts: int, accepted: range, call_id: str, *, only_status: bool = False
    ) -> tuple[Reply, float]:
        """POST until a status in ``accepted``; give the reply and the latency of that attempt in milliseconds.

        Raises:
            OsmosisTransportError: at once, where URL or key cannot be used.
            OsmosisRolloutError: the last failure.
        """
        if self._headers is None:
            self._headers = self._own_headers()
        headers = {**self._headers, **dict(TRACE_HEADERS.get()), IDEMPOTENCY_HEADER: call_id}
        url = self._server_url + path
        started = attempt_started = time.perf_counter()
        deadline = started + self._settings.call_deadline_seconds
        failure: OsmosisRolloutError | None = None
        for attempt in range(attempts):
            if failure is not None:
                delay = delay_seconds(self._settings, attempt, failure)
                if time.perf_counter() + delay >= deadline:
                    break
                await self._back_off(delay)
                attempt_started = time.perf_counter()
            try:
                limit_seconds = min(self._timeout_seconds, deadline - attempt_started)
                reply = await self._channel.post(url, body, headers, limit_seconds, only_status=only_status)
            except (httpx.RequestError, httpx.InvalidURL, TimeoutError) as error:
                where = f"POST {url}, attempt {attempt + 1} of {attempts}, {time.perf_counter() - started:.1f} s"
                failure = self._failure_of(error, where)
                if isinstance(error, httpx.InvalidURL):
                    break
                continue
            if reply.status_code in accepted:
                # Of this attempt alone: what a model took to answer, not what the trainer's troubles cost.
                return reply, (time.perf_counter() - attempt_started) * 1000
            where = f"POST {url}, attempt {attempt + 1} of {attempts}, {time.perf_counter() - started:.1f} s"
            failure = error_of(reply, where, self._api_key)
            if not is_retryable_status(reply.status_code):
                break
        raise failure or OsmosisTransportError(f"No attempts made (POST {url}, {attempts} attempts allowed).")

    def _own_headers(self) -> dict[str, str]:
        try:
            check_callable(self._server_url)
        except ValueError as error:
            raise OsmosisTransportError(f"The trainer cannot be called: {error}.") from error
        # A User-Agent, as there are firewalls that refuse whoever has none.
        headers = {"Content-Type": "application/json", "User-Agent": f"{package_name}/{PACKAGE_VERSION}"}
        if self._api_key:
            if not is_sendable(self._api_key):
                raise OsmosisTransportError("The trainer cannot be called: api_key is not printable ASCII.")
            headers["Authorization"] = f"Bearer {self._api_key}"
        return headers

    def _failure_of(self, error: Exception, where: str) -> OsmosisRolloutError:
        failure: OsmosisRolloutError
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            failure = OsmosisTimeoutError(f"{excerpt(str(error) or type(error).__name__, self._api_key)} ({where})")
        else:
            failure = OsmosisTransportError(f"{excerpt(described(error), self._api_key)} ({where})")
        failure.__cause__ = error
        return failure

    async def _back_off(self, delay_seconds: float) -> None:
        self.backing_off = True
        try:
            await asyncio.sleep(delay_seconds)
        finally:
            self.backing_off = False
