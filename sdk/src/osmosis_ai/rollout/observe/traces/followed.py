"""One file of traces, followed while it grows: each reading takes in the whole lines that were added since.

A trace is only ever appended to. What is known of a file can be kept (``kept``) and given back (``restore``) to the
same file in another process, which then reads only what was added.
"""

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.observe.traces.reader import event_on, lines_of
from osmosis_ai.rollout.observe.traces.store import Kept, kept_of
from osmosis_ai.rollout.observe.traces.summary import CONCERNING, Summary, tells_all

RECENT_SECONDS = 60.0
"""How long after its last event a file is watched for more."""
MAX_WHOLE_BYTES = 16 * 1024 * 1024
"""A file up to this size is looked at from its end: what the result has again need not be read before it."""
_COMPACT_START = b'{"event":"'
"""How the server's own events begin; the agent's, from ``ctx.log_event``, have a space after the colon."""
_NAME_AT = len(_COMPACT_START)
_START = TraceEvent.TRACE_START.value
_CHAT_START, _CHAT_END, _TOOL_CALL = (
    name.value.encode() for name in (TraceEvent.CHAT_START, TraceEvent.CHAT_END, TraceEvent.TOOL_CALL)
)
_START_LINE, _RESULT_LINE = (
    _COMPACT_START + name.value.encode() + b'"' for name in (TraceEvent.TRACE_START, TraceEvent.ROLLOUT_RESULT)
)
_CONCERNING = {name.encode() for name in CONCERNING}
# Written by the context, in the spelling of an agent's own events.
_OF_THE_CONTEXT = tuple(
    f'{{"event": "{event}"'.encode()
    for event in (TraceEvent.ROLLOUT_ERROR, TraceEvent.MESSAGES_REWRITTEN, TraceEvent.LOOP_BLOCKED)
)


