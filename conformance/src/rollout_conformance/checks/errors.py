"""Rollouts that fail: an ERROR with a message, never a reward."""

import secrets
from collections.abc import Sequence
from typing import Any

from rollout_conformance.audit import audited, first_problem
from rollout_conformance.cases import every
from rollout_conformance.catalogue import check
from rollout_conformance.checks import completed
from rollout_conformance.endpoint import Answer
from rollout_conformance.evidence import looked_at
from rollout_conformance.kit import Kit
from rollout_conformance.played import Call, PlayedRollout, Script
from rollout_conformance.scripts import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS_PER_MESSAGE,
    answering,
    asking_at_once,
    calling_offered_tools,
    changed,
    cutting,
    encoded,
    need_tools,
    raw,
    refusing,
    saying,
    turn_of,
    waiting_for,
)
from rollout_conformance.text import quoted
from rollout_conformance.vocabulary import AUDIT, Failed, NotExercised

HUGE_BODY_BYTES = 2 * 1024 * 1024
CALLS_ARE_WHOLE = "that there are calls is taken for whole: whatever it calls, the finish_reason says that it is not"
MAX_MESSAGE_CHARACTERS = 64 * 1024
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}
MALFORMED: dict[str, bytes] = {
    "that is not JSON": b"<html>not JSON</html>",
    "that is empty": b"",
    "that is a list": b"[]",
    "without choices": encoded({"id": "x", "created": 0}),
    "with no choice": encoded({"id": "x", "created": 0, "choices": []}),
    "whose choices are null": encoded({"id": "x", "created": 0, "choices": None}),
    "whose choice has no message": encoded({"id": "x", "created": 0, "choices": [{"index": 0}]}),
    "whose message is a text": encoded({"id": "x", "created": 0, "choices": [{**CHOICE, "message": "4"}]}),
    "that ends early": encoded({"id": "x", "choices": [CHOICE]})[:-5],
}


async def _require_error(kit: Kit, after: str, script: Script, *, usually: str | None = None) -> PlayedRollout:
    # With a key, which no result may tell, whatever went wrong (callbacks.secret_kept).
    rollout = await kit.start(script, api_key=secrets.token_urlsafe(12))
    result = await rollout.result()
    if result.get("status") != "ERROR":
        raise Failed(f"ERROR after {after}", quoted(result.get("status")), usually=usually)
    extra = result.get("extra_fields")
    outcome = extra.get("outcome") if isinstance(extra, dict) else None
    # One without an outcome is another check's matter.
    if outcome not in (None, "llm_error"):
        raise Failed(f"the outcome 'llm_error' after {after}", quoted(outcome))
    return rollout


@check("errors.refused", "retry-8", "A trainer that answers 4xx to a call for a completion makes it an ERROR.")
async def refused(kit: Kit) -> None:
    statuses = (400, 401, 403, 404, 409, 413, 422)
    scripts = {f"{one} to a call for a completion": refusing(one, None, answering()) for one in statuses}
    await every({what: _require_error(kit, what, script) for what, script in scripts.items()})


@check("errors.malformed", "retry-3", "So does a 200 that is no completion.")
async def malformed(kit: Kit) -> None:
    await every({what: _require_error(kit, f"a completion {what}", raw(body)) for what, body in MALFORMED.items()})


@check(
    "errors.not_whole",
    "whole-5 retry-2",
    "So does a reply that is never whole, by its finish_reason: it is not scored.",
)
async def not_whole(kit: Kit) -> None:
    # Words of other APIs are none of these, be they near.
    others = ("x-unknown", 7, "end_turn", "eos_token", "tool_use", "max_tokens", "STOP")
    cases = {
        quoted(reason): _require_error(
            kit, f"replies with finish_reason {quoted(reason)}", asking_at_once(saying("#### 4", reason))
        )
        for reason in ("error", None, "", "content_filter", *others)
    }
    for reason in ("error", None):
        what = f"replies that call tools with finish_reason {quoted(reason)}"
        script = asking_at_once(_calling(reason))
        cases[f"{quoted(reason)} with calls"] = _require_error(kit, what, script, usually=CALLS_ARE_WHOLE)
    await every(cases)


def _calling(finish_reason: Any) -> Script:
    """Calls a tool with this finish reason."""

    def change(body: dict[str, Any], turn: int) -> None:
        if body["choices"][0]["message"].get("tool_calls"):
            body["choices"][0]["finish_reason"] = finish_reason

    return changed(calling_offered_tools(), change)


@check("errors.told", "whole-6", "Its error_message says which finish_reason it was.")
async def told(kit: Kit) -> None:
    rollout = await _require_error(kit, "replies with finish_reason 'x-odd'", asking_at_once(saying("#### 4", "x-odd")))
    message = (await rollout.result()).get("error_message")
    if "x-odd" not in str(message):
        raise Failed("the finish_reason 'x-odd' in error_message", quoted(message))


@check(
    "errors.filtered",
    "whole-7",
    "A reply that a content filter cut off is an ERROR at once: it is not asked for again.",
)
async def filtered(kit: Kit) -> None:
    rollout = await _require_error(kit, "a reply with finish_reason 'content_filter'", saying("####", "content_filter"))
    if len(rollout.chats) > 1:
        raise Failed("one call, answered with finish_reason 'content_filter'", str(len(rollout.chats)))


@check("errors.unreachable", "retry-6", "So does a trainer that never answers a call: each connection is cut.")
async def unreachable(kit: Kit) -> None:
    await _require_error(kit, "calls that are all cut", cutting(None, answering()))


