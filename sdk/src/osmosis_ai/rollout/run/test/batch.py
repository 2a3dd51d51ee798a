"""Runs every row of a batch, several at a time, each on a client of its own over shared connections.

What ends goes to the results at once and to the report as numbers; nothing else of it is kept.
"""

import time
from collections.abc import Callable
from typing import Any

from osmosis_ai.rollout.core.base import RolloutAgentLoop
from osmosis_ai.rollout.run.data.dataset import DatasetReader
from osmosis_ai.rollout.run.driver import Job, Stops, drive
from osmosis_ai.rollout.run.models.choice import for_one_run
from osmosis_ai.rollout.run.models.patience import Gate, PatientClient
from osmosis_ai.rollout.run.results.results_file import Record, ResultsFile
from osmosis_ai.rollout.run.test.batch_report import BatchReport
from osmosis_ai.rollout.run.test.local_test_runner import ROLLOUT_ID_PREFIX, LocalTestRunner
from osmosis_ai.rollout.run.test.options import Options
from osmosis_ai.rollout.run.test.record import record_of


class Batch:
    """One batch, run once.

    Args:
        results: where records go; what is there already counts, and is not run again.
        on_record: told of every run that ends now.
    """

    def __init__(
        self,
        agent: RolloutAgentLoop,
        client: Any,
        reader: DatasetReader,
        options: Options,
        report: BatchReport,
        results: ResultsFile | None,
        on_record: Callable[[Record], None],
        debug_dir: str | None = None,
    ) -> None:
        self._agent = agent
        self._client = client
        self._reader = reader
        self._options = options
        self._report = report
        self._results = results
        self._on_record = on_record
        self._debug_dir = debug_dir
        self._gate = Gate()

    def take_earlier_results(self) -> None:
        """Count what an earlier run left."""
        for record in self._results.earlier_records() if self._results else ():
            self._report.add(record)
            self._report.resumed += 1

    async def run(self) -> None:
        """Run what is not there yet; stops early, once those in flight have ended, after a systemic error.

        Raises:
            CLIError: if the results cannot be written.
            DatasetParseError, DatasetValidationError: if the dataset has changed since it was checked.
        """
        options, stops = self._options, Stops()
        rows = self._reader.iter_rows(options.limit, options.offset)
        jobs = options.plan.jobs(rows, self._results.has if self._results else lambda slot: False)
        started_seconds = time.monotonic()
        try:
            await drive(jobs, self._run_one, self._take, concurrency=options.concurrency, stops=stops)
        finally:
            self._report.duration_ms = (time.monotonic() - started_seconds) * 1000
            self._report.stop_reason = stops.first_reason
            self._report.rate_limit_waits = self._gate.waits

    async def _run_one(self, job: Job) -> tuple[Record, str | None]:
        rollout_id = f"{ROLLOUT_ID_PREFIX}-{job.row_index}" + (f"-{job.repeat}" if self._options.repeat > 1 else "")
        client = PatientClient(for_one_run(self._client), self._gate)
        runner = LocalTestRunner(self._agent, client, debug_dir=self._debug_dir, timeout_seconds=self._options.timeout)
        run, stop_reason = await runner.run_job(
            job,
            max_turns=self._options.max_turns,
            completion_params=self._options.completion_params,
            rollout_id=rollout_id,
        )
        return record_of(run, job.row, job.repeat, rollout_id), stop_reason

    def _take(self, job: Job, record: Record) -> None:
        if self._results is not None:
            self._results.add(job.slot, record)
        self._report.add(record)
        self._on_record(record)
