"""``rollout-conformance``: is the server at this address one of the protocol?

``conformance`` is the one place that declares the options. The SDK's command line takes the same function as
``osmosis conformance``, wherever this package is installed.

Exit codes: 0 every MUST holds (or fails as the baseline says), 1 one does not, or nothing could be tried, 2 the command
line is wrong, 130 interrupted, 143 terminated. For a strict run every SHOULD counts too, and what was not exercised.
"""

import functools
import json
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import urlsplit

import typer

from rollout_conformance import options as defaults
from rollout_conformance.baseline import read, write
from rollout_conformance.catalogue import select
from rollout_conformance.options import DRAIN_VARIABLE, SERVER_KEY_VARIABLE, KitOptions
from rollout_conformance.vocabulary import Check, ConformanceError, Report, Result, UsageError

if TYPE_CHECKING:
    pass

ALL_INTERFACES = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def conformance(
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="The server to judge, as http://127.0.0.1:9000.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--server-key", "--api-key", envvar=SERVER_KEY_VARIABLE, show_envvar=True, help="The server's key."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CHECK", help="Run these: ids, groups or patterns; may be repeated."),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="CHECK", help="Leave these out; may be repeated.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the checks and run none.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A failure too: a SHOULD that does not hold, and what was not exercised.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the report as JUnit XML too.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="Checks that may fail, one a line: no worse than.")
    ] = None,
    write_baseline: Annotated[
        Path | None, typer.Option("--write-baseline", metavar="FILE", help="Write such a file of what fails now.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only what did not pass.")] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Longest wait for any one thing of the server."),
    ] = defaults.DEFAULT_TIMEOUT_SECONDS,
    host: Annotated[
        str, typer.Option("--host", help="Interface that the callbacks are served on.")
    ] = defaults.DEFAULT_CALLBACK_HOST,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port of the callbacks; 0 means any free one.")
    ] = 0,
    callback_url: Annotated[
        str | None,
        typer.Option("--callback-url", metavar="URL", help="The callbacks' address as the server sees it."),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option("--init", metavar="FILE", help="A JSON object of fields for every init: metadata, messages."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="MODULE:ATTR",
            help="What the model says to an agent that needs its own replies: a ScriptedPolicy, a list, a function.",
        ),
    ] = None,
    no_tool_calls: Annotated[
        bool, typer.Option("--no-tool-calls", help="Never call the server's tools: they act on the world.")
    ] = False,
    overload: Annotated[
        int, typer.Option("--overload", min=1, metavar="N", help="Most rollouts to open to make the server full.")
    ] = defaults.DEFAULT_OVERLOAD_ROLLOUTS,
    command: Annotated[
        str | None,
        typer.Option(
            "--command", metavar="CMD", help="Starts the server at --server: it is then killed and stopped too."
        ),
    ] = None,
    server_pid: Annotated[
        int | None, typer.Option("--server-pid", min=1, metavar="PID", help="The server's process: it is stopped too.")
    ] = None,
    drain: Annotated[
        float | None,
        typer.Option(
            "--drain",
            min=0.0,
            metavar="SECONDS",
            envvar=DRAIN_VARIABLE,
            show_envvar=True,
            help="How long the server lets rollouts go on after SIGTERM: one that lasts longer is tried too.",
        ),
    ] = None,
) -> int:
    """Play a trainer against a rollout server, in whatever language it is written, and judge what it does."""
    try:
        checks = select(only or (), skip or ())
        if show_list:
            _show_catalogue(checks, as_json=as_json)
            return 0
        if server is None:
            raise UsageError("Give the server to judge: --server http://127.0.0.1:9000.")
        if command is not None and server_pid is not None:
            raise UsageError("--command and --server-pid are mutually exclusive: give one of them.")
        if api_key is not None and not (api_key and api_key.isascii() and api_key.isprintable()):
            raise UsageError(f"The key of --server-key or {SERVER_KEY_VARIABLE} must be printable ASCII text.")
        if callback_url is None and host in ALL_INTERFACES:
            raise UsageError(f"--host {host} is no address to call back: give --callback-url too.")
        options = KitOptions(
            server_url=_base_url("--server", server),
            api_key=api_key,
            timeout_seconds=timeout,
            callback_host=host,
            callback_port=port,
            callback_url=None if callback_url is None else _base_url("--callback-url", callback_url),
            init_fields={} if init is None else _init_fields(init),
            policy=None if policy is None else _policy(policy),
            call_tools=not no_tool_calls,
            overload_rollouts=overload,
            server_command=() if command is None else _words(command),
            server_pid=server_pid,
            drain_seconds=drain,
        )
        expected = frozenset[str]() if baseline is None else read(baseline)
        report = _run(options, checks, strict=strict, expected_failures=expected)
        if write_baseline is not None:
            count = write(write_baseline, report)
            print(f"{write_baseline}: {count} expected failures.", file=sys.stderr)  # noqa: T201 - the answer itself
        return _show(report, as_json=as_json, junit=junit, quiet=quiet)
    except ConformanceError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - the answer itself
        code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
        _document_error(str(error), code, as_json=as_json)
        if code == EXIT_USAGE:
            raise SystemExit(code) from None
        return code
    except KeyboardInterrupt:
        _document_error("Interrupted.", EXIT_INTERRUPTED, as_json=as_json)
        return EXIT_INTERRUPTED
    except SystemExit:
        _document_error("Terminated.", EXIT_TERMINATED, as_json=as_json)
        raise


