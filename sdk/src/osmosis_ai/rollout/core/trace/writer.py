"""Writing a rollout's trace: one file, one JSON object a line, readable by others as soon as ``write`` returns.

Invariants: a rollout id never decides where on disk a file lies beyond its name; writing never raises; every line is
strict JSON (RFC 8259). See ``docs/traces.md``.
"""

import logging
import os
import re
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.text import text_of
from osmosis_ai.rollout.core.trace.format import TRACE_SUFFIX
from osmosis_ai.rollout.core.trace.lines import line_of_agent

logger = logging.getLogger(__name__)

MAX_FILE_NAME_BYTES = 255
MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_OPEN_FILES = 256

TRACE_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]+")
_READABLE_PREFIX_LENGTH = 64


def trace_file_name(rollout_id: str) -> str:
    """The file name for ``rollout_id``: ``<id>.jsonl`` for an ordinary id, a safe and unique one for any other.

    Ordinary is: letters, digits, ``.``, ``_``, ``-``, not only dots, and short enough for a file name. Any other id
    becomes a readable prefix, ``~`` (which no ordinary id contains) and a SHA-256 of the id.
    """
    fits = len(rollout_id) + len(TRACE_SUFFIX) <= MAX_FILE_NAME_BYTES
    if fits and _PLAIN_ID.fullmatch(rollout_id) and rollout_id.strip("."):
        return rollout_id + TRACE_SUFFIX
    digest = sha256(rollout_id.encode("utf-8", "surrogatepass")).hexdigest()
    prefix = re.sub(r"[^A-Za-z0-9_-]+", "_", rollout_id[:_READABLE_PREFIX_LENGTH]).strip("_")
    return f"{prefix}~{digest}{TRACE_SUFFIX}"


def trace_path(directory: str, rollout_id: str) -> str:
    """Where the trace of ``rollout_id`` lies in ``directory``."""
    return os.path.join(directory, trace_file_name(rollout_id))  # noqa: PTH118 - keeps the caller's spelling


class TraceWriter:
    """Appends events of one rollout to ``<directory>/<file name of the id>``; the directory is made when first needed.

    May be called from any thread. Few files are kept open at a time; beyond ``MAX_OPEN_FILES`` a writer opens and
    closes its file for each event. A copy is a writer of its own to the same file.
    """

    _open_files = 0
    # Reentrant: the garbage collector may close a writer while another is being counted.
    _counting = threading.RLock()

    def __init__(self, directory: str, rollout_id: str) -> None:
        self._descriptor: int | None = None
        self._written_bytes = 0
        self._torn = False
        self._full = False
        self._lock = threading.Lock()
        self.directory = directory
        self.rollout_id = str(rollout_id)
        self.path = trace_path(directory, self.rollout_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return TraceWriter, (self.directory, self.rollout_id)

    def write(self, event_type: str, data: dict[str, Any]) -> None:
        """Append one event: ``event`` and ``rollout_id`` first, ``time`` (unix seconds) last; those three are ours."""
        try:
            line = line_of_agent(event_type, self.rollout_id, data)
            with self._lock:
                self._append(line)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a trace, the rollout goes on
            logger.warning("Cannot write trace %a: %s", self.path, text_of(error))

    def close(self) -> None:
        """Close the file; a later ``write`` opens it again."""
        with self._lock:
            self._close()

    def __del__(self) -> None:
        self._close()

    def _append(self, line: bytes) -> None:
        if self._torn:
            # The last write was cut short (a full disk): without a newline this line would be lost with it.
            line = b"\n" + line
        if self._written_bytes + len(line) > MAX_FILE_BYTES:
            if not self._full:
                logger.warning("Trace %a is full; further events are left out.", self.path)
            self._full = True
            return
        descriptor = self._current_descriptor()
        try:
            while line:
                written = os.write(descriptor, line)
                self._written_bytes += written
                self._torn = written < len(line)
                line = line[written:]
        finally:
            if descriptor != self._descriptor:
                os.close(descriptor)

    def _current_descriptor(self) -> int:
        # Whoever rotates or removes traces would not see what goes to the file that they moved.
        if self._descriptor is not None and not self._still_at_path(self._descriptor):
            self._close()
        return self._open() if self._descriptor is None else self._descriptor

    def _still_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _open(self) -> int:
        Path(self.directory).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, TRACE_FILE_FLAGS, 0o644)
        with TraceWriter._counting:
            if TraceWriter._open_files < MAX_OPEN_FILES:
                TraceWriter._open_files += 1
                self._descriptor = descriptor
        return descriptor

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
            with TraceWriter._counting:
                TraceWriter._open_files -= 1
