"""Serving from this process: what is refused and why, what the banner says, and what is bound."""

import asyncio
import io
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from support.rollouts import INIT, ScriptedAgent, client_of, init_body, tool

from osmosis_ai.rollout.core.settings import RolloutServerSettings, RolloutSettings
from osmosis_ai.rollout.core.validator import AgentLoopValidationError
from osmosis_ai.rollout.server import serve as serve_module
from osmosis_ai.rollout.server.serve import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    ServeError,
    serve_agent_loop,
    validate_and_report,
)
from osmosis_ai.rollout.wire.channels import tls_context

LOOPBACK = "127.0.0.1"
KEY = "osm_rollout_serve-key"
KEY_VARIABLE = "OSMOSIS_ROLLOUT_SERVER_API_KEY"


@dataclass
class Served:
    """What uvicorn was given to serve."""

    config: uvicorn.Config | None = None
    addresses: list[Any] = field(default_factory=list)

    @property
    def app(self) -> Any:
        assert self.config is not None, "Nothing was served."
        return self.config.app


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """Stands in for uvicorn's loop, which would not return; all before and after it is real."""
    served = Served()

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        served.config = self.config
        served.addresses = [listener.getsockname() for listener in sockets]

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return served


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


def serve(agent: ScriptedAgent | None = None, **options: Any) -> None:
    serve_agent_loop(agent or ScriptedAgent(), **{"host": LOOPBACK, "port": 0, "journal": "off", **options})


def init_status(app: Any, key: str | None = None) -> int:
    async def ask() -> int:
        async with client_of(app) as client:
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            return (await client.post(INIT, json=init_body(), headers=headers)).status_code

    return asyncio.run(ask())


