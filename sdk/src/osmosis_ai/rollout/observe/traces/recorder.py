"""What the server itself puts into traces, so that every agent's rollouts can be read back whole.

A message is written once, when it is first sent: an event holds what was added to the conversation, not the
conversation.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.jsonable import copy_json
from osmosis_ai.rollout.core.sampled import said_of
from osmosis_ai.rollout.core.text import described, text_of
from osmosis_ai.rollout.core.trace.format import TRACE_VERSION, TraceEvent
from osmosis_ai.rollout.core.trace.lines import encoded_message, line_of_json, line_of_sdk
from osmosis_ai.rollout.core.watch import Accepted, Observer, RolloutWatch, ToolOutcome
from osmosis_ai.rollout.observe.redaction import redacted
from osmosis_ai.rollout.observe.traces.buffer import BufferedTrace

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import Trace
    from osmosis_ai.rollout.core.schemas import RolloutRequest

HIDDEN = "[hidden]"
MAX_ERROR_CHARACTERS = 2000

_SECRET_NAME = re.compile(
    r"api[-_]?key|authori[sz]ation|passw(or)?d|secret|(access|auth|bearer|refresh)[-_]?token", re.I
)

MAX_PLAIN_NAMES = 1000
MAX_PLAIN_NAME_CHARACTERS = 64
_plain_names: set[str] = set()
"""Of fields seen before, which are no secret's: each rollout comes with the same ones, four times."""
_FLAT = frozenset({str, int, float, bool, type(None), list})


class TraceRecorder(Observer):
    """Traces the rollouts of one app, each to a file in ``directory``.

    Args:
        on_lack: told why a trace is not whole, a ``TraceLack``, once for each; from any thread.
    """

    def __init__(self, directory: str, agent_name: str, on_lack: Callable[[str], None] | None = None) -> None:
        self._directory = directory
        self._agent_name = agent_name
        self._on_lack = on_lack

    def accepted(self, rollout: Accepted) -> RolloutWatch:
        return RecordedRollout(self._directory, self._agent_name, rollout, self._on_lack)


class RecordedRollout(RolloutWatch):
    """One rollout that is traced."""

    __slots__ = ("_accepted", "_chats", "_known", "_reply", "_sampling", "_trace", "_turn")

    def __init__(
        self, directory: str, agent: str, rollout: Accepted, on_lack: Callable[[str], None] | None = None
    ) -> None:
        self._trace = _AgentTrace(directory, rollout.rollout_id, self, on_lack)
        self._accepted = time.perf_counter()
        self._chats = 0
        self._turn = 0
        self._known = 0
        self._reply: bytes | None = None
        self._sampling: dict[str, Any] | None = None
        request = rollout.request
        assert request is not None  # noqa: S101 - only recovered rollouts have none
        fields = start_of_trace(agent, request)
        try:
            # The tools are in the reply as JSON already: spliced in, not encoded again.
            rollout_id, tools = rollout.init_reply.split(b',"tools":', 1)
            start = b'%b,%b,"tools":%b' % (rollout_id, to_json(fields, inf_nan_mode="strings")[1:-1], tools)
        except Exception:  # noqa: BLE001 - get_tools was given the request, and may have put anything into it
            self._add(TraceEvent.TRACE_START, **fields)
        else:
            self._trace.add(line_of_json(TraceEvent.TRACE_START, rollout.rollout_id, start))

    def agent_trace(self) -> "Trace | None":
        return self._trace

    def _add(self, event: TraceEvent, **data: Any) -> None:
        self._trace.add(line_of_sdk(event, self._trace.rollout_id, data))

    def rewritten(self) -> None:
        """The agent changed what it had sent: the next chat call is written whole."""
        self._known = 0
        self._reply = None

    def result_made(self, encoded: bytes) -> None:
        self._trace.add(line_of_json(TraceEvent.ROLLOUT_RESULT, self._trace.rollout_id, encoded))
        # The journal commits meanwhile, and the delivery waits for both.
        self._trace.hurry()

    async def flushed(self) -> None:
        await self._trace.flushed()

    def enters(self, phase: str) -> None:
        if phase == "running":
            self._add(TraceEvent.RUN_START, queue_ms=_ms_since(self._accepted))

    def chat_begins(self, messages: Sequence[Any], sampling: dict[str, Any]) -> Any:
        self._chats += 1
        known, reply = self._known, self._reply
        # An agent that appends the reply as it came: `chat_end` has it, so it is not written twice.
        if reply is not None and known < len(messages) and encoded_message(messages[known]) == reply:
            known += 1
        data: dict[str, Any] = {"turn": self._chats, "at": known, "appended": list(messages[known:])}
        self._known, self._reply = len(messages), None
        if sampling != self._sampling:
            self._sampling = copy_json(sampling)  # a copy: the agent may change a list that it passes each time
            data["sampling"] = without_secrets(sampling)
        self._add(TraceEvent.CHAT_START, **data)
        return self._chats, time.perf_counter()

    def chat_ends(self, chat: Any, reply: Any) -> None:
        turn, started = chat
        latency_ms = _ms_since(started)
        message = getattr(reply, "message", None)
        # Calls may overlap: only the newest can be what the next call goes on from.
        if turn == self._chats:
            self._turn = turn
            self._reply = encoded_message(message)
        self._add(
            TraceEvent.CHAT_END,
            turn=turn,
            reply=message,
            finish_reason=getattr(reply, "finish_reason", None),
            usage=getattr(reply, "usage", None),
            latency_ms=latency_ms,
            **said_of(reply),
        )

    def chat_failed(self, chat: Any, error: BaseException) -> None:
        turn, started = chat
        self._add(TraceEvent.CHAT_END, turn=turn, error=_text_of(error), latency_ms=_ms_since(started))

    def pause_begins(self, cause: str, problem: str, seconds: float) -> Any:
        problem = redacted(problem)[:MAX_ERROR_CHARACTERS]
        self._add(TraceEvent.PAUSE_START, turn=self._chats, cause=str(cause), problem=problem)
        return self._chats

    def pause_ends(self, pause: Any, seconds: float, since: float, answered: bool) -> None:
        self._add(TraceEvent.PAUSE_END, turn=pause, answered=answered, pause_ms=_ms(seconds), ago_ms=_ms(since))

    def tool_begins(self, name: str, call_id: str) -> Any:
        return name, call_id, self._turn, time.perf_counter()

    def tool_ends(self, tool: Any, outcome: ToolOutcome) -> None:
        name, call_id, turn, started = tool
        self._add(
            TraceEvent.TOOL_CALL,
            turn=turn,
            name=name,
            tool_call_id=call_id,
            outcome=outcome.value,
            latency_ms=_ms_since(started),
        )

    def attempt_begins(self, attempt: int) -> Any:
        return attempt, time.perf_counter()

    def attempt_ends(self, mark: Any, verdict: str, error: Exception | None) -> None:
        attempt, started = mark
        latency_ms = _ms_since(started)
        data: dict[str, Any] = {"attempt": attempt, "verdict": str(verdict)}
        if error is not None:
            data["error"] = _text_of(error)
        self._add(TraceEvent.DELIVERY, **data, latency_ms=latency_ms)


