"""The terminal result: its shape, its messages, its metrics, its reward."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from rollout_conformance.audit import audited, first_problem
from rollout_conformance.catalogue import check
from rollout_conformance.checks.chat import require_completed
from rollout_conformance.conversation import call_ids, difference, reply_in
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import PlayedRollout, Script, objects_of
from rollout_conformance.scripts import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS_PER_MESSAGE,
    answering,
    breaking_off,
    call_of,
    calling_offered,
    calling_offered_tools,
    changed,
    delayed,
    need_tools,
    refusing,
    tool_call,
)
from rollout_conformance.strict_json import is_number
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import AUDIT, Failed, NotExercised

REQUIRED = ("rollout_id", "status", "final_messages", "extra_fields")
LATENCIES = ("total_latency_ms", "llm_latency_ms", "tool_latency_ms")
COUNTS = ("num_llm_calls", "num_tool_calls", "prompt_tokens", "response_tokens", "max_context_tokens")
Fields = dict[str, Any]


def _every_result(rollouts: Sequence[PlayedRollout], expected: str, problem_of: Callable[[Fields], str]) -> None:
    def problem(rollout: PlayedRollout) -> str:
        return next(
            (text for call in rollout.completions if not call.problem and (text := problem_of(call.fields))), ""
        )

    first_problem(rollouts, expected, problem)


@check("completed.shape", "result-1 result-13", "A result has the fields and types of the protocol.", AUDIT)
async def shape(kit: Kit) -> None:
    require_shape(await audited(kit))


def require_shape(rollouts: Sequence[PlayedRollout]) -> None:
    """Raise ``Failed`` for a result that is not as the table has it."""

    def problem(result: Fields) -> str:
        missing = [name for name in REQUIRED if name not in result]
        if missing:
            return f"no {missing[0]}"
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

    _every_result(rollouts, "a result as the protocol has it", problem)


@check(
    "completed.messages",
    "result-11 chat-10",
    "final_messages of a COMPLETED rollout are its whole conversation, an ERROR's as far as they go.",
    AUDIT,
)
async def messages(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        if not rollout.completions or not rollout.chats:
            return ""
        result = rollout.completions[0].fields
        found = objects_of(result.get("final_messages"))
        if result.get("status") == "COMPLETED":
            return difference(rollout.answered_chats[-1].continued, found) if rollout.answered_chats else ""
        extra = result.get("extra_fields")
        if isinstance(extra, dict) and extra.get("messages_shortened"):
            return ""
        return difference(rollout.chats[-1].messages[: len(found)], found)

    first_problem(await audited(kit), "final_messages that go on from the last call and its reply", problem)


@check(
    "completed.finish_reason", "result-16", "A COMPLETED result has a finish_reason, other than 'stop' at max_turns."
)
async def finish_reason(kit: Kit) -> None:
    def full(body: dict[str, Any], turn: int) -> None:
        body["usage"]["prompt_tokens"] = MAX_TOKENS_TOTAL

    tokens = await kit.start(changed(calling_offered_tools(turns=3), full), max_tokens_total=MAX_TOKENS_TOTAL)
    plain = await kit.start()
    limited = await kit.start(calling_offered_tools(turns=8), max_turns=2)
    cut = await kit.start(answering("I was about to", "length"))
    if (await cut.result()).get("finish_reason") == "stop":
        raise Failed("the finish_reason 'length' of the last reply", "'stop'")
    for rollout in (plain, limited):
        result = await rollout.result()
        if result.get("status") == "COMPLETED" and not result.get("finish_reason"):
            raise Failed("a finish_reason", quoted(result.get("finish_reason")))
    for rollout, word in ((limited, "max_turns"), (tokens, "max_tokens")):
        last = rollout.chats[-1] if rollout.chats else None
        was_calling = last is not None and last.answer is not None and any(map(call_ids, reply_in(last.answer.body)))
        if was_calling and (await rollout.result()).get("finish_reason") == "stop":
            looked_at(rollout)
            raise Failed(f"a finish_reason such as {word!r} where the model was still calling tools", "'stop'")


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


@check(
    "completed.metrics", "metric-1", "Metrics are numbers, none negative; counts are whole, 0 where nothing ran.", AUDIT
)
async def metrics(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        for given in (call.fields.get("metrics") for call in rollout.completions):
            if not isinstance(given, dict):
                continue
            for name in (*LATENCIES, *COUNTS):
                value = given.get(name, 0)
                if not is_number(value) or not _is_finite(value) or value < 0:
                    return f"{name} {quoted(value)}"
                if name in COUNTS and (value != int(value) or (value and not rollout.answered_chats)):
                    where = "" if rollout.answered_chats else " where no reply was given"
                    return f"{name} {quoted(value)}{where}"
        return ""

    first_problem(
        await audited(kit), "metrics that are numbers from 0 up, counts that are 0 where nothing ran", problem
    )


async def _counted(kit: Kit, script: Script | None = None) -> tuple[PlayedRollout, Fields]:
    rollout = await kit.start(script or calling_offered_tools(turns=2, at_once=2))
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
    unknown = calling_offered(lambda tools, _: [call_of(tools[0], "call_0"), tool_call("call_1", "no_such_tool", "{}")])
    for script, which in ((calling_offered_tools(turns=2, at_once=2), ""), (unknown, ", one of which cannot be made")):
        rollout, given = await _counted(kit, script)
        need_tools(rollout.tools)
        last = rollout.chats[-1].messages if rollout.chats else []
        count = sum(message.get("role") == "tool" for message in last)
        if given.get("num_tool_calls") != count:
            raise Failed(f"num_tool_calls {count}, as calls were answered{which}", quoted(given.get("num_tool_calls")))


@check("completed.latency", "metric-8", "total_latency_ms is all that calls and pauses took; llm_latency_ms is a part.")
async def latency(kit: Kit) -> None:
    plain = await kit.start(delayed(SLOW_SECONDS, answering()))
    paused = await kit.start(refusing(503, 1, answering(), {"Retry-After": "1"}))
    for rollout, result in zip((plain, paused), await kit.results((plain, paused)), strict=True):
        given = result.get("metrics")
        if not isinstance(given, dict) or not rollout.chats:
            raise NotExercised("the agent sends no metrics, or makes no call")
        looked_at(rollout)
        llm, total = given.get("llm_latency_ms", 0), given.get("total_latency_ms", 0)
        if not (is_number(llm) and is_number(total) and 0 < llm <= total):
            raise Failed("0 < llm_latency_ms <= total_latency_ms", f"{quoted(llm)} and {quoted(total)}")
        seen = ((rollout.chats[-1].answered_at or 0) - rollout.chats[0].came_at) * 1000 - CLOCK_SLACK_MS
        if total < seen:
            raise Failed(f"total_latency_ms of at least the {seen:.0f} that calls and pauses took", quoted(total))


@check(
    "completed.call_latency", "metric-6", "llm_latency_ms is without what a call had to wait before it was answered."
)
async def call_latency(kit: Kit) -> None:
    pause = refusing(503, 1, answering(), {"Retry-After": "1"})
    given = (await (await kit.start(pause)).result()).get("metrics")
    if not isinstance(given, dict):
        raise NotExercised("the agent sends no metrics")
    # Both are the server's own, so that a machine that is busy makes no difference.
    llm, total = given.get("llm_latency_ms", 0), given.get("total_latency_ms", 0)
    if not (is_number(llm) and is_number(total) and llm <= total - PAUSE_MS):
        got = f"{quoted(llm)} of {quoted(total)}"
        raise Failed(f"an llm_latency_ms without the {PAUSE_MS} ms of a Retry-After, which total_latency_ms has", got)


OUTCOMES = {
    "success": "COMPLETED",
    **dict.fromkeys(("agent_error", "llm_error", "tool_error", "reward_error", "timeout"), "ERROR"),
    **dict.fromkeys(("cancelled", "interrupted", "invalid_result"), "ERROR"),
}
PAUSE_MS = 900
MAX_TOKENS_TOTAL = 1_000
MAX_COMPONENTS, MAX_NAME_CHARACTERS = 32, 64
PROMPTS = (500, 40)
SLOW_SECONDS = 0.3
CLOCK_SLACK_MS = 50


@check("completed.outcome", "result-4", "extra_fields.outcome is one of the table, and fits the status.", AUDIT)
async def outcome(kit: Kit) -> None:
    require_outcomes(await audited(kit))


def require_outcomes(rollouts: Sequence[PlayedRollout]) -> None:
    """Raise ``Failed`` for a result whose outcome is none, or does not fit."""

    def problem(result: Fields) -> str:
        extra = result.get("extra_fields")
        told = extra.get("outcome") if isinstance(extra, dict) else None
        fits = isinstance(told, str) and OUTCOMES.get(told) == result.get("status")
        return "" if fits else f"{result.get('status')} with the outcome {quoted(told)}"

    _every_result(rollouts, f"extra_fields.outcome that fits: {', '.join(OUTCOMES)}", problem)


@check("completed.nulls", "result-2", "A result has no nulls but those in messages.", AUDIT)
async def nulls(kit: Kit) -> None:
    def problem(result: Fields) -> str:
        return next((f"{name} null" for name, value in result.items() if value is None), "")

    _every_result(await audited(kit), "a result without nulls", problem)


@check("completed.key", "result-3", "A result has an Idempotency-Key, the same in every delivery.", AUDIT)
async def key(kit: Kit) -> None:
    def problem(rollout: PlayedRollout) -> str:
        keys = list(dict.fromkeys(call.key for call in rollout.completions))
        return "none" if "" in keys else f"{quoted(keys[0])}, then {quoted(keys[1])}" if len(keys) > 1 else ""

    first_problem(await audited(kit), "an Idempotency-Key, the same for each delivery of a result", problem)


@check("completed.own_key", "result-18", "It is no other result's, and no chat call's.", AUDIT)
async def own_key(kit: Kit) -> None:
    rollouts = await audited(kit)
    of_chats = {call.key for rollout in rollouts for call in rollout.chats if call.key}
    whose: dict[str, PlayedRollout] = {}

    def problem(rollout: PlayedRollout) -> str:
        for call in rollout.completions:
            if call.key in of_chats:
                return f"{quoted(call.key)}, which a chat call has too"
            if call.key and whose.setdefault(call.key, rollout).rollout_id != rollout.rollout_id:
                return f"{quoted(call.key)}, which the result of another rollout has too"
        return ""

    first_problem(rollouts, "an Idempotency-Key of its own for each result", problem)


@check("completed.components", "result-10", "Parts of a reward are finite numbers with names, and few.", AUDIT)
async def components(kit: Kit) -> None:
    def problem(result: Fields) -> str:
        extra = result.get("extra_fields")
        parts = extra.get("reward_components") if isinstance(extra, dict) else None
        if parts is None:
            return ""
        if not isinstance(parts, dict) or len(parts) > MAX_COMPONENTS or result.get("status") != "COMPLETED":
            return f"reward_components {quoted(parts)} of {result.get('status')}"
        for name, value in parts.items():
            if not 1 <= len(name) <= MAX_NAME_CHARACTERS or not is_number(value) or not _is_finite(value):
                return f"{quoted(name)} {quoted(value)}"
        return ""

    _every_result(await audited(kit), "reward_components that are named, finite numbers of a COMPLETED result", problem)


@check("completed.max_context", "metric-4", "max_context_tokens is the largest prompt, not the last one, nor a sum.")
async def max_context(kit: Kit) -> None:
    def change(body: dict[str, Any], turn: int) -> None:
        body["usage"]["prompt_tokens"] = PROMPTS[min(turn, 1)]

    rollout = await kit.start(changed(calling_offered_tools(), change))
    given = (await rollout.result()).get("metrics")
    if not isinstance(given, dict):
        raise NotExercised("the agent sends no metrics")
    _require_counts(given, {"max_context_tokens": PROMPTS[0]})


@check("completed.taken", "metric-2 metric-3", "Replies that were refused or not whole count in no metric.")
async def taken(kit: Kit) -> None:
    aborted = breaking_off("abort", 1, answering())
    rollout = await kit.start(refusing(500, 1, aborted))
    given = (await rollout.result()).get("metrics")
    if not isinstance(given, dict) or len(rollout.answered_chats) != 1:
        raise NotExercised("the agent sends no metrics, or does not complete a rollout after an abort")
    tokens = {"prompt_tokens": PROMPT_TOKENS_PER_MESSAGE * len(rollout.chats[-1].messages)}
    _require_counts(given, {"num_llm_calls": 1, **tokens, "response_tokens": COMPLETION_TOKENS})


@check("completed.usage", "metric-3 metric-4", "What a usage leaves out, or has as null, counts as 0.")
async def usage(kit: Kit) -> None:
    def given_as(counts: Fields) -> Callable[[Fields, int], None]:
        def change(body: Fields, turn: int) -> None:
            body["usage"] = {name: body["usage"][name] if count is ... else count for name, count in counts.items()}

        return change

    prompt_alone, reply_alone = {"prompt_tokens": ..., "total_tokens": ...}, {"completion_tokens": ...}
    for how, counts, prompt, response in (
        ("without completion_tokens", prompt_alone, PROMPT_TOKENS_PER_MESSAGE, 0),
        ("without prompt_tokens", reply_alone, 0, COMPLETION_TOKENS),
        ("with null for completion_tokens", {**prompt_alone, "completion_tokens": None}, PROMPT_TOKENS_PER_MESSAGE, 0),
        ("with null for prompt_tokens", {**reply_alone, "prompt_tokens": None}, 0, COMPLETION_TOKENS),
        ("without any count", {}, 0, 0),
    ):
        rollout = await require_completed(kit, f"a usage {how}", changed(answering(), given_as(counts)))
        given = (await rollout.result()).get("metrics")
        if not isinstance(given, dict) or len(rollout.answered_chats) != 1:
            raise NotExercised("the agent sends no metrics, or makes more than one call")
        prompt *= len(rollout.chats[0].messages)
        counted = {"prompt_tokens": prompt, "response_tokens": response, "max_context_tokens": prompt}
        _require_counts(given, {"num_llm_calls": 1, **counted})


@check("completed.tool_latency", "metric-7", "tool_latency_ms is 0 without a tool call, and else what the tools took.")
async def tool_latency(kit: Kit) -> None:
    plain, calling = await asyncio.gather(kit.start(), kit.start(calling_offered_tools()))
    for rollout, result in zip((plain, calling), await kit.results((plain, calling)), strict=True):
        given = result.get("metrics")
        if not isinstance(given, dict):
            raise NotExercised("the agent sends no metrics")
        took, total = given.get("tool_latency_ms", 0), given.get("total_latency_ms", 0)
        if not is_number(took) or not is_number(total) or took > total or (took and len(rollout.chats) < 2):
            what = "tool_latency_ms of at most total_latency_ms" if len(rollout.chats) > 1 else "tool_latency_ms 0"
            raise Failed(what, f"{quoted(took)}, of {quoted(total)} in all")
