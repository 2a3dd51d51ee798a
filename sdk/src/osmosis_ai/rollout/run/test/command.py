"""``osmosis test``: an agent on a dataset, as a batch or step by step.

Everything local is checked before the first call of the provider: arguments, model name and key, agent, dataset,
output. What ends goes to the results at once and to the report as numbers; nothing else of it is kept.
"""

import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from osmosis_ai.rollout.core.console import Console
from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.json_document import write_document
from osmosis_ai.rollout.core.judge import IMPATIENT
from osmosis_ai.rollout.core.reward_parts import reaches
from osmosis_ai.rollout.core.text import counted, described, text_of
from osmosis_ai.rollout.core.user_errors import CLIError
from osmosis_ai.rollout.run import loading
from osmosis_ai.rollout.run.debug_log import package_debug_log
from osmosis_ai.rollout.run.driver import EXIT_SIGNAL_BASE, Job, Stops, drive, until_signal
from osmosis_ai.rollout.run.loop_watch import loop_watched
from osmosis_ai.rollout.run.models.choice import close_quietly, for_one_run
from osmosis_ai.rollout.run.models.patience import Gate, PatientClient
from osmosis_ai.rollout.run.progress import RunProgress, terminal_of
from osmosis_ai.rollout.run.run_line import RunVerdict, print_run
from osmosis_ai.rollout.run.test.batch_report import BatchReport
from osmosis_ai.rollout.run.test.local_test_runner import DEBUG_DIRECTORY, ROLLOUT_ID_PREFIX, LocalTestRunner
from osmosis_ai.rollout.run.test.options import Options, config_of
from osmosis_ai.rollout.run.test.printer import print_summary
from osmosis_ai.rollout.run.test.record import record_of

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.base import RolloutAgentLoop
    from osmosis_ai.rollout.run.results.results_file import Record, ResultsFile


async def run_test(options: Options, console: Console | None = None) -> int:
    """Run the command; ``console`` is by default one on the ``sys.stdout`` of this moment.

    Exit codes: 0 every run came to its end, 1 one did not; 128 and the number of the signal that ended it.

    Raises:
        UsageError: the options are wrong.
        CLIError: it cannot begin or go on, or the mean reward is below ``--min-reward``.
    """
    options.check()
    IMPATIENT.set(True)
    with package_debug_log(options.debug):
        return await _TestRun(options, console or Console()).run()