class _AgentTrace(BufferedTrace):
    """The trace as the agent's context has it."""

    def __init__(
        self, directory: str, rollout_id: str, rollout: RecordedRollout, on_lack: Callable[[str], None] | None
    ) -> None:
        super().__init__(directory, rollout_id, on_lack)
        self._rollout = rollout

    def write(self, event_type: str, data: dict[str, Any]) -> None:
        if event_type == TraceEvent.MESSAGES_REWRITTEN:
            self._rollout.rewritten()
        super().write(event_type, data)


def start_of_trace(agent: str, request: "RolloutRequest") -> dict[str, Any]:
    """The fields of a ``trace_start``, but for the tools."""
    return {
        "v": TRACE_VERSION,
        "sdk_version": PACKAGE_VERSION,
        "agent": agent,
        "request": {
            "messages": request.messages,
            "completion_params": without_secrets(request.completion_params),
            "max_turns": request.max_turns,
            "max_tokens_total": request.max_tokens_total,
            "metadata": without_secrets(request.metadata),
            "server_url": request.server_url,
            "idempotency_key": request.idempotency_key,
            "tool_server_url": request.tool_server_url,
        },
    }


def without_secrets(fields: Any) -> Any:
    """``fields`` with the values hidden that go by a name such as ``api_key``."""
    if isinstance(fields, dict):
        if _plain_names.issuperset(fields) and _FLAT.issuperset(map(type, fields.values())):
            return fields
        if len(_plain_names) < MAX_PLAIN_NAMES:
            _plain_names.update(
                key
                for key in fields
                if isinstance(key, str) and len(key) <= MAX_PLAIN_NAME_CHARACTERS and not _SECRET_NAME.fullmatch(key)
            )
        return {
            key: HIDDEN if isinstance(key, str) and _SECRET_NAME.fullmatch(key) else without_secrets(value)
            for key, value in fields.items()
        }
    return fields


def _text_of(error: BaseException) -> str:
    return redacted(described(error, text_of(error, "")))[:MAX_ERROR_CHARACTERS]


def _ms_since(started: float) -> float:
    return _ms(time.perf_counter() - started)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
