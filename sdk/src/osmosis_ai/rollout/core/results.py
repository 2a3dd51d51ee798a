"""Terminal results: from what an agent returned or raised to the one payload the trainer gets.

A result is made once, encoded at that moment as a ``RolloutResponse`` in strict JSON, and never changes afterwards.
Its ``extra_fields.outcome`` says what kind of end it was; only ``success`` may carry a reward.
"""

import inspect
import json
import math
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from osmosis_ai.rollout.core.base import RolloutContext, RolloutResult
from osmosis_ai.rollout.core.exceptions import OsmosisRolloutError, RewardError, ToolExecutionError
from osmosis_ai.rollout.core.jsonable import is_strict_json, plain, strict_json, with_short_texts
from osmosis_ai.rollout.core.loop_blocks import LOOP_BLOCKS, blocks_of
from osmosis_ai.rollout.core.result_summary import SAMPLING_IGNORED, ResultSummary as ResultSummary
from osmosis_ai.rollout.core.reward_functions import FAILED_REWARD_FUNCTION
from osmosis_ai.rollout.core.reward_parts import REWARD_COMPONENTS, checked_components
from osmosis_ai.rollout.core.schemas import MessageDict, RolloutMetrics, RolloutStatus
from osmosis_ai.rollout.core.slips import hint_of_value, told_of
from osmosis_ai.rollout.core.text import cut, described, encodable, fitted
from osmosis_ai.rollout.core.where import place_of_function

MAX_ERROR_MESSAGE_LENGTH = 2000
_SHORTENED_TEXT_LENGTHS = (100_000, 10_000, 1_000, 100)


class Outcome(StrEnum):
    """What kind of end a rollout came to (``extra_fields.outcome``)."""

    SUCCESS = "success"
    AGENT_ERROR = "agent_error"
    LLM_ERROR = "llm_error"
    TOOL_ERROR = "tool_error"
    REWARD_ERROR = "reward_error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    INVALID_RESULT = "invalid_result"


@dataclass(frozen=True)
class TerminalResult:
    """The one result of a rollout; ``encoded`` is the JSON body for the trainer."""

    encoded: bytes
    known_summary: ResultSummary | None = field(default=None, repr=False, compare=False)
    """Spares ``summary`` the decoding."""

    def within(self, max_bytes: int) -> "TerminalResult":
        """This result if it has at most ``max_bytes``, else an ERROR that says so, with the messages shortened."""
        if len(self.encoded) <= max_bytes:
            return self
        fields = self.payload
        message = f"invalid result: its {len(self.encoded)} bytes exceed the limit of {max_bytes} bytes"
        fields.update(status=RolloutStatus.ERROR.value, finish_reason="error", error_message=message)
        fields.pop("reward", None)
        fields["extra_fields"] = {"outcome": Outcome.INVALID_RESULT.value, "messages_shortened": True}
        whole = fields["final_messages"]
        for characters in _SHORTENED_TEXT_LENGTHS:
            fields["final_messages"] = with_short_texts(whole, characters)
            encoded = strict_json(fields)
            if len(encoded) <= max_bytes:
                return TerminalResult(encoded)
        return TerminalResult(strict_json({**fields, "final_messages": []}))

    @property
    def summary(self) -> ResultSummary:
        """Status, finish reason, outcome, reward and error message."""
        return self.known_summary or summary_of(self.payload)

    @property
    def payload(self) -> dict[str, Any]:
        """The body, decoded; a new object each time."""
        decoded: dict[str, Any] = json.loads(self.encoded)
        return decoded


@dataclass(frozen=True)
class StopReason:
    """Why the server, not the agent, ended a rollout."""

    outcome: Outcome
    message: str
    finish_reason: str = "error"


class Stop(Enum):
    """The reasons for which a server stops a rollout."""

    CANCELLED = StopReason(Outcome.CANCELLED, "cancelled on request", "cancelled")
    SHUTDOWN = StopReason(Outcome.INTERRUPTED, "server shutting down")
    RESTART = StopReason(Outcome.INTERRUPTED, "interrupted by a server restart")
    LEASE_EXPIRED = StopReason(
        Outcome.CANCELLED, "the polling lease expired: nobody asked for the result", "lease_expired"
    )


