"""``osmosis trainer``: drives a rollout server from the trainer's side, without a model.

Exit codes: 0 every rollout reached a terminal COMPLETED callback, 1 one did not, 2 usage, 130 Ctrl-C (or 128 plus the
number of another signal). Arguments and dataset are checked before anything is started.
"""

import asyncio
import math
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import urlsplit

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.trainer import defaults

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.results.results_file import ResultsFile
    from osmosis_ai.rollout.run.train.report import Report
    from osmosis_ai.rollout.run.train.session import OwnServer, ServerAddress, Session
    from osmosis_ai.rollout.trainer import ToolAwareClient

ALIAS_HELP = "The old name of --server-key."


def trainer(
    dataset: table.Dataset,
    module: table.Module = None,
    mcp: table.Mcp = None,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="Use the rollout server at this address.")
    ] = None,
    concurrency: table.Concurrency = defaults.CONCURRENCY,
    repeat: table.Repeat = 1,
    limit: table.Limit = None,
    offset: table.Offset = 0,
    max_turns: table.MaxTurns = defaults.MAX_TURNS,
    max_tokens_total: Annotated[
        int, typer.Option("--max-tokens-total", min=1, help="Tokens a rollout may use.")
    ] = defaults.MAX_TOKENS_TOTAL,
    temperature: table.Temperature = None,
    max_tokens: table.MaxTokens = None,
    server_key: Annotated[
        str | None,
        typer.Option(
            "--server-key",
            metavar="KEY",
            envvar=defaults.SERVER_KEY_VARIABLE,
            show_envvar=True,
            help="Key of the server at --server.",
        ),
    ] = None,
    api_key: Annotated[str | None, typer.Option("--api-key", metavar="KEY", hidden=True, help=ALIAS_HELP)] = None,
    model: table.Model = defaults.MODEL,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="MODULE:ATTR",
            help="In place of --model: a script of your own, a class with set_tools and chat_completions.",
        ),
    ] = None,
    base_url: table.BaseUrl = None,
    model_api_key: table.OnlyModelKey = None,
    timeout: table.Timeout = defaults.ROLLOUT_TIMEOUT_SECONDS,
    output: table.Output = None,
    resume: table.Resume = False,
    quiet: table.Quiet = False,
    host: Annotated[
        str, typer.Option("--host", help="Interface that the callbacks are served on.")
    ] = defaults.CALLBACK_HOST,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port of the callbacks; 0 means any free one.")
    ] = 0,
    callback_url: Annotated[
        str | None,
        typer.Option("--callback-url", metavar="URL", help="The callbacks' address as the server sees it."),
    ] = None,
    log: table.Log = None,
) -> int:
    """Run every row of a dataset as a rollout, over HTTP, with a script or a model in the trainer's place."""
    try:
        from osmosis_ai.rollout.run.loading import open_dataset, read_api_key
        from osmosis_ai.rollout.run.models.models import make_llm_client
        from osmosis_ai.rollout.run.models.policy import model_completer
        from osmosis_ai.rollout.run.policies import BUILTIN_POLICIES
        from osmosis_ai.rollout.run.train.jobs import JobPlan
        from osmosis_ai.rollout.run.train.session import Session
        from osmosis_ai.rollout.trainer import TrainerLimits, completer_of
    except ImportError as error:
        raise CLIError(f"The trainer needs the package {error.name}: install 'osmosis-ai[server]'.") from error

    if resume and output is None:
        raise UsageError("--resume needs -o FILE: the results of the run to go on with.")
    target = _server(module, mcp, server, server_key if api_key is None else api_key, log)
    reader = open_dataset(dataset)
    is_script = model in BUILTIN_POLICIES and base_url is None
    script = _policy(policy, model, base_url) if policy else BUILTIN_POLICIES[model] if is_script else None
    client = make_llm_client(model, read_api_key(model_api_key), base_url) if script is None else None
    session = Session(
        plan=JobPlan(
            reader=reader,
            limit=limit,
            offset=offset,
            repeat=repeat,
            max_turns=max_turns,
            max_tokens_total=max_tokens_total,
            completion_params=_completion_params(temperature=temperature, max_tokens=max_tokens),
        ),
        server=target,
        complete=completer_of(script) if script is not None else model_completer(client),
        close=None if client is None else client.close,
        limits=TrainerLimits(concurrency=concurrency, rollout_timeout_seconds=timeout),
        host=host,
        port=port,
        callback_url=_callback_url(callback_url, host, target),
    )

    def open_results() -> "ResultsFile | nullcontext[None]":
        return session.open_results(Path(output), model, base_url, policy, resume) if output else nullcontext()

    return _run(session, policy or model, script is not None, open_results, quiet)


