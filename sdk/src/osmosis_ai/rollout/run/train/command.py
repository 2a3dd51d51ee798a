"""``osmosis trainer``: rows of a dataset as rollouts of a server. All is checked before anything is started."""

import asyncio
import signal
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from osmosis_ai.rollout.core.loading import import_module_attribute
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError
from osmosis_ai.rollout.run.driver import EXIT_SIGNAL_BASE, until_signal
from osmosis_ai.rollout.run.loading import open_dataset, read_api_key
from osmosis_ai.rollout.run.models.choice import make_llm_client
from osmosis_ai.rollout.run.models.completer import model_completer
from osmosis_ai.rollout.run.options import RunOptions
from osmosis_ai.rollout.run.policies import BUILTIN_POLICIES
from osmosis_ai.rollout.run.progress import RunProgress, stderr_terminal
from osmosis_ai.rollout.run.results.results_file import ResultsFile
from osmosis_ai.rollout.run.train.jobs import JobPlan
from osmosis_ai.rollout.run.train.printer import ReportPrinter
from osmosis_ai.rollout.run.train.rollout_report import RolloutReport
from osmosis_ai.rollout.run.train.session import OwnServer, ServerAddress, Session
from osmosis_ai.rollout.trainer import ServerEndedError, TrainerLimits, completer_of, defaults
from osmosis_ai.rollout.wire.addresses import all_interfaces, is_base_url, is_sendable

if TYPE_CHECKING:
    from collections.abc import Callable

    from osmosis_ai.rollout.trainer import ToolAwareClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """The command line. ``api_key`` is the model's."""

    _CODE: ClassVar[tuple[str, ...]] = ("module", "policy")
    _SETTINGS: ClassVar[tuple[str, ...]] = (*RunOptions._SETTINGS, "repeat", "server", "policy", "max_tokens_total")

    model: str = defaults.MODEL
    policy: str | None = None
    server: str | None = None
    server_key: str | None = None
    concurrency: int = defaults.CONCURRENCY
    repeat: int = 1
    max_turns: int = defaults.MAX_TURNS
    max_tokens_total: int = defaults.MAX_TOKENS_TOTAL
    timeout: float = defaults.ROLLOUT_TIMEOUT_SECONDS
    host: str = defaults.CALLBACK_HOST
    port: int = 0
    callback_url: str | None = None
    log: str | None = None

    def _agent_problem(self) -> str | None:
        if [self.module, self.mcp, self.server].count(None) != 2:
            return "Give either -m module:attribute or --mcp DIR to start a server, or --server URL to use one."
        if self.module is not None and not all(self.module.rpartition(":")):
            return f"-m {self.module} is not of the form module:attribute, as in server:agent_loop."
        return None

    def _combination_problem(self) -> str | None:
        key = self.server_key
        if key is not None and not is_sendable(key):
            return f"The key of --server-key or {defaults.SERVER_KEY_VARIABLE} must be printable ASCII text."
        if self.server is not None and self.log is not None:
            return "--log goes with -m: the server at --server writes its own traces."
        if self.server is not None and self.callback_url is None and all_interfaces(self.host):
            return f"--host {self.host} is no address to call back: give --callback-url too."
        if self.policy is not None and (self.model != defaults.MODEL or self.base_url is not None):
            return "--policy stands in for a model: leave out --model and --base-url."
        for flag, url in (("--server", self.server), ("--callback-url", self.callback_url)):
            if url is not None and not is_base_url(url):
                return f"{flag} {url!r} is not a base URL such as http://127.0.0.1:9000."
        return RunOptions._combination_problem(self)


