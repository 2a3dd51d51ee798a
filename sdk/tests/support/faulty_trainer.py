"""A trainer that fails in every way there is, rollout by rollout: a real HTTP server, run by threads of its own."""

import json
import socket
import socketserver
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

DEADLINE_SECONDS = 60.0
CHAT_PATH = "/v1/chat/completions"

JsonObject = dict[str, Any]


class Fault(Enum):
    """What comes instead of an answer."""

    DROP = "the connection is closed without a word"
    HALF = "the connection is closed in the middle of the answer"
    GARBAGE = "200 with a body that is not JSON"
    HANG = "nothing, until the trainer closes"
    KEEP_AND_DROP = "as DROP, but a result is kept"


class FaultyTrainer:
    """Answers chat calls and keeps results.

    ``chat_faults`` and ``result_faults`` say, by rollout, what comes of its first calls instead; a number is a status.
    May be used from any thread.
    """

    def __init__(self) -> None:
        self.chat_faults: dict[str, list[Fault | int]] = defaultdict(list)
        self.result_faults: dict[str, list[Fault | int]] = defaultdict(list)
        self.instead: tuple[int, bytes] | None = None
        """What everybody gets for now, a status and a body; nothing is kept."""
        self._chats: list[JsonObject] = []
        self._bodies: dict[str, list[bytes]] = defaultdict(list)
        self._kept: dict[str, JsonObject] = {}
        self._changed = threading.Condition()
        self._chats_may_go_on = threading.Event()
        self._chats_may_go_on.set()
        self._closed = threading.Event()
        self._server: _Server | None = None
        self._port = 0
        self.come_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        self.release_chats()
        self.go_away()

    @property
    def url(self) -> str:
        """What an init names as ``server_url``; the same after ``come_back``."""
        return f"http://127.0.0.1:{self._port}"

    def go_away(self) -> None:
        """Stop listening and cut every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut_connections()

    def come_back(self) -> None:
        """Listen again."""
        self._server = _Server(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def hold_chats(self) -> None:
        """Answer no chat call until ``release_chats``."""
        self._chats_may_go_on.clear()

    def release_chats(self) -> None:
        """Answer all chat calls again."""
        self._chats_may_go_on.set()

    def chats(self, rollout_id: str) -> list[JsonObject]:
        """The rollout's chat calls so far, answered or not."""
        return [call for call in list(self._chats) if call["rollout_id"] == rollout_id]

    def bodies(self, rollout_id: str) -> list[bytes]:
        """The rollout's results so far as they came in, whatever they were answered."""
        return list(self._bodies[rollout_id])

    def wait_for_chat(self, *rollout_ids: str) -> None:
        """Return once each of the rollouts has called."""
        self._wait(lambda: set(rollout_ids) <= {call["rollout_id"] for call in self._chats})

    def wait_for_post(self, *rollout_ids: str, times: int = 1) -> None:
        """Return once each of the rollouts has posted its result that often."""
        self._wait(lambda: all(len(self._bodies[rollout_id]) >= times for rollout_id in rollout_ids))

    def result(self, rollout_id: str) -> JsonObject:
        """The result that was kept, once it has come."""
        self._wait(lambda: rollout_id in self._kept)
        return self._kept[rollout_id]

    def kept(self) -> set[str]:
        """The rollouts whose results were kept so far."""
        return set(self._kept)

    def _wait(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        with self._changed:
            while not holds():
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"It did not come; kept: {self._kept.keys()}, posted: {self._bodies.keys()}")

    def _take(self, path: str, body: bytes) -> Fault | int:
        call = json.loads(body)
        rollout_id = call["rollout_id"]
        with self._changed:
            faults = (self.chat_faults if path == CHAT_PATH else self.result_faults)[rollout_id]
            answer = faults.pop(0) if faults else 200
            if path == CHAT_PATH:
                self._chats.append(call)
            else:
                self._bodies[rollout_id].append(body)
                if answer in (200, Fault.KEEP_AND_DROP):
                    self._kept[rollout_id] = call
            self._changed.notify_all()
        if path == CHAT_PATH:
            self._chats_may_go_on.wait(DEADLINE_SECONDS)
        return answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        trainer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if (instead := trainer.instead) is not None:
                    self._send(*instead)
                    return
                answer = trainer._take(self.path, body)
                content = json.dumps(_chat_reply() if self.path == CHAT_PATH else {"status": "ok"}).encode()
                match answer:
                    case Fault.DROP | Fault.KEEP_AND_DROP:
                        self.close_connection = True
                    case Fault.HANG:
                        trainer._closed.wait(DEADLINE_SECONDS)
                        self.close_connection = True
                    case Fault.HALF:
                        self._send(200, content, sent=len(content) // 2)
                        self.close_connection = True
                    case Fault.GARBAGE:
                        self._send(200, b"<html>gateway</html>")
                    case int():
                        self._send(answer, content if answer == 200 else b'{"error": "scripted"}')

            def _send(self, status: int, content: bytes, sent: int | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:sent])

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections are cut on purpose here, from both ends."""

    def cut_connections(self) -> None:
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already

    server_bind = socketserver.TCPServer.server_bind  # that of HTTPServer asks a resolver for our name


def _chat_reply() -> JsonObject:
    return {
        "id": token_hex(8),
        "object": "chat.completion",
        "created": 0,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": f"Reply {token_hex(8)}"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
