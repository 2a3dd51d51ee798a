"""The program as a whole: its exit codes, its help, its ``.env``, and how little it loads."""

import importlib.metadata
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from support.processes import own_environment

from osmosis_ai import __version__
from osmosis_ai.cli import main

WriteModule = Any

HEAVY = ("asyncio", "fastapi", "httpx", "litellm", "pyarrow", "pydantic", "requests", "rich", "starlette", "uvicorn")

# Sockets are blocked, so that whatever phones home fails.
LIGHT = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from osmosis_ai.cli import main
try:
    main({arguments})
except SystemExit as exit:
    assert exit.code == 0, exit.code
loaded = [name for name in {heavy} if name in sys.modules]
assert not loaded, loaded
"""

Captured = pytest.CaptureFixture[str]


def exit_code_of(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as exited:
        main(list(arguments))
    return exited.value.code


class TestExitCodes:
    def test_without_a_command_it_shows_its_help_on_stdout_and_returns_2(self, capsys: Captured) -> None:
        assert main([]) == 2
        out, err = capsys.readouterr()
        assert out.startswith("usage: osmosis")
        assert err == ""

    @pytest.mark.parametrize("flag", ["-h", "--help"])
    def test_help_exits_0_and_lists_the_commands(self, capsys: Captured, flag: str) -> None:
        assert exit_code_of(flag) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage: osmosis")
        for command in ("serve", "validate", "trainer"):
            assert f"\n  {command} " in out
        assert "..." not in out.partition("Commands:")[2], "what a command does is told whole"

    @pytest.mark.parametrize("flag", ["-V", "--version"])
    def test_the_version_is_printed_and_exits_0(self, capsys: Captured, flag: str) -> None:
        assert exit_code_of(flag) == 0
        assert capsys.readouterr().out == f"osmosis-ai {__version__}\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            ["frobnicate"],
            ["--frobnicate"],
            ["serve", "-m", "x:y", "--frobnicate"],
            ["serve", "-m", "x:y", "-p", "nine"],
            ["serve", "-m", "x:y", "-p", "70000"],
            ["serve", "-m", "x:y", "-p", "-1"],
            ["serve", "-m", "x:y", "--log-level", "loud"],
            ["serve", "-m", "x:y", "extra"],
            ["serve", "--version"],
        ],
    )
    def test_a_command_line_that_cannot_be_understood_exits_2(self, capsys: Captured, arguments: list[str]) -> None:
        assert exit_code_of(*arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "sage: osmosis" in err
        assert "Error: " in err

    @pytest.mark.parametrize("arguments", [[], ["-m", "x:y", "--mcp", "tools"]])
    @pytest.mark.parametrize("command", ["serve", "validate"])
    def test_exactly_one_agent_must_be_named(self, capsys: Captured, command: str, arguments: list[str]) -> None:
        try:
            exit_code: Any = main([command, *arguments])
        except SystemExit as exited:
            exit_code = exited.code
        assert exit_code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "Error: " in err
        assert "--mcp" in err

    def test_a_command_returns_its_exit_code(self, user_agent: str, capsys: Captured) -> None:
        assert main(["validate", "-m", user_agent]) == 0
        assert main(["validate", "-m", "no_such_module:x"]) == 1
        assert capsys.readouterr().err.startswith("Error: Cannot import module 'no_such_module'")

    def test_the_arguments_of_the_process_are_the_default(
        self, user_agent: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["/somewhere/osmosis-ai", "validate", "-m", user_agent])
        assert main() == 0

    def test_ctrl_c_returns_130(self, write_module: WriteModule) -> None:
        write_module("interrupted.py", "raise KeyboardInterrupt")
        assert main(["validate", "-m", "interrupted:agent_loop"]) == 130

    def test_nothing_is_left_changed_for_a_caller_in_this_process(self, user_agent: str) -> None:
        before = list(warnings.filters), dict(os.environ)
        main(["validate", "-m", user_agent])
        assert (list(warnings.filters), dict(os.environ)) == before


class TestDotenv:
    @pytest.fixture(autouse=True)
    def _forget_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Set, then deleted, so that what a test loads is undone after it.
        for name in ("FROM_DOTENV", "OSMOSIS_NO_DOTENV"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)

    @pytest.fixture
    def inner(self, working_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder two levels below the working directory, which becomes the working directory."""
        inner = working_directory / "a" / "b"
        inner.mkdir(parents=True)
        monkeypatch.chdir(inner)
        return inner

    def test_the_nearest_one_at_or_above_is_loaded(self, working_directory: Path, inner: Path) -> None:
        (working_directory / ".env").write_text("FROM_DOTENV=far")
        (inner.parent / ".env").write_text("FROM_DOTENV=near")
        main([])
        assert os.environ["FROM_DOTENV"] == "near"

    def test_the_environment_wins(self, working_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FROM_DOTENV", "environment")
        (working_directory / ".env").write_text("FROM_DOTENV=file")
        main([])
        assert os.environ["FROM_DOTENV"] == "environment"

    def test_it_can_be_turned_off(self, working_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OSMOSIS_NO_DOTENV", "1")
        (working_directory / ".env").write_text("FROM_DOTENV=file")
        main([])
        assert "FROM_DOTENV" not in os.environ

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
    def test_a_strangers_file_is_not_loaded(self, working_directory: Path) -> None:
        file = working_directory / ".env"
        file.write_text("FROM_DOTENV=stranger")
        os.chown(file, 12345, -1)
        main([])
        assert "FROM_DOTENV" not in os.environ

    def test_a_folder_of_that_name_is_passed_over(self, working_directory: Path, inner: Path) -> None:
        (inner / ".env").mkdir()
        (working_directory / ".env").write_text("FROM_DOTENV=above")
        main([])
        assert os.environ["FROM_DOTENV"] == "above"

    @pytest.mark.parametrize("content", [b"FROM_DOTENV=\xff\xfe", b"FROM_DOTENV=a\0b"])
    def test_one_that_cannot_be_read_is_one_sentence(
        self, working_directory: Path, capsys: Captured, content: bytes
    ) -> None:
        (working_directory / ".env").write_bytes(content)
        assert main(["--version"]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"Error: {working_directory / '.env'} cannot be read")
        assert err.count("\n") == 1

    def test_it_reaches_the_settings(self, working_directory: Path, user_agent: str, capsys: Captured) -> None:
        (working_directory / ".env").write_text("OSMOSIS_ROLLOUT_SERVER_MAX_BODY_BYTES=lots")
        (working_directory / "below").mkdir()
        assert main(["serve", "-m", user_agent, "--local", "-p", "0"]) == 2
        assert "OSMOSIS_ROLLOUT_SERVER_MAX_BODY_BYTES" in capsys.readouterr().err
        del os.environ["OSMOSIS_ROLLOUT_SERVER_MAX_BODY_BYTES"]

    def test_a_working_directory_that_is_gone_is_no_reason_to_fail(self, inner: Path, capsys: Captured) -> None:
        inner.rmdir()
        assert exit_code_of("--version") == 0


class TestWeight:
    @pytest.mark.slow
    @pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["serve", "--help"], ["validate", "--help"]])
    def test_help_and_version_load_nothing_heavy_and_touch_no_network(
        self, working_directory: Path, arguments: list[str]
    ) -> None:
        # For a command's own help, Typer looks whether there is a pydantic.
        heavy = HEAVY if len(arguments) == 1 else [name for name in HEAVY if name != "pydantic"]
        script = LIGHT.format(arguments=arguments, heavy=heavy)
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=working_directory, env=own_environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


class TestEntryPoints:
    @pytest.mark.slow
    @pytest.mark.parametrize("module", ["osmosis_ai", "osmosis_ai.cli"])
    def test_the_package_is_the_program_too(self, working_directory: Path, module: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", module], cwd=working_directory, env=own_environment(), capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stdout.startswith("usage: osmosis [OPTIONS]")
        assert done.stderr == ""

    def test_it_is_installed_under_three_names(self) -> None:
        scripts = importlib.metadata.distribution("osmosis-ai").entry_points.select(group="console_scripts")
        assert {script.name: script.value for script in scripts} == dict.fromkeys(
            ("osmosis", "osmosis_ai", "osmosis-ai"), "osmosis_ai.cli:main"
        )
