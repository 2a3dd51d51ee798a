"""A trainer that answers as it is told, on a thread of its own."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class TrainerPeer:
    """Answers GET with ``get``; POST with ``post``, or 401 unless the key is ``key``. Keeps what it was sent."""

    def __init__(
        self,
        *,
        get: int = 405,
        post: int = 422,
        key: str | None = None,
        location: str | None = None,
        clock_ahead_seconds: float = 0.0,
        sends_date: bool = True,
    ) -> None:
        peer = self
        self.requests: list[tuple[str, str, bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(get)

            def do_POST(self) -> None:
                is_refused = key is not None and self.headers.get("authorization") != f"Bearer {key}"
                self._answer(401 if is_refused else post)

            def _answer(self, status: int) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                peer.requests.append((self.command, self.path, body))
                self.send_response_only(status)
                if sends_date:
                    self.send_header("Date", self.date_time_string(time.time() + clock_ahead_seconds))
                if location is not None:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
