"""The events of a server, for whoever observes it: what happens is told here, and nothing else is.

An ``Observer`` is told of an app, and gives a ``RolloutWatch`` for each accepted rollout. Both base classes do nothing:
an observer overrides what it cares about. Every method is called on the event loop and takes microseconds. A
``*_begins`` gives back a mark, which its ``*_ends`` gets, so that calls of one rollout may overlap.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.chat_watch import ChatWatch, Trace
from osmosis_ai.rollout.core.messages import field_of
from osmosis_ai.rollout.core.tracecontext import TraceContext

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.result_summary import ResultSummary
    from osmosis_ai.rollout.core.schemas import RolloutRequest


class Phase(StrEnum):
    """Where a rollout of this process stands."""

    QUEUED = "queued"
    RUNNING = "running"
    RECORDING = "recording"
    DELIVERING = "delivering"


class Verdict(StrEnum):
    """How a delivery stands."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNANSWERED = "unanswered"


class ToolOutcome(StrEnum):
    """How one tool call ended."""

    OK = "ok"
    ERROR = "error"
    """It raised, or answered with an error message (``create_tool_error_result``)."""
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class PauseCause(StrEnum):
    """Why a chat call waits for its trainer."""

    REFUSED = "refused"
    """429, 502, 503, 504, or a proxy's 404."""
    UNREACHABLE = "unreachable"
    """Nobody takes the connection."""
    ABORTED = "aborted"
    """The engine aborted the reply."""


@dataclass(slots=True)
class Accepted:
    """A rollout whose 202 is about to leave."""

    rollout_id: str
    server_url: str
    tools: Sequence[Any]
    """What the agent offers: models, or dicts of the same shape."""
    trace: TraceContext | None = None
    """What came with the init."""
    request: "RolloutRequest | None" = None
    """The agent's, which may change it as soon as it runs."""
    init_reply: bytes = b""
    """The body of the 202: ``rollout_id`` and ``tools``."""


class RolloutWatch(ChatWatch):
    """One rollout, from its 202 to the end of its delivery in this process."""

    __slots__ = ()

    def agent_trace(self) -> Trace | None:
        """Where the events go that the agent logs; ``None`` if this one does not keep them."""

    def enters(self, phase: str) -> None:
        """It is now in ``phase``, a ``Phase``."""

    def agent_begins(self) -> None:
        """Called in the task of the agent, before ``run``."""

    def tool_begins(self, name: str, call_id: str) -> Any:
        """The tool ``name`` (whatever the model wrote) is about to be called, in the current task."""

    def tool_ends(self, tool: Any, outcome: ToolOutcome) -> None:
        """The call has ended."""

    def result_made(self, encoded: bytes) -> None:
        """It has its result, ``encoded`` as its trainer will get it; the journal does not have it yet."""

    async def flushed(self) -> None:
        """Wait a bounded time for what must be written before the result goes out."""

    def ended(self, summary: "ResultSummary", duration_seconds: float) -> None:
        """Its result is on record, and came ``duration_seconds`` after the init was accepted."""

    def attempt_begins(self, attempt: int) -> Any:
        """The result is about to be posted in the current task, for the ``attempt``-th time, from 1."""

    def attempt_ends(self, mark: Any, verdict: str, error: Exception | None) -> None:
        """The trainer's answer, a ``Verdict``."""

    def gone(self) -> None:
        """This process has nothing more to do with it."""


class Observer:
    """The rollouts of one app."""

    def init_refused(self, reason: str) -> None:
        """An init was refused; ``reason`` is the ``code`` of the answer, or what stands for it."""

    def init_repeated(self) -> None:
        """An init was answered from memory or from the journal."""

    def accepted(self, rollout: Accepted) -> RolloutWatch:
        """A rollout is accepted, and enters the phase ``queued``."""
        return NO_WATCH

    def recovered(self, rollout_id: str, server_url: str, age_seconds: float) -> RolloutWatch:
        """A result that an earlier process owed is delivered here; it enters the phase ``delivering``."""
        return NO_WATCH

    def journal_operation(self, operation: str, seconds: float, failed: bool) -> None:
        """The journal has done ``operation``, a method of ``Journal``; it took ``seconds``, the wait included."""

    def journal_problem(self, problem: str | None) -> None:
        """Nothing can be put on record, for a reason; ``None``: it can again. May come from any thread."""

    def journal_backlog(self, amount: int, oldest_seconds: float) -> None:
        """So many rollouts of all replicas have no result yet, the oldest for so long. May come from any thread."""

    def trace_lacks(self, why: str) -> None:
        """A trace is not whole, a ``TraceLack``; told once for each trace. May come from any thread."""

    def loop_lag(self, seconds: float) -> None:
        """The event loop called back ``seconds`` later than asked."""

    def loop_blocked(self, seconds: float) -> None:
        """The event loop has been blocked for ``seconds``, and still is; comes once a spell, from another thread."""

    async def close(self) -> None:
        """Send what is not sent yet; waits a bounded time."""


NO_WATCH = RolloutWatch()
CURRENT_WATCH: ContextVar[RolloutWatch] = ContextVar("CURRENT_WATCH", default=NO_WATCH)
"""The rollout that the current task works for."""


@dataclass(slots=True)
class ToolCall:
    """A tool call being watched; ``outcome`` may be set before it ends."""

    outcome: ToolOutcome = ToolOutcome.OK


@contextmanager
def watched_tool_call(name: str, call_id: str = "") -> Iterator[ToolCall]:
    """Measure a tool call of the current rollout, under ``name``; an exception counts as ``error``.

    ``execute_tool_calls`` does this for every call. Where an agent calls tools in another way, it can do the same.
    """
    watch = CURRENT_WATCH.get()
    mark = watch.tool_begins(name, call_id)
    call = ToolCall()
    try:
        yield call
    except asyncio.CancelledError:
        call.outcome = ToolOutcome.CANCELLED
        raise
    except BaseException:
        if call.outcome is ToolOutcome.OK:
            call.outcome = ToolOutcome.ERROR
        raise
    finally:
        watch.tool_ends(mark, call.outcome)


def names_of(tools: Sequence[Any]) -> frozenset[str]:
    """The names of tools as an agent gave them: models, or dicts of the same shape."""
    names = (field_of(field_of(tool, "function"), "name") for tool in tools)
    return frozenset(name for name in names if isinstance(name, str))