def _server(
    module: str | None, mcp: str | None, server: str | None, key: str | None, log: str | None
) -> "OwnServer | ServerAddress":
    from osmosis_ai.rollout.run.train.session import OwnServer, ServerAddress

    if [module, mcp, server].count(None) != 2:
        raise UsageError("Give either -m module:attribute or --mcp DIR to start a server, or --server URL to use one.")
    if key is not None and not (key and key.isascii() and key.isprintable()):
        raise UsageError(f"The key of --server-key or {defaults.SERVER_KEY_VARIABLE} must be printable ASCII text.")
    if server is not None:
        if log is not None:
            raise UsageError("--log goes with -m: the server at --server writes its own traces.")
        return ServerAddress(_checked_url("--server", server), key)
    log_directory = None if log is None else Path(log)
    if mcp is not None:
        return OwnServer(str(Path(mcp).resolve()), log_directory, is_mcp=True)
    if module is None or not all(module.rpartition(":")):
        raise UsageError(f"-m {module} is not of the form module:attribute, as in server:agent_loop.")
    return OwnServer(module, log_directory)


def _policy(path: str, model: str, base_url: str | None) -> "Callable[[], ToolAwareClient]":
    """What ``--policy`` names; it is called once a chat call, without arguments."""
    from osmosis_ai.rollout.core.loading import import_module_attribute

    if model != defaults.MODEL or base_url is not None:
        raise UsageError("--policy stands in for a model: leave out --model and --base-url.")
    new_client: Any = import_module_attribute(path).value
    if not callable(new_client) or not callable(getattr(new_client, "chat_completions", None)):
        raise UsageError(f"--policy {path} names no class with a method chat_completions.")
    return cast("Callable[[], ToolAwareClient]", new_client)


def _checked_url(option: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or url != url.strip() or not url.isprintable() or "?" in url or "#" in url or "@" in url:
        raise UsageError(f"{option} {url!r} is not a base URL such as http://127.0.0.1:9000.")
    return url.rstrip("/")


def _callback_url(given: str | None, host: str, target: "OwnServer | ServerAddress") -> str | None:
    from osmosis_ai.rollout.run.train.session import ServerAddress
    from osmosis_ai.rollout.trainer.listener import LOOPBACK_OF_ALL_INTERFACES

    if given is not None:
        return _checked_url("--callback-url", given)
    if isinstance(target, ServerAddress) and host in LOOPBACK_OF_ALL_INTERFACES:
        raise UsageError(f"--host {host} is no address to call back: give --callback-url too.")
    return None


def _completion_params(**given: float | None) -> dict[str, Any]:
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise UsageError(f"--{name.replace('_', '-')} {value} is not a finite number.")
    return {name: value for name, value in given.items() if value is not None}


def _run(
    session: "Session",
    model: str,
    is_script: bool,
    open_results: "Callable[[], ResultsFile | nullcontext[None]]",
    quiet: bool,
) -> int:
    from osmosis_ai.rollout.run.train.render import ReportPrinter
    from osmosis_ai.rollout.run.train.report import Report

    report = Report(planned=session.plan.count())
    if not report.planned:
        raise CLIError(f"{session.plan.reader.file_path} has no rows to run.")
    printer = ReportPrinter(sys.stdout)
    with open_results() as results:
        if results:
            report.take_earlier(results.earlier_records())
        if not quiet:
            kind = ", a script and no language model" if is_script else ""
            printer.say(f"{report.planned} rollouts. Policy: {model}{kind}.")
            if note := results.what_was_there(report.planned) if results else None:
                printer.say(note)
        ending = _drive(session, report, results, shows_progress=not quiet)
        if report.lines and not quiet:
            printer.print_table(report)
            printer.print_summary(report)
        if results and (report.lines or not ending.failure):
            head = {"summary": report.summary(), "settings": {"model": model, **session.settings()}}
            results.publish(head, finished=len(report.lines) == report.planned)
            if not quiet:
                printer.say(f"Results: {results.path}")
    return _exit_code(report, ending)


@dataclass(frozen=True)
class _Ending:
    signal_number: int = 0
    failure: CLIError | None = None


def _drive(session: "Session", report: "Report", results: "ResultsFile | None", shows_progress: bool) -> _Ending:
    from osmosis_ai.rollout.run.driver import until_signal
    from osmosis_ai.rollout.run.train.render import RunProgress

    with RunProgress(sys.stderr, report, shown=shows_progress) as progress:
        try:
            work = session.run(report, lambda line, outcome: progress.advance(), results)
            signal_number = asyncio.run(until_signal(work))
        except KeyboardInterrupt:
            signal_number = int(signal.SIGINT)
        except CLIError as error:
            return _Ending(failure=error)
    report.interrupted = signal_number != 0
    return _Ending(signal_number)


def _exit_code(report: "Report", ending: _Ending) -> int:
    from osmosis_ai.rollout.run.driver import EXIT_SIGNAL_BASE
    from osmosis_ai.rollout.trainer import ServerEndedError

    if ending.signal_number:
        typer.echo(f"Interrupted: {len(report.lines)} of {report.planned} rollouts had ended.", err=True)
        return EXIT_SIGNAL_BASE + ending.signal_number
    if ending.failure:
        if isinstance(ending.failure, ServerEndedError):
            for line in ending.failure.output:
                typer.echo(f"  | {line}", err=True)
        raise ending.failure
    if report.stop_reason:
        raise CLIError(report.stop_reason)
    if report.contradictions:
        raise CLIError("The server sent contradicting results for a rollout; at most one of them can be true.")
    if not report.is_success:
        failed = report.planned - report.completed
        raise CLIError(f"{failed} of {report.planned} rollouts did not reach a COMPLETED result.")
    return 0