def run_trainer(options: Options) -> int:
    """Run the command.

    Exit codes: 0 every rollout reached a terminal COMPLETED callback; 128 and the number of the signal that ended it.

    Raises:
        UsageError: the options are wrong.
        CLIError: it cannot begin or go on, or a rollout did not complete; what there is has been reported.
    """
    options.check()
    session, is_script = _session(options)
    report = RolloutReport(planned=session.plan.count())
    if not report.planned:
        raise CLIError(f"{session.plan.reader.file_path} has no rows to run.")
    printer = ReportPrinter(sys.stdout)
    say = (lambda text: None) if options.is_silent else printer.say
    name = options.policy or options.model
    with _results(options, session) as results:
        if results:
            report.take_earlier(results.earlier_records())
        say(f"{report.planned} rollouts. Policy: {name}{', a script and no language model' if is_script else ''}.")
        if note := results.what_was_there(report.planned) if results else None:
            say(note)
        signal_number, failure = _drive(session, report, results, shows_progress=not options.quiet)
        if report.lines and not options.is_silent:
            printer.print_table(report)
            printer.print_summary(report)
        if results and (report.lines or not failure):
            head = {"summary": report.summary(), "settings": {"model": name, **session.settings()}}
            results.publish(head, finished=len(report.lines) == report.planned)
            if options.as_json:
                sys.stdout.writelines(results.document(head))
            if options.output:
                say(f"Results: {options.output}")
    if signal_number:
        sys.stderr.write(f"Interrupted: {len(report.lines)} of {report.planned} rollouts had ended.\n")
        return EXIT_SIGNAL_BASE + signal_number
    if isinstance(failure, ServerEndedError):
        sys.stderr.writelines(f"  | {line}\n" for line in failure.output)
    if problem := failure or _what_went_wrong(report):
        raise problem
    return 0


def _session(options: Options) -> tuple[Session, bool]:
    """What to run, and whether a script is the policy."""
    reader = open_dataset(options.dataset)
    is_builtin = options.model in BUILTIN_POLICIES and options.base_url is None
    script: Any = None
    if options.policy is not None:
        script = _policy(options.policy)
    elif is_builtin:
        script = BUILTIN_POLICIES[options.model]
    client = None if script else make_llm_client(options.model, read_api_key(options.api_key), options.base_url)
    session = Session(
        plan=JobPlan(
            reader=reader,
            limit=options.limit,
            offset=options.offset,
            repeat=options.repeat,
            max_turns=options.max_turns,
            max_tokens_total=options.max_tokens_total,
            completion_params=options.completion_params,
        ),
        server=_server(options),
        complete=completer_of(script) if script else model_completer(client),
        close=None if client is None else client.close,
        limits=TrainerLimits(concurrency=options.concurrency, rollout_timeout_seconds=options.timeout),
        host=options.host,
        port=options.port,
        callback_url=options.callback_url and options.callback_url.rstrip("/"),
    )
    return session, script is not None


def _policy(path: str) -> "Callable[[], ToolAwareClient]":
    """What ``--policy`` names; it is called once a chat call, without arguments."""
    new_client: Any = import_module_attribute(path)
    if not callable(new_client) or not callable(getattr(new_client, "chat_completions", None)):
        raise UsageError(f"--policy {path} names no class with a method chat_completions.")
    return cast("Callable[[], ToolAwareClient]", new_client)


def _server(options: Options) -> OwnServer | ServerAddress:
    if options.server is not None:
        return ServerAddress(options.server.rstrip("/"), options.server_key)
    log = None if options.log is None else Path(options.log)
    if options.mcp is not None:
        return OwnServer(str(Path(options.mcp).resolve()), log, is_mcp=True)
    return OwnServer(options.module or "", log)


def _results(options: Options, session: Session) -> ResultsFile | nullcontext[None]:
    if not options.output and not options.as_json:
        return nullcontext()
    path = Path(options.output) if options.output else None
    config = {"model": options.policy or options.model, **session.settings()}
    return ResultsFile(path, "trainer", session.plan.plan, options.inputs(), config, resume=options.resume)


def _drive(
    session: Session, report: RolloutReport, results: ResultsFile | None, shows_progress: bool
) -> tuple[int, CLIError | None]:
    """Run all; the number of the signal that ended it or 0, and what else did."""
    with RunProgress(report, stderr_terminal() if shows_progress else None, "rollouts") as progress:
        try:
            work = session.run(report, lambda line, outcome: progress.advance(), results)
            signal_number = asyncio.run(until_signal(work))
        except KeyboardInterrupt:
            signal_number = int(signal.SIGINT)
        except CLIError as error:
            return 0, error
    report.interrupted = signal_number != 0
    return signal_number, None


def _what_went_wrong(report: RolloutReport) -> CLIError | None:
    if report.stop_reason:
        return CLIError(report.stop_reason)
    if report.contradictions:
        return CLIError("The server sent contradicting results for a rollout; at most one of them can be true.")
    if not report.is_success:
        failed = report.planned - report.completed
        return CLIError(f"{failed} of {report.planned} rollouts did not reach a COMPLETED result.")
    return None
