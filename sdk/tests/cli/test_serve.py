"""``osmosis serve`` in a process of its own, driven over a socket, until it is told to stop."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.agent_files import write_agent
from support.fake_trainer import FakeTrainer
from support.processes import ServingProgram
from support.rollouts import init_body

from osmosis_ai.cli import main

Captured = pytest.CaptureFixture[str]

AGENT = "user_agent:agent_loop"
KEY = "osm_rollout_from-the-environment"
KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"
LOOPBACK = "127.0.0.1"


@pytest.fixture(scope="module")
def trainer() -> Iterator[FakeTrainer]:
    with FakeTrainer() as trainer:
        yield trainer


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class Servers:
    """One of each kind, started at once and shared by the tests."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.chosen_port = free_port()
        self._stack = stack
        self.plain = self._start("plain", "-p", "0", "--log", "logs/here")
        self.local = self._start(
            "local", "--local", "--port", str(self.chosen_port), "--journal", "off", PYTHONIOENCODING="ascii"
        )
        self.guarded = self._start("guarded", "-H", LOOPBACK, "-p", "0", "--log-level", "debug", **{KEY_VARIABLE: KEY})
        for server in (self.plain, self.local, self.guarded):
            server.wait_until_serving()

    def _start(self, name: str, *arguments: str, **variables: str) -> ServingProgram:
        folder = self.folder / name
        folder.mkdir()
        write_agent(folder)
        return self._stack.enter_context(ServingProgram(folder, "-m", AGENT, *arguments, **variables))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("servers"), stack)


def events_of(folder: Path, rollout_id: str) -> list[dict[str, Any]]:
    (file,) = folder.glob(f"*/{rollout_id}.jsonl")
    assert re.fullmatch(r"\d{10,}", file.parent.name)
    return [json.loads(line) for line in file.read_text().splitlines()]


class TestPlain:
    def test_the_key_is_shown_once_and_needed(self, servers: Servers, trainer: FakeTrainer) -> None:
        server = servers.plain
        key = server.wait_for(r"API Key:\s+(osm_rollout_[A-Za-z0-9_-]{43})\b")[1]
        body = init_body("plain-1", server_url=trainer.url, api_key="cb-token")
        assert server.init(body).status_code == 401
        assert server.init(body, key="wrong").status_code == 401
        response = server.init(body, key)
        assert response.status_code == 202
        assert [tool["function"]["name"] for tool in response.json()["tools"]] == ["add"]
        result = trainer.wait_for_result("plain-1")
        assert (result["status"], result["reward"]) == ("COMPLETED", 1.0)
        assert {call.authorization for call in trainer.calls if call.body["rollout_id"] == "plain-1"} == {
            "Bearer cb-token"
        }
        assert (server.stdout + server.stderr).count(key) == 1
        assert "cb-token" not in server.stdout + server.stderr

    def test_the_trace_is_in_a_folder_named_for_the_time_of_the_start(
        self, servers: Servers, trainer: FakeTrainer
    ) -> None:
        server = servers.plain
        key = server.wait_for(r"API Key:\s+(\S+)")[1]
        for rollout_id in ("plain-2", "../../escape"):
            server.init(init_body(rollout_id, server_url=trainer.url), key)
            trainer.wait_for_result(rollout_id)
        folder = servers.folder / "plain"
        (event,) = [event for event in events_of(folder / "logs" / "here", "plain-2") if event["event"] == "pre_llm"]
        assert event["rollout_id"] == "plain-2"
        assert server.wait_for(r"Debug Log:\s+(logs/here/\d+)/")
        assert not list(folder.parent.glob("**/escape.jsonl"))
        assert len(list(folder.glob("logs/here/*/*.jsonl"))) >= 2

    def test_it_says_that_registration_is_not_available(self, servers: Servers) -> None:
        assert "Registration: not available" in servers.plain.stdout

    def test_it_ends_with_0_when_it_is_told_to(self, servers: Servers) -> None:
        assert servers.plain.signal(signal.SIGTERM) == 0
        assert "Traceback" not in servers.plain.stderr


class TestLocal:
    def test_it_serves_the_loopback_on_the_chosen_port_without_a_key(
        self, servers: Servers, trainer: FakeTrainer
    ) -> None:
        server = servers.local
        assert server.port == servers.chosen_port
        assert f"{LOOPBACK}:{server.port}" in server.stdout
        assert server.init(init_body("local-1", server_url=trainer.url)).status_code == 202
        assert trainer.wait_for_result("local-1")["status"] == "COMPLETED"
        assert server.get("/platform/health").status_code == 404
        assert server.get("/docs").status_code == 200

    def test_its_banner_fits_a_terminal_that_knows_only_ascii(self, servers: Servers) -> None:
        assert servers.local.stdout.isascii()
        assert "(disabled - local debug)" in servers.local.stdout

    def test_without_a_journal_it_leaves_nothing_behind(self, servers: Servers) -> None:
        assert not (servers.folder / "local" / ".osmosis").exists()

    def test_it_ends_with_0_on_ctrl_c(self, servers: Servers) -> None:
        assert servers.local.signal(signal.SIGINT) == 0
        assert "Traceback" not in servers.local.stderr


class TestGuarded:
    def test_the_key_of_the_environment_is_needed_and_not_shown(self, servers: Servers, trainer: FakeTrainer) -> None:
        server = servers.guarded
        body = init_body("guarded-1", server_url=trainer.url)
        assert server.init(body).status_code == 401
        assert server.init(body, KEY).status_code == 202
        assert trainer.wait_for_result("guarded-1")["status"] == "COMPLETED"
        assert KEY not in server.stdout + server.stderr
        assert server.get("/docs").status_code == 404

    def test_the_log_level_is_the_sdks_too(self, servers: Servers) -> None:
        servers.guarded.wait_for(r"INFO\s+osmosis_ai\.\S+: Serving agent loop 'agent'")

    def test_the_journal_is_on_and_private(self, servers: Servers) -> None:
        journal = servers.folder / "guarded" / ".osmosis" / "journal.db"
        assert journal.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
