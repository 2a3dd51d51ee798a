"""Defects of results and of their delivery."""

import asyncio
import secrets
from typing import Any

import httpx

from servers.model import ChatError, Json, Rollout
from servers.mutants.mechanism import mutant
from servers.small import SmallServer

# The result


def completed(**change: Any) -> Any:
    """A COMPLETED result with other fields; a function gets the rollout."""
    return lambda self, usual, rollout, reason: usual(rollout, reason) | change


def failed(**change: Any) -> Any:
    """An ERROR with other fields."""
    return lambda self, usual, rollout, error, outcome: usual(rollout, error, outcome) | change


def measured(change: Any) -> Any:
    """Metrics, changed by a function of them."""

    def method(self: SmallServer, usual: Any, rollout: Rollout) -> Json:
        metrics = usual(rollout)
        return {**metrics, **change(metrics)}

    return method


async def completes_failures(self: SmallServer, usual: Any, rollout: Rollout) -> str:
    try:
        return str(await usual(rollout))
    except ChatError:
        return "stop"


def counts_every_reply(self: SmallServer, usual: Any, rollout: Rollout, key: str) -> str:
    self.count(rollout, 22, 7)
    return str(usual(rollout, key))


COUNTS = "completed.counts completed.taken"

mutant("lists-its-extra-fields", "completed.shape completed.outcome", completed=completed(extra_fields=["none"]))
mutant(
    "leaves-out-the-last-reply",
    "completed.messages chat.reply_kept",
    completed=lambda s, usual, r, why: usual(r, why) | {"final_messages": r.messages[:-1]},
)
mutant("always-says-stop", "completed.finish_reason", completed=lambda s, usual, r, why: usual(r, "stop"))
mutant(
    "calls-a-cut-reply-stop",
    "completed.finish_reason",
    completed=lambda s, usual, r, why: usual(r, "stop" if why == "length" else why),
)
mutant(
    "rewards-with-nan", "completed.reward", reward=lambda s, usual, r: float("nan") if len(r.messages) > 4 else usual(r)
)
mutant(
    "counts-the-wait",
    "completed.call_latency",
    measured=measured(lambda m: {"llm_latency_ms": m["total_latency_ms"]}),
)
mutant("measures-backwards", "completed.metrics", measured=measured(lambda m: {"tool_latency_ms": -0.5}))
mutant("counts-one-too-few", COUNTS, measured=measured(lambda m: {"num_llm_calls": max(0, m["num_llm_calls"] - 1)}))
mutant(
    "swaps-the-token-counts",
    COUNTS,
    measured=measured(lambda m: {"prompt_tokens": m["response_tokens"], "response_tokens": m["prompt_tokens"]}),
)
mutant("counts-every-reply", "completed.taken", key_after_a_broken_reply=counts_every_reply)
mutant(
    "sums-the-contexts",
    "completed.max_context",
    measured=measured(lambda m: {"max_context_tokens": m["prompt_tokens"]}),
)
mutant(
    "measures-the-last-context",
    "completed.max_context",
    count=lambda s, usual, r, prompt, reply: (r.metrics.update(max_context_tokens=0), usual(r, prompt, reply)),
)
mutant("has-no-context", "completed.max_context", measured=measured(lambda m: {"max_context_tokens": 0}))
mutant(
    "counts-turns-for-tools",
    "completed.tool_counts",
    measured=measured(lambda m: {"num_tool_calls": m["num_llm_calls"]}),
)
mutant("measures-no-model", "completed.latency", measured=measured(lambda m: {"llm_latency_ms": 0.0}))
mutant(
    "takes-all-time-for-tools",
    "completed.tool_latency",
    measured=measured(lambda m: {"tool_latency_ms": m["total_latency_ms"]}),
)
mutant("tells-no-outcome", "completed.outcome", completed=completed(extra_fields={}))
mutant(
    "calls-every-end-a-success",
    "completed.outcome errors.short_message",
    failed=lambda s, usual, r, error, outcome: usual(r, error, "success"),
)
mutant("invents-an-outcome", "completed.outcome", completed=completed(extra_fields={"outcome": "done"}))
mutant("writes-nulls-into-results", "completed.nulls", completed=completed(error_message=None))
mutant("delivers-without-a-key", "completed.key", result_key=lambda s, usual, rollout: "")
mutant("makes-a-key-for-each-delivery", "completed.key", result_key=lambda s, usual, rollout: secrets.token_hex(16))
mutant(
    "has-parts-that-are-no-numbers",
    "completed.components",
    completed=completed(extra_fields={"outcome": "success", "reward_components": {"a": "1"}}),
)

# Errors

mutant("rewards-failures", "errors.no_reward", failed=failed(reward=0.0))
mutant("fails-without-a-word", "errors.message", failed=failed(error_message=""))
mutant("explains-what-went-well", "errors.message", completed=completed(error_message="all is well"))
mutant(
    "tells-the-whole-page",
    "errors.short_message",
    failed=lambda s, usual, r, error, outcome: usual(r, error, outcome) | {"error_message": str(error) * 100_000},
)
mutant("repeats-the-key", "callbacks.secret", without_key=lambda s, usual, rollout, text: text)
mutant(
    "begins-failures-anew",
    "completed.messages",
    failed=lambda s, usual, r, e, o: usual(r, e, o) | {"final_messages": r.messages[1:]},
)
mutant("loses-the-turns-of-a-failure", "errors.partial", failed=failed(final_messages=[]))
mutant(
    "loses-the-turns-of-a-cancel",
    "errors.partial",
    failed=lambda s, usual, r, error, outcome: (
        usual(r, error, outcome) | ({"final_messages": r.init["messages"]} if outcome == "cancelled" else {})
    ),
)
mutant("stops-where-it-fails", "errors.finish_reason", failed=failed(finish_reason="stop"))
mutant(
    "completes-failures",
    "errors.refused errors.malformed errors.unreachable errors.short_message",
    agent=completes_failures,
)

