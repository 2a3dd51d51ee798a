"""A sliding window over work: the next item starts as soon as one ends, never in waves."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

__all__ = ["run_window"]

_Item = TypeVar("_Item")


async def run_window(items: Iterable[_Item], work: Callable[[_Item], Awaitable[bool]], max_concurrency: int) -> None:
    """Await ``work(item)`` for every item, at most ``max_concurrency`` at a time, in order of starting.

    ``items`` is read only as fast as it is worked on. Once ``work`` returns false nothing new starts, and what is in
    flight ends. What ``work`` or ``items`` raises ends everything and is raised, the first if several do.
    """
    remaining = iter(items)
    goes_on = True

    async def take_turns() -> None:
        nonlocal goes_on
        while goes_on:
            try:
                item = next(remaining)
            except StopIteration:
                return
            goes_on = await work(item) and goes_on

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(max_concurrency):
                workers.create_task(take_turns())
    except BaseExceptionGroup as group:
        raise _first_leaf(group) from None


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_leaf(first) if isinstance(first, BaseExceptionGroup) else first
