"""The commands for argparse say the same as the commands of Typer, and do the same."""

import argparse
import importlib
import itertools
from typing import Any

import pytest
import typer.main

from osmosis_ai._compat import commands as rollout_cli, parser as parser_module
from osmosis_ai._compat.commands import CLIError, ServeCommand, ValidateCommand
from osmosis_ai._compat.parser import build_parser as _build_parser
from osmosis_ai.cli.app import COMMANDS, app
from osmosis_ai.rollout.core import loading as cli_utils

Captured = pytest.CaptureFixture[str]

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - nothing is bound

# The host depends on --local, so that it is settled later.
SERVE_DEFAULTS = {
    "module": "server:agent_loop",
    "port": 9000,
    "host": None,
    "no_validate": False,
    "reload": False,
    "log_level": "info",
    "skip_register": False,
    "local_debug": False,
    "api_key": None,
    "debug_dir": None,
}


def typer_options(command: str) -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return {option.name: option for option in group.commands[command].params if option.name != "help"}


def argparse_actions(command: str) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser()
    parser_module.configure(parser, command)
    return {action.dest: action for action in parser._actions if action.dest != "help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_has_the_same_options(command: str) -> None:
    options, actions = typer_options(command), argparse_actions(command)
    assert list(actions) == list(options)
    for name, option in options.items():
        action = actions[name]
        assert set(action.option_strings or [action.dest]) == set(option.opts), name
        assert action.required == option.required, name
        is_flag = getattr(option, "is_flag", False)  # an argument cannot be one
        assert (action.nargs == 0) == is_flag, name
        assert isinstance(action, argparse._AppendAction) == getattr(option, "multiple", False), name
        default = option.default if option.default is not None else (False if is_flag else None)
        assert option.required or action.default == default, name


class TestServe:
    def test_the_defaults_are_the_documented_ones(self) -> None:
        namespace = _build_parser().parse_args(["serve", "-m", "server:agent_loop"])
        assert {name: getattr(namespace, name) for name in SERVE_DEFAULTS} == SERVE_DEFAULTS

    @pytest.mark.parametrize(
        ("arguments", "name", "value"),
        [
            (["-p", "8080"], "port", 8080),
            (["--port", "0"], "port", 0),
            (["-H", "::1"], "host", "::1"),
            (["--host", "h"], "host", "h"),
            (["--no-validate"], "no_validate", True),
            (["--reload"], "reload", True),
            (["--log-level", "critical"], "log_level", "critical"),
            (["--skip-register"], "skip_register", True),
            (["--local"], "local_debug", True),
            (["--local-debug"], "local_debug", True),
            (["--api-key", "k"], "api_key", "k"),
            (["--log", "logs"], "debug_dir", "logs"),
        ],
    )
    def test_each_flag_sets_its_name(self, arguments: list[str], name: str, value: Any) -> None:
        namespace = _build_parser().parse_args(["serve", "-m", "x:y", *arguments])
        assert getattr(namespace, name) == value

    @pytest.mark.parametrize(
        "arguments", [["-m", "x:y", "-p", "70000"], ["-m", "x:y", "-p", "x"], ["-m", "x:y", "--log-level", "loud"]]
    )
    def test_what_typer_refuses_it_refuses(self, arguments: list[str], capsys: Captured) -> None:
        with pytest.raises(SystemExit) as exited:
            _build_parser().parse_args(["serve", *arguments])
        assert exited.value.code == 2
        assert "usage: osmosis serve" in capsys.readouterr().err


class TestProgram:
    def test_is_found_where_0_2_has_it(self) -> None:
        program = importlib.import_module("osmosis_ai.cli")
        assert program._build_parser is _build_parser
        assert set(program.__all__) == {"main", "_build_parser"}
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = program.nothing

    def test_is_called_osmosis_and_shows_the_version(self, capsys: Captured) -> None:
        parser = _build_parser()
        assert parser.prog == "osmosis"
        with pytest.raises(SystemExit):
            parser.parse_args(["-V"])
        assert capsys.readouterr().out.startswith("osmosis-ai ")

    def test_the_help_can_be_printed(self, capsys: Captured) -> None:
        for arguments in ([], *([name] for name in COMMANDS)):
            with pytest.raises(SystemExit) as exited:
                _build_parser().parse_args([*arguments, "--help"])
            assert exited.value.code == 0
        out = capsys.readouterr().out
        assert all(name in out for name in COMMANDS)

    def test_the_handler_runs_the_command(self, user_agent: str, capsys: Captured) -> None:
        namespace = _build_parser().parse_args(["validate", "-m", user_agent])
        assert namespace.handler(namespace) == 0
        assert "validated successfully" in capsys.readouterr().out

    def test_each_call_builds_a_parser_of_its_own(self) -> None:
        assert _build_parser() is not _build_parser()


class TestCommandClasses:
    def test_their_names_are_the_documented_ones(self) -> None:
        assert {"CLIError", "ServeCommand", "ValidateCommand"} <= set(rollout_cli.__all__)
        assert CLIError is cli_utils.CLIError
        assert rollout_cli._load_agent_loop is cli_utils.load_agent_loop

    @pytest.mark.parametrize("command", [ServeCommand, ValidateCommand])
    def test_they_set_up_anybodys_parser(self, command: type[ServeCommand | ValidateCommand]) -> None:
        parser = argparse.ArgumentParser(prog="somebody")
        command().configure_parser(parser)
        namespace = parser.parse_args(["-m", "x:y"])
        assert namespace.module == "x:y"
        assert callable(namespace.handler)

    def test_run_takes_a_namespace_and_fills_in_defaults(self, user_agent: str, capsys: Captured) -> None:
        assert ValidateCommand().run(argparse.Namespace(module=user_agent)) == 0
        assert ValidateCommand().run(argparse.Namespace(module=user_agent, verbose=True)) == 0
        assert "validated successfully" in capsys.readouterr().out

    def test_a_mistake_is_one_sentence_and_an_exit_code(self, working_directory: Any, capsys: Captured) -> None:
        mistakes = {"nothing:x": 1, "nonsense": 2}
        for command, (path, code) in itertools.product((ServeCommand, ValidateCommand), mistakes.items()):
            assert command().run(argparse.Namespace(module=path)) == code
            assert capsys.readouterr().err.startswith("Error: ")

    def test_serve_passes_on_what_was_asked_for(self, user_agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[dict[str, Any]] = []
        monkeypatch.setattr(
            "osmosis_ai.rollout.server.serve.serve_agent_loop", lambda loop, **given: calls.append(given)
        )
        parser = argparse.ArgumentParser()
        ServeCommand().configure_parser(parser)
        everything = ["--local", "-H", ALL_INTERFACES, "-p", "1", "--no-validate", "--log", "logs"]
        for arguments in ([], ["--local"], everything):
            namespace = parser.parse_args(["-m", user_agent, *arguments])
            assert namespace.handler(namespace) == 0
        plain, local, everywhere = calls
        assert {name: plain[name] for name in ("host", "port", "validate", "log_level", "reload", "skip_register")} == {
            "host": ALL_INTERFACES,
            "port": 9000,
            "validate": True,
            "log_level": "info",
            "reload": False,
            "skip_register": False,
        }
        assert (plain["api_key"], plain["local_debug"], plain["debug_dir"]) == (None, False, None)
        assert (local["host"], local["local_debug"]) == ("127.0.0.1", True)
        assert (everywhere["host"], everywhere["port"], everywhere["validate"], everywhere["debug_dir"]) == (
            ALL_INTERFACES,
            1,
            False,
            "logs",
        )