# Delivery


async def once(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    await self.offer(rollout, result)


async def twice(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    _ = await self.offer(rollout, result) or await self.offer(rollout, result)


async def three_times(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    for _ in range(3):
        if await self.offer(rollout, result):
            break


async def failures_once(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    await (self.offer if result["status"] == "ERROR" else usual)(rollout, result)


async def loses_patience(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> str:
    try:
        async with asyncio.timeout(1.5):  # of the 2 s that the check takes
            return str(await usual(rollout, result))
    except TimeoutError:
        result |= self.failed(rollout, RuntimeError("the trainer is slow"), "llm_error")
        return ""


async def downgrades(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> None:
    if not await self.offer(rollout, result):
        await usual(rollout, self.failed(rollout, RuntimeError("delivery failed"), "agent_error"))


async def measures_anew(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> str:
    return str(await usual(rollout, result | {"metrics": self.measured(rollout)}))


async def reads_the_body(self: SmallServer, usual: Any, rollout: Rollout, result: Json) -> str:
    response = await self.post(rollout, "/v1/rollout/completed", result, self.result_key(rollout))
    return self.state_after(response, result) if b"ok" in response.content or not response.is_success else ""


def after(status: int, state: str) -> Any:
    """Another state after one status."""
    return lambda self, usual, response, result: state if response.status_code == status else usual(response, result)


def offers_for_ever(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    return "delivered" if response.is_success else ""


def goes_back(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    """To the whole result, after any other refusal."""
    kept = next((messages for one, messages in self.kept if one is result), None)
    if response.status_code == 422:
        if kept is not None:
            return "undeliverable"
        self.kept.append((result, result["final_messages"]))
        result["final_messages"] = []
        result["extra_fields"] |= {"messages_refused": True}
        return ""
    if kept is not None:
        result["final_messages"] = kept
        result["extra_fields"].pop("messages_refused", None)
    return str(usual(response, result))


def leaves_out_again(self: SmallServer, usual: Any, response: httpx.Response, result: Json) -> str:
    if response.status_code != 422:
        return str(usual(response, result))
    result["final_messages"] = []
    result["extra_fields"] |= {"messages_refused": True}
    return ""


AGAIN = "delivery.server_error delivery.cut callbacks.once"

mutant("delivers-once", "delivery.server_error delivery.cut", silent=True, deliver=once)
mutant("delivers-twice-at-most", "delivery.twice delivery.persistent", silent=True, deliver=twice)
mutant("gives-up-soon", "delivery.persistent", silent=True, deliver=three_times)
mutant("delivers-failures-once", "delivery.error_too", silent=True, deliver=failures_once)
mutant("loses-patience", "delivery.slow", timed=True, offer=loses_patience)
mutant("downgrades-what-it-cannot-deliver", AGAIN, deliver=downgrades)
mutant("measures-anew-for-each-delivery", AGAIN, offer=measures_anew)
mutant("wants-a-200", "delivery.created", state_after=after(201, ""))
mutant("wants-a-body", "delivery.any_body", offer=reads_the_body)
mutant("takes-a-page-for-an-acknowledgement", "delivery.html", silent=True, is_page=lambda s, usual, response: False)
mutant("takes-a-limit-for-an-acknowledgement", "delivery.too_many", silent=True, state_after=after(429, "delivered"))
mutant("offers-for-ever", "delivery.final", state_after=offers_for_ever)
mutant("asks-the-forgetful-again", "delivery.final", state_after=after(410, ""))
mutant("gives-up-without-a-path", "delivery.no_path", silent=True, is_no_path=lambda s, usual, response: False)
mutant("gives-up-when-its-messages-are-refused", "delivery.refused", silent=True, leaves_messages_out_after=set())
mutant("leaves-its-messages-out-for-ever", "delivery.refused_once", state_after=leaves_out_again)
mutant("goes-back-to-the-whole", "delivery.refused_same", state_after=goes_back)

# Odd ones out


def forgets_pauses(metrics: Json) -> Json:
    return {"total_latency_ms": metrics["llm_latency_ms"]}


mutant(
    "fails-without-messages",
    "completed.shape",
    failed=lambda s, usual, r, error, outcome: {
        n: v for n, v in usual(r, error, outcome).items() if n != "final_messages"
    },
)
mutant("takes-the-model-for-all", "completed.latency", measured=measured(forgets_pauses))
mutant(
    "leaves-messages-out-after-422-alone",
    "delivery.refused",
    silent=True,
    beside="callbacks.every",
    leaves_messages_out_after={422},
)
mutant("takes-501-for-good", "delivery.server_error", silent=True, state_after=after(501, "undeliverable"))
mutant("calls-a-refusal-delivered", "state.undeliverable", state_after=after(403, "delivered"))
mutant(
    "blames-the-agent",
    "errors.refused errors.malformed errors.not_whole errors.unreachable errors.short_message retries.gone",
    failed=lambda s, usual, r, error, outcome: usual(r, error, "agent_error"),
)
