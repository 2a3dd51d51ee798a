"""Lines of standard input, read off the event loop, so that Ctrl-C and everything else goes on working meanwhile.

A terminal or a pipe is watched by the event loop itself: no thread is left behind in a read that nothing ends. What has
no file descriptor to watch (a file, a stand-in for ``sys.stdin`` or ``input``) is asked in a thread.
"""

import asyncio
import builtins
import os
import sys
from collections.abc import Callable
from types import BuiltinFunctionType

from osmosis_ai.rollout.core.offload import call_in_thread

READ_BYTES = 65536


class LineReader:
    """Reads one line at a time. ``ask`` is called, in a thread, where there is nothing to watch."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._buffer = b""
        self._is_at_end = False

    async def read_line(self, prompt: Callable[[], None], echo: Callable[[str], None]) -> str | None:
        """The next line without its end; ``None`` at the end of input.

        ``prompt`` prints what is asked for; ``echo`` prints the line where no terminal has done so.
        """
        descriptor = _watchable_descriptor()
        if descriptor is None:
            return await _in_thread(self._ask)
        prompt()
        while b"\n" not in self._buffer and not self._is_at_end:
            await _readable(descriptor)
            chunk = os.read(descriptor, READ_BYTES)
            self._is_at_end = not chunk
            self._buffer += chunk
        line, newline, self._buffer = self._buffer.partition(b"\n")
        if not line and not newline:
            # A terminal can go on after Ctrl-D.
            self._is_at_end = not os.isatty(descriptor)
            return None
        text = line.decode("utf-8", "replace").rstrip("\r")
        if not os.isatty(descriptor):
            echo(text)
        return text


def _watchable_descriptor() -> int | None:
    if not isinstance(builtins.input, BuiltinFunctionType):
        return None
    try:
        descriptor = sys.stdin.fileno()
        asyncio.get_running_loop().add_reader(descriptor, lambda: None)
    except (AttributeError, NotImplementedError, OSError, ValueError):
        return None
    asyncio.get_running_loop().remove_reader(descriptor)
    return descriptor


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def _in_thread(ask: Callable[[], str]) -> str | None:
    def line() -> str | None:
        try:
            return ask()
        except (EOFError, KeyboardInterrupt):
            return None
        except Exception as error:
            raise RuntimeError(f"Standard input cannot be read: {error!r}.") from error

    return await call_in_thread(line)
