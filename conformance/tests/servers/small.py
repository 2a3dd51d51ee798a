"""A small, correct rollout server that shares no code with the SDK, nor with the kit: another reading of the protocol,
which judges the judge. Each step is a method; a mutant replaces one at a time (``servers.mutants``).

``python -m servers.small NAME PORT [JOURNAL]`` serves a mutant by its name, or this one under any other.
"""

import asyncio
import codecs
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from servers.model import TRACE, ChatError, Json, Refusal, Rollout
from servers.playing import Playing

__all__ = ["ChatError", "Json", "Refusal", "Rollout", "SmallServer"]

NUMBER = {"type": "number"}
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_METADATA_BYTES = 1024 * 1024
KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"
DRAIN_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS"
RUN_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_REQUEST_TIMEOUT_SECONDS"
DRAIN_POLL_SECONDS, LAST_CALL_SECONDS = 0.05, 2.0


def is_whole(value: Any, most: int) -> bool:
    """Whether it is a number from 1 to ``most``."""
    return type(value) is int and 1 <= value <= most


def is_text(value: Any, most: int, between: str = "") -> bool:
    """Whether it is absent, or a text of at most ``most`` characters, each of them ``between`` these two."""
    if value is None:
        return True
    is_short = isinstance(value, str) and len(value) <= most
    return is_short and all(not between or between[0] <= character <= between[1] for character in value)


