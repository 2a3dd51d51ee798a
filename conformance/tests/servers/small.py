"""A small, correct rollout server that shares no code with the SDK, nor with the kit: another reading of the protocol,
which judges the judge. Each step is a method; ``servers.broken`` replaces one at a time.

``python -m servers.small CLASS PORT [JOURNAL]`` serves a class of this module or of ``servers.broken``.
"""

import asyncio
import hashlib
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Json = dict[str, Any]
NUMBER = {"type": "number"}
FIRST_DELAY_SECONDS = 0.02
LAST_DELAY_SECONDS = 0.2
ATTEMPTS = 4
PATIENCE = 50
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_METADATA_BYTES = 1024 * 1024


class Refusal(Exception):  # noqa: N818 - an answer
    """An init that is not taken."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.answer = JSONResponse(
            {"detail": detail}, status, {name.replace("_", "-"): v for name, v in headers.items()}
        )


class ChatError(Exception):
    """No completion could be had."""


class Rollout:
    """An accepted init and what has come of it."""

    def __init__(self, init: Json, fingerprint: str) -> None:
        self.init = init
        self.fingerprint = fingerprint
        self.url: str = init["server_url"].rstrip("/")
        self.reply: bytes = b""
        self.messages: list[Json] = list(init["messages"])
        self.metrics: Json = {"num_llm_calls": 0, "num_tool_calls": 0, "prompt_tokens": 0, "response_tokens": 0}
        self.llm_ms = 0.0
        self.began = time.monotonic()


class SmallServer:
    """Keeps its rollouts in memory, and in a file of JSON lines if it is given one."""

    capacity = 10_000
    drain_seconds = 20.0

    leaves_messages_out_after: ClassVar[set[int]] = {400, 413, 422}

    def __init__(self, api_key: str | None = None, journal: Path | None = None) -> None:
        self.api_key = api_key
        self.rollouts: dict[str, Rollout] = {}
        self.running: set[asyncio.Task[None]] = set()
        self.http = httpx.AsyncClient(
            trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None, max_keepalive_connections=10)
        )
        self.journal = journal
        self.app = Starlette(
            routes=[
                Route("/health", self.health, methods=["GET"]),
                Route("/v1/rollout/init", self.init, methods=["POST"]),
            ],
            lifespan=self.lifespan,
        )

    # The HTTP interface

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "healthy", "active_rollouts": len(self.running)})

    async def init(self, request: Request) -> Response:
        try:
            self.authorize(request.headers.get("authorization", ""))
            return await self.accept(self.read(await self.body_of(request)))
        except Refusal as refusal:
            return refusal.answer

    def authorize(self, header: str) -> None:
        key = header[7:] if header[:7].lower() == "bearer " else header
        if self.api_key is not None and key != self.api_key:
            raise Refusal(401, "Invalid or missing API key")

    async def body_of(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise Refusal(413, "The body is too large")
        return bytes(body)

    def read(self, body: bytes) -> Json:
        init = self.parse(body)
        wrong = next((name for name, is_right in self.rules(init).items() if not is_right), None)
        if wrong is not None:
            raise Refusal(422, f"{wrong} is missing or wrong")
        return init

    def parse(self, body: bytes) -> Json:
        def refuse(constant: str) -> None:
            raise ValueError(constant)

        try:
            init = json.loads(body.decode(), parse_constant=refuse)
            json.dumps(init, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise Refusal(422, "The body is not JSON") from error
        if not isinstance(init, dict):
            raise Refusal(422, "The body is no object")
        return init

    def rules(self, init: Json) -> dict[str, bool]:
        rollout_id, messages, metadata = init.get("rollout_id"), init.get("messages"), init.get("metadata", {})
        return {
            "rollout_id": isinstance(rollout_id, str) and 0 < len(rollout_id) <= 256 and bool(rollout_id.strip()),
            "server_url": self.is_url(init.get("server_url")),
            "messages": isinstance(messages, list) and all(isinstance(message, dict) for message in messages),
            "completion_params": isinstance(init.get("completion_params"), dict),
            "max_turns": isinstance(init.get("max_turns", 10), int) and init.get("max_turns", 10) > 0,
            "max_tokens_total": isinstance(init.get("max_tokens_total", 1), int)
            and init.get("max_tokens_total", 1) > 0,
            "metadata": isinstance(metadata, dict) and len(json.dumps(metadata)) <= MAX_METADATA_BYTES,
            "api_key": isinstance(init.get("api_key"), str | None),
            "idempotency_key": isinstance(init.get("idempotency_key"), str | None),
        }

    def is_url(self, url: Any) -> bool:
        try:
            parts = urlsplit(url)
            odd = parts.query or parts.fragment or url != url.strip() or parts.port == 0
            return parts.scheme in ("http", "https") and bool(parts.hostname) and not odd
        except (ValueError, TypeError, AttributeError):
            return False

    # Acceptance

    async def accept(self, init: Json) -> Response:
        key = self.key_of(init)
        fingerprint = self.fingerprint(init)
        rollout = self.rollouts.get(key)
        if rollout is None:
            self.require_room()
            rollout = self.rollouts[key] = Rollout(init, fingerprint)
            rollout.reply = json.dumps(self.reply(init)).encode()
            self.note({"accepted": init})
            self.spawn(self.play(rollout))
        elif rollout.fingerprint != fingerprint:
            raise Refusal(409, "Another body under a used key")
        return Response(rollout.reply, 202, media_type="application/json")

    def key_of(self, init: Json) -> str:
        return f"key:{init['idempotency_key']}" if init.get("idempotency_key") else f"id:{init['rollout_id']}"

    def fingerprint(self, init: Json) -> str:
        asked = {name: init[name] for name in init if name not in ("api_key", "rollout_id", "idempotency_key")}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def require_room(self) -> None:
        if len(self.running) >= self.capacity:
            raise Refusal(429, "Too many rollouts", Retry_After="1")

    def reply(self, init: Json) -> Json:
        return {"rollout_id": init["rollout_id"], "tools": self.tools()}

    def tools(self) -> list[Json]:
        joined = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}
        shouted = {
            "type": "object",
            "properties": {"text": {"type": "string"}, "how": {"type": "string", "enum": ["loud", "louder"]}},
            "required": ["text", "how"],
        }
        return [
            {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": joined}},
            {"type": "function", "function": {"name": "shout", "description": "Shout.", "parameters": shouted}},
        ]

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    # A rollout

    async def play(self, rollout: Rollout) -> None:
        try:
            finish_reason = await self.agent(rollout)
            result = self.completed(rollout, finish_reason)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is reported
            result = self.failed(rollout, error)
        await self.deliver(rollout, result)

    async def agent(self, rollout: Rollout) -> str:
        for _ in range(rollout.init.get("max_turns", 10)):
            message = await self.turn(rollout)
            if not message.get("tool_calls"):
                return "stop"
            rollout.messages += self.answer_calls(rollout, message["tool_calls"])
        return "max_turns"

    async def turn(self, rollout: Rollout) -> Json:
        """One completion, on record."""
        began = time.monotonic()
        completion = await self.chat(rollout)
        try:
            message = completion["choices"][0]["message"]
            usage = completion.get("usage") or {}
            if not isinstance(message.get("tool_calls"), list | None):
                raise TypeError("tool_calls")
        except (LookupError, TypeError, AttributeError) as error:
            raise ChatError(f"The completion is malformed: {error}") from error
        rollout.llm_ms += (time.monotonic() - began) * 1000
        rollout.metrics["num_llm_calls"] += 1
        rollout.metrics["prompt_tokens"] += usage.get("prompt_tokens", 0)
        rollout.metrics["response_tokens"] += usage.get("completion_tokens", 0)
        rollout.messages.append(message)
        return dict(message)

    async def chat(self, rollout: Rollout) -> Json:
        problem = ""
        body = self.chat_body(rollout)
        tries = pauses = 0
        while tries < ATTEMPTS and pauses < PATIENCE:
            tries += 1
            try:
                response = await self.post(rollout, "/v1/chat/completions", body)
            except httpx.TransportError as error:
                problem = f"The trainer does not answer: {type(error).__name__}"
            else:
                completion = self.completion_in(response)
                if completion is not None and self.is_whole(completion):
                    return completion
                problem = f"The trainer answered {response.status_code}: {response.text[:200]}"
                if self.is_pause(response, completion):
                    tries, pauses = tries - 1, pauses + 1
                elif not self.is_asked_again(response, completion):
                    break
                await self.wait_as_told(response)
            await asyncio.sleep(min(FIRST_DELAY_SECONDS * 2 ** (tries + pauses), LAST_DELAY_SECONDS))
        raise ChatError(problem)

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
        return self.finish_reason(completion) in ("stop", "tool_calls", "length", "function_call")

    def is_pause(self, response: httpx.Response, completion: Json | None) -> bool:
        if completion is not None:
            return bool(self.finish_reason(completion) == "abort")
        return response.status_code in (429, 502, 503, 504) or self.is_absent(response)

    def is_asked_again(self, response: httpx.Response, completion: Json | None) -> bool:
        if completion is not None:
            return bool(self.finish_reason(completion) != "content_filter")
        return self.is_retried(response.status_code)

    def is_absent(self, response: httpx.Response) -> bool:
        """Whether somebody else answers in the trainer's place."""
        return response.status_code == 404 and not response.text.startswith("{")

    def chat_body(self, rollout: Rollout) -> Json:
        asked = {"model": "default", "temperature": 1.0, "top_p": 1.0, **rollout.init["completion_params"]}
        return {**asked, "rollout_id": rollout.init["rollout_id"], "messages": self.conversation(rollout)}

    def conversation(self, rollout: Rollout) -> list[Json]:
        return rollout.messages

    def is_retried(self, status: int) -> bool:
        return status >= 500 or status in (408, 425, 429)

    async def wait_as_told(self, response: httpx.Response) -> None:
        await asyncio.sleep(float(response.headers.get("retry-after", 0)))

    async def post(self, rollout: Rollout, path: str, body: Json) -> httpx.Response:
        headers = {"Content-Type": "application/json", **self.credentials(rollout, path)}
        return await self.http.post(self.callback_url(rollout, path), content=self.encode(body), headers=headers)

    def encode(self, body: Json) -> bytes:
        return json.dumps(body).encode()

    def callback_url(self, rollout: Rollout, path: str) -> str:
        return f"{rollout.url}{path}"

    def credentials(self, rollout: Rollout, path: str) -> dict[str, str]:
        key = rollout.init.get("api_key")
        return {"Authorization": f"Bearer {key}"} if key else {}

    def answer_calls(self, rollout: Rollout, calls: list[Json]) -> list[Json]:
        rollout.metrics["num_tool_calls"] += len(calls)
        return [{"role": "tool", "tool_call_id": call["id"], "content": self.tool_result(call)} for call in calls]

    def tool_result(self, call: Json) -> str:
        try:
            arguments = json.loads(call["function"]["arguments"] or "{}")
            if call["function"]["name"] == "add":
                return str(arguments["a"] + arguments["b"])
            return {"shout": str}[call["function"]["name"]](arguments["text"]).upper()
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return f"Error: {type(error).__name__}"

    # Its result

    def completed(self, rollout: Rollout, finish_reason: str) -> Json:
        return {
            "rollout_id": rollout.init["rollout_id"],
            "status": "COMPLETED",
            "final_messages": rollout.messages,
            "finish_reason": finish_reason,
            "reward": self.reward(rollout),
            "metrics": self.measured(rollout),
            "extra_fields": {},
        }

    def reward(self, rollout: Rollout) -> float:
        return float(rollout.init.get("metadata", {}).get("ground_truth") == "4")

    def measured(self, rollout: Rollout) -> Json:
        total = (time.monotonic() - rollout.began) * 1000
        return {"total_latency_ms": total, "llm_latency_ms": rollout.llm_ms, **rollout.metrics}

    def failed(self, rollout: Rollout, error: Exception) -> Json:
        return {
            "rollout_id": rollout.init["rollout_id"],
            "status": "ERROR",
            "final_messages": rollout.messages,
            "finish_reason": "error",
            "error_message": f"{type(error).__name__}: {error}"[:1000],
            "metrics": self.measured(rollout),
            "extra_fields": {},
        }

    async def deliver(self, rollout: Rollout, result: Json) -> None:
        self.note({"ended": self.key_of(rollout.init), "result": result})
        delay = FIRST_DELAY_SECONDS
        while not await self.is_delivered(rollout, result):
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY_SECONDS)
        self.note({"delivered": self.key_of(rollout.init)})

    async def is_delivered(self, rollout: Rollout, result: Json) -> bool:
        try:
            response = await self.post(rollout, "/v1/rollout/completed", result)
        except httpx.TransportError:
            return False
        if response.status_code in self.leaves_messages_out_after and result["final_messages"]:
            # In place, so that whatever is sent from now on is the same.
            result["final_messages"] = []
            return False
        return not self.is_retried(response.status_code) and not self.is_absent(response)

    # The process

    def note(self, event: Json) -> None:
        if self.journal is not None:
            with self.journal.open("a", encoding="utf-8") as journal:
                journal.write(json.dumps(event) + "\n")

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.take_over()
        yield
        await self.drain()

    def take_over(self) -> None:
        owed: dict[str, tuple[Rollout, Json | None]] = {}
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal and self.journal.exists() else []
        for event in map(json.loads, lines):
            if init := event.get("accepted"):
                owed[self.key_of(init)] = Rollout(init, self.fingerprint(init)), None
            elif ended := event.get("ended"):
                owed[ended] = owed[ended][0], event["result"]
            else:
                del owed[event["delivered"]]
        for rollout, result in owed.values():
            self.spawn(self.deliver(rollout, result or self.failed(rollout, RuntimeError("interrupted by a restart"))))

    async def drain(self) -> None:
        if self.running:
            await asyncio.wait(self.running, timeout=self.drain_seconds)

    async def close(self) -> None:
        """Drop what still runs."""
        for task in list(self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await self.http.aclose()


def main(name: str, port: int, journal: Path | None) -> None:
    import uvicorn

    from servers.broken import BrokenServer

    # uvicorn raises the signal anew when it has ended; a supervisor wants to see exit code 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    made = next((broken for broken in BrokenServer.every if broken.__name__ == name), SmallServer)
    uvicorn.run(made(journal=journal).app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    import sys

    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
