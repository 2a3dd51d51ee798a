"""The file of one trace: what is appended to it is private, whole lines, and never waited for.

Only a regular file is written to. What else lies under the name, a FIFO or a symbolic link, say, ends this trace with
one line in the log; the rollout goes on, and so do other traces. It is open only while something is appended, as many
rollouts are under way and descriptors are few; whoever moves or removes a trace sees the next event in a new file.
"""

import logging
import os
from collections.abc import Callable
from enum import StrEnum

from osmosis_ai.rollout.core.files import NotRegularError, make_folder, open_regular
from osmosis_ai.rollout.core.shortage import is_local_shortage
from osmosis_ai.rollout.core.text import text_of

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 256 * 1024 * 1024
"""None that we write is larger; a reader may take a larger file for foreign."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class TraceLack(StrEnum):
    """Why a trace is not whole."""

    REFUSED = "refused"
    """No regular file lies under its name."""
    FAILED = "failed"
    """The disk did not take a part of it."""
    FULL = "full"
    """It would have more than ``MAX_FILE_BYTES``."""
    DROPPED = "dropped"
    """Events came faster than the disk takes them."""


class TraceFile:
    """Appends to ``path``; the folder is made when first needed. For one thread at a time.

    Args:
        on_lack: told of each ``TraceLack``, the first time.
    """

    __slots__ = ("_lacks", "_on_lack", "_torn", "path")

    def __init__(self, path: str, on_lack: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._on_lack = on_lack
        self._lacks: frozenset[TraceLack] = frozenset()
        self._torn = False

    def append(self, lines: bytes) -> bool:
        """Write whole lines. Raises nothing: whatever is wrong with a trace, the rollout goes on.

        ``False`` means that there is no descriptor for it now; nothing has been written, and a later try may succeed.
        """
        if TraceLack.REFUSED in self._lacks:
            return True
        try:
            self._append(lines)
        except NotRegularError:
            if self.lacks(TraceLack.REFUSED):
                logger.warning("Trace %a is not written: what lies there is no regular file.", self.path)
        except Exception as error:  # noqa: BLE001 - one trace that cannot be written must not stop the others
            if is_local_shortage(error):
                return False
            logger.warning("Cannot write trace %a: %s", self.path, text_of(error))
            self.lacks(TraceLack.FAILED)
        return True

    def lacks(self, lack: TraceLack) -> bool:
        """Note that the trace is not whole; whether that is news."""
        if lack in self._lacks:
            return False
        self._lacks |= {lack}
        if self._on_lack is not None:
            self._on_lack(lack)
        return True

    def _append(self, content: bytes) -> None:
        descriptor = self._open()
        try:
            if os.fstat(descriptor).st_size + len(content) > MAX_FILE_BYTES:
                if self.lacks(TraceLack.FULL):
                    logger.warning("Trace %a is full; further events are left out.", self.path)
                return
            if self._torn:
                # The last write was cut short (a full disk): without a newline this line would be lost with it.
                content = b"\n" + content
            while content:
                written = os.write(descriptor, content)
                self._torn = written < len(content)
                content = content[written:]
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            return open_regular(self.path, _FLAGS)
        except FileNotFoundError:
            make_folder(os.path.dirname(self.path))  # noqa: PTH120 - a Path each would cost more than the call
            return open_regular(self.path, _FLAGS)