def time_limit(seconds: float) -> StopReason:
    """The reason for a rollout that ran over its wall-clock limit of ``seconds``."""
    return StopReason(Outcome.TIMEOUT, f"the rollout exceeded its time limit of {seconds:g} s")


GRADER_TIMEOUT = "grader_timeout"
"""Finish reason of a rollout whose rewards took too long."""


def grader_limit(seconds: float) -> StopReason:
    """The reason for a rollout whose reward functions and judges took more than ``seconds``."""
    return StopReason(Outcome.TIMEOUT, f"grading exceeded its time limit of {seconds:g} s", GRADER_TIMEOUT)


def tool_turn_limit(seconds: float) -> StopReason:
    """The reason for a rollout that spent more than ``seconds`` between a reply of the policy and its next call."""
    return StopReason(Outcome.TIMEOUT, f"a tool turn exceeded its time limit of {seconds:g} s")


def forgotten(error: Exception) -> StopReason:
    """The reason for a rollout that its trainer no longer knows, as ``error`` told."""
    return StopReason(Outcome.LLM_ERROR, f"the trainer no longer knows the rollout: {error}")


def result_of_return(rollout_id: str, ctx: RolloutContext, result: Any, run: Any = None) -> TerminalResult:
    """The result for what ``run`` returned; nonsense becomes an ERROR that says why and keeps the messages."""
    if not isinstance(result, RolloutResult):
        problem = f"the agent returned {type(result).__name__}, not a RolloutResult"
        told = {**_written_at(run), "hint": "end run with 'return ctx.complete(messages, reward=...)'."}
        return result_of_stop(
            rollout_id, ctx, StopReason(Outcome.INVALID_RESULT, f"invalid result: {problem}"), told=told
        )
    messages = result.final_messages
    if misfit := problem_of(result):
        return _invalid(rollout_id, ctx, misfit, None if misfit.field == _MESSAGES else messages, run)
    completed = result.status == RolloutStatus.COMPLETED
    extra_fields = {**result.extra_fields}
    if REWARD_COMPONENTS in extra_fields:
        # Where a failure has no reward, it has no parts of one.
        components = extra_fields.pop(REWARD_COMPONENTS)
        if completed:
            try:
                extra_fields[REWARD_COMPONENTS] = checked_components(components)
            except RewardError as error:
                return _invalid(rollout_id, ctx, str(error).rstrip("."), messages, run)
    outcome = Outcome.SUCCESS if completed else (outcome_of(ctx.transcript.error) or Outcome.AGENT_ERROR)
    fields = _payload(
        rollout_id,
        RolloutStatus(result.status),
        messages,
        result.finish_reason,
        error_message=result.error_message,
        reward=float(result.reward) if completed and result.reward is not None else None,
        metrics=result.metrics,
        extra_fields={**extra_fields, "outcome": outcome.value, **_noted(ctx, messages)},
    )
    try:
        return TerminalResult(_encode_around(fields, ctx.transcript.encoded_result(messages)), summary_of(fields))
    # Found by encoding: a check beforehand would cost every result a second pass.
    except (TypeError, ValueError, RecursionError):
        return _invalid(rollout_id, ctx, f"{_culprit(fields)} cannot be written as JSON", messages, run)


def result_of_exception(rollout_id: str, ctx: RolloutContext, error: BaseException, run: Any = None) -> TerminalResult:
    """The result for an exception that escaped from ``run``."""
    # A framework raises an error of its own for a chat call that failed.
    outcome = outcome_of(error) or outcome_of(ctx.transcript.error) or Outcome.AGENT_ERROR
    return result_of_stop(rollout_id, ctx, StopReason(outcome, described(error)), told=told_of(error, run))


def result_of_stop(
    rollout_id: str,
    ctx: RolloutContext,
    reason: StopReason,
    messages: list[MessageDict] | None = None,
    told: dict[str, Any] | None = None,
) -> TerminalResult:
    """The result for a rollout that ended for ``reason``, with ``messages`` or what is known of its conversation.

    ``told``: fields of ``extra_fields`` that say where it happened.
    """
    known = ctx.transcript.messages() if messages is None else messages
    return _error_result(rollout_id, reason, known, ctx.metrics_so_far(), {**(told or {}), **_noted(ctx, known)})


