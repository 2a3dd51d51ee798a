"""A rollout of the small server, from its first call for a completion to the acknowledgement of its result."""

import asyncio
import contextlib
import hashlib
import json
import math
import re
import secrets
import ssl
import time
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import httpx

from servers.model import (
    ATTEMPTS,
    FIRST_DELAY_SECONDS,
    GROWTH,
    LAST_DELAY_SECONDS,
    MAX_REFUSAL_BYTES,
    PATIENCE,
    TRACE,
    WHOLE,
    ChatError,
    Json,
    Rollout,
    RunTimeout,
)

CHAT = "/v1/chat/completions"
COMPLETED = "/v1/rollout/completed"
NO_PATH = re.compile(r'"(404 )?((page|route) )?not found\.?"|"no route matched with those values\.?"', re.IGNORECASE)
CLOCK_POLL_SECONDS = 0.05
MAX_REPLY_BYTES = 16 * 1024 * 1024
TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The kit speaks plain HTTP, and to load all that a server may trust takes as long as to judge one."""
DEFAULTS = {"model": "default", "temperature": 1.0, "top_p": 1.0, "max_tokens": 512, "logprobs": True}


class Playing:
    """Each step is a method, so that a mutant replaces one at a time."""

    attempts = ATTEMPTS
    run_seconds = math.inf
    keeps_connections = 0
    max_reply_bytes = MAX_REPLY_BYTES
    leaves_messages_out_after: ClassVar[set[int]] = {400, 413, 422}

    def __init__(self) -> None:
        self.last_call = asyncio.Event()
        self.kept: list[Any] = []
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.keeps_connections)
        headers = {"Accept-Encoding": "identity"}
        self.http = httpx.AsyncClient(trust_env=False, timeout=30, limits=limits, headers=headers, verify=TRUSTS_NOBODY)

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

    def is_nobody(self, error: Exception) -> bool:
        """Whether no connection came about."""
        return isinstance(error, httpx.ConnectError)

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

    def is_retried(self, status: int) -> bool:
        return status >= 500 or status in (408, 425, 429)

    def is_absent(self, response: httpx.Response) -> bool:
        """Whether somebody else answers in the trainer's place."""
        is_object = response.text.startswith("{") and response.text != "{}" and len(response.text) <= MAX_REFUSAL_BYTES
        return response.status_code in (404, 405) and not is_object

    def is_no_path(self, response: httpx.Response) -> bool:
        """Whether the path is not served."""
        return response.status_code == 405 or (
            response.status_code == 404
            and NO_PATH.search(response.text) is not None
            and "rollout" not in re.sub(r'/[^\s"]*', "", response.text.lower())
        )

    async def wait_as_told(self, response: httpx.Response) -> None:
        await asyncio.sleep(self.told_seconds(response))

    def told_seconds(self, response: httpx.Response) -> float:
        told = response.headers.get("retry-after", "0")
        if told.isdigit():
            return float(told)
        try:
            return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
        except ValueError:
            return 0.0

    async def back_off(self, attempts: int) -> None:
        await asyncio.sleep(min(FIRST_DELAY_SECONDS * GROWTH ** (attempts - 1), LAST_DELAY_SECONDS))

    async def post(self, rollout: Rollout, path: str, body: Json, key: str) -> httpx.Response:
        headers = {"Content-Type": "application/json", **self.credentials(rollout, path), **self.trace(path)}
        headers |= {"Idempotency-Key": key} if key else {}
        request = self.http.build_request(
            "POST", self.callback_url(rollout, path), content=self.encode(body), headers=headers
        )
        response = await self.http.send(request, stream=True)
        try:
            packed = bytearray()
            async for chunk in response.aiter_raw():
                packed += chunk
                if len(packed) > self.max_reply_bytes:
                    raise httpx.ReadError("The reply is too large")
        finally:
            await response.aclose()
        content = self.unpacked(bytes(packed), response.headers.get("content-encoding", "identity"))
        told = [(name, value) for name, value in response.headers.raw if self.is_read(name)]
        return httpx.Response(response.status_code, headers=told, content=content)

    def is_read(self, name: bytes) -> bool:
        return name.lower() in (b"retry-after", b"content-type")

    def unpacked(self, packed: bytes, coding: str) -> bytes:
        if coding == "identity" or not packed:
            return packed
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            content = unpacking.decompress(packed, self.max_reply_bytes + 1)
        except zlib.error as error:
            raise httpx.ReadError(f"The reply cannot be unpacked: {error}") from error
        if not unpacking.eof or unpacking.unused_data:
            raise httpx.ReadError("The reply is cut off, or too large")
        return content

    def encode(self, body: Json) -> bytes:
        return json.dumps(body).encode()

    def callback_url(self, rollout: Rollout, path: str) -> str:
        return f"{rollout.url}{path}"

    def credentials(self, rollout: Rollout, path: str) -> dict[str, str]:
        key = rollout.init.get("api_key")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def trace(self, path: str) -> dict[str, str]:
        return TRACE.get()

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

    def is_page(self, response: httpx.Response) -> bool:
        """Whether somebody else answers, in HTML."""
        return "text/html" in response.headers.get("content-type", "") and self.begins_as_page(response.text)

    def begins_as_page(self, text: str) -> bool:
        return text.lstrip("\ufeff \t\r\n").lower().startswith(("<!doctype html", "<html"))

    def result_key(self, rollout: Rollout) -> str:
        return hashlib.sha256(rollout.init["rollout_id"].encode("utf-8", "surrogatepass")).hexdigest()[:32]
