"""What a table tells of a rollout, gathered event by event, so that a trace can be followed while it grows.

Nothing here keeps messages: 50,000 summaries fit into memory.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from osmosis_ai.rollout.core.alike import alike
from osmosis_ai.rollout.core.loop_blocks import LOOP_BLOCKS, known_blocks
from osmosis_ai.rollout.core.result_summary import SAMPLING_IGNORED
from osmosis_ai.rollout.core.reward_parts import REWARD_COMPONENTS, readable_components
from osmosis_ai.rollout.core.said import unwrapped
from osmosis_ai.rollout.core.text import counted, cut
from osmosis_ai.rollout.core.trace.format import TraceEvent
from osmosis_ai.rollout.core.where import MAX_PLACES
from osmosis_ai.rollout.observe.traces.facts import (
    Scalar,
    answer_of,
    digest_of,
    last_answers,
    question_of,
    scalars_of,
    weights_of,
    with_tools,
)

MAX_TEXT_CHARACTERS = 300
MAX_NAME_CHARACTERS = 300
"""Of an id, which the protocol bounds by 256, and of what is one word: an outcome, say."""
MAX_WARNINGS = 5
_LARGEST = sys.float_info.max

COMPLETED: Final = "COMPLETED"
ERROR: Final = "ERROR"
UNFINISHED: Final = "UNFINISHED"
"""There is no result: the rollout runs, or its server was killed."""


@dataclass(slots=True)
class Summary:
    """One rollout. Times are unix seconds; ``None`` is what its trace does not tell."""

    file: str
    """Empty once another file lies there, without it."""
    start: int
    """Offset of its first line in ``file``."""
    end: int
    """Offset behind its last line so far."""
    rollout_id: str = ""
    agent: str | None = None
    started_at: float | None = None
    last_at: float | None = None
    status: Literal["COMPLETED", "ERROR", "UNFINISHED"] = UNFINISHED
    outcome: str | None = None
    finish_reason: str | None = None
    reward: float | None = None
    components: dict[str, float] | None = None
    """What the reward is made of, by name."""
    error: str | None = None
    """Why it failed, or what went wrong last while it has no result."""
    where: str | None = None
    """Where in the agent's code it failed, a line a frame, the innermost first; below it a hint, if there is one."""
    turns: int = 0
    tool_calls: int = 0
    tool_errors: int = 0
    prompt_tokens: int = 0
    response_tokens: int = 0
    queue_ms: float | None = None
    llm_ms: float = 0.0
    tool_ms: float = 0.0
    duration_ms: float | None = None
    delivery: str | None = None
    prompt: str = ""
    """How the last message of the init begins."""
    answer: str = ""
    """The last line of what the model said last, if the conversation ends with that."""
    warnings: list[str] = field(default_factory=list)
    """What the agent did that it should not, and yet ended: at most ``MAX_WARNINGS``, each told once."""
    metadata: dict[str, Scalar] = field(default_factory=dict)
    """The scalar values of the init's metadata."""
    digest: str = ""
    """Of the init's messages: rollouts of one prompt have the same."""
    question: str = ""
    """Of what the dataset asked, whatever the system prompt: tells one dataset's row from the same row of another."""
    weights: list[str] = field(default_factory=list)
    """The versions of the weights that answered, in the order of their first reply."""
    asked: int = 0
    """How many messages the init had."""
    failed_ms: float = 0.0
    """Of ``llm_ms``, what calls took that failed."""
    tool_text: str = ""
    """What tools were called with and said, as far as it is searched, in lower case."""
    knows_calls: bool = False
    version: int = 0
    """Raised by the index with each change."""
    run: str = ""
    """Its folder, as seen from the one that is indexed."""

    @property
    def kind(self) -> str | None:
        """What failures that are one have in common."""
        return None if self.error is None else alike(self.error)

    @property
    def is_settled(self) -> bool:
        """Whether its trainer has the result, so that nothing more is to come."""
        return self.delivery in ("acknowledged", "refused")

    def become(self, other: "Summary") -> None:
        """Take over all that is known of ``other``, but for when it was read."""
        version = self.version
        for one in fields(self):
            setattr(self, one.name, getattr(other, one.name))
        self.version = version

    def add(self, event: Mapping[str, Any], end: int) -> None:
        """Take in the next event, whose line ends at ``end``."""
        self.end = end
        at = _number(event.get("time"))
        if at is not None:
            self.started_at = self.started_at if self.started_at is not None else at
            self.last_at = at
        self.rollout_id = self.rollout_id or _name(event.get("rollout_id")) or ""
        handler = _HANDLERS.get(event["event"])
        if handler is not None:
            handler(self, event)


