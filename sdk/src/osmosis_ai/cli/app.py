"""The Typer application: global options, the commands, and what their errors and exit codes mean.

A command returns its exit code, or raises. One rule, `tell`, makes a sentence on stderr and a code of what it raises:
0 done, 1 failed, 2 the command line is wrong or names a file that is not there, 128 and the number of the signal that
ended it (130: Ctrl-C). With ``--json`` there is one document on stdout, whatever happens: ``core/json_document.py``.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from osmosis_ai.cli import journal, traces
from osmosis_ai.cli.doctor import doctor
from osmosis_ai.cli.eval_command import eval_
from osmosis_ai.cli.eval_compare import eval_compare
from osmosis_ai.cli.init import init
from osmosis_ai.cli.rescore import rescore
from osmosis_ai.cli.serve import serve
from osmosis_ai.cli.test_command import test
from osmosis_ai.cli.trainer import trainer
from osmosis_ai.cli.validate import validate
from osmosis_ai.cli.view import view
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION, package_name
from osmosis_ai.rollout.core.dotenv import load_dotenv
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
COMPLETION_VARIABLE = "_OSMOSIS_COMPLETE"
SETTINGS_PREFIX = "OSMOSIS_ROLLOUT_"
# What Typer raises for a command line that it cannot read: click's UsageError, wherever it takes click from.
_COMMAND_LINE_ERROR: Any = typer.BadParameter.__base__

HELP = "Serve, validate and try rollout agents."
COMMANDS: dict[str, Callable[..., int]] = {
    "serve": serve,
    "validate": validate,
    "trainer": trainer,
    "test": test,
    "eval": eval_,
    "rescore": rescore,
    "doctor": doctor,
    "init": init,
    "view": view,
}
# Another distribution, for people who may have no SDK: its options are declared there, and loading them is cheap.
with contextlib.suppress(ModuleNotFoundError):
    from rollout_conformance.command import conformance

    COMMANDS["conformance"] = conformance


class _Group(TyperGroup):
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name == "conformance":
            raise UsageError("The conformance kit is not installed: pip install rollout-conformance.")
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # `eval` has options of its own that must be given, so it is no group.
        return super().resolve_command(ctx, ["eval compare", *args[2:]] if args[:2] == ["eval", "compare"] else args)

    def invoke(self, ctx: Any) -> Any:
        arguments = list(ctx.args)  # those of the command; they are used up
        try:
            return super().invoke(ctx)
        except _COMMAND_LINE_ERROR as error:  # Typer tells of it
            _document_error(error.format_message(), EXIT_USAGE, arguments)
            raise

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        # A shell would offer its two words apart.
        return [item for item in super().shell_complete(ctx, incomplete) if " " not in item.value]

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage(ctx.command_path, " ".join(self.collect_usage_pieces(ctx)), prefix="usage: ")


_PLAIN: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(cls=_Group, help=HELP, invoke_without_command=True, **_PLAIN)


class _Finished(Exception):  # noqa: N818 - no error: it carries an exit code past Typer, which has none to return
    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@functools.cache
def program() -> Any:
    """``app`` as Click has it, made once however often a process calls ``run``."""
    return typer.main.get_command(app)


def run(argv: list[str] | None) -> int:
    """Run one command line; see ``osmosis_ai.cli.main``."""
    try:
        if COMPLETION_VARIABLE not in os.environ:
            _load_environment(argv)
        program()(args=argv, prog_name="osmosis")
    except CLIError as error:
        code = tell(error)
        _document_error(str(error), code, sys.argv[1:] if argv is None else argv)
        return code
    except _Finished as finished:
        return finished.exit_code
    return 0


def _document_error(sentence: str, exit_code: int, arguments: list[str]) -> None:
    if "--json" in arguments:
        from osmosis_ai.rollout.core.json_document import JsonDocument

        JsonDocument(sys.stdout).write_error(sentence, exit_code)


def _load_environment(argv: list[str] | None) -> None:
    try:
        load_dotenv()
    except CLIError:
        # That a file cannot be read is for the doctor to tell.
        if (sys.argv[1:] if argv is None else argv)[:1] != ["doctor"]:
            raise


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"{package_name} {PACKAGE_VERSION}")  # noqa: T201 - the answer itself
        raise typer.Exit


@app.callback()
def _global_options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())  # noqa: T201 - the answer itself
        raise _Finished(EXIT_USAGE)


def _add(group: typer.Typer, name: str, command: Callable[..., int]) -> None:
    @functools.wraps(command)
    def finish(**options: Any) -> None:
        raise _Finished(exit_code_of(command, **options))

    # Click would cut what does not fit into one line.
    group.command(name, short_help=(command.__doc__ or "").partition("\n")[0])(finish)


def exit_code_of(command: Callable[..., int], /, **options: Any) -> int:
    """Run a command function; what it raises for the user becomes one sentence on stderr and an exit code."""
    if options.get("as_json") and command.__module__.startswith(__package__):
        from osmosis_ai.rollout.core.json_document import nothing_but_a_document

        with nothing_but_a_document() as document:
            sentence, code = "The command failed: standard error has the traceback.", EXIT_FAILED
            try:
                sentence, code = _outcome_of(command, options)
            finally:
                document.write_error(sentence, code)
            return code
    return _outcome_of(command, options)[1]


def _outcome_of(command: Callable[..., int], options: dict[str, Any]) -> tuple[str, int]:
    """What is wrong, in a sentence, and the exit code."""
    try:
        # The doctor tells of them itself, and a command that reads none is told of them all the same.
        if command is not doctor and any(name.upper().startswith(SETTINGS_PREFIX) for name in os.environ):
            from osmosis_ai.rollout.core.settings import read_settings, serving_nothing

            with serving_nothing() if command is not serve else contextlib.nullcontext():
                read_settings()
                return "The command failed.", command(**options)
        return "The command failed.", command(**options)
    except CLIError as error:
        return str(error), tell(error)
    except KeyboardInterrupt:
        return "Interrupted.", EXIT_INTERRUPTED


def tell(error: CLIError) -> int:
    """Print the sentence of ``error`` on standard error; the exit code that goes with it."""
    from osmosis_ai.rollout.core.console import console

    sys.stdout.flush()
    text = str(error)
    console.print_error(text if text.startswith("Error") else f"Error: {text}")
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED


for _name, _command in COMMANDS.items():
    _add(app, _name, _command)
    if _command is eval_:
        _add(app, "eval compare", eval_compare)
for _name, _module in (("journal", journal), ("traces", traces)):
    _commands = typer.Typer(help=_module.HELP, no_args_is_help=True, **_PLAIN)
    for _each, _command in _module.COMMANDS.items():
        _add(_commands, _each, _command)
    app.add_typer(_commands, name=_name, short_help=_module.HELP)
