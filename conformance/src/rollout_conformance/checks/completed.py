"""The terminal result: its shape, its messages, its metrics, its reward."""

import math
from collections.abc import Callable
from typing import Any

from rollout_conformance.audit import audited, first_problem
from rollout_conformance.catalogue import check
from rollout_conformance.conversation import call_ids, difference, reply_in
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout, objects_of
from rollout_conformance.scripts import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS_PER_MESSAGE,
    calling_offered_tools,
    need_tools,
)
from rollout_conformance.strict_json import is_number
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import AUDIT, Failed, NotExercised

LATENCIES = ("total_latency_ms", "llm_latency_ms", "tool_latency_ms")
COUNTS = ("num_llm_calls", "num_tool_calls", "prompt_tokens", "response_tokens", "max_context_tokens")
Fields = dict[str, Any]


async def _every_result(kit: Kit, expected: str, problem_of: Callable[[Fields], str]) -> None:
    def problem(rollout: PlayedRollout) -> str:
        return next(
            (text for call in rollout.completions if not call.problem and (text := problem_of(call.fields))), ""
        )

    first_problem(await audited(kit), expected, problem)


@check("completed.shape", "result-1 result-13", "A result has the fields and types of the protocol.", AUDIT)
async def shape(kit: Kit) -> None:
    def problem(result: Fields) -> str:
        messages = result.get("final_messages", [])
        if result.get("status") not in ("COMPLETED", "ERROR"):
            return f"status {quoted(result.get('status'))}"
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            return f"final_messages {quoted(messages)}"
        for name in ("finish_reason", "error_message"):
            if not isinstance(result.get(name), str | None):
                return f"{name} {quoted(result[name])}"
        if not isinstance(result.get("extra_fields", {}), dict):
            return f"extra_fields {quoted(result['extra_fields'])}"
        if not isinstance(result.get("metrics"), dict | None):
            return f"metrics {quoted(result['metrics'])}"
        reward = result.get("reward")
        return "" if reward is None or is_number(reward) else f"reward {quoted(reward)}"

    await _every_result(kit, "a result as the protocol has it", problem)


@check(
    "completed.messages",
    "result-11 chat-10",
    "final_messages of a COMPLETED rollout are its whole conversation.",
    AUDIT,
)
async def messages(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        delivery = next((call for call in rollout.completions if call.fields.get("status") == "COMPLETED"), None)
        if delivery is None or not rollout.answered_chats:
            return ""
        return difference(rollout.answered_chats[-1].continued, objects_of(delivery.fields.get("final_messages")))

    first_problem(await audited(kit), "final_messages that go on from the last call and its reply", problem)


@check(
    "completed.finish_reason", "result-16", "A COMPLETED result has a finish_reason, other than 'stop' at max_turns."
)
async def finish_reason(kit: Kit) -> None:
    plain = await kit.start()
    limited = await kit.start(calling_offered_tools(turns=8), max_turns=2)
    for rollout in (plain, limited):
        result = await rollout.result()
        if result.get("status") == "COMPLETED" and not result.get("finish_reason"):
            raise Failed("a finish_reason", quoted(result.get("finish_reason")))
    last = limited.chats[-1] if limited.chats else None
    was_calling = last is not None and last.answer is not None and any(map(call_ids, reply_in(last.answer.body)))
    if was_calling and (await limited.result()).get("finish_reason") == "stop":
        raise Failed("a finish_reason such as 'max_turns' where the model was still calling tools", "'stop'")


@check("completed.reward", "result-5", "A reward is a finite number.", AUDIT)
async def reward(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        for call in rollout.completions:
            # A body with NaN is no JSON, so its fields are not there to be looked at.
            if "NaN" in call.problem or "Infinity" in call.problem:
                return call.problem
            value = call.fields.get("reward")
            if value is not None and is_number(value) and not _is_finite(value):
                return f"reward {quoted(value)}"
        return ""

    first_problem(await audited(kit), "a finite reward", problem)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


@check("completed.metrics", "metric-1", "Metrics are numbers, and none is negative; counts are whole.", AUDIT)
async def metrics(kit: Kit) -> None:
    def problem(result: Fields) -> str:
        given = result.get("metrics")
        if not isinstance(given, dict):
            return ""
        for name in (*LATENCIES, *COUNTS):
            value = given.get(name, 0)
            if not is_number(value) or not _is_finite(value) or value < 0 or (name in COUNTS and value != int(value)):
                return f"{name} {quoted(value)}"
        return ""

    await _every_result(kit, "metrics that are numbers from 0 up", problem)


async def _counted(kit: Kit) -> tuple[PlayedRollout, Fields]:
    rollout = await kit.start(calling_offered_tools(turns=2, at_once=2))
    result = await rollout.result()
    if result.get("status") != "COMPLETED" or not isinstance(result.get("metrics"), dict):
        raise NotExercised("the agent did not complete a rollout with tool calls, or sends no metrics")
    return rollout, result["metrics"]


def _require_counts(given: Fields, counted: dict[str, int]) -> None:
    for name, value in counted.items():
        if given.get(name) != value:
            raise Failed(f"{name} {value}, as the trainer counted", quoted(given.get(name)))


@check("completed.counts", "metric-2 metric-3", "num_llm_calls and the token counts are what the trainer sent.")
async def counts(kit: Kit) -> None:
    rollout, given = await _counted(kit)
    answered = rollout.answered_chats
    counted = {
        "num_llm_calls": len(answered),
        "prompt_tokens": sum(PROMPT_TOKENS_PER_MESSAGE * len(call.messages) for call in answered),
        "response_tokens": COMPLETION_TOKENS * len(answered),
    }
    _require_counts(given, counted)


@check("completed.tool_counts", "metric-5", "num_tool_calls is how many calls of the model were answered.")
async def tool_counts(kit: Kit) -> None:
    rollout, given = await _counted(kit)
    need_tools(rollout.tools)
    last = rollout.chats[-1].messages if rollout.chats else []
    _require_counts(given, {"num_tool_calls": sum(message.get("role") == "tool" for message in last)})


@check(
    "completed.latency", "metric-6 metric-8", "llm_latency_ms is more than 0, and total_latency_ms is not less than it."
)
async def latency(kit: Kit) -> None:
    rollout = await kit.start()
    given = (await rollout.result()).get("metrics")
    if not isinstance(given, dict) or not rollout.chats:
        raise NotExercised("the agent sends no metrics, or makes no call")
    llm, total = given.get("llm_latency_ms", 0), given.get("total_latency_ms", 0)
    if not (is_number(llm) and is_number(total) and 0 < llm <= total):
        raise Failed("0 < llm_latency_ms <= total_latency_ms", f"{quoted(llm)} and {quoted(total)}")
