"""A trainer whose every answer a test decides: a real HTTP server on a loopback socket, run by threads of its own."""

import asyncio
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

DEADLINE_SECONDS = 60.0
CHAT_PATH = "/v1/chat/completions"
COMPLETED_PATH = "/v1/rollout/completed"

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    path: str
    authorization: str | None
    body: JsonObject
    trace_context: tuple[str | None, str | None] = (None, None)
    """The headers ``traceparent`` and ``tracestate``."""


class FakeTrainer:
    """Answers every chat call with ``reply`` and acknowledges every result.

    ``chat_answers`` and ``completed_answers`` are statuses for the first calls instead; 0 drops the connection without
    a word. ``hold_chats`` lets chat calls wait until ``release_chats``. May be used from any thread.
    """

    def __init__(self) -> None:
        self.reply: JsonObject = {"role": "assistant", "content": "#### 4"}
        self.usage: JsonObject = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        self.chat_answers: list[int] = []
        self.completed_answers: list[int] = []
        self.retry_after: str | None = None
        self.refusal = b'{"error": "scripted"}'
        """The body of every answer but a 200."""
        self.calls: list[Call] = []
        self._acknowledged: list[JsonObject] = []
        self._changed = threading.Condition()
        self._chats_may_go_on = threading.Event()
        self._chats_may_go_on.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release_chats()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What an init names as ``server_url``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def chats(self, rollout_id: str) -> list[JsonObject]:
        """The bodies of the rollout's chat calls so far."""
        return self._bodies(CHAT_PATH, rollout_id)

    def posts(self, rollout_id: str) -> list[JsonObject]:
        """The bodies of the rollout's results so far, acknowledged or not."""
        return self._bodies(COMPLETED_PATH, rollout_id)

    def wait_for_result(self, rollout_id: str) -> JsonObject:
        """The first result of that rollout that was acknowledged, once it has come."""
        return self._wait(lambda: next((body for body in self._acknowledged if body["rollout_id"] == rollout_id), None))

    async def result(self, rollout_id: str) -> JsonObject:
        """As ``wait_for_result``, without blocking the event loop."""
        return await asyncio.to_thread(self.wait_for_result, rollout_id)

    async def first_post(self, rollout_id: str) -> JsonObject:
        """The first result of that rollout, acknowledged or not, once it has come."""
        return await asyncio.to_thread(self._wait, lambda: next(iter(self.posts(rollout_id)), None))

    async def chat_call(self, rollout_id: str) -> JsonObject:
        """The first chat call of that rollout, once it has come."""
        return await asyncio.to_thread(self._wait, lambda: next(iter(self.chats(rollout_id)), None))

    async def calls_to(self, count: int) -> None:
        """Return once ``count`` calls have come, of whatever rollout."""
        await asyncio.to_thread(self._wait, lambda: {} if len(self.calls) >= count else None)

    def hold_chats(self) -> None:
        """Answer no chat call until ``release_chats``."""
        self._chats_may_go_on.clear()

    def release_chats(self) -> None:
        """Answer all chat calls again."""
        self._chats_may_go_on.set()

    def _bodies(self, path: str, rollout_id: str) -> list[JsonObject]:
        return [
            call.body for call in list(self.calls) if call.path == path and call.body.get("rollout_id") == rollout_id
        ]

    def _wait(self, find: Any) -> JsonObject:
        with self._changed:
            if not self._changed.wait_for(lambda: find() is not None, DEADLINE_SECONDS):
                raise AssertionError(f"The call did not come within {DEADLINE_SECONDS:g} s; there were {self.calls}")
            found: JsonObject = find()
            return found

    def _answer(self, call: Call) -> int:
        with self._changed:
            self.calls.append(call)
            script = self.chat_answers if call.path == CHAT_PATH else self.completed_answers
            status = script.pop(0) if script else 200
            if call.path == COMPLETED_PATH and status == 200:
                self._acknowledged.append(call.body)
            self._changed.notify_all()
        if call.path == CHAT_PATH:
            self._chats_may_go_on.wait(DEADLINE_SECONDS)
        return status

    def _body_for(self, call: Call) -> JsonObject:
        if call.path != CHAT_PATH:
            return {"status": "ok"}
        return {
            "id": "completion",
            "created": 0,
            "choices": [{"index": 0, "message": self.reply, "finish_reason": "stop"}],
            "usage": self.usage,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        trainer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                trace_context = self.headers["traceparent"], self.headers["tracestate"]
                call = Call(self.path, self.headers["Authorization"], body, trace_context)
                status = trainer._answer(call)
                if status == 0:
                    self.close_connection = True
                    return
                answer = json.dumps(trainer._body_for(call)).encode() if status == 200 else trainer.refusal
                self.send_response(status)
                if status != 200 and trainer.retry_after is not None:
                    self.send_header("Retry-After", trainer.retry_after)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler
