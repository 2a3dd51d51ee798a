"""The server's process: all of it is gone before the next one starts; an end of its own is told with its last words."""

import socket
import sys
from pathlib import Path

import httpx
import pytest

from rollout_conformance import ConformanceError, server_command
from rollout_conformance.server_command import ServerCommand

pytestmark = pytest.mark.slow

SERVER = """
import http.server, os, sys

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())

    def log_message(self, *arguments):
        pass

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answers)
"""
WITH_A_WORKER = f"""{SERVER}
if os.fork() == 0:
    os.setpgid(0, 0)
    server.serve_forever()
os.wait()
"""
ILL = f"""{SERVER.replace("200", "503")}
print(os.environ["KIT_SAYS"], os.environ["KIT_IS_SILENT"], flush=True)
server.serve_forever()
"""
ENDING = f"""{SERVER}
server.handle_request()
print("Out of places.", file=sys.stderr)
sys.exit(3)
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def command_of(script: str, tmp_path: Path, port: int, **variables: str) -> ServerCommand:
    file = tmp_path / "server.py"
    file.write_text(script, encoding="utf-8")
    return ServerCommand([sys.executable, str(file), str(port)], f"http://127.0.0.1:{port}", variables)


async def test_a_worker_in_a_process_group_of_its_own_is_gone_with_its_supervisor(tmp_path: Path) -> None:
    port = free_port()

    def who_answers() -> str:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).text

    async with command_of(WITH_A_WORKER, tmp_path, port) as command:
        worker = who_answers()
        await command.kill()
        with pytest.raises(httpx.ConnectError):
            who_answers()
        await command.start()
        assert who_answers() != worker
    with pytest.raises(httpx.ConnectError):
        who_answers()
    assert command.own_end == ()


async def test_an_end_of_its_own_is_told_with_the_last_that_it_printed(tmp_path: Path) -> None:
    async with command_of(ENDING, tmp_path, free_port()) as command:
        assert await command.exit_code(30.0) == 3
        command.look()
    assert command.own_end == (
        "The server ended by itself, with exit code 3. The last that it printed:",
        "Out of places.",
    )


async def test_of_a_command_that_does_not_start_again_the_end_of_what_it_printed_is_told(tmp_path: Path) -> None:
    script = "print(1)\n" * 500 + "raise SystemExit('No such journal.')"
    command = command_of(script, tmp_path, free_port())
    with pytest.raises(ConformanceError, match=r"exit code 1: .*No such journal\.$"):
        async with command:
            pass


async def test_one_whose_health_is_never_well_is_judged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_command, "STARTING_SECONDS", 0.1)
    monkeypatch.setenv("KIT_SAYS", "of the user")
    async with command_of(ILL, tmp_path, free_port(), KIT_SAYS="of the kit", KIT_IS_SILENT="nobody else's") as command:
        assert command.output().strip() == b"of the user nobody else's"