def result_without_run(
    rollout_id: str, reason: StopReason, messages: list[MessageDict] | None = None
) -> TerminalResult:
    """The result for a rollout that this process never ran: stopped while queued, or cut off before a restart."""
    return _error_result(rollout_id, reason, messages or [], RolloutMetrics(), {})


def without_messages(encoded: bytes) -> bytes | None:
    """The result ``encoded`` without its messages, for a trainer that refuses them; ``None`` if it has none.

    Always the same bytes for the same result, as they are derived anew by each process that sends them.

    Raises:
        ValueError, LookupError, TypeError, RecursionError: it is no result.
    """
    fields = json.loads(encoded)
    if not fields["final_messages"]:
        return None
    fields["final_messages"] = []
    fields["extra_fields"]["messages_refused"] = True
    return strict_json(fields)


def outcome_of(error: BaseException | None) -> Outcome | None:
    """The outcome an error stands for, itself or through its causes; ``None`` where it is not one of ours."""
    # A chain of causes may lead back to itself.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if hasattr(error, FAILED_REWARD_FUNCTION) or isinstance(error, RewardError):
            return Outcome.REWARD_ERROR
        if isinstance(error, ToolExecutionError):
            return Outcome.TOOL_ERROR
        if isinstance(error, OsmosisRolloutError):
            return Outcome.LLM_ERROR
        error = error.__cause__ or error.__context__
    return None


def _noted(ctx: RolloutContext, final_messages: list[MessageDict]) -> dict[str, Any]:
    """What the agent did that it should not, and yet ended."""
    ctx.tell_of_rewrite(ctx.transcript.check(final_messages))
    noted = (
        ("messages_rewritten", ctx.transcript.rewritten),
        (SAMPLING_IGNORED, ctx.sampling_ignored),
        (LOOP_BLOCKS, ctx.loop_blocks and blocks_of(ctx)),
    )
    return {name: value for name, value in noted if value}


_STATUSES = tuple(RolloutStatus)
_FIELDS = {
    "finish_reason": (str, "text"),
    "error_message": (str | None, "text"),
    "metrics": (RolloutMetrics | None, "RolloutMetrics"),
    "extra_fields": (dict, "an object"),
}


_MESSAGES = "final_messages"


class Misfit(str):
    """Why a result is unfit for the wire, in a sentence: in which ``field``, and a ``hint`` where one is known."""

    __slots__ = ("field", "hint")

    field: str
    hint: str | None

    def __new__(cls, sentence: str, field: str, hint: str | None = None) -> "Misfit":
        """The sentence about ``field``."""
        misfit = super().__new__(cls, sentence)
        misfit.field, misfit.hint = field, hint
        return misfit


def problem_of(result: RolloutResult) -> Misfit | None:
    """What makes ``result`` unfit for the wire; ``None`` if nothing does but what encoding it would find."""
    messages: Any = result.final_messages
    if not isinstance(messages, list):
        return Misfit(f"{_MESSAGES} must be a list of messages, got {type(messages).__name__}", _MESSAGES, _WHOLE)
    if not all(issubclass(kind, dict) for kind in set(map(type, messages))):
        index, message = next((i, each) for i, each in enumerate(messages) if not isinstance(each, dict))
        sentence = f"{_MESSAGES}[{index}] must be a message object, got {type(message).__name__}"
        return Misfit(sentence, _MESSAGES, hint_of_value(message) or _WHOLE)
    return _problem(result)


_WHOLE = "give the whole conversation: ctx.complete(messages, reward=...)."


def _problem(result: RolloutResult) -> Misfit | None:
    if result.status not in _STATUSES:
        return Misfit(f"status must be COMPLETED or ERROR, got {plain(result.status)!r}", "status")
    if result.reward is not None:
        try:
            finite = not isinstance(result.reward, str | bytes) and math.isfinite(result.reward)
        except (TypeError, ValueError, OverflowError):
            finite = False
        if not finite:
            got = "a coroutine" if inspect.iscoroutine(result.reward) else repr(plain(result.reward))
            return Misfit(f"reward must be a finite number, got {got}", "reward", hint_of_value(result.reward))
    if (
        type(result.finish_reason) is str
        and result.error_message is None
        and type(result.metrics) is RolloutMetrics
        and type(result.extra_fields) is dict
    ):
        return None  # the usual one
    for name, (kind, wanted) in _FIELDS.items():
        if not isinstance(value := getattr(result, name), kind):
            return Misfit(f"{name} must be {wanted}, got {type(value).__name__}", name, hint_of_value(value))
    return None