class TestReload:
    def test_an_edited_module_takes_effect_and_a_broken_one_waits_for_its_repair(
        self, tmp_path: Path, trainer: FakeTrainer
    ) -> None:
        write_agent(tmp_path, finish_reason="before")
        with ServingProgram(tmp_path, "-m", AGENT, "--local", "-p", "0", "--reload", "--log", "logs") as server:
            self.edit(server.wait_until_serving(), tmp_path, trainer)

    def edit(self, server: ServingProgram, folder: Path, trainer: FakeTrainer) -> None:
        assert self.finish_reason(server, trainer, "reload-1") == "before"
        (folder / "user_agent.py").write_text("agent_loop = (")
        server.wait_for(r"Error: Cannot import module 'user_agent': SyntaxError")
        write_agent(folder, finish_reason="after")
        deadline = time.monotonic() + 60
        attempts = iter(range(2, 10_000))
        while self.finish_reason(server, trainer, f"reload-{next(attempts)}") != "after":
            assert time.monotonic() < deadline, server.stderr
        assert events_of(folder / "logs", "reload-1")
        assert "Traceback" not in server.stderr
        assert server.signal(signal.SIGTERM) == 0

    @staticmethod
    def finish_reason(server: ServingProgram, trainer: FakeTrainer, rollout_id: str) -> str | None:
        """How a rollout ended; ``None`` where the server was being replaced just then."""
        try:
            response = server.init(init_body(rollout_id, server_url=trainer.url))
        except httpx.TransportError:
            return None
        if response.status_code != 202:
            return None
        return str(trainer.wait_for_result(rollout_id)["finish_reason"])


class TestRefusal:
    """In this process, as nothing comes to be served."""

    @pytest.fixture(autouse=True)
    def _never_serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("uvicorn.Server.run", lambda *args, **options: pytest.fail("It serves."))

    def test_a_port_in_use_is_one_sentence(self, user_agent: str, capsys: Captured) -> None:
        with socket.create_server((LOOPBACK, 0)) as listener:
            port = listener.getsockname()[1]
            assert main(["serve", "-m", user_agent, "--local", "-p", str(port)]) == 1
        out, err = capsys.readouterr()
        assert "RolloutServer" not in out
        assert err == (
            f"Error: Cannot listen on 127.0.0.1:{port} (Address already in use): "
            "choose another address with --host and --port.\n"
        )

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["--local", "--api-key", "k"], 2, "local_debug=True disables API key authentication"),
            (["--server-key", ""], 2, "The API key is empty"),
            (["--server-key", "osm\nkey"], 2, "The API key (--server-key) must be printable ASCII"),
            (["--server-key", "a key"], 2, "The API key (--server-key) must be printable ASCII"),
            (["--local", "--reload", "-w", "2"], 2, "leave out reload, or workers"),
            (["--local", "-H", "no.such.host.invalid"], 1, "Cannot listen on no.such.host.invalid"),
            (["--local", "--fd", "99999"], 1, "Descriptor 99999 cannot be served on"),
            (["--local", "--log", "user_agent.py"], 1, "Traces cannot be written to user_agent.py"),
            (["--local", "--journal", "user_agent.py"], 1, "not a rollout journal"),
        ],
    )
    def test_a_mistake_is_one_sentence(
        self, user_agent: str, capsys: Captured, arguments: list[str], code: int, said: str
    ) -> None:
        assert main(["serve", "-m", user_agent, "-p", "0", *arguments]) == code
        out, err = capsys.readouterr()
        assert "RolloutServer" not in out
        assert err.startswith("Error: ")
        assert said in err
        assert err.count("\n") == 1

    @pytest.mark.parametrize(
        ("variable", "value", "said"),
        [
            (
                "OSMOSIS_ROLLOUT_SERVER_MAX_BODY_BYTES",
                "lots",
                "it must be a whole number from 1024 to 1073741824, not 'lots'",
            ),
            ("OSMOSIS_ROLLOUT_CLIENT_MAX_RETRIES", "99", "it must be a whole number from 0 to 10, not '99'"),
            (KEY_VARIABLE, " ", "it must not be empty"),
            (KEY_VARIABLE, "osm\nkey", "it must be printable ASCII without spaces or line breaks"),
            ("OSMOSIS_ROLLOUT_SERVER_METRICS_KEY", "a key", "it must be printable ASCII without spaces"),
            ("OSMOSIS_ROLLOUT_JUDGE_API_KEY", "sk-\N{EN DASH}", "it must be printable ASCII without spaces"),
        ],
    )
    def test_a_bad_setting_is_one_sentence(
        self,
        user_agent: str,
        capsys: Captured,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
        value: str,
        said: str,
    ) -> None:
        monkeypatch.setenv(variable, value)
        assert main(["serve", "-m", user_agent, "-p", "0"]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"Error: The setting {variable} cannot be used: ")
        assert said in err
        assert err.count("\n") == 1

    def test_an_invalid_agent_loop_is_reported_once(self, working_directory: Path, capsys: Captured) -> None:
        write_agent(working_directory)
        source = (working_directory / "user_agent.py").read_text().replace('"name": "add"', '"name": ""')
        (working_directory / "user_agent.py").write_text(source)
        assert main(["serve", "-m", AGENT, "--local", "-p", "0"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("Agent loop validation failed with 1 error(s):")
        assert err.count("INVALID_FUNCTION_NAME") == 1
        assert "Error: " not in err