class SmallServer(Playing):
    """Keeps its rollouts in memory, and in a file of JSON lines if it is given one."""

    capacity = 150
    drain_seconds = 20.0

    def __init__(self, api_key: str | None = None, journal: Path | None = None) -> None:
        super().__init__()
        self.api_key = api_key
        self.rollouts: dict[str, Rollout] = {}
        self.running: set[asyncio.Task[None]] = set()
        self.is_draining = False
        self.journal = journal
        self.app = Starlette(
            routes=[
                Route("/health", self.health, methods=["GET"]),
                Route("/ready", self.ready, methods=["GET"]),
                Route("/v1/rollout/init", self.init, methods=["POST"]),
                Route("/v1/rollout/{rollout_id:path}/cancel", self.cancel, methods=["POST"]),
                Route("/v1/rollout/{rollout_id:path}", self.status, methods=["GET"]),
            ],
            exception_handlers=dict.fromkeys((404, 405), self.refused),
        )

    # The HTTP interface

    async def refused(self, request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 500)
        return JSONResponse({"detail": f"There is no {request.method} {request.url.path}"}, status)

    async def health(self, request: Request) -> Response:
        ended = len(self.rollouts) - self.active()
        about = {"agent_loop": "small", "active_rollouts": self.active(), "completed_rollouts": ended}
        return JSONResponse({"status": "healthy", **about})

    def active(self) -> int:
        return sum(rollout.state == "running" for rollout in self.rollouts.values())

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": not self.is_draining}, 503 if self.is_draining else 200)

    async def status(self, request: Request) -> Response:
        if request.url.path == "/v1/rollout/init":
            return JSONResponse({"detail": "POST it"}, 405)
        try:
            self.authorize(request.headers.get("authorization", ""))
            return JSONResponse(self.view(self.named(request.path_params["rollout_id"])))
        except Refusal as refusal:
            return refusal.answer

    def view(self, rollout: Rollout) -> Json:
        view = {"rollout_id": rollout.init["rollout_id"], "state": rollout.state, "accepted_at": rollout.accepted_at}
        view |= {"finished_at": rollout.finished_at, "delivery_attempts": rollout.offers}
        view |= {"last_error": rollout.last_error}
        view |= {"settled_at": rollout.settled_at}
        names = ("status", "finish_reason", "reward", "error_message")
        short = {name: rollout.result.get(name) for name in names} | dict(rollout.result.get("extra_fields", {}))
        return view | ({"result": short} if rollout.result else {})

    async def cancel(self, request: Request) -> Response:
        try:
            self.authorize(request.headers.get("authorization", ""))
            rollout = self.named(request.path_params["rollout_id"])
            self.stop(rollout)
            return JSONResponse({"rollout_id": rollout.init["rollout_id"], "state": "cancelling"}, 202)
        except Refusal as refusal:
            return refusal.answer

    def named(self, rollout_id: str) -> Rollout:
        found = [rollout for rollout in self.rollouts.values() if rollout.init["rollout_id"] == rollout_id]
        if not found:
            raise Refusal(404, "No such rollout", "unknown_rollout")
        return found[-1]

    def stop(self, rollout: Rollout) -> None:
        if rollout.state != "running":
            raise Refusal(409, "The rollout has ended", "not_running")
        rollout.is_cancelled = True
        next(task for task in self.running if task.get_name() == self.key_of(rollout.init)).cancel()

    async def init(self, request: Request) -> Response:
        try:
            self.authorize(request.headers.get("authorization", ""))
            self.require_json(request)
            TRACE.set(self.trace_of(request))
            return await self.accept(self.read(await self.body_of(request)))
        except Refusal as refusal:
            return refusal.answer

    def trace_of(self, request: Request) -> dict[str, str]:
        found = {name: ",".join(request.headers.getlist(name)) for name in ("traceparent", "tracestate")}
        return {name: value for name, value in found.items() if value}

    def authorize(self, header: str) -> None:
        key = header[7:] if header[:7].lower() == "bearer " else header
        if self.api_key is not None and key != self.api_key:
            raise Refusal(401, "Invalid or missing API key", WWW_Authenticate="Bearer")

    def require_json(self, request: Request) -> None:
        kind = request.headers.get("content-type", "application/json").partition(";")[0].lower()
        if not (kind == "application/json" or kind.endswith("+json")) or "content-encoding" in request.headers:
            raise Refusal(415, "Send plain JSON", "not_json")

    async def body_of(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise Refusal(413, "The body is too large", "body_too_large")
        return bytes(body)

    def read(self, body: bytes) -> Json:
        init = self.parse(body.removeprefix(codecs.BOM_UTF8))
        wrong = next((name for name, is_right in self.rules(init).items() if not is_right), None)
        if wrong is not None:
            raise Refusal(422, f"{wrong} is missing or wrong")
        reserved = ("messages", "rollout_id", "tools", "self")
        params = {name: value for name, value in init["completion_params"].items() if name not in reserved}
        return init | {"completion_params": params}

    def parse(self, body: bytes) -> Json:
        try:
            init = json.loads(body.decode())
            # NaN and 1e999 are no numbers, and half of a surrogate pair is no text.
            json.dumps(init, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise Refusal(422, "The body is not JSON") from error
        if not isinstance(init, dict):
            raise Refusal(422, "The body is no object")
        return init

    def rules(self, init: Json) -> dict[str, bool]:
        messages, metadata = init.get("messages"), init.get("metadata", {})
        return {
            "rollout_id": self.is_id(init.get("rollout_id")),
            "server_url": self.is_url(init.get("server_url")),
            "messages": isinstance(messages, list) and all(isinstance(message, dict) for message in messages),
            "completion_params": self.are_params(init.get("completion_params")),
            "tool_server_url": is_text(init.get("tool_server_url"), 2048),
            "max_turns": is_whole(init.get("max_turns", 10), 100_000),
            "max_tokens_total": is_whole(init.get("max_tokens_total", 1), 1_000_000_000),
            "metadata": isinstance(metadata, dict) and len(json.dumps(metadata)) <= MAX_METADATA_BYTES,
            "api_key": is_text(init.get("api_key"), 4096, " ~") and self.is_trimmed(init.get("api_key")),
            "idempotency_key": is_text(init.get("idempotency_key"), 256),
        }

    def is_trimmed(self, text: str | None) -> bool:
        return text is None or text == text.strip(" ")

    def is_id(self, value: Any) -> bool:
        return (
            isinstance(value, str)
            and 0 < len(value) <= 256
            and bool(value.strip())
            and value not in ("init", ".", "..")
            and "\n" not in value
        )

    def is_of(self, value: Any, kind: Any) -> bool:
        return isinstance(value, kind) and not (kind in (int, float) and isinstance(value, bool))

    def are_params(self, params: Any) -> bool:
        kinds: dict[str, Any] = {"temperature": float, "top_p": float, "max_tokens": int, "logprobs": bool}
        kinds |= {"model": str, "stop": str | list}
        if not isinstance(params, dict):
            return False
        stops = params.get("stop")
        return not (isinstance(stops, list) and any(not isinstance(one, str) for one in stops)) and all(
            value is None or self.is_of(value, kinds.get(name, object)) or (kinds[name] is float and type(value) is int)
            for name, value in params.items()
        )

    def is_url(self, url: Any) -> bool:
        try:
            parts = urlsplit(url)
            odd = parts.query or parts.fragment or url.split() != [url] or parts.port == 0 or "@" in url
            return parts.scheme in ("http", "https") and bool(parts.hostname) and not odd and len(url) <= 2048
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
            self.note({"accepted": init, "reply": rollout.reply.decode()})
            self.spawn(self.play(rollout), key)
        elif rollout.fingerprint != fingerprint:
            raise Refusal(409, "Another body under a used key", "key_reused")
        return Response(rollout.reply, 202, media_type="application/json")

    def key_of(self, init: Json) -> str:
        return f"key:{init['idempotency_key']}" if init.get("idempotency_key") else f"id:{init['rollout_id']}"

    def fingerprint(self, init: Json) -> str:
        defaults = {"max_turns": 10, "max_tokens_total": 8192, "metadata": {}, "tool_server_url": None}
        asked = {**defaults, **{name: init[name] for name in ("messages", "completion_params", "server_url")}}
        asked |= {name: init[name] for name in defaults if name in init}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def require_room(self) -> None:
        if self.is_draining:
            raise Refusal(503, "The server ends", "shutting_down", Retry_After="1")
        if len(self.running) >= self.capacity:
            raise Refusal(429, "Too many rollouts", "at_capacity", Retry_After="1")

    def reply(self, init: Json) -> Json:
        return {"rollout_id": init["rollout_id"], "tools": self.tools()}

    def tools(self) -> list[Json]:
        joined = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}
        shouted = {
            "type": "object",
            "properties": {"text": {"type": "string"}, "how": {"type": "string", "enum": ["loud", "louder"]}},
            "required": ["text", "how"],
        }
        offered = (("add", "Add.", joined), ("shout", "Shout.", shouted))
        return [
            {"type": "function", "function": {"name": name, "description": what, "parameters": schema, "strict": False}}
            for name, what, schema in offered
        ]

    def spawn(self, work: Any, name: str = "") -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    # The process

    def note(self, event: Json) -> None:
        if self.journal is not None:
            with self.journal.open("a", encoding="utf-8") as journal:
                journal.write(json.dumps(event) + "\n")

    def take_over(self) -> None:
        """Know what a process before this one has promised, and deliver what is owed."""
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal and self.journal.exists() else []
        for event in map(json.loads, lines):
            init = event.get("accepted") or event.get("ended") or event["settled"]
            rollout = self.rollouts.setdefault(self.key_of(init), Rollout(init, self.fingerprint(init)))
            rollout.reply = event["reply"].encode() if "reply" in event else rollout.reply
            rollout.result = event.get("result", rollout.result)
            rollout.offers = event.get("offers", rollout.offers)
            rollout.state = event.get("state", rollout.state)
        for rollout in self.rollouts.values():
            if rollout.state == "running":
                self.spawn(self.resume(rollout))

    async def resume(self, rollout: Rollout) -> None:
        """Deliver what a process before this one has left, or that it was cut off."""
        error = RuntimeError("interrupted by a restart")
        await self.deliver(rollout, rollout.result or self.failed(rollout, error, "interrupted"))

    async def drain(self) -> None:
        self.is_draining = True
        for _ in range(round(self.drain_seconds / DRAIN_POLL_SECONDS)):
            if all(rollout.state != "running" for rollout in self.rollouts.values()):
                break
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        self.last_call.set()
        if self.running:
            await asyncio.wait(self.running, timeout=LAST_CALL_SECONDS)

    async def close(self) -> None:
        """Drop what still runs."""
        for task in list(self.running):
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await self.http.aclose()


async def serve(server: SmallServer, port: int) -> None:
    """Serve until SIGTERM, and then until what runs has ended."""
    import uvicorn

    from servers.serving import QuietServer

    program = QuietServer(uvicorn.Config(server.app, host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
    is_over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)
    server.take_over()
    serving = asyncio.create_task(program.serve())
    await is_over.wait()
    await server.drain()
    program.should_exit = True
    await serving


def main(name: str, port: int, journal: Path | None) -> None:
    from servers.mutants import MUTANTS

    mutant = MUTANTS.get(name)
    server = (mutant.server if mutant else SmallServer)(os.environ.get(KEY_VARIABLE), journal)
    server.drain_seconds = float(os.environ.get(DRAIN_VARIABLE, server.drain_seconds))
    server.run_seconds = float(os.environ.get(RUN_VARIABLE, server.run_seconds))
    asyncio.run(serve(server, port))


if __name__ == "__main__":
    import sys

    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
