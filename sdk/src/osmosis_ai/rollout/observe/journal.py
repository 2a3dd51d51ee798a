"""Timing a journal's operations, whichever journal it is."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from osmosis_ai.rollout.core.watch import Observer
from osmosis_ai.rollout.journal import Journal, JournalError

TIMED_OPERATIONS = ("accept", "finish", "settle", "claim_abandoned", "prune")
"""What rollouts and housekeeping wait for."""


def time_operations(journal: Journal, observer: Observer) -> None:
    """Tell ``observer`` how long each of ``TIMED_OPERATIONS`` takes from now on, and of problems met in between."""
    journal.on_problem = observer.journal_problem
    journal.on_backlog = observer.journal_backlog
    # In the object itself: a wrapper in front of it would have to repeat the whole contract.
    for name in TIMED_OPERATIONS:
        setattr(journal, name, partial(_timed, observer, name, getattr(journal, name)))


async def _timed(
    observer: Observer, name: str, operation: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any
) -> Any:
    started = time.perf_counter()
    failed = False
    try:
        return await operation(*arguments, **options)
    except JournalError:
        failed = True
        raise
    finally:
        observer.journal_operation(name, time.perf_counter() - started, failed)
