"""Delivering terminal results: the same payload, again and again, until the trainer has it.

Delivery knows nothing of execution: it never changes a result. Each trainer has a lane of its own, so that a dead one
delays nobody else; one success there wakes all that wait for that trainer.
"""

import asyncio
import inspect
import logging
import time
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from osmosis_ai.rollout.core.exceptions import OsmosisProtocolError, OsmosisValidationError, is_retryable_status
from osmosis_ai.rollout.core.results import TerminalResult
from osmosis_ai.rollout.core.schemas import RolloutMetrics
from osmosis_ai.rollout.core.settings import RolloutClientSettings
from osmosis_ai.rollout.core.watch import NO_WATCH, RolloutWatch, Verdict
from osmosis_ai.rollout.wire.backoff import delay_seconds
from osmosis_ai.rollout.wire.client import OsmosisLLMClient

logger = logging.getLogger(__name__)

ATTEMPTS_AT_ONCE_PER_TRAINER = 32
_SDK_COMPLETE_ROLLOUT = OsmosisLLMClient.complete_rollout


class CompletionClient(Protocol):
    """What delivery needs of a rollout's client: ``complete_rollout`` with keyword arguments."""

    async def complete_rollout(self, **fields: Any) -> None:
        """Post the terminal result."""
        ...


@dataclass
class Delivery:
    """One result on its way to one trainer."""

    rollout_id: str
    server_url: str
    client: CompletionClient
    result: TerminalResult
    watch: RolloutWatch = NO_WATCH
    started_at: float = field(default_factory=time.monotonic)
    attempts: int = 0
    verdict: Verdict = Verdict.UNANSWERED
    error: Exception | None = None


class _Lane:
    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(ATTEMPTS_AT_ONCE_PER_TRAINER)
        self.answered = asyncio.Event()
        self.failing = False

    def succeeded(self) -> None:
        if self.failing:
            self.failing = False
            self.answered.set()
            self.answered = asyncio.Event()


class Courier:
    """Carries results to trainers; one per event loop.

    Args:
        settings: ``retry_base_delay`` and ``retry_max_delay`` shape the backoff.
        deadline_seconds: how long a result is tried after its first attempt.
    """

    def __init__(self, settings: RolloutClientSettings, deadline_seconds: float) -> None:
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._lanes: dict[str, _Lane] = {}
        self._closing = asyncio.Event()

    async def attempt(self, delivery: Delivery) -> Verdict:
        """Try once; never raises but for cancellation."""
        lane = self._lane(delivery.server_url)
        async with lane.gate:
            delivery.attempts += 1
            mark = delivery.watch.attempt_begins(delivery.attempts)
            try:
                await _send(delivery.client, delivery.result)
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the result must not be lost
                delivery.error = error
                delivery.verdict = _verdict_on(error)
                lane.failing = delivery.verdict is Verdict.UNANSWERED
                self._log_failure(delivery)
            else:
                delivery.verdict = Verdict.ACKNOWLEDGED
                lane.succeeded()
            failed = delivery.verdict is not Verdict.ACKNOWLEDGED
            delivery.watch.attempt_ends(mark, delivery.verdict, delivery.error if failed else None)
        return delivery.verdict

    async def pursue(self, delivery: Delivery) -> Verdict:
        """Go on after a failed attempt until there is an answer, the deadline, or ``close``."""
        while delivery.verdict is Verdict.UNANSWERED and not self._is_overdue(delivery):
            last_try = self._closing.is_set()
            if not last_try:
                await self._wait(delivery)
            await self.attempt(delivery)
            if last_try:
                break
        return delivery.verdict

    def is_final(self, delivery: Delivery) -> bool:
        """Whether the delivery is decided: an answer, or the deadline."""
        return delivery.verdict is not Verdict.UNANSWERED or self._is_overdue(delivery)

    def close(self) -> None:
        """Let every waiting delivery make one last attempt now, and none after that."""
        self._closing.set()

    def _is_overdue(self, delivery: Delivery) -> bool:
        return time.monotonic() - delivery.started_at > self._deadline_seconds

    async def _wait(self, delivery: Delivery) -> None:
        lane = self._lane(delivery.server_url)
        wakers = [asyncio.create_task(event.wait()) for event in (lane.answered, self._closing)]
        try:
            await asyncio.wait(
                wakers,
                timeout=delay_seconds(self._settings, delivery.attempts, delivery.error),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for waker in wakers:
                waker.cancel()

    def _lane(self, server_url: str) -> _Lane:
        origin = urlsplit(server_url)
        return self._lanes.setdefault(f"{origin.scheme}://{origin.netloc}", _Lane())

    def _log_failure(self, delivery: Delivery) -> None:
        level = logging.ERROR if delivery.verdict is Verdict.REFUSED else logging.WARNING
        logger.log(
            level,
            "Rollout %a: result not delivered (attempt %d, %s): %s: %s",
            delivery.rollout_id,
            delivery.attempts,
            "refused for good" if delivery.verdict is Verdict.REFUSED else "will be retried",
            type(delivery.error).__name__,
            delivery.error,
        )


def _verdict_on(error: Exception) -> Verdict:
    if isinstance(error, OsmosisProtocolError):
        return Verdict.REFUSED
    if isinstance(error, OsmosisValidationError) and not is_retryable_status(error.status_code):
        return Verdict.REFUSED
    return Verdict.UNANSWERED


async def _send(client: CompletionClient, result: TerminalResult) -> None:
    # A stand-in or a subclass may have a complete_rollout of its own, which is then the one to call.
    if isinstance(client, OsmosisLLMClient) and type(client).complete_rollout is _SDK_COMPLETE_ROLLOUT:
        await client.send_completion(result.encoded, attempts=1)
        return
    payload = result.payload
    metrics = payload.get("metrics")
    fields = {
        "status": payload["status"],
        "final_messages": payload["final_messages"],
        "finish_reason": payload["finish_reason"],
        "error_message": payload.get("error_message"),
        "metrics": RolloutMetrics(**metrics) if metrics is not None else None,
        "reward": payload.get("reward"),
    }
    if "extra_fields" in inspect.signature(client.complete_rollout).parameters:
        fields["extra_fields"] = payload["extra_fields"]
    await client.complete_rollout(**fields)