def banner(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The rows of the banner, by label."""
    lines = [line.strip("│| ") for line in capsys.readouterr().out.splitlines() if line.startswith(("│", "|"))]
    return {label: value.strip() for label, _, value in (line.partition(": ") for line in lines)}


class TestRefusal:
    def test_the_defaults_are_the_documented_ones(self) -> None:
        assert (DEFAULT_HOST, DEFAULT_PORT) == ("0.0.0.0", 9000)  # noqa: S104 - not bound here

    def test_it_needs_fastapi_and_then_uvicorn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        missing = {"uvicorn"}
        monkeypatch.setattr(serve_module, "find_spec", lambda name: None if name in missing else find_spec(name))
        with pytest.raises(ImportError, match=r"uvicorn is required.*osmosis-ai\[server\]"):
            serve()
        missing.add("fastapi")
        with pytest.raises(ImportError, match=r"FastAPI is required.*osmosis-ai\[server\]"):
            serve()

    def test_a_key_contradicts_local_debug(self) -> None:
        with pytest.raises(ServeError, match="local_debug=True disables API key authentication"):
            serve(local_debug=True, api_key=KEY)

    @pytest.mark.parametrize("key", ["", "  "])
    def test_an_empty_key_would_lock_everyone_out(self, key: str) -> None:
        with pytest.raises(ServeError, match="API key is empty"):
            serve(api_key=key)

    @pytest.mark.parametrize("port", [-1, 65536, 70_000])
    def test_a_port_out_of_range_is_named(self, port: int) -> None:
        with pytest.raises(ServeError, match=f"Port {port} is out of range"):
            serve(port=port)

    def test_an_address_in_use_is_named_before_any_banner(
        self, taken_port: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        with pytest.raises(ServeError, match=rf"Cannot listen on 127\.0\.0\.1:{taken_port} \(Address already in use\)"):
            serve(port=taken_port, debug_dir="traces")
        assert "RolloutServer" not in capsys.readouterr().out
        assert not (tmp_path / "traces").exists()

    @pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "ä" * 100])
    def test_a_host_that_cannot_be_bound_is_named(self, host: str) -> None:
        with pytest.raises(ServeError, match="Cannot listen on"):
            serve(host=host)

    @pytest.mark.parametrize("descriptor", [0, 99_999])
    def test_a_descriptor_that_is_no_socket_is_named(self, tmp_path: Path, descriptor: int) -> None:
        with (tmp_path / "file").open("w") as file, pytest.raises(ServeError, match="cannot be served on"):
            serve(fd=file.fileno() if descriptor == 0 else descriptor)

    def test_traces_need_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for debug_dir in ("file", "file/traces"):
            with pytest.raises(ServeError, match=f"Traces cannot be written to {debug_dir}"):
                serve(debug_dir=debug_dir)

    def test_a_journal_that_is_none_is_named_before_the_port_is_bound(self, taken_port: int, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("These are my notes.")
        with pytest.raises(ServeError, match="not a rollout journal"):
            serve(journal="notes.txt", port=taken_port)
        assert (tmp_path / "notes.txt").read_text() == "These are my notes."

    def test_a_certificate_file_that_is_not_there_stops_the_start(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone.pem"))
        tls_context.cache_clear()
        with pytest.raises(ServeError, match=r"SSL_CERT_FILE names '.*gone\.pem'.*No such file"):
            serve()

    def test_an_invalid_agent_loop_is_reported_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(AgentLoopValidationError, match=r"1 error\(s\)"):
            serve(ScriptedAgent(tools=[tool(name=" ")]))
        captured = capsys.readouterr()
        assert captured.err.count("INVALID_FUNCTION_NAME") == 1
        assert captured.out == ""

    def test_contradictions_come_before_the_agent_loop_is_looked_at(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ServeError):
            serve(ScriptedAgent(tools=[1]), local_debug=True, api_key=KEY)
        assert capsys.readouterr().err == ""


class TestValidation:
    def test_can_be_skipped(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        agent = ScriptedAgent(tools=[1])
        serve(agent, validate=False)
        assert agent.tool_requests == []
        assert "validated" not in capsys.readouterr().out
        assert served.config is not None

    def test_is_reported_before_the_banner(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        serve(ScriptedAgent(tools=[tool()]))
        out = capsys.readouterr().out
        assert out.startswith("Agent loop 'scripted' validated successfully.\n  - Tools: 1\n")
        assert out.index("validated") < out.index("RolloutServer")


class TestKey:
    def test_without_one_it_is_generated_shown_once_and_needed(
        self, served: Served, capsys: pytest.CaptureFixture[str]
    ) -> None:
        serve()
        out = capsys.readouterr().out
        (key,) = [word for word in out.split() if word.startswith("osm_rollout_")]
        assert out.count(key) == 1
        assert init_status(served.app) == 401
        assert init_status(served.app, key) == 202

    def test_each_start_generates_another(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        keys = []
        for _ in range(2):
            serve()
            keys.append(banner(capsys)["API Key"])
        assert keys[0] != keys[1]

    def test_a_given_one_is_needed_and_not_shown(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        serve(api_key=KEY)
        assert banner(capsys)["API Key"] == "(provided)"
        assert init_status(served.app, "other") == 401
        assert init_status(served.app, KEY) == 202

    def test_one_from_the_environment_is_needed_and_not_shown(
        self, served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        serve()
        assert KEY_VARIABLE in banner(capsys)["API Key"]
        assert init_status(served.app) == 401
        assert init_status(served.app, KEY) == 202

    @pytest.mark.parametrize("by", ["argument", "environment"])
    def test_the_line_break_of_a_file_of_secrets_is_no_part_of_it(
        self, served: Served, monkeypatch: pytest.MonkeyPatch, by: str
    ) -> None:
        if by == "environment":
            monkeypatch.setenv(KEY_VARIABLE, f"{KEY}\n")
        serve(api_key=f"{KEY}\n" if by == "argument" else None)
        assert init_status(served.app, "other") == 401
        assert init_status(served.app, KEY) == 202

    def test_one_in_the_settings_is_taken(self, served: Served) -> None:
        serve(settings=RolloutSettings(server=RolloutServerSettings.model_validate({"api_key": KEY})))
        assert init_status(served.app) == 401
        assert init_status(served.app, KEY) == 202

    def test_local_debug_needs_none_whatever_the_environment_says(
        self, served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        serve(local_debug=True)
        assert banner(capsys)["API Key"] == "(disabled - local debug)"
        assert init_status(served.app) == 202


class TestBanner:
    def test_says_who_serves_and_where(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        serve()
        rows = banner(capsys)
        port = served.addresses[0][1]
        assert rows["Agent"] == "scripted"
        assert rows["Address"] == f"127.0.0.1:{port}"
        assert port > 0
        assert list(rows) == ["Agent", "Address", "API Key", "Registration"]
        assert "not available" in rows["Registration"]

    @pytest.mark.parametrize(
        ("options", "shown"),
        [
            ({"skip_register": True}, "skipped (local testing mode)"),
            ({"local_debug": True}, "skipped (local debug mode)"),
            ({"local_debug": True, "skip_register": True}, "skipped (local debug mode)"),
        ],
    )
    def test_says_why_nothing_is_registered(
        self, served: Served, capsys: pytest.CaptureFixture[str], options: dict[str, Any], shown: str
    ) -> None:
        serve(**options)
        assert banner(capsys)["Registration"] == shown

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - for a moment, and nothing answers there
    def test_shows_the_public_address_where_there_is_one_to_show(
        self, served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, host: str
    ) -> None:
        monkeypatch.setenv("OSMOSIS_PUBLIC_HOST", "rollouts.example")
        serve(host=host)
        assert banner(capsys)["Public IP"] == "rollouts.example"

    @pytest.mark.usefixtures("tmp_path")
    def test_names_the_folder_of_the_traces(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        serve(debug_dir="traces")
        (folder,) = Path("traces").iterdir()
        assert banner(capsys)["Debug Log"] == f"{folder}/"

    def test_can_be_printed_where_only_ascii_can(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
        serve(api_key=KEY)
        assert b"RolloutServer" in written.getvalue()
        assert b"(provided)" in written.getvalue()


class TestTraces:
    @pytest.mark.usefixtures("tmp_path")
    def test_each_start_has_a_folder_named_for_its_unix_time(self, served: Served) -> None:
        before = int(time.time())
        for _ in range(2):
            serve(debug_dir="deep/traces")
        folders = [path.name for path in Path("deep/traces").iterdir()]
        assert len(folders) == 2
        times = [int(name.partition("-")[0]) for name in folders]
        assert all(before <= started <= time.time() for started in times)

    @pytest.mark.parametrize("debug_dir", [None, ""])
    def test_without_a_folder_there_are_none(
        self, served: Served, capsys: pytest.CaptureFixture[str], tmp_path: Path, debug_dir: str | None
    ) -> None:
        serve(debug_dir=debug_dir)
        assert "Debug Log" not in banner(capsys)
        assert list(tmp_path.iterdir()) == []


class TestServing:
    def test_uvicorn_gets_the_app_the_bound_socket_and_the_log_level(self, served: Served) -> None:
        serve(log_level="warning")
        assert served.config is not None
        assert served.app.title == "Osmosis RolloutServer (scripted)"
        assert served.config.log_level == "warning"
        assert not served.config.reload
        assert served.addresses[0][0] == LOOPBACK

    def test_an_inherited_socket_takes_the_place_of_host_and_port(self, served: Served) -> None:
        listener = socket.create_server((LOOPBACK, 0))
        address = listener.getsockname()
        serve(fd=listener.detach(), port=1)
        assert served.addresses == [address]

    def test_an_app_that_does_not_start_has_an_exit_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def refuses(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no"})

        monkeypatch.setattr("osmosis_ai.rollout.server.serve.create_app", lambda *_, **__: refuses)
        with pytest.raises(SystemExit) as ended:
            serve()
        assert ended.value.code == 3

    def test_the_socket_is_closed_at_the_end(self, served: Served) -> None:
        serve()
        serve(port=served.addresses[0][1])

    def test_the_journal_is_on_by_default_and_private(self, served: Served, tmp_path: Path) -> None:
        serve(journal=None)
        journal = tmp_path / ".osmosis" / "journal.db"
        assert journal.stat().st_mode & 0o777 == 0o600

    def test_the_journal_may_be_elsewhere_or_off(
        self, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OSMOSIS_ROLLOUT_SERVER_JOURNAL", "from-variable.db")
        serve(journal="off")
        assert list(tmp_path.iterdir()) == []
        serve(journal=None)
        serve(journal="from-option.db")
        made = {path.name for path in tmp_path.iterdir() if path.suffix == ".db"}
        assert made == {"from-variable.db", "from-option.db"}

    def test_an_open_port_for_everybody_is_warned_of(self, served: Served, caplog: pytest.LogCaptureFixture) -> None:
        serve(local_debug=True)
        assert "every interface" not in caplog.text
        serve(local_debug=True, host="0.0.0.0")  # noqa: S104 - for a moment, and nothing answers there
        assert "without a key on every interface" in caplog.text


class TestReport:
    def test_of_a_valid_agent_loop(self, capsys: pytest.CaptureFixture[str]) -> None:
        result = validate_and_report(ScriptedAgent(tools=[tool("a"), tool("b")]))
        assert result
        assert capsys.readouterr() == ("Agent loop 'scripted' validated successfully.\n  - Tools: 2\n", "")

    def test_counts_warnings_and_lists_them_on_request(self, capsys: pytest.CaptureFixture[str]) -> None:
        agent = ScriptedAgent(tools=[{**tool(), "type": "gadget"}])
        validate_and_report(agent)
        assert capsys.readouterr().out.splitlines()[2:] == ["  - Warnings: 1 (osmosis validate --verbose lists them)"]
        validate_and_report(agent, verbose=True)
        lines = capsys.readouterr().out.splitlines()
        assert lines[2] == "  - Warnings: 1"
        assert lines[3].startswith("    - [UNKNOWN_TOOL_TYPE] tools[0].type: ")
        assert len(lines) == 4

    def test_of_an_invalid_agent_loop_goes_to_stderr(self, capsys: pytest.CaptureFixture[str]) -> None:
        agent = ScriptedAgent(tools=[{**tool(name=""), "type": "gadget"}, 7])
        result = validate_and_report(agent)
        assert not result
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines() == [
            "Agent loop validation failed with 2 error(s):",
            *(f"  - {error}" for error in result.errors),
            f"    The tools come from {result.tools_at}.",
        ]
        assert "ScriptedAgent.get_tools" in str(result.tools_at)
        validate_and_report(agent, verbose=True)
        lines = capsys.readouterr().err.splitlines()
        assert lines[4:6] == ["", "Warnings (1):"]
        assert "UNKNOWN_TOOL_TYPE" in lines[6]
