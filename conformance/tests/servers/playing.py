"""A rollout of the small server, from its first call for a completion to the acknowledgement of its result."""

import asyncio
import contextlib
import hashlib
import json
import math
import secrets
import time
from typing import Any, ClassVar

import httpx

from servers.model import (
    ATTEMPTS,
    CALL_SECONDS,
    FIRST_DELAY_SECONDS,
    GROWTH,
    LAST_DELAY_SECONDS,
    PATIENCE,
    WHOLE,
    ChatError,
    Json,
    Rollout,
    RunTimeout,
)
from servers.posting import Posting

CHAT = "/v1/chat/completions"
COMPLETED = "/v1/rollout/completed"
CLOCK_POLL_SECONDS = 0.05
DEFAULTS = {"model": "default", "temperature": 1.0, "top_p": 1.0, "max_tokens": 512, "logprobs": True}


class Playing(Posting):
    """Each step is a method, so that a mutant replaces one at a time."""

    attempts = ATTEMPTS
    run_seconds = math.inf
    leaves_messages_out_after: ClassVar[set[int]] = {400, 413, 422}

    def __init__(self) -> None:
        super().__init__()
        self.last_call = asyncio.Event()
        self.kept: list[Any] = []

    def note(self, event: Json) -> None:
        """Put an event on record."""

    # The agent

    async def play(self, rollout: Rollout) -> None:
        try:
            finish_reason = await self.agent_in_time(rollout)
            result = self.completed(rollout, finish_reason)
        except asyncio.CancelledError:
            if not rollout.is_cancelled:
                raise
            result = self.failed(rollout, RuntimeError("cancelled on request"), "cancelled")
        except Exception as error:  # noqa: BLE001 - whatever it was, it is reported
            result = self.failed(rollout, error, self.outcome_of(error))
        await self.deliver(rollout, result)

    def outcome_of(self, error: Exception) -> str:
        return {ChatError: "llm_error", RunTimeout: "timeout"}.get(type(error), "agent_error")

    async def agent_in_time(self, rollout: Rollout) -> str:
        if self.run_seconds == math.inf:
            return await self.agent(rollout)
        running = asyncio.ensure_future(self.agent(rollout))
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=CLOCK_POLL_SECONDS)
                if not running.done() and self.ran_seconds(rollout) > self.run_seconds:
                    raise RunTimeout(f"The run took more than {self.run_seconds:g} s")
            return running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def ran_seconds(self, rollout: Rollout) -> float:
        now = time.monotonic()
        return now - rollout.began - rollout.paused_seconds - (now - (rollout.paused_since or now))

    def pause(self, rollout: Rollout, since: float) -> None:
        rollout.paused_since = rollout.paused_since or since

    def go_on(self, rollout: Rollout) -> None:
        if rollout.paused_since is not None:
            rollout.paused_seconds += time.monotonic() - rollout.paused_since
            rollout.paused_since = None

    async def agent(self, rollout: Rollout) -> str:
        for _ in range(rollout.init.get("max_turns", 10)):
            message = await self.turn(rollout)
            if not message.get("tool_calls"):
                return rollout.finish_reason
            rollout.messages += self.answer_calls(rollout, message["tool_calls"])
            if self.is_full(rollout):
                return "max_tokens"
        return "max_turns"

    def is_full(self, rollout: Rollout) -> bool:
        return bool(rollout.context_tokens >= rollout.init.get("max_tokens_total", 8192))

    async def turn(self, rollout: Rollout) -> Json:
        """One completion, on record."""
        completion = await self.chat(rollout)
        try:
            choice = completion["choices"][0]
            message = choice["message"]
            usage = completion.get("usage") or {}
            if not isinstance(message.get("tool_calls"), list | None):
                raise TypeError("tool_calls")
        except (LookupError, TypeError, AttributeError) as error:
            raise ChatError(f"The completion is malformed: {error}") from error
        rollout.finish_reason = choice.get("finish_reason", "stop")
        self.count(rollout, usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
        rollout.messages.append(self.recorded(message))
        return dict(message)

    def recorded(self, message: Json) -> Json:
        return message

    def count(self, rollout: Rollout, prompt_tokens: int, completion_tokens: int) -> None:
        metrics = rollout.metrics
        metrics["num_llm_calls"] += 1
        metrics["prompt_tokens"] += prompt_tokens
        metrics["response_tokens"] += completion_tokens
        metrics["max_context_tokens"] = max(metrics["max_context_tokens"], prompt_tokens)
        rollout.context_tokens = prompt_tokens + completion_tokens

    def answer_calls(self, rollout: Rollout, calls: list[Json]) -> list[Json]:
        began = time.monotonic()
        answers = [
            {"role": "tool", "tool_call_id": call.get("id", ""), "content": self.tool_result(call)} for call in calls
        ]
        rollout.tool_ms += (time.monotonic() - began) * 1000
        rollout.metrics["num_tool_calls"] += len(calls)
        return answers

    def tool_result(self, call: Json) -> str:
        try:
            arguments = json.loads(call["function"]["arguments"] or "{}")
            if call["function"]["name"] == "add":
                return str(arguments["a"] + arguments["b"])
            return {"shout": str}[call["function"]["name"]](arguments["text"]).upper()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return f"Error: {type(error).__name__}"

    # A call for a completion

    async def chat(self, rollout: Rollout) -> Json:
        problem = ""
        body, key = self.chat_body(rollout), self.call_key(rollout)
        tries = pauses = 0
        while tries < self.attempts and pauses < PATIENCE:
            tries += 1
            rollout.attempts += 1
            began = time.monotonic()
            try:
                response = await self.post(rollout, CHAT, body, self.attempt_key(key))
            except httpx.TransportError as error:
                problem = f"The trainer does not answer: {type(error).__name__}"
                if self.is_nobody(error):
                    self.pause(rollout, began)
                    tries, pauses = tries - 1, pauses + 1
            else:
                completion = self.completion_in(response)
                if completion is not None and self.is_whole(completion):
                    self.go_on(rollout)
                    rollout.llm_ms += (time.monotonic() - began) * 1000
                    return completion
                problem = f"The trainer answered {response.status_code}: {response.text[:200]}"
                if completion is not None:
                    key = self.key_after_a_broken_reply(rollout, key)
                if self.is_pause(response, completion):
                    self.pause(rollout, began)
                    tries, pauses = tries - 1, pauses + 1
                elif not self.is_asked_again(response, completion):
                    break
                await self.wait_as_told(response)
            await self.back_off(tries + pauses)
        raise ChatError(problem)

    def call_key(self, rollout: Rollout) -> str:
        return secrets.token_hex(12)

    def attempt_key(self, key: str) -> str:
        return key

    def key_after_a_broken_reply(self, rollout: Rollout, key: str) -> str:
        return self.call_key(rollout)

    def chat_body(self, rollout: Rollout) -> Json:
        asked = {**DEFAULTS, **{name: v for name, v in rollout.init["completion_params"].items() if v is not None}}
        return {**asked, "rollout_id": rollout.init["rollout_id"], "messages": self.conversation(rollout)}

    def conversation(self, rollout: Rollout) -> list[Json]:
        return rollout.messages

    def completion_in(self, response: httpx.Response) -> Json | None:
        if response.status_code != 200:
            return None
        try:
            return dict(response.json())
        except (ValueError, TypeError) as error:
            raise ChatError("The completion is not JSON") from error

    def finish_reason(self, completion: Json) -> Any:
        try:
            return completion["choices"][0].get("finish_reason", "stop")
        except (LookupError, TypeError, AttributeError):
            return "stop"

    def is_whole(self, completion: Json) -> bool:
        return self.finish_reason(completion) in WHOLE

    def is_pause(self, response: httpx.Response, completion: Json | None) -> bool:
        if completion is not None:
            return bool(self.finish_reason(completion) == "abort")
        return response.status_code in (429, 502, 503, 504) or self.is_absent(response)

    def is_asked_again(self, response: httpx.Response, completion: Json | None) -> bool:
        if completion is not None:
            return bool(self.finish_reason(completion) != "content_filter")
        is_final = response.status_code in (410, 413)
        return (
            self.is_retried(response.status_code)
            or self.is_no_path(response)
            or (self.is_page(response) and not is_final)
        )

    async def wait_as_told(self, response: httpx.Response) -> None:
        told = self.told_seconds(response)
        await asyncio.sleep(told if told < CALL_SECONDS else 0)

    async def back_off(self, attempts: int) -> None:
        await asyncio.sleep(min(FIRST_DELAY_SECONDS * GROWTH ** (attempts - 1), LAST_DELAY_SECONDS))

    # The result

    def completed(self, rollout: Rollout, finish_reason: str) -> Json:
        return {
            "rollout_id": rollout.init["rollout_id"],
            "status": "COMPLETED",
            "final_messages": rollout.messages,
            "finish_reason": finish_reason,
            "reward": self.reward(rollout),
            "metrics": self.measured(rollout),
            "extra_fields": {"outcome": "success"},
        }

    def reward(self, rollout: Rollout) -> float:
        return float(rollout.init.get("metadata", {}).get("ground_truth") == "4")

    def measured(self, rollout: Rollout) -> Json:
        total = (time.monotonic() - rollout.began) * 1000
        times = {"total_latency_ms": total, "llm_latency_ms": rollout.llm_ms, "tool_latency_ms": rollout.tool_ms}
        return {**times, **rollout.metrics}

    def failed(self, rollout: Rollout, error: Exception, outcome: str) -> Json:
        return {
            "rollout_id": rollout.init["rollout_id"],
            "status": "ERROR",
            "final_messages": rollout.messages,
            "finish_reason": "cancelled" if outcome == "cancelled" else "error",
            "error_message": self.without_key(rollout, f"{type(error).__name__}: {error}"[:1000]),
            "metrics": self.measured(rollout),
            "extra_fields": {"outcome": outcome},
        }

    def without_key(self, rollout: Rollout, text: str) -> str:
        key = rollout.init.get("api_key")
        return text.replace(key, "(key)") if key else text

    # Its delivery

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        rollout.result, rollout.state, rollout.finished_at = result, "finished", time.time()
        self.note({"ended": rollout.init, "result": result})
        delay = FIRST_DELAY_SECONDS
        count = len(result.get("final_messages", []))
        while not (state := await self.offer(rollout, result)):
            if len(result.get("final_messages", [])) < count:
                count = 0
                self.note({"ended": rollout.init, "result": result})
            if self.last_call.is_set():
                return
            await self.wait_to_offer(max(delay, self.told_of_result(rollout)))
            delay = min(GROWTH * delay, LAST_DELAY_SECONDS)
        rollout.state, rollout.settled_at = state, time.time()
        self.note({"settled": rollout.init, "state": state})

    async def wait_to_offer(self, delay_seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.last_call.wait(), delay_seconds)

    def told_of_result(self, rollout: Rollout) -> float:
        """The seconds that the trainer wants it to wait."""
        return rollout.told_seconds

    async def offer(self, rollout: Rollout, result: Json) -> str:
        """The state after one delivery; an empty text where it has to be made again."""
        rollout.told_seconds = 0.0
        rollout.offers += 1
        self.note({"ended": rollout.init, "offers": rollout.offers})
        try:
            response = await self.post(rollout, COMPLETED, result, self.result_key(rollout))
        except httpx.TransportError as error:
            rollout.last_error = type(error).__name__
            return ""
        rollout.told_seconds = self.told_seconds(response)
        state = self.state_after(response, result)
        rollout.last_error = None if state == "delivered" else f"HTTP {response.status_code}"
        return state

    def state_after(self, response: httpx.Response, result: Json) -> str:
        if 300 <= response.status_code < 400 or (self.is_page(response) and response.status_code not in (410, 413)):
            return ""
        if response.is_success:
            return "delivered"
        if response.status_code in self.leaves_messages_out_after and result["final_messages"]:
            # In place, so that whatever is sent from now on is the same.
            result["final_messages"] = []
            result["extra_fields"] |= {"messages_refused": True}
            return ""
        again = self.is_retried(response.status_code) or self.is_absent(response) or self.is_no_path(response)
        return "" if again else "undeliverable"

    def result_key(self, rollout: Rollout) -> str:
        return hashlib.sha256(rollout.init["rollout_id"].encode("utf-8", "surrogatepass")).hexdigest()[:32]
