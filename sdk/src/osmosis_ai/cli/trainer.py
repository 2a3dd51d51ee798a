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

from osmosis_ai.cli.common import CallbackHostOption, CallbackPortOption, CallbackUrlOption, McpOption
from osmosis_ai.rollout.trainer import defaults

if TYPE_CHECKING:
    from osmosis_ai.rollout.run.data.dataset import DatasetReader
    from osmosis_ai.rollout.run.results.results_file import ResultsFile
    from osmosis_ai.rollout.run.train.report import Report
    from osmosis_ai.rollout.run.train.session import OwnServer, ServerAddress, Session
    from osmosis_ai.rollout.trainer import ToolAwareClient

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SIGNAL_BASE = 128


def trainer(
    dataset: Annotated[Path, typer.Option("-d", "--dataset", help="Rows to run: .jsonl, .csv or .parquet.")],
    module: Annotated[
        str | None,
        typer.Option("-m", "--module", help="Start a server for this agent loop, as module:attribute."),
    ] = None,
    mcp: McpOption = None,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="Use the rollout server at this address.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="Rollouts in flight at a time.")
    ] = defaults.CONCURRENCY,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Rollouts of each row.")] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Run at most this many rows.")] = None,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Skip this many rows.")] = 0,
    max_turns: Annotated[
        int, typer.Option("--max-turns", min=1, help="Model calls a rollout may make.")
    ] = defaults.MAX_TURNS,
    max_tokens_total: Annotated[
        int, typer.Option("--max-tokens-total", min=1, help="Tokens a rollout may use.")
    ] = defaults.MAX_TOKENS_TOTAL,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="Sampling temperature sent with the rollout.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Tokens of one reply, sent with the rollout.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar=defaults.SERVER_KEY_VARIABLE,
            show_envvar=True,
            help="Key of the server at --server.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="The policy: builtin/arithmetic is a script, no language model; or any model that osmosis test takes.",
        ),
    ] = defaults.MODEL,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="MODULE:ATTR",
            help="In place of --model: a script of your own, a class with set_tools and chat_completions.",
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="An OpenAI-compatible endpoint that has the model.")
    ] = None,
    model_api_key: Annotated[
        str | None,
        typer.Option("--model-api-key", help="Key of the model's provider; prefer the provider's own variable."),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Time limit of one rollout.")
    ] = defaults.ROLLOUT_TIMEOUT_SECONDS,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write all results to this JSON file.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the results of -o; failed rollouts are made again.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")] = False,
    host: CallbackHostOption = defaults.CALLBACK_HOST,
    port: CallbackPortOption = 0,
    callback_url: CallbackUrlOption = None,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="DIR", help="Where the server of -m writes its traces.")
    ] = None,
) -> int:
    """Run every row of a dataset as a rollout, over HTTP, with a script or a model in the trainer's place."""
    try:
        from osmosis_ai.rollout.run import LocalExecutionError
        from osmosis_ai.rollout.run.models.models import make_llm_client
        from osmosis_ai.rollout.run.models.policy import model_completer
        from osmosis_ai.rollout.run.policies import BUILTIN_POLICIES
        from osmosis_ai.rollout.run.train.jobs import JobPlan
        from osmosis_ai.rollout.run.train.session import Session
        from osmosis_ai.rollout.trainer import TrainerError, TrainerLimits, completer_of
    except ImportError as error:
        return _fail(f"The trainer needs the package {error.name}: install 'osmosis-ai[server]'.")

    try:
        if resume and output is None:
            raise _UsageError("--resume needs -o FILE: the results of the run to go on with.")
        target = _server(module, mcp, server, api_key, log)
        reader = _reader(dataset)
        is_script = model in BUILTIN_POLICIES and base_url is None
        script = _policy(policy, model, base_url) if policy else BUILTIN_POLICIES[model] if is_script else None
        client = make_llm_client(model, model_api_key, base_url) if script is None else None
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
            return session.open_results(output, model, base_url, policy, resume) if output else nullcontext()

        return _run(session, policy or model, script is not None, open_results, quiet)
    except _UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except (LocalExecutionError, TrainerError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return EXIT_SIGNAL_BASE + signal.SIGINT


class _UsageError(Exception):
    """One sentence about an argument."""


def _fail(message: str, exit_code: int = EXIT_FAILED) -> int:
    from osmosis_ai.rollout.core.text import printable

    sys.stdout.flush()
    typer.echo(f"Error: {printable(message, sys.stderr.encoding or 'utf-8')}", err=True)
    return exit_code


def _server(
    module: str | None, mcp: str | None, server: str | None, api_key: str | None, log: Path | None
) -> "OwnServer | ServerAddress":
    from osmosis_ai.rollout.run.train.session import OwnServer, ServerAddress

    if [module, mcp, server].count(None) != 2:
        raise _UsageError("Give either -m module:attribute or --mcp DIR to start a server, or --server URL to use one.")
    if api_key is not None and not (api_key and api_key.isascii() and api_key.isprintable()):
        raise _UsageError(f"The key of --api-key or {defaults.SERVER_KEY_VARIABLE} must be printable ASCII text.")
    if server is not None:
        if log is not None:
            raise _UsageError("--log goes with -m: the server at --server writes its own traces.")
        return ServerAddress(_checked_url("--server", server), api_key)
    if mcp is not None:
        return OwnServer(str(Path(mcp).resolve()), log, is_mcp=True)
    if module is None or not all(module.rpartition(":")):
        raise _UsageError(f"-m {module} is not of the form module:attribute, as in server:agent_loop.")
    return OwnServer(module, log)


def _policy(path: str, model: str, base_url: str | None) -> "Callable[[], ToolAwareClient]":
    """What ``--policy`` names; it is called once a chat call, without arguments."""
    from osmosis_ai.rollout.core.loading import import_module_attribute

    if model != defaults.MODEL or base_url is not None:
        raise _UsageError("--policy stands in for a model: leave out --model and --base-url.")
    new_client: Any = import_module_attribute(path).value
    if not callable(new_client) or not callable(getattr(new_client, "chat_completions", None)):
        raise _UsageError(f"--policy {path} names no class with a method chat_completions.")
    return cast("Callable[[], ToolAwareClient]", new_client)


def _checked_url(option: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or url != url.strip() or not url.isprintable() or "?" in url or "#" in url or "@" in url:
        raise _UsageError(f"{option} {url!r} is not a base URL such as http://127.0.0.1:9000.")
    return url.rstrip("/")


def _callback_url(given: str | None, host: str, target: "OwnServer | ServerAddress") -> str | None:
    from osmosis_ai.rollout.run.train.session import ServerAddress
    from osmosis_ai.rollout.trainer.listener import LOOPBACK_OF_ALL_INTERFACES

    if given is not None:
        return _checked_url("--callback-url", given)
    if isinstance(target, ServerAddress) and host in LOOPBACK_OF_ALL_INTERFACES:
        raise _UsageError(f"--host {host} is no address to call back: give --callback-url too.")
    return None


def _reader(dataset: Path) -> "DatasetReader":
    from osmosis_ai.rollout.run import DatasetParseError, DatasetReader

    try:
        return DatasetReader(dataset)
    except FileNotFoundError as error:
        raise _UsageError(f"{error}.") from None
    except DatasetParseError as error:
        raise _UsageError(str(error)) from None


def _completion_params(**given: float | None) -> dict[str, Any]:
    for name, value in given.items():
        if value is not None and not math.isfinite(value):
            raise _UsageError(f"--{name.replace('_', '-')} {value} is not a finite number.")
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
        return _fail(f"{session.plan.reader.file_path} has no rows to run.")
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
    failure: Exception | None = None


def _drive(session: "Session", report: "Report", results: "ResultsFile | None", shows_progress: bool) -> _Ending:
    from osmosis_ai.rollout.core.user_errors import CLIError
    from osmosis_ai.rollout.run import LocalExecutionError
    from osmosis_ai.rollout.run.driver import until_signal
    from osmosis_ai.rollout.run.train.render import RunProgress
    from osmosis_ai.rollout.trainer import TrainerError

    with RunProgress(sys.stderr, report, shown=shows_progress) as progress:
        try:
            work = session.run(report, lambda line, outcome: progress.advance(), results)
            signal_number = asyncio.run(until_signal(work))
        except KeyboardInterrupt:
            signal_number = int(signal.SIGINT)
        except (CLIError, TrainerError, LocalExecutionError) as error:
            return _Ending(failure=error)
    report.interrupted = signal_number != 0
    return _Ending(signal_number)


def _exit_code(report: "Report", ending: _Ending) -> int:
    from osmosis_ai.rollout.trainer import ServerEndedError

    if ending.signal_number:
        typer.echo(f"Interrupted: {len(report.lines)} of {report.planned} rollouts had ended.", err=True)
        return EXIT_SIGNAL_BASE + ending.signal_number
    if ending.failure:
        if isinstance(ending.failure, ServerEndedError):
            for line in ending.failure.output:
                typer.echo(f"  | {line}", err=True)
        return _fail(str(ending.failure))
    if report.stop_reason:
        return _fail(report.stop_reason)
    if report.contradictions:
        return _fail("The server sent contradicting results for a rollout; at most one of them can be true.")
    if not report.is_success:
        failed = report.planned - report.completed
        return _fail(f"{failed} of {report.planned} rollouts did not reach a COMPLETED result.")
    return EXIT_OK