@check("errors.no_reward", "result-6", "An ERROR has no reward: a failure never looks like a bad answer.", AUDIT)
async def no_reward(kit: Kit) -> None:
    _require_no_reward(await audited(kit))


def _require_no_reward(rollouts: Sequence[PlayedRollout]) -> None:
    def problem(rollout: PlayedRollout) -> str:
        rewards = [call.fields.get("reward") for call in rollout.completions if call.fields.get("status") == "ERROR"]
        return next((f"reward {quoted(reward)}" for reward in rewards if reward is not None), "")

    first_problem(rollouts, "no reward with an ERROR", problem)


@check(
    "errors.message",
    "result-8",
    "An ERROR has an error_message that is not empty, a COMPLETED result has none.",
    AUDIT,
)
async def message(kit: Kit) -> None:
    _require_messages(await audited(kit))


def _require_messages(rollouts: Sequence[PlayedRollout]) -> None:
    def problem(rollout: PlayedRollout) -> str:
        for call in rollout.completions:
            text = call.fields.get("error_message")
            if call.fields.get("status") == "ERROR" and not (isinstance(text, str) and text.strip()):
                return f"an ERROR with error_message {quoted(text)}"
            if call.fields.get("status") == "COMPLETED" and text:
                return f"a COMPLETED result with error_message {quoted(text)}"
        return ""

    first_problem(rollouts, "an error_message with an ERROR, and only there", problem)


def require_as_any(rollouts: Sequence[PlayedRollout]) -> None:
    """Raise ``Failed`` for a result that no rollout may have, whatever its end."""
    for require in (completed.require_shape, completed.require_outcomes, _require_no_reward, _require_messages):
        require(rollouts)


@check("errors.counts", "metric-2 metric-3", "The metrics of an ERROR count the replies that were taken before it.")
async def counts(kit: Kit) -> None:
    rollout = await kit.start(_second_turn(refusing(400, None, answering())))
    result = await rollout.result()
    need_tools(rollout.tools)
    given = result.get("metrics")
    if len(rollout.chats) < 2 or not isinstance(given, dict):
        raise NotExercised("the agent does not call the model again after a tool call, or sends no metrics")
    prompt_tokens = PROMPT_TOKENS_PER_MESSAGE * len(rollout.chats[0].messages)
    counted = {"num_llm_calls": 1, "prompt_tokens": prompt_tokens, "response_tokens": COMPLETION_TOKENS}
    for name, value in counted.items():
        if given.get(name) != value:
            raise Failed(f"{name} {value} of an ERROR, as of the one reply before it", quoted(given.get(name)))


@check("errors.short_message", "result-9", "A trainer's error page of 2 MiB does not become the error_message.")
async def short_message(kit: Kit) -> None:
    async def script(call: Call) -> Answer:
        return Answer(400, b"<" + b"x" * HUGE_BODY_BYTES, {"Content-Type": "text/html"})

    result = await (await _require_error(kit, "400 with a page of 2 MiB", script)).result()
    length = len(str(result.get("error_message")))
    if length > MAX_MESSAGE_CHARACTERS:
        raise Failed(f"an error_message of at most {MAX_MESSAGE_CHARACTERS} characters", f"{length} characters")


@check("errors.partial", "result-12", "An ERROR after some turns, or a cancel, keeps their messages.")
async def partial(kit: Kit) -> None:
    failing = await kit.start(_second_turn(refusing(400, None, answering())))
    cancelled = await kit.start(_second_turn(waiting_for(kit.hold(), answering())))
    await cancelled.wait_until(lambda played: len(played.chats) > 1 or bool(played.completions), "a second call")
    if not cancelled.completions:
        await kit.cancel_where_it_runs(cancelled.rollout_id)
    for rollout, how in ((failing, "its second call was refused"), (cancelled, "it was cancelled in its second turn")):
        result: dict[str, Any] = await rollout.result()
        need_tools(rollout.tools)
        if result.get("status") != "ERROR":
            raise NotExercised("the agent does not call the model again after a tool call")
        messages = result.get("final_messages")
        if not isinstance(messages, list) or len(messages) <= len(rollout.init["messages"]):
            looked_at(rollout)
            raise Failed(f"the messages of the turn before it in final_messages, as {how}", quoted(messages))


def _second_turn(then: Script) -> Script:
    """Calls a tool, and answers so after that."""
    tools = calling_offered_tools()

    async def script(call: Call) -> Answer | None:
        return await (then if turn_of(call) else tools)(call)

    return script


@check("errors.finish_reason", "result-17", "The finish_reason of an ERROR is 'error', or 'cancelled'.", AUDIT)
async def finish_reason(kit: Kit) -> None:
    require_finish_reasons(await audited(kit))


def require_finish_reasons(rollouts: Sequence[PlayedRollout]) -> None:
    """Raise ``Failed`` for an ERROR that has another than its own."""

    def problem(rollout: PlayedRollout) -> str:
        for call in rollout.completions:
            reason = call.fields.get("finish_reason")
            if call.fields.get("status") != "ERROR":
                continue
            extra = call.fields.get("extra_fields")
            is_cancelled = isinstance(extra, dict) and extra.get("outcome") == "cancelled"
            if reason != ("cancelled" if is_cancelled else "error"):
                return f"finish_reason {quoted(reason)} of one {'that was' if is_cancelled else 'not'} cancelled"
        return ""

    first_problem(rollouts, "the finish_reason 'error' or 'cancelled' with an ERROR", problem)
