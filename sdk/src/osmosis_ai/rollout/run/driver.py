"""Runs an agent over the rows of a dataset, so many runs at a time: what `osmosis test`, `eval` and `trainer` share.

They differ in how one run is made (here with a model, or over a rollout server) and in what its record holds. Which
runs there are, their order, and what stops or interrupts them is decided here. A run has a slot, its place in the
order of the dataset, from the plan alone: the results of an earlier attempt are found again by it.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from osmosis_ai.rollout.core.window import run_window
from osmosis_ai.rollout.run.data.dataset import DatasetRow

EXIT_SIGNAL_BASE = 128
"""The exit code of work that a signal ended, less the number of the signal."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Job:
    """One run to make. ``repeat`` counts from 0; ``tag`` names the model where several are compared."""

    slot: int
    row: DatasetRow
    row_index: int
    repeat: int
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Rows from ``offset`` on, at most ``limit``, ``repeat`` runs each, with every model of ``tags``."""

    offset: int = 0
    repeat: int = 1
    tags: tuple[str | None, ...] = (None,)
    limit: int | None = None

    def jobs(
        self, rows: Iterable[tuple[int, DatasetRow]], is_done: Callable[[int], bool] = lambda slot: False
    ) -> Iterator[Job]:
        """The runs to make of numbered ``rows``, which are read as they are asked for; ``is_done`` gets a slot."""
        for row_index, row in rows:
            for repeat in range(self.repeat):
                for tag in self.tags:
                    slot = self._slot(row_index, repeat, tag)
                    if not is_done(slot):
                        yield Job(slot, row, row_index, repeat, tag)

    def slot_of(self, record: Mapping[str, Any]) -> int | None:
        """The slot of a run that was saved; ``None`` for what is none of this plan."""
        row_index, repeat = record.get("row_index"), record.get("repeat", record.get("run_index"))
        tag = record.get("model_tag")
        if not isinstance(row_index, int) or not isinstance(repeat, int) or tag not in self.tags:
            return None
        is_planned = row_index >= self.offset and 0 <= repeat < self.repeat
        return self._slot(row_index, repeat, tag) if is_planned else None

    def leaves_out(self, slot: int) -> bool:
        """Whether ``slot`` is of a row beyond ``limit``; slots do not depend on it."""
        return self.limit is not None and self.row_of(slot) >= self.offset + self.limit

    def row_of(self, slot: int) -> int:
        """The row that the run of ``slot`` is of."""
        return self.offset + slot // (self.repeat * len(self.tags))

    def _slot(self, row_index: int, repeat: int, tag: str | None) -> int:
        # Made model by model within a repeat, told model by model within a row.
        return ((row_index - self.offset) * len(self.tags) + self.tags.index(tag)) * self.repeat + repeat


@dataclass(slots=True)
class Stops:
    """Models that answer no more, each with the reason; true for the driver even after a cancellation."""

    reasons: dict[str | None, str] = field(default_factory=dict)

    @property
    def first_reason(self) -> str | None:
        """Why the first of them stopped."""
        return next(iter(self.reasons.values()), None)


async def drive(
    jobs: Iterable[Job],
    run_one: Callable[[Job], Awaitable[tuple[_Result, str | None]]],
    take: Callable[[Job, _Result], None],
    *,
    concurrency: int,
    tags: tuple[str | None, ...] = (None,),
    stops: Stops | None = None,
) -> Stops:
    """Make every run of ``jobs``, at most ``concurrency`` at a time.

    ``run_one`` gives what a run came to, and, where that shows that no other run of its model would fare better, the
    reason: then nothing more starts for that model, and what is in flight ends. ``take`` gets each result as it comes.
    What either raises ends everything and is raised.
    """
    stops = stops or Stops()

    async def work(job: Job) -> bool:
        if job.tag not in stops.reasons:
            # A script may never wait for anything: signals, and the timers of runs that have ended, need a turn.
            await asyncio.sleep(0)
            result, stop_reason = await run_one(job)
            if stop_reason is not None:
                stops.reasons.setdefault(job.tag, stop_reason)
            take(job, result)
        return len(stops.reasons) < len(tags)

    await run_window(jobs, work, concurrency)
    return stops


async def until_signal(work: Coroutine[Any, Any, None]) -> int:
    """Run ``work``; return 0, or the number of the signal (Ctrl-C, SIGTERM, SIGHUP) that ended it."""
    received: list[int] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_main = threading.current_thread() is threading.main_thread() and os.name == "posix"
    numbers = (signal.SIGTERM, signal.SIGHUP) if is_main else ()

    def end_with(number: int) -> None:
        received.append(number)
        if task is not None:
            task.cancel()

    for number in numbers:
        loop.add_signal_handler(number, end_with, int(number))
    try:
        await work
    except asyncio.CancelledError:
        # Ctrl-C comes as a bare cancellation from asyncio.run.
        return received[0] if received else int(signal.SIGINT)
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
    return 0
