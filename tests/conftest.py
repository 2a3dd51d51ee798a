"""What the end-to-end tests need around them: a trainer that records what it is sent, and the server as a process."""

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.plain_http import PLAIN

PROJECT = Path(__file__).parents[1]
DEADLINE_SECONDS = 60.0

Message = dict[str, Any]


class RecordingTrainer:
    """A trainer on a socket of its own: answers the nth chat call with the nth reply, the last one for ever."""

    def __init__(self) -> None:
        self.replies: list[Message] = []
        self.chats: list[Message] = []
        self._completions: queue.Queue[Message] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def completion(self) -> Message:
        """The body of the next completed callback, once it has come."""
        return self._completions.get(timeout=DEADLINE_SECONDS)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str, body: Message) -> Message:
        if path == "/v1/rollout/completed":
            self._completions.put(body)
            return {"status": "ok"}
        self.chats.append(body)
        reply = self.replies[min(len(self.chats), len(self.replies)) - 1]
        return {
            "id": "completion-1",
            "object": "chat.completion",
            "created": 0,
            "model": "default",
            "choices": [{"index": 0, "message": reply, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        trainer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = json.dumps(trainer._answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


class ServerProcess:
    """The example served by a process of its own, in an empty directory; ready for requests when constructed."""

    def __init__(self, command: list[str], port: int, directory: Path, environment: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._output = directory / "output.txt"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        self._wait_until_healthy()

    def init(self, body: Message) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/rollout/init", json=body, **PLAIN)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        with httpx.Client(**PLAIN) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                with suppress(httpx.TransportError):
                    if client.get(f"{self.url}/health").status_code == 200:
                        return
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"The server did not come up. It said:\n{self._output.read_text(encoding='utf-8')}")


def example_environment(**variables: str) -> dict[str, str]:
    """This process's environment without settings of the server, plus `variables`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ROLLOUT_", "OSMOSIS_"))}
    return inherited | {"PYTHONPATH": str(PROJECT)} | variables


@pytest.fixture
def trainer() -> Iterator[RecordingTrainer]:
    trainer = RecordingTrainer()
    yield trainer
    trainer.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start the example with `python -m <arguments>`; `{port}` in an argument or a variable stands for a free port."""
    servers = []

    def start(*arguments: str, **variables: str) -> ServerProcess:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        command = [sys.executable, "-m", *(argument.format(port=port) for argument in arguments)]
        environment = example_environment(**{name: value.format(port=port) for name, value in variables.items()})
        server = ServerProcess(command, port, tmp_path, environment)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()
