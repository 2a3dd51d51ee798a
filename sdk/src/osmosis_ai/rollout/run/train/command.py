"""``osmosis trainer``: rows of a dataset as rollouts of a server. All is checked before anything is started."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.json_document import write_document
from osmosis_ai.rollout.core.text import counted
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run.driver import EXIT_SIGNAL_BASE, until_signal
from osmosis_ai.rollout.run.loading import check_dataset, open_results, read_api_key
from osmosis_ai.rollout.run.models.choice import is_builtin, make_llm_client
from osmosis_ai.rollout.run.models.completer import ModelCompleter
from osmosis_ai.rollout.run.policies import BUILTIN_POLICIES
from osmosis_ai.rollout.run.policies.named import ScriptClient, load_policy, policy_completer
from osmosis_ai.rollout.run.progress import RunProgress, terminal_of
from osmosis_ai.rollout.run.results.results_file import Record, ResultsFile
from osmosis_ai.rollout.run.run_line import print_run
from osmosis_ai.rollout.run.train.options import Options
from osmosis_ai.rollout.run.train.printer import ReportPrinter
from osmosis_ai.rollout.run.train.rollout_report import RolloutReport
from osmosis_ai.rollout.run.train.session import Session
from osmosis_ai.rollout.trainer import Completer, ServerEndedError


def run_trainer(options: Options) -> int:
    """Run the command.

    Exit codes: 0 every rollout reached a terminal COMPLETED callback; 128 and the number of the signal that ended it.

    Raises:
        UsageError: the options are wrong.
        CLIError: it cannot begin or go on, or a rollout did not complete; what there is has been reported.
    """
    options.check()
    dataset = check_dataset(options, lambda *text: None, f"{options.dataset} has no rows to run.", "running")
    session = Session(options, dataset, *_completer(options))
    report = RolloutReport(planned=dataset.rows * options.repeat)
    printer = ReportPrinter(sys.stdout)
    say = (lambda text: None) if options.is_silent else printer.say
    with open_results(options, "trainer", options.plan, session.settings()) as results:
        report.take_earlier(results.earlier_records())
        is_script = options.policy or is_builtin(options.model, options.base_url)
        name = f"{options.name}{', a script and no language model' if is_script else ''}"
        say(f"{counted(report.planned, 'rollout')}. Policy: {name}.")
        if note := results.what_was_there(report.planned):
            say(note)
        signal_number, failure = _drive(session, report, results, options)
        if report.lines and not options.is_silent:
            printer.print_table(report)
            printer.print_summary(report)
        if report.lines or not failure:
            head = {"summary": report.summary(), "config": session.settings()}
            results.publish(head, finished=report.ended == report.planned)
            if options.as_json:
                write_document(results.document(head))
            if options.output:
                say(f"Results: {options.output}")
    if signal_number:
        sys.stderr.write(f"Interrupted: {report.ended:,} of {counted(report.planned, 'rollout')} had ended.\n")
        return EXIT_SIGNAL_BASE + signal_number
    if isinstance(failure, ServerEndedError):
        sys.stderr.writelines(f"  | {line}\n" for line in failure.output)
    if problem := failure or _what_went_wrong(report):
        raise problem
    dataset.tell_what_was_left_out()
    return 0


def _completer(options: Options) -> tuple[Completer, Callable[[], Awaitable[None]] | None]:
    """What answers the chat calls, and what lets go of it at the end."""
    if options.policy is not None:
        return policy_completer(load_policy(options.policy)), None
    if is_builtin(options.model, options.base_url) and options.model in BUILTIN_POLICIES:
        return policy_completer(ScriptClient(BUILTIN_POLICIES[options.model], options.model)), None
    client = make_llm_client(options.model, read_api_key(options.api_key), options.base_url)
    return ModelCompleter(client), client.close


def _drive(
    session: Session, report: RolloutReport, results: ResultsFile, options: Options
) -> tuple[int, CLIError | None]:
    """Run all; the number of the signal that ended it or 0, and what else did."""
    console = Console()
    terminal = None if options.quiet else terminal_of(console, shares_stdout=not options.as_json)
    # Below the live line comes a table of the same rollouts.
    has_lines = not options.is_silent and not (console.is_tty and terminal)
    with RunProgress(report, terminal, "rollouts") as progress:

        def on_rollout(record: Record) -> None:
            if has_lines:
                print_run(record, report, options.repeat, console)
            progress.advance()

        try:
            signal_number = asyncio.run(until_signal(session.run(report, on_rollout, results)))
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
        return CLIError(f"{failed:,} of {counted(report.planned, 'rollout')} did not reach a COMPLETED result.")
    return None
