"""One run of ``osmosis trainer``: a trainer, its server if it is ours, all rollouts, a report.

Whatever ends the run, cancellation included, the server is stopped before this returns.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from osmosis_ai.rollout.core.consts import PACKAGE_VERSION
from osmosis_ai.rollout.core.schemas import RolloutRequest
from osmosis_ai.rollout.mcp.remote import absolute_place
from osmosis_ai.rollout.run.data.dataset import dataset_row_to_request
from osmosis_ai.rollout.run.driver import Job, drive
from osmosis_ai.rollout.run.loading import Dataset
from osmosis_ai.rollout.run.results.results_file import Record, ResultsFile
from osmosis_ai.rollout.run.train.call_watch import CallWatch
from osmosis_ai.rollout.run.train.options import Options
from osmosis_ai.rollout.run.train.rollout_report import RolloutReport, record_of
from osmosis_ai.rollout.trainer.server_process import ServerProcess
from osmosis_ai.rollout.trainer.trainer import Trainer
from osmosis_ai.rollout.trainer.vocabulary import Completer, RolloutOutcome, TrainerLimits

RUN_ID_BYTES = 4


class Session:
    """All rollouts that ``options`` ask for.

    Their ids are ``trainer-<run>-<row>-<repeat>``: letters, digits and hyphens, new with each session.

    Args:
        close: awaited when all is over: lets go of what ``complete`` needs.
    """

    def __init__(
        self,
        options: Options,
        dataset: Dataset,
        complete: Completer,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._options = options
        self._dataset = dataset
        self._complete = complete
        self._call_watch = CallWatch(complete)
        self._close = close
        self._run_id = secrets.token_hex(RUN_ID_BYTES)
        self._mcp = options.mcp and absolute_place(options.mcp)
        self._url = options.server and options.server.rstrip("/")

    def settings(self) -> dict[str, Any]:
        """All that the results depend on, as JSON; no keys."""
        options = self._options
        return {
            "model": options.policy or options.model,
            "sdk_version": PACKAGE_VERSION,
            "dataset": str(self._dataset.reader.file_path),
            "columns": options.columns,
            "module": self._mcp or options.module,
            "server": self._url,
            "limit": options.limit,
            "offset": options.offset,
            "repeat": options.repeat,
            "max_turns": options.max_turns,
            "max_tokens_total": options.max_tokens_total,
            "completion_params": options.completion_params,
            "concurrency": options.concurrency,
            "rollout_timeout_seconds": options.timeout,
        }

    def _request_of(self, job: Job) -> RolloutRequest:
        return dataset_row_to_request(
            job.row,
            job.row_index,
            max_turns=self._options.max_turns,
            max_tokens_total=self._options.max_tokens_total,
            completion_params=self._options.sampling,
            rollout_id=f"trainer-{self._run_id}-{job.row_index}-{job.repeat}",
        )

    async def run(self, report: RolloutReport, on_rollout: Callable[[Record], None], results: ResultsFile) -> None:
        """Run all that ``results`` lacks into it and ``report``; ``on_rollout`` is called with each.

        Raises:
            CLIError: if the results cannot be written.
            TrainerError: if the callbacks cannot be served, or the server not started or reached, or ends by itself.
            DatasetParseError: if the dataset has changed since it was looked through.
        """
        options = self._options
        async with AsyncExitStack() as resources:
            if self._close is not None:
                resources.push_async_callback(self._close)
            if report.ended == report.planned:
                return  # an earlier run had left it all: no server is needed
            own: ServerProcess | None = None
            if self._url is None:
                agent: tuple[str, ...] = ("--mcp", self._mcp) if self._mcp else ("-m", options.module or "")
                if options.reward is not None:
                    agent += ("--reward", options.reward)
                log_directory = None if options.log is None else Path(options.log)
                own = await resources.enter_async_context(
                    ServerProcess(
                        agent,
                        log_directory,
                        server_log=None if options.server_log is None else Path(options.server_log),
                        on_print=None if options.quiet else lambda line: print(line, file=sys.stderr),  # noqa: T201 - what the agent prints
                    )
                )
            trainer = Trainer(
                self._call_watch,
                server_url=own.url if own else self._url or "",
                server_api_key=own.api_key if own else options.server_key,
                host=options.host,
                port=options.port,
                callback_url=options.callback_url and options.callback_url.rstrip("/"),
                limits=TrainerLimits(concurrency=options.concurrency, rollout_timeout_seconds=options.timeout),
                protocol=options.protocol,
            )
            await resources.enter_async_context(trainer)
            if own is None:
                await trainer.check_server()
            else:
                # Stopped before the trainer is: the server may still have something to tell it.
                resources.push_async_callback(own.stop)
                await own.start(trainer.callback_url)
                await own.wait_until_ready()
            report.started_seconds = time.monotonic()
            try:
                await self._run_all(trainer, own, report, on_rollout, results)
            finally:
                report.duration_ms = round((time.monotonic() - report.started_seconds) * 1000, 3)
                report.contradictions = trainer.contradictions
                report.late_results = trainer.late_results

    async def _run_all(
        self,
        trainer: Trainer,
        own: ServerProcess | None,
        report: RolloutReport,
        on_rollout: Callable[[Record], None],
        results: ResultsFile,
    ) -> None:
        async def run_one(job: Job) -> tuple[RolloutOutcome, str | None]:
            outcome = await trainer.run_one(self._request_of(job))
            if outcome.is_systemic:
                return outcome, outcome.problem
            return outcome, getattr(self._complete, "stop_reason", None)  # of a model that answers no more

        def take(job: Job, outcome: RolloutOutcome) -> None:
            told = self._call_watch.zero_reason(outcome), self._call_watch.error_kind(outcome)
            line = report.add(job.row_index, job.repeat, outcome, *told)
            record = record_of(line, outcome)
            results.add(job.slot, record)
            on_rollout(record)

        options = self._options
        jobs = options.plan.jobs(self._dataset.numbered_rows(), results.has)
        running = asyncio.create_task(drive(jobs, run_one, take, concurrency=options.concurrency))
        tasks: list[asyncio.Task[Any]] = [running, *([asyncio.create_task(own.wait_for_exit())] if own else [])]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if own and not running.done():
                raise own.why_it_ended()
            report.stop_reason = running.result().first_reason
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