def _culprit(fields: dict[str, Any]) -> str:
    for index, message in enumerate(fields["final_messages"]):
        if not is_strict_json(message):
            return f"final_messages[{index}]"
    return next((name for name, value in fields.items() if not is_strict_json(value)), "the result")


def _invalid(
    rollout_id: str, ctx: RolloutContext, problem: str, messages: list[MessageDict] | None = None, run: Any = None
) -> TerminalResult:
    reason = StopReason(Outcome.INVALID_RESULT, f"invalid result: {problem}")
    hint = getattr(problem, "hint", None)
    return result_of_stop(rollout_id, ctx, reason, messages, {**_written_at(run), **({"hint": hint} if hint else {})})


def _written_at(run: Any) -> dict[str, Any]:
    place = place_of_function(run)
    return {"where": [place]} if place else {}


def _error_result(
    rollout_id: str,
    reason: StopReason,
    messages: list[MessageDict],
    metrics: RolloutMetrics | None,
    extra_fields: dict[str, Any],
) -> TerminalResult:
    known: list[Any] = messages if isinstance(messages, list) else []

    def fields_with(readable: Any) -> dict[str, Any]:
        objects = [message for message in readable if isinstance(message, dict)]
        error_message, about = reason.message, dict(extra_fields)
        if left_out := len(known) - len(objects):
            note = f" ({left_out} of {len(known)} messages cannot be sent, and are left out)"
            error_message = fitted(error_message, MAX_ERROR_MESSAGE_LENGTH - len(note)) + note
            about["messages_left_out"] = left_out
        return _payload(
            rollout_id,
            RolloutStatus.ERROR,
            objects,
            reason.finish_reason,
            error_message=error_message,
            metrics=metrics,
            extra_fields={"outcome": reason.outcome.value, **about},
        )

    # An ERROR gets out whatever the agent has left in its messages; and a trainer takes nothing there but objects.
    try:
        return TerminalResult(strict_json(fields_with(known)))
    except Exception:  # noqa: BLE001 - a foreign container may raise anything
        fields = fields_with(plain(known))
        # Without the messages, or a long conversation would take the room of the rest.
        return TerminalResult(
            strict_json({**plain({**fields, "final_messages": []}), "final_messages": fields["final_messages"]})
        )


def _payload(
    rollout_id: str,
    status: RolloutStatus,
    final_messages: list[MessageDict],
    finish_reason: str,
    *,
    error_message: str | None,
    reward: float | None = None,
    metrics: RolloutMetrics | None,
    extra_fields: dict[str, Any],
) -> dict[str, Any]:
    """The JSON dump of a ``RolloutResponse`` without nulls; nothing is validated again."""
    payload = {
        "rollout_id": rollout_id,
        "status": status.value,
        "final_messages": final_messages,
        "finish_reason": finish_reason,
        "error_message": None if error_message is None else cut(encodable(error_message), MAX_ERROR_MESSAGE_LENGTH),
        "reward": reward,
        "metrics": None if metrics is None else metrics.model_dump(exclude_none=True),
        "extra_fields": extra_fields,
    }
    return {name: value for name, value in payload.items() if value is not None}


def summary_of(payload: dict[str, Any]) -> ResultSummary:
    """The summary of a decoded result."""
    return ResultSummary(
        payload["status"],
        payload.get("finish_reason"),
        str(payload["extra_fields"].get("outcome", Outcome.SUCCESS)),
        payload.get("reward"),
        payload.get("error_message"),
    )


def _encode_around(fields: dict[str, Any], final_messages: bytes | bytearray) -> bytes:
    """As ``strict_json``, with ``final_messages`` encoded already, as the inside of an array."""
    # The first such place is ours: within the texts before it every quote is escaped.
    before, after = strict_json({**fields, "final_messages": []}).split(b'"final_messages":[]', 1)
    return b"".join((before, b'"final_messages":[', final_messages, b"]", after))
