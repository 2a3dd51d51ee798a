"""Processes that read files of traces for an index, as one that reads 50,000 alone keeps one core busy for long.

A helper is asked for a batch of files and answers with what it read of each, over its own pipes. It ends
when its index's process does, however that ends, and Ctrl-C does not reach it. Whatever becomes of a helper, the index
reads the same files itself.
"""

import gc
import marshal
import os
import select
import subprocess
import sys
from collections.abc import Iterable
from typing import IO, Any

from osmosis_ai.rollout.observe.traces.followed import FollowedFile

BATCH_FILES = 300
"""A tenth of a second's work: so long an index may be busy with what it has read."""
MAX_BATCH_ROLLOUTS = 100_000
"""A helper that has read so many reads no further file of its batch: the index does, or does without."""
MAX_HELPERS = 4
SIZE_BYTES = 8
"""So many that words which are no message are too large for one."""
START = f"from {__name__} import help_out; help_out()"


class Helpers:
    """The helpers of one index, for one thread: one less than there are cores, as the index reads too."""

    def __init__(self) -> None:
        self._idle = [_started() for _ in range(min((os.cpu_count() or 1) - 1, MAX_HELPERS))]
        self._asked: dict[IO[bytes], tuple[subprocess.Popen[bytes], list[FollowedFile]]] = {}

    @property
    def are_busy(self) -> bool:
        """Whether some have not answered yet."""
        return bool(self._asked)

    def ask(self, files: list[FollowedFile]) -> None:
        """Have those that are idle read the first of ``files``, which are taken out."""
        while self._idle and files:
            batch = files[:BATCH_FILES]
            helper = self._idle.pop()
            assert helper.stdin is not None and helper.stdout is not None  # noqa: S101, PT018 - both are pipes
            try:
                _send(helper.stdin, [file.path for file in batch])
            except OSError:
                _dismiss(helper)
                continue
            del files[:BATCH_FILES]
            self._asked[helper.stdout] = helper, batch

    def answered(self, wait_seconds: float | None) -> Iterable[tuple[FollowedFile, tuple[Any, ...] | None]]:
        """The files that were read meanwhile, with what each told; ``None`` of one that has to be read again."""
        for pipe in select.select([*self._asked], [], [], wait_seconds)[0]:
            helper, files = self._asked.pop(pipe)
            try:
                told: list[tuple[Any, ...] | None] = _received(pipe)
                self._idle.append(helper)
            except (EOFError, ValueError, TypeError, MemoryError, OverflowError):  # it ended, or said something else
                _dismiss(helper)
                told = [None] * len(files)
            yield from zip(files, told, strict=True)

    def close(self) -> None:
        """Let all of them go."""
        for helper in [*self._idle, *(helper for helper, _ in self._asked.values())]:
            _dismiss(helper)


def _started() -> subprocess.Popen[bytes]:
    # With this process's places to import from, and none of the folder that it happens to be in.
    start = f"import sys; sys.path[:] = {sys.path!r}; {START}"
    return subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, "-I", "-c", start],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # its index has ended
        start_new_session=True,
    )


def _dismiss(helper: subprocess.Popen[bytes]) -> None:
    helper.kill()
    helper.communicate()


def _send(pipe: IO[bytes], what: Any) -> None:
    content = marshal.dumps(what)
    pipe.write(len(content).to_bytes(SIZE_BYTES) + content)
    pipe.flush()


def _received(pipe: IO[bytes]) -> Any:
    # From a file, marshal would read each number and each text by a call of its own.
    return marshal.loads(pipe.read(int.from_bytes(pipe.read(SIZE_BYTES))))  # noqa: S302 - our own process


def help_out() -> None:
    """What a helper does, until nobody asks any more."""
    gc.disable()  # there is nothing that refers to itself
    while True:
        try:
            paths: list[str] = _received(sys.stdin.buffer)
        except EOFError:
            return
        told: list[tuple[Any, ...] | None] = []
        count = 0
        for path in paths:
            file = FollowedFile(path)
            if count < MAX_BATCH_ROLLOUTS:
                file.read()
            count += len(file.rollouts)
            told.append(file.told() if file.rollouts else None)
        _send(sys.stdout.buffer, told)
