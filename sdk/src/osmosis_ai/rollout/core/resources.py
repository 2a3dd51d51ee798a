"""What one rollout holds open: entered with ``ctx.enter``, closed when its agent has ended, however it ended.

In the order opposite to entering, in the agent's own task, before the result is made: after a return, an exception, a
time-out, a cancel and a shutdown alike. Only an agent that will not be cancelled has it done by another task. A failure
to close is logged and changes no result.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from osmosis_ai.rollout.core.offload import call_in_thread, daemon_threads

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
"""For all resources of a rollout that ended by itself; one that was stopped has the second that its agent has."""

T = TypeVar("T")


class Resources:
    """Those of one rollout."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def enter(self, resource: "AbstractAsyncContextManager[T] | AbstractContextManager[T]") -> T:
        """Enter ``resource``, a plain one in a thread, and remember to close it.

        Raises:
            TypeError: it is no context manager.
        """
        if hasattr(type(resource), "__aexit__"):
            return await self._stack.enter_async_context(resource)  # type: ignore[arg-type]
        if not hasattr(type(resource), "__exit__"):
            raise TypeError(
                f"ctx.enter takes a context manager, not {type(resource).__name__}: write"
                " ctx.enter(contextlib.closing(...)) for what has only a close method."
            )
        if type(resource).__module__ == "sqlite3":
            raise TypeError(
                "A connection as a context manager commits, and stays open: write"
                " ctx.enter(contextlib.closing(connection))."
            )
        return await self._stack.enter_async_context(_InThread(resource))  # type: ignore[arg-type]

    async def close(self, error: BaseException | None = None, limit_seconds: float = CLOSE_SECONDS) -> None:
        """Close all that is still open; ``error`` is what ended the agent."""
        try:
            async with asyncio.timeout(limit_seconds):
                await self._stack.__aexit__(type(error) if error else None, error, None)
        except Exception as failure:
            if failure is not error:
                logger.exception("A resource of a rollout could not be closed.")


class _InThread(Generic[T]):
    """A plain context manager as an asynchronous one: what it does may block."""

    def __init__(self, plain: "AbstractContextManager[T]") -> None:
        self._plain = plain

    async def __aenter__(self) -> T:
        entering = asyncio.ensure_future(call_in_thread(self._plain.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            entering.add_done_callback(self._leave)  # what is on its way open nobody else knows of
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        # Shielded: what a thread has not begun yet would never be done for a caller who stops waiting.
        return await asyncio.shield(call_in_thread(self._plain.__exit__, kind, error, trace))

    def _leave(self, entering: "asyncio.Future[T]") -> None:
        if not entering.cancelled() and entering.exception() is None:
            daemon_threads().submit(self._plain.__exit__, None, None, None)


class _Holder(Protocol):
    """A ``RolloutContext``, as far as it is known here."""

    resources: Resources | None


R = TypeVar("R")
H = TypeVar("H", bound=_Holder)


async def run_agent(run: Callable[[H], Awaitable[R]], ctx: H) -> R:
    """What an agent's ``run(ctx)`` gives or raises, once what it has entered is closed."""
    error: BaseException | None = None
    try:
        return await run(ctx)
    except BaseException as raised:
        error = raised
        raise
    finally:
        # Whoever closes the coroutine from outside closes the resources too: nothing can be awaited here then.
        if ctx.resources is not None and not isinstance(error, GeneratorExit):
            await ctx.resources.close(error)
