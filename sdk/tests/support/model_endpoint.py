"""An OpenAI-compatible endpoint whose every answer a test decides: real sockets, served by threads of its own.

Left to itself it answers as ``builtin/arithmetic`` does, with the tools of the request, as a llama.cpp-style server.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from osmosis_ai.rollout.run.policies import ArithmeticPolicy

JsonObject = dict[str, Any]

ADD_CALL: JsonObject = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
}


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: JsonObject


@dataclass(frozen=True)
class Answer:
    """What goes back: ``content`` as it is. ``hangs`` sends nothing until the endpoint is closed."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    hangs_up: bool = False


HANG = Answer(hangs=True)
HANG_UP = Answer(hangs_up=True)


def reply(message: JsonObject, finish_reason: str | None = "stop", **extra: Any) -> Answer:
    """A completion with ``message``; ``extra`` fields stand beside ``choices``."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "stub",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        **extra,
    }
    return Answer(json.dumps(body).encode())


def say(text: str) -> Answer:
    """A completion of text."""
    return reply({"role": "assistant", "content": text})


def refuse(status: int, message: str = "the reason", code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI words it; ``Retry_After="1"`` is a header."""
    error = {"message": message, "type": "stub", "code": code}
    return Answer(
        json.dumps({"error": error}).encode(),
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


class ModelEndpoint:
    """Gives ``answers`` to the first calls, and what ``otherwise`` says to all others. May be used from any thread."""

    def __init__(
        self, *answers: Answer, otherwise: Callable[[JsonObject], Answer] | None = None, port: int = 0
    ) -> None:
        self.answers = list(answers)
        self.otherwise = otherwise or arithmetic
        self.calls: list[Call] = []
        self.in_flight = self.most_in_flight = 0
        self._changed = threading.Condition()
        self._is_closed = threading.Event()
        self._server = _Server(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_for_calls(self, count: int, timeout_seconds: float = 20.0) -> None:
        """Wait until ``count`` calls have come."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.calls) >= count, timeout_seconds):
                raise AssertionError(f"{len(self.calls)} calls came, not {count}")

    def _take(self, call: Call) -> Answer:
        with self._changed:
            self.calls.append(call)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self._changed.notify_all()
            if self.answers:
                return self.answers.pop(0)
        return self.otherwise(call.body)  # unlocked: it may wait for other calls

    def _ended(self) -> None:
        with self._changed:
            self.in_flight -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = endpoint._take(Call(self.path, headers, body))
                try:
                    self._send(answer)
                finally:
                    endpoint._ended()

            def _send(self, answer: Answer) -> None:
                if answer.hangs:
                    endpoint._is_closed.wait()
                if answer.hangs or answer.hangs_up:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no matter."""


def arithmetic(body: JsonObject) -> Answer:
    """What the scripted policy says."""
    policy = ArithmeticPolicy()
    policy.set_tools(body.get("tools") or [])
    result = asyncio.run(policy.chat_completions(body["messages"]))
    # Servers say "stop" after tool calls too, and add what they like.
    message = {**result.message, "reasoning_content": None, "provider_specific_fields": {"x": 1}}
    return reply(message, "stop", timings={"predicted_ms": 1.5})
