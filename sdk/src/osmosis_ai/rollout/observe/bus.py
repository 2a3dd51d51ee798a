"""The event bus: whoever observes a server is in one list, and each is told of everything.

Observers know nothing of each other. One that raises is named in the log once for each event, and neither the rollout
nor the others notice. What begins is told in the order of the list and what ends in reverse, so that the work of one
is no part of what the next one measures.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

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
        return _all([_tell(observer.accepted, rollout) for observer in self._observers])

    def recovered(self, rollout_id: str, server_url: str, age_seconds: float) -> RolloutWatch:
        return _all([_tell(observer.recovered, rollout_id, server_url, age_seconds) for observer in self._observers])

    def journal_operation(self, operation: str, seconds: float, failed: bool) -> None:
        for observer in self._observers:
            try:
                observer.journal_operation(operation, seconds, failed)
            except Exception:  # noqa: BLE001 - whatever is wrong with an observer, rollouts go on; here and below
                _report(observer.journal_operation)

    def journal_problem(self, problem: str | None) -> None:
        for observer in self._observers:
            _tell(observer.journal_problem, problem)

    def journal_backlog(self, amount: int, oldest_seconds: float) -> None:
        for observer in self._observers:
            _tell(observer.journal_backlog, amount, oldest_seconds)

    def trace_lacks(self, why: str) -> None:
        for observer in self._observers:
            _tell(observer.trace_lacks, why)

    def loop_lag(self, seconds: float) -> None:
        for observer in self._observers:
            _tell(observer.loop_lag, seconds)

    def loop_blocked(self, seconds: float) -> None:
        for observer in self._observers:
            _tell(observer.loop_blocked, seconds)

    async def close(self) -> None:
        for observer in self._observers:
            try:
                await observer.close()
            except Exception:  # noqa: BLE001 - as above
                _report(observer.close)


class _Chain(RolloutWatch):
    """One watch of a rollout, and those behind it in the list.

    Some twenty events a rollout come through here, so most of them are passed on without the detour by ``_tell``; and
    the usual case is one watch, whose marks are then its own, in no tuple.
    """

    __slots__ = ("_own", "_rest")

    def __init__(self, own: RolloutWatch, rest: "_Chain | None") -> None:
        self._own, self._rest = own, rest

    def agent_trace(self) -> "Trace | None":
        found = _tell(self._own.agent_trace)
        if found is not None and found is not _FAILED:
            return cast("Trace", found)
        return None if self._rest is None else self._rest.agent_trace()

    def enters(self, phase: str) -> None:
        try:
            self._own.enters(phase)
        except Exception:  # noqa: BLE001 - as above
            _report(self._own.enters)
        if self._rest is not None:
            self._rest.enters(phase)

    def agent_begins(self) -> None:
        _tell(self._own.agent_begins)
        if self._rest is not None:
            self._rest.agent_begins()

    def chat_begins(self, messages: Sequence[Any], sampling: dict[str, Any]) -> Any:
        try:
            mark = self._own.chat_begins(messages, sampling)
        except Exception:  # noqa: BLE001 - as above
            mark = _report(self._own.chat_begins)
        return mark if self._rest is None else (mark, self._rest.chat_begins(messages, sampling))

    def chat_ends(self, chat: Any, reply: Any) -> None:
        if self._rest is not None:
            chat, others = chat
            self._rest.chat_ends(others, reply)
        if chat is not _FAILED:
            try:
                self._own.chat_ends(chat, reply)
            except Exception:  # noqa: BLE001 - as above
                _report(self._own.chat_ends)

    def chat_failed(self, chat: Any, error: BaseException) -> None:
        if self._rest is not None:
            chat, others = chat
            self._rest.chat_failed(others, error)
        _tell_end(self._own.chat_failed, chat, error)

    def pause_begins(self, cause: str, problem: str, seconds: float) -> Any:
        mark = _tell(self._own.pause_begins, cause, problem, seconds)
        return mark if self._rest is None else (mark, self._rest.pause_begins(cause, problem, seconds))

    def pause_ends(self, pause: Any, seconds: float, since: float, answered: bool) -> None:
        if self._rest is not None:
            pause, others = pause
            self._rest.pause_ends(others, seconds, since, answered)
        _tell_end(self._own.pause_ends, pause, seconds, since, answered)

    def tool_begins(self, name: str, call_id: str) -> Any:
        try:
            mark = self._own.tool_begins(name, call_id)
        except Exception:  # noqa: BLE001 - as above
            mark = _report(self._own.tool_begins)
        return mark if self._rest is None else (mark, self._rest.tool_begins(name, call_id))

    def tool_ends(self, tool: Any, outcome: ToolOutcome) -> None:
        if self._rest is not None:
            tool, others = tool
            self._rest.tool_ends(others, outcome)
        _tell_end(self._own.tool_ends, tool, outcome)

    def result_made(self, encoded: bytes) -> None:
        _tell(self._own.result_made, encoded)
        if self._rest is not None:
            self._rest.result_made(encoded)

    async def flushed(self) -> None:
        try:
            await self._own.flushed()
        except Exception:  # noqa: BLE001 - as above
            _report(self._own.flushed)
        if self._rest is not None:
            await self._rest.flushed()

    def ended(self, summary: "ResultSummary", duration_seconds: float) -> None:
        _tell(self._own.ended, summary, duration_seconds)
        if self._rest is not None:
            self._rest.ended(summary, duration_seconds)

    def attempt_begins(self, attempt: int) -> Any:
        mark = _tell(self._own.attempt_begins, attempt)
        return mark if self._rest is None else (mark, self._rest.attempt_begins(attempt))

    def attempt_ends(self, mark: Any, verdict: str, error: Exception | None) -> None:
        if self._rest is not None:
            mark, others = mark
            self._rest.attempt_ends(others, verdict, error)
        _tell_end(self._own.attempt_ends, mark, verdict, error)

    def gone(self) -> None:
        _tell(self._own.gone)
        if self._rest is not None:
            self._rest.gone()


def _all(watches: list[Any]) -> RolloutWatch:
    chain: _Chain | None = None
    for watch in reversed(watches):
        if watch is not _FAILED and watch is not NO_WATCH:
            chain = _Chain(watch, chain)
    return chain or NO_WATCH


def _tell(method: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except Exception:  # noqa: BLE001 - as above
        return _report(method)


def _tell_end(method: Callable[..., Any], mark: Any, *arguments: Any) -> None:
    if mark is not _FAILED:
        _tell(method, mark, *arguments)


def _report(method: Callable[..., Any]) -> object:
    name = getattr(method, "__qualname__", repr(method))
    if name not in _reported:
        _reported.add(name)
        logger.exception("%s failed; rollouts go on, and further failures of it are not told.", name)
    return _FAILED
