"""Writing a rollout's trace: one file, one JSON object a line, readable by others as soon as ``write`` returns.

Invariants: a rollout id never decides where on disk a file lies beyond its name; writing never raises; every line is
strict JSON (RFC 8259). Spec: core.md, section 7.3.
"""

import json
import logging
import os
import re
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.jsonable import plain

logger = logging.getLogger(__name__)

MAX_FILE_NAME_BYTES = 255
MAX_EVENT_BYTES = 8 * 1024 * 1024
MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_OPEN_FILES = 256

_SUFFIX = ".jsonl"
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]+")
_READABLE_PREFIX_LENGTH = 64


def trace_file_name(rollout_id: str) -> str:
    """The file name for ``rollout_id``: ``<id>.jsonl`` for an ordinary id, a safe and unique one for any other.

    Ordinary is: letters, digits, ``.``, ``_``, ``-``, not only dots, and short enough for a file name. Any other id
    becomes a readable prefix, ``~`` (which no ordinary id contains) and a SHA-256 of the id.
    """
    fits = len(rollout_id) + len(_SUFFIX) <= MAX_FILE_NAME_BYTES
    if fits and _PLAIN_ID.fullmatch(rollout_id) and rollout_id.strip("."):
        return rollout_id + _SUFFIX
    digest = sha256(rollout_id.encode("utf-8", "surrogatepass")).hexdigest()
    prefix = re.sub(r"[^A-Za-z0-9_-]+", "_", rollout_id[:_READABLE_PREFIX_LENGTH]).strip("_")
    return f"{prefix}~{digest}{_SUFFIX}"


class TraceWriter:
    """Appends events of one rollout to ``<directory>/<file name of the id>``; the directory is made when first needed.

    Few files are kept open at a time; beyond ``MAX_OPEN_FILES`` a writer opens and closes its file for each event.
    """

    _open_files = 0

    def __init__(self, directory: str, rollout_id: str) -> None:
        self.directory = directory
        self.rollout_id = rollout_id
        self.path = os.path.join(directory, trace_file_name(rollout_id))  # noqa: PTH118 - keeps the caller's spelling
        self._descriptor: int | None = None
        self._written_bytes = 0

    def write(self, event_type: str, data: dict[str, Any]) -> None:
        """Append one event: ``event`` and ``rollout_id`` first, ``time`` (unix seconds) last; those three are ours."""
        head: dict[str, Any] = {"event": event_type, "rollout_id": self.rollout_id}
        body = {key: value for key, value in data.items() if key not in head and key != "time"}
        line = _encode(head | body | {"time": round(time.time(), 6)})
        if len(line) > MAX_EVENT_BYTES:
            line = _encode(head | {"truncated": f"event of {len(line)} bytes left out", "time": round(time.time(), 6)})
        if self._written_bytes + len(line) > MAX_FILE_BYTES:
            return
        self._written_bytes += len(line)
        try:
            self._append(line)
        except (OSError, ValueError) as error:
            logger.warning("Cannot write trace %s: %s", ascii(self.path), error)

    def close(self) -> None:
        """Close the file; a later ``write`` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            TraceWriter._open_files -= 1

    def __del__(self) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        descriptor = self._descriptor if self._descriptor is not None else self._open()
        try:
            while line:
                line = line[os.write(descriptor, line) :]
        finally:
            if descriptor != self._descriptor:
                os.close(descriptor)

    def _open(self) -> int:
        Path(self.directory).mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self.path, flags, 0o644)
        if TraceWriter._open_files < MAX_OPEN_FILES:
            TraceWriter._open_files += 1
            self._descriptor = descriptor
        return descriptor


def _encode(event: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(event, default=str, ensure_ascii=False, allow_nan=False)
    except Exception:  # noqa: BLE001 - a value's own __str__ may raise anything; the slow path names it instead
        text = json.dumps(plain(event), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(json.loads(text)).encode() + b"\n"
