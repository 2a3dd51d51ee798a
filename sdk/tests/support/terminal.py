"""A command in a terminal of its own, as a person drives it."""

import os
import pty
import re
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from support.adder_project import DEADLINE_SECONDS


class Screen:
    """A command in a terminal of its own; ``text`` is all it has shown, without styles."""

    def __init__(self, process_id: int, descriptor: int, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds
        self._process_id = process_id
        self._descriptor = descriptor
        self._raw = b""
        self._position = 0
        self._exit_code: int | None = None

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._raw.decode("utf-8", "replace")).replace("\r", "")

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def type_after(self, text: str, keys: str) -> None:
        """Wait until ``text`` is shown, after what was waited for before, and the prompt after it; then type."""
        self.wait_for(text)
        self.wait_for("> ")
        self.type(keys)

    def wait_for(self, text: str) -> None:
        while text not in self.text[self._position :]:
            assert self._read(), f"{text!r} was not shown, but: {self.text}"
        self._position = self.text.index(text, self._position) + len(text)

    def exit_code(self) -> int:
        while self._read():
            pass
        if self._exit_code is None:
            self._exit_code = os.waitstatus_to_exitcode(os.waitpid(self._process_id, 0)[1])
        return self._exit_code

    def close(self) -> None:
        if self._exit_code is None:
            os.kill(self._process_id, signal.SIGKILL)
            os.waitpid(self._process_id, 0)
        os.close(self._descriptor)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], self._deadline_seconds)
        assert ready, f"nothing came, after: {self.text}"
        try:
            chunk = os.read(self._descriptor, 65536)
        except OSError:  # the other side is closed
            return False
        self._raw += chunk
        return bool(chunk)


@contextmanager
def terminal(command: Sequence[str], deadline_seconds: float = DEADLINE_SECONDS) -> Iterator[Screen]:
    """``python -m osmosis_ai`` with ``command``, killed at the end if it has not ended by itself."""
    process_id, descriptor = pty.fork()
    if process_id == 0:
        os.environ.update(TERM="xterm", COLUMNS="100", LINES="40")
        os.execv(sys.executable, [sys.executable, "-m", "osmosis_ai", *command])  # noqa: S606 - the child becomes it
    screen = Screen(process_id, descriptor, deadline_seconds)
    try:
        yield screen
    finally:
        screen.close()
