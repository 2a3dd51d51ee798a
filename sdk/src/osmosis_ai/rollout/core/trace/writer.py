"""Writing a rollout's trace: one file, one JSON object a line, readable by others as soon as ``write`` returns.

Invariants: a rollout id never decides where on disk a file lies beyond its name; writing never raises; every line is
strict JSON (RFC 8259). See ``docs/traces.md``.
"""

import logging
import os
import re
import threading
from hashlib import sha256
from typing import Any

from osmosis_ai.rollout.core.text import text_of
from osmosis_ai.rollout.core.trace.file import TraceFile, TraceLack
from osmosis_ai.rollout.core.trace.format import TRACE_SUFFIX
from osmosis_ai.rollout.core.trace.lines import line_of_agent

logger = logging.getLogger(__name__)

MAX_FILE_NAME_BYTES = 255

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

    May be called from any thread.
    """

    def __init__(self, directory: str, rollout_id: str) -> None:
        self._lock = threading.Lock()
        self.directory = directory
        self.rollout_id = str(rollout_id)
        self.path = trace_path(directory, self.rollout_id)
        self._file = TraceFile(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        return TraceWriter, (self.directory, self.rollout_id)

    def write(self, event_type: str, data: dict[str, Any]) -> None:
        """Append one event: ``event`` and ``rollout_id`` first, ``time`` (unix seconds) last; those three are ours."""
        try:
            line = line_of_agent(event_type, self.rollout_id, data)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a trace, the rollout goes on
            logger.warning("Cannot write trace %a: %s", self.path, text_of(error))
            return
        with self._lock:
            if not self._file.append(line) and self._file.lacks(TraceLack.FAILED):
                logger.warning("Cannot write trace %a: no file can be opened now.", self.path)

    def close(self) -> None:
        """Nothing is left open."""
