"""Web pages do not get to a server of this machine that asks for no key: by bare sockets, as a browser's come."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.live_server import LiveServer
from support.rollouts import ScriptedAgent, init_body

from osmosis_ai.rollout.core.base import RolloutContext
from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.server.app import create_app
from osmosis_ai.rollout.trainer import Trainer
from osmosis_ai.rollout.wire.loopback import LoopbackGuard

KEY = "the-servers-key"
TRAINER = "http://127.0.0.1:1"


async def do_nothing(ctx: RolloutContext) -> Any:
    return ctx.complete([])


def app_of(folder: Path, **options: Any) -> Any:
    settings = RolloutSettings(
        server=RolloutServerSettings(journal=str(folder / "journal.db"), drain_seconds=0, flush_seconds=0)
    )
    return create_app(ScriptedAgent(do_nothing), settings=settings, **options)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(app_of(tmp_path_factory.mktemp("open"), server_host="bound.test")) as live:
        yield live


def ask(port: int, request: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
    """The status and the body of the reply to bare lines."""
    lines = [f"{request} HTTP/1.1", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        reply = connection.makefile("rb").read()
    return int(reply.split()[1]), reply.partition(b"\r\n\r\n")[2]


PATHS = [
    "GET /health",
    "GET /ready",
    "GET /metrics",
    "GET /docs",
    "GET /openapi.json",
    "GET /v1/rollout/any",
    "POST /v1/rollout/any/cancel",
    "POST /v1/rollout/init",
]


HOSTS = ["evil.example:9000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "127.0.0.1@evil"]


@pytest.mark.parametrize(
    ("request_line", "host"), [(path, "evil.example") for path in PATHS] + [("GET /health", host) for host in HOSTS]
)
def test_a_name_that_anyone_may_have_gets_one_sentence(server: LiveServer, request_line: str, host: str) -> None:
    status, body = ask(server.port, request_line, f"Host: {host}")
    assert status == 403
    assert json.loads(body)["code"] == "foreign_host"


@pytest.mark.parametrize("headers", [(), ("Host: localhost", "Host: evil.example")])
def test_a_request_has_one_host(server: LiveServer, headers: tuple[str, ...]) -> None:
    assert ask(server.port, "GET /health", *headers)[0] == 403


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:9000",
        "127.9.9.9",
        "[::1]:80",
        "agent.localhost",
        "bound.test:1",
        socket.gethostname(),
    ],
)
def test_the_names_of_this_machine_are_answered(server: LiveServer, host: str) -> None:
    assert ask(server.port, "GET /health", f"Host: {host}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1.evil"])
@pytest.mark.parametrize("request_line", ["POST /v1/rollout/init", "POST /v1/rollout/any/cancel"])
def test_a_page_of_another_origin_starts_and_ends_nothing(server: LiveServer, request_line: str, origin: str) -> None:
    body = json.dumps(init_body(server_url=TRAINER)).encode()
    headers = ("Host: localhost:9000", f"Origin: {origin}", "Content-Type: application/json")
    status, reply = ask(server.port, request_line, *headers, body=body)
    assert status == 403
    assert json.loads(reply)["code"] == "foreign_origin"


def test_the_servers_own_page_may(server: LiveServer) -> None:
    body = json.dumps(init_body(server_url=TRAINER)).encode()
    headers = ("Host: localhost:9000", "Origin: http://localhost:9000", "Content-Type: application/json")
    assert ask(server.port, "POST /v1/rollout/init", *headers, body=body)[0] == 202


def test_a_server_with_a_key_may_have_any_name(tmp_path: Path) -> None:
    with LiveServer(app_of(tmp_path, api_key=KEY)) as server:
        assert ask(server.port, "GET /health", "Host: rollouts.example")[0] == 200
        assert ask(server.port, "POST /v1/rollout/init", "Host: rollouts.example")[0] == 401


@pytest.mark.parametrize(("address", "refused"), [("::ffff:127.0.0.1", True), ("127.1.2.3", True), ("10.0.0.7", False)])
def test_what_comes_over_another_interface_is_no_pages_of_this_machine(address: str, refused: bool) -> None:
    scope = {"server": (address, 80), "method": "GET", "headers": [(b"host", b"rollouts.example")]}
    assert (LoopbackGuard().problem_of(scope) is not None) is refused


async def test_the_trainers_callbacks_are_guarded_too() -> None:
    async def never(request: Any) -> Any:
        raise NotImplementedError

    async with Trainer(never, server_url=TRAINER) as trainer:
        port = int(trainer.callback_url.rpartition(":")[2])
        for host, status in (("evil.example", 403), (f"127.0.0.1:{port}", 401)):
            found, _ = await asyncio.to_thread(ask, port, "POST /v1/chat/completions", f"Host: {host}")
            assert found == status
    async with Trainer(never, server_url=TRAINER, port=port, callback_url="https://trainer.example/x"):
        found, _ = await asyncio.to_thread(ask, port, "POST /v1/chat/completions", "Host: trainer.example")
        assert found == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [(b"X: a\r\n" * 90, 200), (b"X: a\r\n" * 101, 431), (b"X: " + b"a" * 70_000 + b"\r\n", 431)],
    ids=["few", "many", "large"],
)
def test_a_head_is_bounded_by_the_app_where_its_server_does_not(tmp_path: Path, headers: bytes, status: int) -> None:
    """As under another ASGI server: a uvicorn in a thread, around which nobody has put the bounds."""
    app = app_of(tmp_path)
    with LiveServer(app, http="httptools") as server, server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + b"\r\n")
        reply = b""
        while piece := connection.recv(65_536):
            reply += piece
    assert reply.startswith(b"HTTP/1.1 %d" % status)
