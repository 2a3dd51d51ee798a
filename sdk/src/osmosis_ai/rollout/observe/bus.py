"""The event bus: whoever observes a server is in one list, and each is told of everything.

Observers know nothing of each other. One that raises is named in the log once for each event, and neither the rollout
nor the others notice. What begins is told in the order of the list and what ends in reverse, so that the work of one
is no part of what the next one measures.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.watch import NO_WATCH, Accepted, Observer, RolloutWatch, ToolOutcome

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import Trace
    from osmosis_ai.rollout.core.results import ResultSummary

logger = logging.getLogger(__name__)

_FAILED = object()
"""The mark of an observer that could not take in the beginning: it is not told of the end."""
_reported: set[str] = set()


class Bus(Observer):
    """Tells all of ``observers``."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def init_refused(self, reason: str) -> None:
        for observer in self._observers:
            _tell(observer.init_refused, reason)

    def init_repeated(self) -> None:
        for observer in self._observers:
            _tell(observer.init_repeated)

    def accepted(self, rollout: Accepted) -> RolloutWatch:
        return _all(_tell(observer.accepted, rollout) for observer in self._observers)

    def recovered(self, rollout_id: str, server_url: str, age_seconds: float) -> RolloutWatch:
        return _all(_tell(observer.recovered, rollout_id, server_url, age_seconds) for observer in self._observers)

    def journal_operation(self, operation: str, seconds: float, failed: bool) -> None:
        for observer in self._observers:
            try:
                observer.journal_operation(operation, seconds, failed)
            except Exception:  # noqa: BLE001 - whatever is wrong with an observer, rollouts go on; here and below
                _report(observer.journal_operation)

    def journal_problem(self, problem: str | None) -> None:
        for observer in self._observers:
            _tell(observer.journal_problem, problem)

    def loop_lag(self, seconds: float) -> None:
        for observer in self._observers:
            _tell(observer.loop_lag, seconds)

    async def close(self) -> None:
        for observer in self._observers:
            try:
                await observer.close()
            except Exception:  # noqa: BLE001
                _report(observer.close)


class _Watches(RolloutWatch):
    """All watches of one rollout.

    Some twenty events a rollout come through here, so the loops stand in line, and what cares for the end alone is
    told of nothing else.
    """

    __slots__ = ("_at_end", "_backwards", "_watches")

    def __init__(self, watches: Sequence[RolloutWatch]) -> None:
        self._at_end = watches
        self._watches = [watch for watch in watches if not watch.only_end]
        self._backwards = self._watches[::-1]

    def agent_trace(self) -> "Trace | None":
        for watch in self._watches:
            trace = _tell(watch.agent_trace)
            if trace is not None and trace is not _FAILED:
                found: Trace = trace
                return found
        return None

    def enters(self, phase: str) -> None:
        for watch in self._watches:
            try:
                watch.enters(phase)
            except Exception:  # noqa: BLE001
                _report(watch.enters)

    def agent_begins(self) -> None:
        for watch in self._watches:
            _tell(watch.agent_begins)

    def chat_begins(self, messages: Sequence[Any], sampling: dict[str, Any]) -> Any:
        marks: list[Any] = []
        for watch in self._watches:
            try:
                marks.append(watch.chat_begins(messages, sampling))
            except Exception:  # noqa: BLE001
                marks.append(_report(watch.chat_begins))
        return marks

    def chat_ends(self, chat: Any, reply: Any) -> None:
        for watch in self._backwards:
            if (mark := chat.pop()) is not _FAILED:
                try:
                    watch.chat_ends(mark, reply)
                except Exception:  # noqa: BLE001
                    _report(watch.chat_ends)

    def chat_failed(self, chat: Any, error: BaseException) -> None:
        for watch in self._backwards:
            if (mark := chat.pop()) is not _FAILED:
                _tell(watch.chat_failed, mark, error)

    def tool_begins(self, name: str, call_id: str) -> Any:
        marks: list[Any] = []
        for watch in self._watches:
            try:
                marks.append(watch.tool_begins(name, call_id))
            except Exception:  # noqa: BLE001
                marks.append(_report(watch.tool_begins))
        return marks

    def tool_ends(self, tool: Any, outcome: ToolOutcome) -> None:
        for watch in self._backwards:
            if (mark := tool.pop()) is not _FAILED:
                try:
                    watch.tool_ends(mark, outcome)
                except Exception:  # noqa: BLE001
                    _report(watch.tool_ends)

    def result_made(self, encoded: bytes) -> None:
        for watch in self._watches:
            _tell(watch.result_made, encoded)

    async def flushed(self) -> None:
        for watch in self._watches:
            try:
                await watch.flushed()
            except Exception:  # noqa: BLE001
                _report(watch.flushed)

    def ended(self, summary: "ResultSummary", duration_seconds: float) -> None:
        for watch in self._at_end:
            _tell(watch.ended, summary, duration_seconds)

    def attempt_begins(self, attempt: int) -> Any:
        return [_tell(watch.attempt_begins, attempt) for watch in self._watches]

    def attempt_ends(self, mark: Any, verdict: str, error: Exception | None) -> None:
        for watch in self._backwards:
            if (own := mark.pop()) is not _FAILED:
                _tell(watch.attempt_ends, own, verdict, error)

    def gone(self) -> None:
        for watch in self._watches:
            _tell(watch.gone)


def _all(watches: Iterable[Any]) -> RolloutWatch:
    told = [watch for watch in watches if watch is not _FAILED and watch is not NO_WATCH]
    return _Watches(told) if told else NO_WATCH


def _tell(method: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except Exception:  # noqa: BLE001
        return _report(method)


def _report(method: Callable[..., Any]) -> object:
    name = getattr(method, "__qualname__", repr(method))
    if name not in _reported:
        _reported.add(name)
        logger.exception("%s failed; rollouts go on, and further failures of it are not told.", name)
    return _FAILED
