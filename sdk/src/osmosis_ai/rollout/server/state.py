"""Which keys this process knows: being accepted, running, or finished within the record lifetime.

One ``AppState`` serves one event loop at a time; nothing in it blocks. See ``docs/protocol.md``, section 3.3.
"""

import asyncio
import logging
import time
from typing import Any

from osmosis_ai.rollout.core.settings import RolloutServerSettings, get_settings

logger = logging.getLogger(__name__)

MAX_COMPLETED_RECORDS = 100_000
CANCEL_TIMEOUT_SECONDS = 5.0


class AppState:
    """The table of rollouts by idempotency key.

    ``None`` takes a number from ``settings`` (default ``get_settings().server``), and so does 0, which is the
    documented spelling of "use the setting".

    Raises:
        ValueError: a number is negative.
    """

    def __init__(
        self,
        max_concurrent: int | None = None,
        record_ttl_seconds: float | None = None,
        cleanup_interval_seconds: float | None = None,
        settings: RolloutServerSettings | None = None,
        agent_loop_name: str = "default",
    ) -> None:
        self.settings = settings or get_settings().server
        self._max_concurrent = max_concurrent or self.settings.max_concurrent_rollouts
        self.record_ttl = record_ttl_seconds or self.settings.record_ttl_seconds
        self._cleanup_interval = cleanup_interval_seconds or self.settings.cleanup_interval_seconds
        for name, value in (
            ("max_concurrent", self._max_concurrent),
            ("record_ttl_seconds", self.record_ttl),
            ("cleanup_interval_seconds", self._cleanup_interval),
        ):
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}.")
        self._agent_loop_name = agent_loop_name
        self.semaphore = asyncio.Semaphore(self._max_concurrent)
        self.rollout_tasks: dict[str, asyncio.Task[Any]] = {}
        self.completed_rollouts: dict[str, float] = {}
        self.fingerprints: dict[str, str] = {}
        self._init_futures: dict[str, asyncio.Future[bytes]] = {}
        self._cleanup_task: asyncio.Task[None] | None = None

    @property
    def max_concurrent(self) -> int:
        """How many rollouts may run at once."""
        return self._max_concurrent

    @property
    def active_count(self) -> int:
        """Rollouts accepted and not finished, those waiting for a slot included."""
        return len(self.rollout_tasks)

    @property
    def completed_count(self) -> int:
        """Finished rollouts still within the record lifetime, whatever their outcome."""
        return len(self.completed_rollouts)

    def get_or_create_init_future(self, key: str) -> tuple[asyncio.Future[bytes], bool]:
        """The future that holds the body of the key's init reply, and whether the caller is to fill it."""
        future = self._init_futures.get(key)
        if future is not None:
            return future, False
        future = asyncio.get_running_loop().create_future()
        # A trainer may have hung up: without this, asyncio would complain of an error that nobody read.
        future.add_done_callback(_mark_retrieved)
        self._init_futures[key] = future
        return future, True

    def clear_init_record(self, key: str) -> None:
        """Forget the key's init, so that a retry counts as new."""
        self._init_futures.pop(key, None)
        self.fingerprints.pop(key, None)

    def is_duplicate(self, key: str) -> bool:
        """Whether the key is known in any state."""
        return key in self.rollout_tasks or key in self.completed_rollouts or key in self._init_futures

    def mark_started(self, key: str, task: "asyncio.Task[Any]") -> None:
        """Note the task that runs the key's rollout."""
        self.rollout_tasks[key] = task

    def mark_completed(self, key: str) -> None:
        """Note that the key's rollout has ended, now."""
        self.rollout_tasks.pop(key, None)
        # Taken out first, so that the oldest is the first in the dictionary.
        self.completed_rollouts.pop(key, None)
        self.completed_rollouts[key] = time.monotonic()
        if len(self.completed_rollouts) > MAX_COMPLETED_RECORDS:
            self._forget(next(iter(self.completed_rollouts)))

    def start_cleanup_task(self) -> None:
        """Prune in the background until ``stop_cleanup_task``; a second call changes nothing."""
        if self._cleanup_task is None or self._cleanup_task.done():
            self._cleanup_task = asyncio.get_running_loop().create_task(self._cleanup_loop())

    async def stop_cleanup_task(self) -> None:
        """End the background pruning, if it runs."""
        task, self._cleanup_task = self._cleanup_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def cancel_all(self) -> None:
        """Cancel every running rollout and wait a bounded time for them to end."""
        if not self.rollout_tasks:
            return
        tasks = list(self.rollout_tasks.values())
        for task in tasks:
            task.cancel()
        ended = asyncio.ensure_future(asyncio.gather(*tasks, return_exceptions=True))
        # Not `gather` alone, which waits for as long as the last of them swallows its cancellation.
        _, unended = await asyncio.wait({ended}, timeout=CANCEL_TIMEOUT_SECONDS)
        if unended:
            logger.warning("Some of %d cancelled rollouts did not end; they are abandoned.", len(tasks))
        logger.info("Cancelled %d rollouts.", len(tasks))
        self.rollout_tasks.clear()

    def _prune_completed_records(self) -> None:
        now = time.monotonic()
        expired = [key for key, ended in self.completed_rollouts.items() if now - ended > self.record_ttl]
        for key in expired:
            self._forget(key)

    def _forget(self, key: str) -> None:
        del self.completed_rollouts[key]
        self.clear_init_record(key)

    async def _cleanup_loop(self) -> None:
        while True:
            await asyncio.sleep(self._cleanup_interval)
            try:
                self._prune_completed_records()
            except Exception:
                logger.exception("Pruning finished rollouts failed; the next round tries again.")


def _mark_retrieved(future: "asyncio.Future[bytes]") -> None:
    if not future.cancelled():
        future.exception()