def _on_start(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.agent = _name(event.get("agent"))
    request = _object(event.get("request"))
    messages = request.get("messages")
    if isinstance(messages, list) and messages:
        summary.prompt = _short(_content(messages[-1]))
        summary.asked = len(messages)
        summary.digest = digest_of(messages)
        summary.question = question_of(messages, request.get("metadata"))
    summary.metadata = scalars_of(request.get("metadata"))


def _on_run_start(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.queue_ms = _number(event.get("queue_ms"))


def _on_chat_start(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.knows_calls = True
    if event.get("at"):
        summary.tool_text = with_tools(summary.tool_text, event.get("appended"))


def _on_chat_end(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.knows_calls = True
    took = _number(event.get("latency_ms")) or 0.0
    summary.llm_ms += took
    if (error := _text(event.get("error"))) is not None:
        summary.failed_ms += took
        summary.error = _failure(error)
        return
    summary.error = None
    summary.turns += 1
    usage = _object(event.get("usage"))
    summary.prompt_tokens += _count(usage.get("prompt_tokens"))
    summary.response_tokens += _count(usage.get("completion_tokens"))
    reply = _object(event.get("reply"))
    calls = reply.get("tool_calls")
    if isinstance(calls, list) and calls:
        summary.tool_calls += len(calls)
        summary.tool_text = with_tools(summary.tool_text, [reply])
    if "weight_versions" in event:
        summary.weights = weights_of(summary.weights, event)


def _on_tool_call(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.tool_ms += _number(event.get("latency_ms")) or 0.0
    summary.tool_errors += event.get("outcome") != "ok"


def _on_rewritten(summary: Summary, event: Mapping[str, Any]) -> None:
    _warn(summary, _text(event.get("problem")) or "messages were rewritten")


def _on_loop_blocked(summary: Summary, event: Mapping[str, Any]) -> None:
    _warn_of_blocks(summary, [event])


def _on_llm_response(summary: Summary, event: Mapping[str, Any]) -> None:
    """An event of the example agent's: all there is to know of a run without a server."""
    if not summary.knows_calls:
        summary.turns += 1
        summary.llm_ms += _number(event.get("latency_ms")) or 0.0
        calls = event.get("tool_calls")  # older traces have only their number
        summary.tool_calls += len(calls) if isinstance(calls, list) else _count(event.get("num_tool_calls"))


def _on_tool_results(summary: Summary, event: Mapping[str, Any]) -> None:
    if not summary.knows_calls:
        summary.tool_ms += _number(event.get("latency_ms")) or 0.0


def _on_complete(summary: Summary, event: Mapping[str, Any]) -> None:
    """As ``_on_llm_response``; on a server ``rollout_result`` has the last word."""
    if summary.knows_calls:
        return
    summary.status, summary.outcome = COMPLETED, "success"
    _take_reward(summary, event.get("reward"))
    summary.finish_reason = _name(event.get("finish_reason"))
    if summary.started_at is not None and summary.last_at is not None:
        summary.duration_ms = max(0.0, (summary.last_at - summary.started_at) * 1000)
    messages = event.get("final_messages")
    summary.tool_text = with_tools("", messages)
    summary.answer = _answer(messages)
    asked = [m for m in messages if _object(m).get("role") == "user"] if isinstance(messages, list) else []
    summary.prompt = summary.prompt or (_short(_content(asked[0])) if asked else "")


def _on_error(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.error = _failure(_text(event.get("error")) or "")
    summary.where = _places(event)
    if not summary.knows_calls and summary.agent is None:
        summary.status, summary.outcome = ERROR, "agent_error"


def _on_result(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.status = COMPLETED if event.get("status") == COMPLETED else ERROR
    summary.finish_reason = _name(event.get("finish_reason"))
    _take_reward(summary, event.get("reward"))
    error = _text(event.get("error_message"))
    summary.error = _failure(error) if error is not None else None
    messages = event.get("final_messages")
    summary.answer = _answer(messages)
    if not summary.knows_calls:
        summary.tool_text = with_tools("", messages)
    elif _has_all_messages(event):
        summary.tool_text = with_tools("", event["final_messages"][summary.asked :])
    else:
        summary.tool_text = with_tools(summary.tool_text, last_answers(messages))
    extra = _object(event.get("extra_fields"))
    summary.outcome = _name(extra.get("outcome"))
    given = _object(extra.get(REWARD_COMPONENTS))
    summary.components = (readable_components(given) or None) if given else None
    if others := len(given) - len(summary.components or ()):
        what = f"{counted(others, 'part')} of its reward {'is' if others == 1 else 'are'} no finite number"
        _warn(summary, f"{what}, and {'is' if others == 1 else 'are'} left out.")
    summary.where = _places(extra)
    rewritten = extra.get("messages_rewritten")
    for text in rewritten if isinstance(rewritten, list) else ():
        _warn(summary, str(text))
    _warn_of_blocks(summary, extra.get(LOOP_BLOCKS))
    ignored = extra.get(SAMPLING_IGNORED)
    if isinstance(ignored, list) and ignored:
        names = ", ".join(map(str, ignored))
        _warn(summary, f"a chat call ignored the request's {names}: pass **ctx.request.completion_params.")
    metrics = _object(event.get("metrics"))
    if metrics:
        summary.turns = _count(metrics.get("num_llm_calls")) or summary.turns
        summary.tool_calls = _count(metrics.get("num_tool_calls")) or summary.tool_calls
        summary.prompt_tokens = _count(metrics.get("prompt_tokens"))
        summary.response_tokens = _count(metrics.get("response_tokens"))
        # The metrics leave out the calls that failed.
        if took := _number(metrics.get("llm_latency_ms")):
            summary.llm_ms = took + summary.failed_ms
        summary.tool_ms = _number(metrics.get("tool_latency_ms")) or summary.tool_ms
    if summary.started_at is not None and summary.last_at is not None:
        summary.duration_ms = max(0.0, (summary.last_at - summary.started_at) * 1000)


def tells_all(result: Mapping[str, Any]) -> bool:
    """Whether a result has again all that a summary takes from the calls before it which were answered."""
    metrics = result.get("metrics")
    return (
        _has_all_messages(result)
        and isinstance(metrics, dict)
        and all(map(_number, map(metrics.get, _OF_CALLS)))
        and _number(result.get("time")) is not None
    )


def _has_all_messages(result: Mapping[str, Any]) -> bool:
    return (
        result.get("status") == COMPLETED
        and isinstance(result.get("final_messages"), list)
        and not _object(result.get("extra_fields")).get("messages_rewritten")
    )


_OF_CALLS = ("num_llm_calls", "num_tool_calls", "llm_latency_ms", "tool_latency_ms")


def _take_reward(summary: Summary, given: object) -> None:
    summary.reward = _number(given)
    if summary.reward is None and given is not None:
        _warn(summary, "its reward is no finite number, and is left out.")


def _warn(summary: Summary, text: str) -> None:
    text = _short(text)
    if text not in summary.warnings and len(summary.warnings) < MAX_WARNINGS:
        summary.warnings.append(text)


def _warn_of_blocks(summary: Summary, blocks: object) -> None:
    for block in known_blocks({LOOP_BLOCKS: blocks}):
        _warn(
            summary,
            f"the event loop was blocked at {block['place']}, and every rollout with it; use asyncio.to_thread.",
        )


def _on_delivery(summary: Summary, event: Mapping[str, Any]) -> None:
    summary.delivery = _name(event.get("verdict"))


_HANDLERS = {
    TraceEvent.TRACE_START.value: _on_start,
    TraceEvent.RUN_START.value: _on_run_start,
    TraceEvent.CHAT_START.value: _on_chat_start,
    TraceEvent.CHAT_END.value: _on_chat_end,
    TraceEvent.TOOL_CALL.value: _on_tool_call,
    TraceEvent.MESSAGES_REWRITTEN.value: _on_rewritten,
    TraceEvent.LOOP_BLOCKED.value: _on_loop_blocked,
    TraceEvent.ROLLOUT_ERROR.value: _on_error,
    TraceEvent.ROLLOUT_RESULT.value: _on_result,
    TraceEvent.DELIVERY.value: _on_delivery,
    "llm_response": _on_llm_response,
    "tool_results": _on_tool_results,
    "rollout_complete": _on_complete,
}
CONCERNING = frozenset(_HANDLERS)
"""The events that a summary is made of."""


def _places(told: Mapping[str, Any]) -> str | None:
    where, hint = told.get("where"), _text(told.get("hint"))
    places = [f"at {place}" for place in where if isinstance(place, str)] if isinstance(where, list) else []
    lines = [*places[:MAX_PLACES], *([f"hint: {hint}"] if hint else [])]
    return cut("\n".join(lines), MAX_PLACES * MAX_TEXT_CHARACTERS) or None


def _content(message: Any) -> str:
    content = _object(message).get("content")
    if isinstance(content, list):  # parts, as in the multimodal form
        return " ".join(text for part in content if isinstance(text := _object(part).get("text"), str))
    return content if isinstance(content, str) else ""


def _answer(messages: object) -> str:
    last = messages[-1] if isinstance(messages, list) and messages else None
    return answer_of(_content(last)) if _object(last).get("role") == "assistant" else ""


def _failure(text: str) -> str:
    return _short(unwrapped(text))


def _short(text: str) -> str:
    return cut(text, MAX_TEXT_CHARACTERS)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: object) -> str | None:
    return cut(value, MAX_NAME_CHARACTERS) if isinstance(value, str) else None


def _number(value: object) -> float | None:
    if type(value) is float:  # nearly always
        return value if abs(value) <= _LARGEST else None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0
