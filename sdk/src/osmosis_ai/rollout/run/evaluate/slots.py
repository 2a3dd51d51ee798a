"""What runs at the same time share: a pool of runners, and the knowledge of what may no longer start.

A runner, and the client in it, serves one run at a time. Once a model is halted nothing new starts for it; runs already
started end by themselves.
"""

import inspect
import logging
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Runner = TypeVar("_Runner")


class RunnerPool(Generic[_Runner]):
    """Runners of one model, made by ``make`` and used again; ``size`` of them at once, more when they are needed."""

    def __init__(self, make: Callable[[], _Runner], size: int) -> None:
        self._make = make
        self._idle = [make() for _ in range(size)]

    def take(self) -> _Runner:
        """An idle runner."""
        return self._idle.pop() if self._idle else self._make()

    def give_back(self, runner: _Runner) -> None:
        """The runner is idle again."""
        self._idle.append(runner)


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
