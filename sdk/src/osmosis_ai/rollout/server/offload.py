"""Calling foreign synchronous code without blocking the event loop."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def call_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)``, in a daemon thread of its own, with the caller's context variables.

    Unlike a thread of ``asyncio.to_thread``, one that hangs does not keep the process from ending. Whatever the
    function raises is raised here, ``SystemExit`` and its like as ``RuntimeError``.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # a T whenever there is no error

    def work() -> None:
        result: T | None = None
        error: Exception | None = None
        try:
            result = context.run(function, *arguments)
        except StopIteration as stop:  # a future cannot hold it
            error = RuntimeError(f"StopIteration: {stop}")
        except Exception as raised:  # noqa: BLE001 - handed to the caller
            error = raised
        except BaseException as raised:  # noqa: BLE001 - as above; as itself it would end the event loop
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=getattr(function, "__qualname__", "call"), daemon=True).start()
    return await future