class FollowedFile:
    """What is known of the file at ``path``.

    Attributes:
        run: of its rollouts.
        rollouts: those in it, in their order.
        lost: how many of its lines hold no event.
        is_unreadable: whether the last reading failed.
        is_kept: whether all that is known is what was kept.
    """

    __slots__ = (
        *("_changed_at", "_inode", "_offset", "_seen_at", "_size"),
        *("is_kept", "is_unreadable", "lost", "path", "rollouts", "run"),
    )

    def __init__(self, path: str, run: str = "") -> None:
        self.path = path
        self.run = run
        self.rollouts: list[Summary] = []
        self.lost = 0
        self.is_unreadable = self.is_kept = False
        self._size = self._offset = self._inode = self._changed_at = 0
        self._seen_at = time.monotonic()

    def may_grow(self, now: float) -> bool:
        """Whether more is to be expected at ``now``, on the monotonic clock."""
        return self._seen_at > now - RECENT_SECONDS or not (self.rollouts and self.rollouts[-1].is_settled)

    def read(self, kept: Kept | None = None) -> list[Summary]:
        """The rollouts that are new, which have no version yet, and the last one before them if there is more to it.

        ``kept`` is what was known of a file that has not been read.
        """
        growing, before = self.rollouts[-1:], self._offset
        try:
            self._read(kept)
        except OSError:
            self.is_unreadable = True
        new = [one for one in self.rollouts if not one.version]
        return new if self._offset == before else growing + new

    def kept(self) -> Kept:
        """What is known, for ``read`` in another process."""
        return kept_of(self._size, self._changed_at, self._offset, self.lost, self.rollouts)

    def _read(self, kept: Kept | None) -> None:
        status = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116 - a Path each would cost more than the call
        if kept is not None and self._restored(kept, status):
            return
        if status.st_size == self._size and status.st_ino == self._inode:
            return
        if (self._inode and status.st_ino != self._inode) or status.st_size < self._offset:
            # Another file of the same name; what its rollouts were stays with whoever has them.
            self._offset, self.lost, self.rollouts = 0, 0, []
        self._saw(status)
        self.is_unreadable = self.is_kept = False
        lines: Iterable[tuple[bytes, int]] = lines_of(self.path, self._offset)
        place, result = 0, None
        if self._offset == 0 and status.st_size <= MAX_WHOLE_BYTES:
            lines = list(lines)
            place, result = _result_in(lines)
        for number, (line, end) in enumerate(lines):
            if number >= place or not self._passes_over(line, end):
                self._take_in(line, end, result if number == place else None)
            self._offset = end

    def _restored(self, kept: Kept, status: os.stat_result) -> bool:
        """Take in what is kept, if this is still that file; whether that is all there is to know."""
        if kept.size > status.st_size:
            return False
        is_same = (kept.size, kept.changed) == (status.st_size, status.st_mtime_ns)
        # What has changed and has no more to it is another file.
        if not is_same and kept.size == status.st_size:
            return False
        self.rollouts = kept.summaries(self.path)
        if not self.rollouts:
            return False
        for one in self.rollouts:
            one.run = self.run
        self._offset, self.lost = kept.read, kept.lost
        self.is_kept = is_same
        if is_same:
            self._saw(status)
        return is_same

    def _saw(self, status: os.stat_result) -> None:
        self._size, self._inode, self._changed_at = status.st_size, status.st_ino, status.st_mtime_ns
        # As long ago as the file says, on a clock that nobody sets.
        self._seen_at = time.monotonic() - max(0.0, time.time() - status.st_mtime)

    def _passes_over(self, line: bytes, end: int) -> bool:
        """Whether a line tells nothing that the result of its rollout does not tell again."""
        rollout = self.rollouts[-1] if self.rollouts else None
        if rollout is None or rollout.agent is None or rollout.started_at is None or not rollout.rollout_id:
            return False
        name = _name_of(line)
        if name == _TOOL_CALL:
            is_told = b'"outcome":"ok"' in line
        elif name == _CHAT_END:
            is_told = b'"error":' not in line and b'"weight_versions":' not in line
        else:
            is_told = name == _CHAT_START
        if is_told:
            rollout.end = end
            rollout.knows_calls = rollout.knows_calls or name != _TOOL_CALL
        return is_told

    def _take_in(self, line: bytes, end: int, event: dict[str, Any] | None) -> None:
        rollout = self.rollouts[-1] if self.rollouts else None
        if rollout is not None and _is_of_no_concern(line, rollout):
            rollout.end = end
            return
        if event is None and line.startswith(_START_LINE):
            event = event_on(_without_tools(line))
        event = event or event_on(line)
        if event is None:
            self.lost += 1
            return
        if rollout is None or event["event"] == _START:
            rollout = Summary(self.path, self._offset, end, run=self.run)
            self.rollouts.append(rollout)
        rollout.add(event, end)


def _result_in(lines: Sequence[tuple[bytes, int]]) -> tuple[int, dict[str, Any] | None]:
    """Where the result of the first rollout is, if it tells all of its calls, and what it says; 0 without one."""
    for number, (line, _) in enumerate(lines):
        if line.startswith(_RESULT_LINE):
            result = event_on(line)
            return (number, result) if result is not None and tells_all(result) else (0, None)
        if number and line.startswith(_START_LINE):
            break
    return 0, None


def _without_tools(line: bytes) -> bytes:
    """A first line without its tools, which come last, are most of it and tell nothing here.

    What is cut out in the wrong place leaves a bracket open: then it is no event.
    """
    start, end = line.rfind(b',"tools":['), line.rfind(b',"time":')
    return line[:start] + line[end:] if 0 < start < end else line


def _name_of(line: bytes) -> bytes:
    """The name of a server's own event; of any other line, empty or what is no name."""
    return line[_NAME_AT : line.find(b'"', _NAME_AT)] if line.startswith(_COMPACT_START) else b""


def _is_of_no_concern(line: bytes, rollout: Summary) -> bool:
    """Whether a line can be passed over unread: of a server's trace, the agent's own events."""
    if rollout.agent is None:
        return False
    if not line.startswith(_COMPACT_START):
        return not line.startswith(_OF_THE_CONTEXT)
    name = _name_of(line)
    # The first call sends what the init asked: there is nothing new in it.
    return name not in _CONCERNING or (name == _CHAT_START and rollout.knows_calls and b'"at":0,' in line[:300])