def main(argv: list[str] | None = None) -> NoReturn:
    """The program ``rollout-conformance``; ends with ``SystemExit``."""

    @functools.wraps(conformance)
    def command(**options: Any) -> None:
        # Typer drops what a command returns.
        raise typer.Exit(conformance(**options))

    program = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.command()(command)
    program(args=argv, prog_name="rollout-conformance")
    raise SystemExit


def _run(options: KitOptions, checks: tuple[Check, ...], *, strict: bool, expected_failures: frozenset[str]) -> Report:
    import asyncio

    from rich.console import Console
    from rich.progress import Progress

    from rollout_conformance.judge import run

    # Progress is for eyes: it goes to stderr, and only where that is a terminal.
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("Checks", total=len(checks))

        def on_result(_: Result) -> None:
            progress.advance(bar)

        async def until_terminated() -> Report:
            task = asyncio.current_task()
            # The server of --command must not outlive us.
            if task is not None and sys.platform != "win32":
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            return await run(options, checks, strict=strict, expected_failures=expected_failures, on_result=on_result)

        try:
            return asyncio.run(until_terminated())
        except asyncio.CancelledError:
            raise SystemExit(EXIT_TERMINATED) from None


def _show(report: Report, *, as_json: bool, junit: Path | None, quiet: bool) -> int:
    from rollout_conformance.report_formats import to_json, to_junit
    from rollout_conformance.report_table import TablePrinter

    problem: ConformanceError | None = None
    if junit is not None:
        try:
            junit.write_bytes(to_junit(report))
        except OSError as error:
            problem = ConformanceError(f"{junit} cannot be written: {error.strerror}.")
    if not as_json:
        TablePrinter(sys.stdout, quiet=quiet).print_report(report)
    elif problem is None:  # else there is a document of that
        sys.stdout.write(to_json(report) + "\n")
    if problem is not None:
        raise problem
    return 0 if report.is_success else 1


def _show_catalogue(checks: tuple[Check, ...], *, as_json: bool) -> None:
    from rollout_conformance.report_formats import catalogue_to_json
    from rollout_conformance.report_table import TablePrinter

    if as_json:
        sys.stdout.write(catalogue_to_json(checks) + "\n")
    else:
        TablePrinter(sys.stdout).print_catalogue(checks)


def _document_error(sentence: str, exit_code: int, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"error": sentence, "exit_code": exit_code}) + "\n")


def _base_url(option: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or url != url.strip() or not url.isprintable() or any(character in url for character in "?#@"):
        raise UsageError(f"{option} {url!r} is not a base URL such as http://127.0.0.1:9000.")
    return url.rstrip("/")


def _init_fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--init {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(f"--init {path} is not JSON ({error}).") from error
    reserved = {"rollout_id", "server_url", "idempotency_key", "api_key"}
    if not isinstance(fields, dict) or reserved & fields.keys():
        raise UsageError(f"--init {path} must be a JSON object without {', '.join(sorted(reserved))}.")
    return fields


def _policy(path: str) -> Any:
    from rollout_conformance.policy import load

    return load(path)


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"--command cannot be read as words ({error}).") from error
    if not words:
        raise UsageError("--command is empty.")
    return words
