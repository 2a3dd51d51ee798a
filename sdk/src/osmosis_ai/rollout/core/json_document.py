"""Standard output as one JSON document: what a command prints that was given ``--json``.

There is one, whatever happens: a command that fails before it has one prints ``{"error": ..., "exit_code": ...}``. All
else that is printed meanwhile, by an agent, its tools or their processes, goes to standard error.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TextIO

_STANDARD_OUTPUT = 1
_STANDARD_ERROR = 2


class JsonDocument:
    """The document of one command."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_written = False

    def write(self, pieces: Iterable[str]) -> None:
        """Write the document."""
        self._is_written = True
        self._stream.writelines(pieces)
        self._stream.flush()

    def write_error(self, sentence: str, exit_code: int) -> None:
        """Write a document that says why there is no other; nothing if there is one."""
        if not self._is_written:
            self.write([json.dumps({"error": sentence, "exit_code": exit_code}), "\n"])


_current: ContextVar[JsonDocument | None] = ContextVar("json_document", default=None)


def write_document(pieces: Iterable[str]) -> None:
    """Write the document of this command, in pieces; to ``sys.stdout`` where ``nothing_but_a_document`` is not on."""
    document = _current.get() or JsonDocument(sys.stdout)
    document.write(pieces)


@contextlib.contextmanager
def nothing_but_a_document() -> Iterator[JsonDocument]:
    """Keep standard output for ``write_document``; everything else that is printed goes to standard error."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(_own_descriptor(sys.stdout))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        document = JsonDocument(stream)
        token = _current.set(document)
        try:
            yield document
        finally:
            _current.reset(token)


@contextlib.contextmanager
def _own_descriptor(stdout: TextIO) -> Iterator[TextIO]:
    """``stdout`` under another descriptor, if it is the process's; the usual one is standard error meanwhile."""
    try:
        is_the_process_s = stdout.fileno() == _STANDARD_OUTPUT
        stdout.flush()
        kept = os.dup(_STANDARD_OUTPUT) if is_the_process_s else None
    except (OSError, ValueError, AttributeError):  # none, closed, or in memory
        kept = None
    if kept is None:
        yield stdout
        return
    with os.fdopen(kept, "w", encoding=stdout.encoding, errors=stdout.errors) as stream:
        try:
            with contextlib.suppress(OSError):  # there may be none
                os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)
            yield stream
        finally:
            stdout.flush()
            os.dup2(kept, _STANDARD_OUTPUT)
