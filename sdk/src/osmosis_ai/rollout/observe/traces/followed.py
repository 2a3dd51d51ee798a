"""One file of traces, followed while it grows: each reading takes in the whole lines that were added since.

A trace is only ever appended to. What is known of a file can be kept (``kept``) and given back (``restore``) to the
same file in another process, which then reads only what was added. Another file may come in its place all the same, as
with each pass of rsync: a rollout that is in it again, by its id, stays the one it was, and one that is not has lost
its file.
"""

import os
import time
from collections import deque
from typing import Any

from osmosis_ai.rollout.core.files import open_regular
from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.observe.traces.reader import event_on, lines_in
from osmosis_ai.rollout.observe.traces.store import Kept, state_of
from osmosis_ai.rollout.observe.traces.summary import CONCERNING, Summary, tells_all

RECENT_SECONDS = 60.0
"""How long after its last event a file is watched for more."""
MAX_ROLLOUTS = 100_000
"""Of one file; what begins beyond them is passed over: the line that begins one may be a fiftieth of what is kept."""
MAX_WHOLE_BYTES = 16 * 1024 * 1024
"""A file up to this size is looked at from its end: what the result has again need not be read before it."""
_COMPACT_START = b'{"event":"'
"""How the server's own events begin; the agent's, from ``ctx.log_event``, have a space after the colon."""
_NAME_AT = len(_COMPACT_START)
_START = TraceEvent.TRACE_START.value
_CHAT_START = TraceEvent.CHAT_START.value.encode()
_START_LINE, _RESULT_LINE, _CHAT_START_LINE, _CHAT_END_LINE, _TOOL_CALL_LINE = (
    _COMPACT_START + name.value.encode() + b'"'
    for name in (
        *(TraceEvent.TRACE_START, TraceEvent.ROLLOUT_RESULT),
        *(TraceEvent.CHAT_START, TraceEvent.CHAT_END, TraceEvent.TOOL_CALL),
    )
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
        *("_changed_at", "_former", "_inode", "_offset", "_seen_at", "_size"),
        *("is_kept", "is_unreadable", "lost", "path", "rollouts", "run"),
    )

    def __init__(self, path: str, run: str = "") -> None:
        self.path = path
        self.run = run
        self.rollouts: list[Summary] = []
        self.lost = 0
        self.is_unreadable = self.is_kept = False
        self._former: dict[str, deque[Summary]] | None = None
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
        if self._former and new:
            new = self._recognised()
        return new if self._offset == before else growing + new

    def kept(self) -> Kept:
        """What is known, for ``read`` in another process, which cannot trust it."""
        states = [state_of(one) for one in self.rollouts]
        return Kept(self._size, self._changed_at, self._offset, self.lost, states)

    def told(self) -> tuple[Any, ...]:
        """What is known, for ``take_over`` in another process of ours."""
        return self._inode, *self.kept()

    def take_over(self, told: tuple[Any, ...]) -> list[Summary]:
        """The rollouts that another process has read of a file that has not been read here; as ``read`` gives them."""
        inode, *known = told
        kept = Kept(*known)
        self._saw(kept.size, inode, kept.changed)
        self._take_over(kept)
        return list(self.rollouts)

    def _take_over(self, kept: Kept) -> None:
        self._offset, self.lost = kept.read, kept.lost
        self.rollouts = [Summary(self.path, *state) for state in kept.states]
        for one in self.rollouts:
            one.run = self.run

    def _read(self, kept: Kept | None) -> None:
        if kept is not None or self._inode:
            status = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116 - a Path each would cost more than the call
            if kept is not None and self._restored(kept, status):
                return
            if status.st_size == self._size and status.st_ino == self._inode:
                return
        descriptor = open_regular(self.path, os.O_RDONLY)
        try:
            self._read_on(descriptor)
        finally:
            os.close(descriptor)

    def _read_on(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        is_another = (self._inode and status.st_ino != self._inode) or status.st_size < self._offset
        # What was written anew in its place has no line that ends just there.
        if is_another or (self._offset and os.pread(descriptor, 1, self._offset - 1) != b"\n"):
            self._begin_anew()
        self._saw(status.st_size, status.st_ino, status.st_mtime_ns)
        self.is_unreadable = self.is_kept = False
        if self._offset == 0 and status.st_size <= MAX_WHOLE_BYTES:
            self._take_in_whole(os.pread(descriptor, status.st_size, 0))
            return
        for line, end in lines_in(descriptor, self._offset):
            self._take_in(line, end)
            self._offset = end

    def _begin_anew(self) -> None:
        self._former = self._former or {}
        for one in self.rollouts:
            self._former.setdefault(one.rollout_id, deque()).append(one)
            one.file = ""  # whoever has it still must not be given what lies there now
        self._offset, self.lost, self.rollouts = 0, 0, []

    def _recognised(self) -> list[Summary]:
        """Those that are new; in place of one that was in the former file, that one, with what is known now."""
        new: list[Summary] = []
        for place, one in enumerate(self.rollouts):
            if one.version:
                continue
            if self._former and (former := self._former.get(one.rollout_id)):
                again = former.popleft()
                again.become(one)
                self.rollouts[place] = one = again
            new.append(one)
        return new

    def _restored(self, kept: Kept, status: os.stat_result) -> bool:
        """Take in what is kept, if this is still that file; whether that is all there is to know."""
        if kept.size > status.st_size:
            return False
        is_same = (kept.size, kept.changed) == (status.st_size, status.st_mtime_ns)
        # What has changed and has no more to it is another file.
        if not is_same and kept.size == status.st_size:
            return False
        if not kept.states:
            return False
        self._take_over(kept)
        self.is_kept = is_same
        if is_same:
            self._saw(status.st_size, status.st_ino, status.st_mtime_ns)
        return is_same

    def _saw(self, size: int, inode: int, changed_at: int) -> None:
        self._size, self._inode, self._changed_at = size, inode, changed_at
        # As long ago as the file says, on a clock that nobody sets.
        self._seen_at = time.monotonic() - max(0.0, time.time() - changed_at / 1e9)

    def _take_in_whole(self, content: bytes) -> None:
        self._size = len(content)
        result_at, result = _result_in(content)
        while end := content.find(b"\n", self._offset) + 1:
            at = self._offset
            self._take_in(content[at : end - 1], end, result if at and at == result_at else None)
            self._offset = self._passed_over(content, end, result_at) if end < result_at else end

    def _passed_over(self, content: bytes, at: int, until: int) -> int:
        """Where, from the line ``at`` on, the first is that tells what its result does not tell again."""
        rollout = self.rollouts[-1] if self.rollouts else None
        if rollout is None or rollout.agent is None or rollout.started_at is None or not rollout.rollout_id:
            return at
        while at < until:
            end = content.find(b"\n", at) + 1
            if content.startswith(_TOOL_CALL_LINE, at):
                if content.find(b'"outcome":"ok"', at, end) < 0:
                    break
            elif content.startswith(_CHAT_END_LINE, at):
                if content.find(b'"error":', at, end) >= 0 or content.find(b'"weight_versions":', at, end) >= 0:
                    break
                rollout.knows_calls = True
            elif content.startswith(_CHAT_START_LINE, at):
                rollout.knows_calls = True
            else:
                break
            rollout.end = at = end
        return at

    def _take_in(self, line: bytes, end: int, event: dict[str, Any] | None = None) -> None:
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
            if len(self.rollouts) == MAX_ROLLOUTS:
                self.lost += 1
                return
            rollout = Summary(self.path, self._offset, end, run=self.run)
            self.rollouts.append(rollout)
        try:
            rollout.add(event, end)
        except Exception:  # noqa: BLE001 - what a foreign event may hold that nobody thought of costs that event alone
            self.lost += 1


def _result_in(content: bytes) -> tuple[int, dict[str, Any] | None]:
    """Where the result of the first rollout is, if it tells all of its calls, and what it says; 0 without one."""
    at = content.find(b"\n" + _RESULT_LINE) + 1
    end = content.find(b"\n", at)
    if not at or end < 0 or content.find(b"\n" + _START_LINE, 0, at) >= 0:
        return 0, None
    result = event_on(content[at:end])
    return (at, result) if result is not None and tells_all(result) else (0, None)


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
