"""The worked transcript of ``protocol.md``: the calculator served by the real app, over real sockets, recorded.

What differs from run to run (addresses, times, random ids) is replaced; everything else is as it was on the wire.
"""

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import uvicorn

from osmosis_ai.rollout import RolloutServerSettings, RolloutSettings, create_app
from osmosis_ai.rollout.run.policies import ArithmeticPolicy
from osmosis_ai.rollout.wire.listening import listen
from server import agent_loop

DEADLINE_SECONDS = 30.0
WIDTH = 110
SERVER_KEY = "key-of-the-rollout-server"
CALLBACK_KEY = "token-for-the-callbacks"
SHOWN_HEADERS = ("Host", "Authorization", "Content-Type", "Idempotency-Key", "Retry-After", "WWW-Authenticate")
QUESTION = "Work out 3 + 4."
INSTRUCTION = "Use the tools. Write the result alone on the last line, as in: #### N"


@dataclass(frozen=True)
class Exchange:
    """One request and its response, headers as far as they are shown."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: str
    response_headers: dict[str, str]
    response: Any


class RecordingTrainer:
    """A trainer on a loopback socket; its model is the scripted policy, and fails where the prompt says so."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._tools: list[dict[str, Any]] = []
        self._tools_are_known = threading.Event()
        self.completed = threading.Semaphore(0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve from entry to exit."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def know_tools(self, tools: list[dict[str, Any]]) -> None:
        """Only the reply to the init names the tools; a chat call may come before it, and waits."""
        self._tools = tools
        self._tools_are_known.set()

    def wait_for_result(self) -> None:
        """Wait until the next result has come."""
        if not self.completed.acquire(timeout=DEADLINE_SECONDS):
            raise TimeoutError("The result did not come.")

    def of(self, rollout_id: str) -> list[Exchange]:
        """All callbacks of one rollout."""
        return [exchange for exchange in self.exchanges if exchange.body["rollout_id"] == rollout_id]

    def answer(self, path: str, body: dict[str, Any]) -> tuple[str, Any]:
        """Status and body of the response."""
        if path.endswith("/completed"):
            return "200 OK", {"status": "ok"}
        if "fail" in str(body["messages"][-1]["content"]):
            return "400 Bad Request", {"error": "the prompt is longer than the model's context"}
        policy = ArithmeticPolicy()
        self._tools_are_known.wait(DEADLINE_SECONDS)
        policy.set_tools(self._tools)
        result = asyncio.run(policy.chat_completions(body["messages"]))
        choice = {"index": 0, "message": result.message, "finish_reason": result.finish_reason}
        return "200 OK", {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1795000000,
            "model": "policy-step-7",
            "choices": [choice],
            "usage": result.usage,
        }


def _handler_of(trainer: RecordingTrainer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = trainer.answer(self.path, body)
            encoded = json.dumps(reply).encode()
            self.send_response(int(status[:3]))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)
            shown = {"Content-Type": "application/json"}
            trainer.exchanges.append(Exchange("POST", self.path, _shown(self.headers), body, status, shown, reply))
            if self.path.endswith("/completed"):
                trainer.completed.release()

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable()  # one rollout fails, as it should
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _server() -> Iterator[str]:
    settings = RolloutSettings(server=RolloutServerSettings(journal="off", _env_file=None))
    app = create_app(agent_loop, settings=settings, api_key=SERVER_KEY)
    socket = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        socket.close()


class Caller:
    """The trainer's calls to the server."""

    def __init__(self, client: httpx.Client, server_url: str) -> None:
        self._client = client
        self._server_url = server_url

    def send(self, method: str, path: str, body: Any = None, key: str = SERVER_KEY) -> Exchange:
        """Send a request."""
        request = self._client.build_request(
            method, self._server_url + path, json=body, headers={"Authorization": f"Bearer {key}"}
        )
        response = self._client.send(request)
        return Exchange(
            method,
            path,
            _shown(request.headers),
            body,
            f"{response.status_code} {httpx.codes.get_reason_phrase(response.status_code)}",  # each Python has its own
            _shown(response.headers),
            response.json(),
        )

    def wait_until_delivered(self, rollout_id: str) -> Exchange:
        """The state of a rollout whose result the server knows to be acknowledged."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            exchange = self.send("GET", f"/v1/rollout/{rollout_id}")
            if exchange.response.get("state") == "delivered":
                return exchange
            time.sleep(0.01)
        raise TimeoutError(f"Rollout {rollout_id} was not delivered: {exchange.response}")


def record() -> dict[str, list[Exchange]]:
    """What went over the wire, by part of the story."""
    trainer = RecordingTrainer()
    with _quiet(), trainer.serving(), _server() as server_url, httpx.Client(trust_env=False) as client:
        caller = Caller(client, server_url)
        body = init_body("step7-000042", trainer.url, QUESTION)
        started = caller.send("POST", "/v1/rollout/init", body)
        trainer.know_tools(started.response["tools"])
        trainer.wait_for_result()
        repeated = caller.send("POST", "/v1/rollout/init", body)
        status = caller.wait_until_delivered("step7-000042")
        refused = [
            caller.send("POST", "/v1/rollout/init", {**body, "max_turns": 3}),
            caller.send("POST", "/v1/rollout/init", {**body, "rollout_id": " ", "max_turns": "many"}),
            caller.send("POST", "/v1/rollout/init", body, key="another-key"),
        ]
        failing = init_body("step7-000043", trainer.url, "No arithmetic here: fail.")
        caller.send("POST", "/v1/rollout/init", failing)
        trainer.wait_for_result()
        caller.wait_until_delivered("step7-000043")
        too_late = caller.send("POST", "/v1/rollout/step7-000043/cancel")
        story = {
            "start": [started],
            "repeat": [repeated],
            "turns": trainer.of("step7-000042")[:-1],
            "result": trainer.of("step7-000042")[-1:],
            "status": [status],
            "refused": [*refused, too_late],
            "failure": trainer.of("step7-000043"),
        }
        addresses = {trainer.url: "http://trainer.example:8000", server_url: "http://rollouts.example:9000"}
    return {
        part: [_replaced(exchange, addresses, number) for number, exchange in enumerate(exchanges, start=1)]
        for part, exchanges in story.items()
    }


def init_body(rollout_id: str, trainer_url: str, question: str) -> dict[str, Any]:
    """An init as a trainer sends it."""
    return {
        "rollout_id": rollout_id,
        "server_url": trainer_url,
        "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": question}],
        "completion_params": {"temperature": 0.8, "top_k": 40},
        "metadata": {"ground_truth": "7"},
        "api_key": CALLBACK_KEY,
        "idempotency_key": f"{rollout_id}/1",
    }


_TITLES = {
    "start": "The trainer starts a rollout. Sent again, the same body gets the same bytes back, and starts nothing.",
    "turns": "The server asks for a message a turn; the conversation grows at its end only.",
    "result": "The agent has ended: the result. Anything but a 2xx, and it comes again with the same bytes.",
    "status": "The trainer asks how it stands.",
    "refused": "What is refused: another body under the key, two bad fields, a wrong key, a cancel that is too late.",
    "failure": "A rollout that fails: the trainer refuses its chat call. The result is an ERROR without a reward.",
}


def transcript() -> str:
    """The transcript as Markdown."""
    story = record()
    parts = [f"{title}\n\n" + "\n".join(map(render, story[part])) for part, title in _TITLES.items()]
    return "\n".join(parts)


def render(exchange: Exchange) -> str:
    """One exchange as a block of HTTP."""
    request = [f"{exchange.method} {exchange.path} HTTP/1.1", *_lines(exchange.headers)]
    if exchange.body is not None:
        request += ["", pretty(exchange.body)]
    response = [f"HTTP/1.1 {exchange.status}", *_lines(exchange.response_headers), "", pretty(exchange.response)]
    return "```http\n" + "\n".join([*request, "", *response]) + "\n```\n"


def pretty(value: Any, indent: int = 0) -> str:
    """JSON on one line where that fits, else one member a line."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, list):
        members = [pretty(item, indent + 2) for item in value]
    else:
        members = [f"{json.dumps(name)}: {pretty(item, indent + 2)}" for name, item in value.items()]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    return f"{opening}\n" + ",\n".join(inner + member for member in members) + f"\n{' ' * indent}{closing}"


def _lines(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


def _shown(headers: Any) -> dict[str, str]:
    return {name: headers[name] for name in SHOWN_HEADERS if headers.get(name) is not None}


_TIMES = re.compile(r'("(?:\w+_at|time)": )[0-9.e+-]+')
_LATENCIES = re.compile(r'("\w+_latency_ms": )[0-9.e+-]+')
_ELAPSED = re.compile(r", [0-9]+\.[0-9] s\)")
_CALL_ID = re.compile(r"^[0-9a-f]{16}([0-9a-f]{8})$")


def _replaced(exchange: Exchange, addresses: dict[str, str], number: int) -> Exchange:
    def json_of(value: Any) -> Any:
        text = json.dumps(value)
        for real, shown in addresses.items():
            text = text.replace(real, shown)
        text = _ELAPSED.sub(", 0.0 s)", _TIMES.sub(r"\g<1>1795000000.25", text))
        return json.loads(_LATENCIES.sub(r"\g<1>1.5", text))

    headers = dict(exchange.headers)
    for real, shown in addresses.items():
        headers["Host"] = headers["Host"].replace(real.removeprefix("http://"), shown.removeprefix("http://"))
    if "Idempotency-Key" in headers:
        headers["Idempotency-Key"] = _CALL_ID.sub(f"5be0cd19137e2179{number:08x}", headers["Idempotency-Key"])
    return replace(exchange, headers=headers, body=json_of(exchange.body), response=json_of(exchange.response))
