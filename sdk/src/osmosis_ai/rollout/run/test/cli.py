"""``osmosis test`` as a class, for the command and for argparse programs. See ``docs/test-mode.md``.

Everything local is checked before the first call of the provider: arguments, model name and key, agent, dataset,
output.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run import common_cli as common
from osmosis_ai.rollout.run.driver import until_signal
from osmosis_ai.rollout.run.errors import LocalExecutionError
from osmosis_ai.rollout.run.results.results_file import ResultsFile
from osmosis_ai.rollout.run.test.batch import Batch
from osmosis_ai.rollout.run.test.inputs import config_of, inputs_of
from osmosis_ai.rollout.run.test.options import Options
from osmosis_ai.rollout.run.test.printer import BatchPrinter
from osmosis_ai.rollout.run.test.progress import BatchProgress
from osmosis_ai.rollout.run.test.report import BatchReport, Verdict
from osmosis_ai.rollout.run.test.runner import DEBUG_DIRECTORY

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop
    from osmosis_ai.rollout.run.data.dataset import DatasetReader
    from osmosis_ai.rollout.run.results.results_file import Record

__all__ = ["TestCommand"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SIGNAL_BASE = 128
PACKAGE_LOGGER = "osmosis_ai"


class _Failure(Exception):  # noqa: N818 - carries a sentence to the one place that prints it
    pass


class TestCommand:
    """The command; its ``console`` prints to the ``sys.stdout`` of the moment it is made."""

    __test__ = False

    def __init__(self) -> None:
        self.console = Console()

    @property
    def _printer(self) -> BatchPrinter:
        return BatchPrinter(self.console)

    def configure_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, and the default ``handler``: namespace to exit code."""
        from osmosis_ai._compat.parser import configure

        configure(parser, "test")
        parser.set_defaults(handler=self.run)

    def run(self, args: Any) -> int:
        """Run the command; an argument that ``args`` lacks takes its default.

        Exit codes: 0 every run came to its end, 1 one did not, or the mean reward is below ``--min-reward``, or a
        sentence on standard error says what was wrong; 130 after Ctrl-C.
        """
        try:
            return asyncio.run(self._run_async(args))
        except KeyboardInterrupt:
            return EXIT_SIGNAL_BASE + signal.SIGINT

    def _validate_args(self, args: Any) -> str | None:
        return Options.of(args).problem()

    async def _run_async(self, args: Any) -> int:
        options = Options.of(args)
        try:
            if problem := self._validate_args(args):
                raise _Failure(problem)
            with _package_debug_log(options.debug):
                return await self._run_with_client(options)
        except (_Failure, CLIError) as failure:
            return self._fail(str(failure))

    async def _run_with_client(self, options: Options) -> int:
        if not options.is_silent:
            mode = " (Interactive Mode)" if options.interactive else ""
            self._printer.say(f"osmosis-rollout-test v{PACKAGE_VERSION}{mode}", "bold")
            self._printer.say()
        silent = options.is_silent
        client = _loaded(
            common.create_llm_client(
                options.model, common.read_api_key(options.api_key), options.base_url, silent, self.console
            )
        )
        try:
            agent = self._load_agent(options)
            reader, rows = self._load_dataset(options)
            if options.interactive:
                return await self._run_session(options, client, agent, reader)
            return await self._run_batch(options, client, agent, reader, rows)
        finally:
            await _close(client)

    def _load_agent(self, options: Options) -> "RolloutAgentLoop":
        if options.mcp:
            loaded = common.load_mcp_agent(options.mcp, options.is_silent, self.console)
        else:
            loaded = common.load_agent(options.module or "", options.is_silent, self.console)
        agent: RolloutAgentLoop = _loaded(loaded)
        return agent

    def _load_dataset(self, options: Options) -> "tuple[DatasetReader, int]":
        reader, rows, error = common.check_dataset(
            options.dataset,
            options.limit,
            options.offset,
            options.is_silent,
            self.console,
            "No rows to test",
            "testing",
        )
        return _loaded((reader, error)), rows

    async def _verify(self, options: Options, client: Any) -> None:
        if error := await common.verify_llm_client(client, options.is_silent, self.console):
            raise _Failure(error)

    async def _run_batch(
        self, options: Options, client: Any, agent: "RolloutAgentLoop", reader: "DatasetReader", rows: int
    ) -> int:
        inputs = inputs_of(options)
        config = config_of(options, inputs)
        output = Path(options.output) if options.output else None
        _set_call_options(client, options)
        with ExitStack() as stack:
            results = None
            if output or options.as_json:
                results = stack.enter_context(
                    ResultsFile(output, "test", options.plan, inputs, config, resume=options.resume)
                )
            report = BatchReport(rows * options.repeat)
            debug_dir = self._debug_directory(options)
            batch = Batch(agent, client, reader, options, report, results, self._on_record(options, report), debug_dir)
            batch.take_earlier_results()
            self._tell_of_earlier_results(options, report, results)
            await self._verify(options, client)
            signal_number = await self._run_to_its_end(batch, options, report)
            if results is not None:
                self._write(results, options, report, config)
            if not options.is_silent:
                self._printer.print_summary(report)
                if output:
                    self._printer.say()
                    self._printer.say(f"Results written to: {options.output}")
        return self._exit_code(options, report, signal_number)

    def _on_record(self, options: Options, report: BatchReport) -> Any:
        def on_record(record: "Record") -> None:
            if not options.is_silent:
                self._printer.print_run(record, report.ended, report.planned, options.repeat)
            self._progress.advance()

        return on_record

    async def _run_to_its_end(self, batch: Batch, options: Options, report: BatchReport) -> int:
        if not options.is_silent:
            self._printer.say()
            self._printer.say("Running tests...")
        is_shown = not options.quiet
        self._progress = BatchProgress(self.console, report, is_shown, shares_stdout=not options.as_json)
        with self._progress:
            try:
                signal_number = await until_signal(batch.run())
            except (CLIError, LocalExecutionError) as error:
                raise _Failure(f"Error during test execution: {error}") from error
            except Exception as error:
                if options.debug:
                    traceback.print_exc()
                raise _Failure(f"Error during test execution: {type(error).__name__}: {error}") from error
        report.interrupted = signal_number != 0
        return signal_number

    def _tell_of_earlier_results(self, options: Options, report: BatchReport, results: ResultsFile | None) -> None:
        if options.is_silent or results is None:
            return
        if note := results.what_was_there(report.planned):
            self._printer.say(note, "yellow" if results.kept_aside else None)

    def _write(self, results: ResultsFile, options: Options, report: BatchReport, config: dict[str, Any]) -> None:
        head = {"summary": report.summary(), "config": config}
        results.publish(head, finished=report.ended == report.planned)
        if options.as_json:
            sys.stdout.writelines(results.document(head))
            sys.stdout.flush()

    def _exit_code(self, options: Options, report: BatchReport, signal_number: int) -> int:
        if signal_number:
            hint = ": go on with --resume" if options.output else ""
            sys.stderr.write(f"Interrupted: {report.ended} of {report.planned} runs had ended{hint}.\n")
            return EXIT_SIGNAL_BASE + signal_number
        mean = report.mean_reward
        if options.min_reward is not None and (mean is None or mean < options.min_reward):
            got = "no run has a reward" if mean is None else f"the mean reward is {mean:.4g}"
            return self._fail(f"--min-reward {options.min_reward:g} is not reached: {got}.")
        return EXIT_FAILED if report.counts[Verdict.FAILED] or report.stop_reason else EXIT_OK

    def _debug_directory(self, options: Options) -> str | None:
        if not options.debug:
            return None
        directory = f"{DEBUG_DIRECTORY}/{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        if not options.is_silent:
            self._printer.say(f"Event files: {directory}")
        return directory

    async def _run_session(
        self, options: Options, client: Any, agent: "RolloutAgentLoop", reader: "DatasetReader"
    ) -> int:
        from osmosis_ai.rollout.run.test.interactive import InteractiveRunner

        await self._verify(options, client)
        runner = InteractiveRunner(agent, client, debug=options.debug)
        runner.console = self.console
        runner.debug_dir = self._debug_directory(options)
        try:
            signal_number = await until_signal(
                runner.run_interactive_session(
                    reader.read(options.limit, options.offset),
                    max_turns=options.max_turns,
                    completion_params=options.completion_params,
                    initial_row=options.row,
                    row_offset=options.offset,
                )
            )
        except Exception as error:
            if options.debug:
                traceback.print_exc()
            raise _Failure(f"Error during interactive session: {error}") from error
        return EXIT_SIGNAL_BASE + signal_number if signal_number else EXIT_OK

    def _fail(self, text: str) -> int:
        sys.stdout.flush()
        self.console.print_error(text if text.startswith("Error") else f"Error: {text}")
        return EXIT_FAILED


def _loaded(answer: tuple[Any, str | None]) -> Any:
    loaded, problem = answer
    if problem is not None:
        raise _Failure(problem)
    return loaded


def _set_call_options(client: Any, options: Options) -> None:
    # Waiting and trying again is done here, where Retry-After and the row's time limit are known.
    if isinstance(getattr(client, "call_options", None), dict):
        client.call_options.update(timeout=options.timeout, max_retries=0)


async def _close(client: Any) -> None:
    close = getattr(client, "close", None)
    if callable(close):
        await close()


@contextmanager
def _package_debug_log(wanted: bool) -> Iterator[None]:
    """Log what this package says, and not what others do, on standard error."""
    if not wanted:
        yield
        return
    logger = logging.getLogger(PACKAGE_LOGGER)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
