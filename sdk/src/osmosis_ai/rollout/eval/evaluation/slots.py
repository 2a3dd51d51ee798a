"""Runs at the same time: a window that slides over the work, and a runner for each run in it.

A runner, and the client in it, serves one run at a time. Once a model is halted nothing new starts for it; runs already
started end by themselves.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Runner = TypeVar("_Runner")


class RunnerPool(Generic[_Runner]):
    """Runners of one model, made by ``make`` and used again; ``size`` of them at once, more when they are needed."""

    def __init__(self, make: Callable[[], _Runner], size: int) -> None:
        self._make = make
        self._made = [make() for _ in range(size)]
        self._idle = list(self._made)

    def take(self) -> _Runner:
        """An idle runner."""
        if not self._idle:
            self._made.append(self._make())
            return self._made[-1]
        return self._idle.pop()

    def give_back(self, runner: _Runner) -> None:
        """The runner is idle again."""
        self._idle.append(runner)

    @property
    def made(self) -> Sequence[_Runner]:
        """All of them."""
        return self._made


async def close_quietly(client: Any) -> None:
    """Close ``client`` if it can be closed; its errors are logged and go no further."""
    close = getattr(client, "close", None)
    if not callable(close):
        return
    try:
        closing = close()
        if inspect.isawaitable(closing):
            await closing
    except Exception:  # the results are already there
        logger.debug("A client could not be closed.", exc_info=True)


class Halts(Generic[_Item]):
    """What may no longer start, by key, and what did not start because of it."""

    def __init__(self, key_of: Callable[[_Item], Hashable]) -> None:
        self._key_of = key_of
        self._halted: set[Hashable] = set()
        self.left_out = 0

    def halt(self, item: _Item) -> None:
        """Start nothing more of the kind of ``item``."""
        self._halted.add(self._key_of(item))

    def leaves_out(self, item: _Item) -> bool:
        """Whether ``item`` may not start; counts it if so."""
        halted = self._key_of(item) in self._halted
        self.left_out += halted
        return halted


async def slide(
    items: Iterable[_Item], width: int, halts: Halts[_Item], run: Callable[[_Item], Awaitable[None]]
) -> None:
    """Run ``items`` in their order, ``width`` at a time; as one ends the next that is not halted starts.

    Raises:
        Exception: the first that ``run`` raises, after the others were cancelled.
    """
    remaining = iter(items)

    async def work() -> None:
        for item in remaining:
            if not halts.leaves_out(item):
                await run(item)

    if width == 1:
        await work()
        return
    workers = [asyncio.ensure_future(work()) for _ in range(width)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