class _TestRun:
    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self._say = loading.speaker(console, options.is_silent)

    async def run(self) -> int:
        options, say = self.options, self._say
        say(f"osmosis-rollout-test v{PACKAGE_VERSION}{' (Interactive Mode)' if options.interactive else ''}", "bold")
        say()
        key = loading.read_api_key(options.api_key)
        client = loading.create_llm_client(options.model, key, options.base_url, say, options.policy)
        try:
            agent = loading.load_agent(options.module, options.mcp, say, options.reward)
            dataset = loading.check_dataset(options, say, "No rows to test", "testing")
            if options.interactive:
                return await self._run_session(client, agent, dataset)
            return await self._run_batch(client, agent, dataset)
        finally:
            await close_quietly(client)

    async def _run_batch(self, client: Any, agent: "RolloutAgentLoop", dataset: loading.Dataset) -> int:
        options, say, report = self.options, self._say, BatchReport(dataset.rows * self.options.repeat)
        inputs = options.inputs()
        config = config_of(options, inputs)
        if isinstance(getattr(client, "call_options", None), dict):
            # Waiting and trying again is done here, where Retry-After and the row's time limit are known.
            client.call_options.update(timeout=options.timeout, max_retries=0)
        with loading.open_results(options, "test", options.plan, config, inputs) as results:
            debug_dir = self._debug_directory()
            for record in results.earlier_records():
                report.add(record)
            report.resumed = results.resumed
            if note := results.what_was_there(report.planned):
                say(note, "yellow" if results.kept_aside else None)
            await loading.verify_llm_client(client, say)
            say()
            say("Running tests...")
            terminal = None if options.quiet else terminal_of(self.console, shares_stdout=not options.as_json)
            with RunProgress(report, terminal) as progress, self._told("Error during test execution"):
                work = self._run_rows(client, agent, dataset, report, results, progress, debug_dir)
                signal_number = await until_signal(work)
            report.interrupted = signal_number != 0
            head = {"summary": report.summary(), "config": config}
            results.publish(head, finished=report.ended == report.planned)
            if options.as_json:
                write_document(results.document(head))
            print_summary(report, say)
            if options.output:
                say()
                say(f"Results written to: {options.output}")
        code = self._exit_code(report, signal_number)
        if code == 0:
            dataset.tell_what_was_left_out()
        return code

    async def _run_rows(
        self,
        client: Any,
        agent: "RolloutAgentLoop",
        dataset: loading.Dataset,
        report: BatchReport,
        results: "ResultsFile",
        progress: RunProgress,
        debug_dir: str | None,
    ) -> None:
        """Make what ``results`` lacks, each run on a client of its own over shared connections.

        Stops early, once those in flight have ended, after a systemic error.
        """
        options, stops, gate = self.options, Stops(), Gate()

        async def run_one(job: Job) -> "tuple[Record, str | None]":
            rollout_id = f"{ROLLOUT_ID_PREFIX}-{job.row_index}" + (f"-{job.repeat}" if options.repeat > 1 else "")
            own = PatientClient(for_one_run(client), gate)
            runner = LocalTestRunner(agent, own, debug_dir=debug_dir, timeout_seconds=options.timeout)
            run, stop_reason = await runner.run_job(
                job,
                max_turns=options.max_turns,
                completion_params=options.sampling,
                rollout_id=rollout_id,
            )
            return record_of(run, job.row, job.repeat, rollout_id), stop_reason

        def take(job: Job, record: "Record") -> None:
            results.add(job.slot, record)
            report.add(record)
            if not options.is_silent:
                print_run(record, report, options.repeat, self.console)
            progress.advance()

        jobs = options.plan.jobs(dataset.numbered_rows(), results.has)
        started_seconds = time.monotonic()
        try:
            with loop_watched():
                await drive(jobs, run_one, take, concurrency=options.concurrency, stops=stops)
        finally:
            report.duration_ms = (time.monotonic() - started_seconds) * 1000
            report.stop_reason = stops.first_reason
            report.rate_limit_waits = gate.waits

    def _exit_code(self, report: BatchReport, signal_number: int) -> int:
        options, mean = self.options, report.mean_reward
        if signal_number:
            hint = ": go on with --resume" if options.output else ""
            sys.stderr.write(f"Interrupted: {report.ended:,} of {counted(report.planned, 'run')} had ended{hint}.\n")
            return EXIT_SIGNAL_BASE + signal_number
        if options.min_reward is not None and (mean is None or not reaches(mean, options.min_reward)):
            got = "no run has a reward" if mean is None else f"the mean reward is {mean:.4g}"
            raise CLIError(f"--min-reward {options.min_reward:g} is not reached: {got}.")
        return 1 if report.counts[RunVerdict.FAILED] or report.stop_reason else 0

    @contextmanager
    def _told(self, where: str) -> Iterator[None]:
        """Whatever goes wrong ends the command, and says where it did."""
        try:
            yield
        except Exception as error:
            is_sentence = isinstance(error, CLIError)
            if self.options.debug and not is_sentence:
                traceback.print_exc()
            raise CLIError(f"{where}: {error if is_sentence else described(error, text_of(error))}") from error

    def _debug_directory(self) -> str | None:
        if not self.options.debug:
            return None
        directory = f"{DEBUG_DIRECTORY}/{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self._say(f"Event files: {directory}")
        return directory

    async def _run_session(self, client: Any, agent: "RolloutAgentLoop", dataset: loading.Dataset) -> int:
        from osmosis_ai.rollout.run.test.interactive import InteractiveRunner

        options = self.options
        await loading.verify_llm_client(client, self._say)
        runner = InteractiveRunner(agent, client, debug=options.debug)
        runner.console = self.console
        runner.debug_dir = self._debug_directory()
        with self._told("Error during interactive session"):
            signal_number = await until_signal(
                runner.run_interactive_session(
                    [row for _, row in dataset.numbered_rows()],
                    max_turns=options.max_turns,
                    completion_params=options.completion_params,
                    initial_row=options.row,
                    row_offset=options.offset,
                )
            )
        return EXIT_SIGNAL_BASE + signal_number if signal_number else 0
